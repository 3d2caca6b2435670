# SPDX-License-Identifier: Apache-2.0
"""A real HAProxy in front of two hubs of one cell, in both its modes, while one hub is away."""

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cell_site import PROFILE, Cell, make_cell
from haproxy import HaProxy, running_haproxy
from installation import copy_of_program, free_port
from postgres_server import PostgresServer
from privyseal.hub.config import load_hub_config
from programs import privyseal, succeeded

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def cell(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    """Each hub with the listener for proxies, too."""
    database = asyncio.run(postgres.make_database())
    cell = make_cell(tmp_path_factory.mktemp("haproxy-cell") / "cell", postgres.url(database))
    try:
        for number, directory in enumerate(cell.directories):
            path = directory / "hub.toml"
            path.write_text(f'listen_proxied = "127.0.0.1:{free_port()}"\n' + path.read_text())
            cell.start(number)
            cell.until_linked(number)
        yield cell
        cell.site.running["agent"].stop()
        for hub in cell.hubs.values():
            hub.stop()
    finally:
        cell.end()


@pytest.fixture(scope="module")
def haproxy(cell: Cell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HaProxy]:
    hubs = tuple(load_hub_config(directory) for directory in cell.directories)
    ca = cell.site.client().load_bundle().statement.ca
    with running_haproxy(tmp_path_factory.mktemp("balanced") / "haproxy", hubs, ca) as proxy:
        yield proxy


def through(cell: Cell, proxy: HaProxy, *, proxied: bool) -> Path:
    """The configuration of a client that knows the balancer alone."""
    name = "proxied" if proxied else "balanced"
    directory = cell.site.directory / name
    shutil.copytree(cell.site.directory / "client", directory)
    place = directory / "client.toml"
    text = re.sub(r"(?m)^hub = .*$", f'hub = "{proxy.proxied if proxied else proxy.mtls}"', place.read_text())
    text = re.sub(r"(?m)^web = .*$", f'web = "{proxy.web}"', text)
    place.write_text(f'proxied = true\nhub_ca = "{proxy.ca}"\n{text}' if proxied else text)
    return place


@pytest.mark.parametrize("proxied", [False, True], ids=["tcp", "http"])
def test_either_hub_is_away_for_a_while(cell: Cell, haproxy: HaProxy, tmp_path: Path, *, proxied: bool) -> None:
    config = through(cell, haproxy, proxied=proxied)

    def sign(name: str) -> None:
        app = copy_of_program(tmp_path, f"{name}.exe")
        succeeded(privyseal("sign", "--key", PROFILE, app, config=config))
        succeeded(privyseal("verify", "--trust", cell.site.roots, app, config=config))

    sign("both")
    for number in (0, 1):
        cell.hubs[number].stop()
        sign(f"without-{number}")
        cell.start(number)
        cell.until_linked(number)
    sign("both-again")
    succeeded(privyseal("log", "verify", config=config))
