# SPDX-License-Identifier: Apache-2.0
"""Hubs over PostgreSQL: what is signed there is in the log, through a crash of the server, at every hub alike."""

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from installation import Site, add_refusals, add_to_agent, copy_of_program, free_port, make_site, software_token
from postgres_server import PostgresServer
from privyseal.hub.pruning import Retention, prune_log
from programs import Running, privyseal, refused, succeeded

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def site(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    database = asyncio.run(postgres.make_database())
    site = make_site(tmp_path_factory.mktemp("postgres"), database=postgres.url(database))
    try:
        add_to_agent(site, software_token(site.agent_directory))
        site.start_agent()
        site.until_online("demo")
        site.save_roots("demo")
        yield site
        site.stop()
    finally:
        site.end()


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return copy_of_program(tmp_path)


def entries(site: Site, client: str = "client") -> int:
    size: int = succeeded(site.run("log", "verify", "--json", client=client)).document["size"]
    return size


def test_a_signature_is_in_the_log(site: Site, app: Path) -> None:
    succeeded(site.run("sign", "--key", "demo", app))

    succeeded(site.run("verify", "--trust", site.roots, app))
    assert entries(site) > 0
    assert not (site.hub_directory / "hub.db").exists()
    assert (site.hub_directory / "head.checkpoint").exists()


def test_a_crashed_server_is_waited_for(site: Site, app: Path, postgres: PostgresServer) -> None:
    before = entries(site)
    postgres.stop("immediate")
    try:
        refused(site.run("sign", "--key", "demo", app, "--json", "--timeout", "1"), 7, "store.unavailable")
    finally:
        postgres.start()

    succeeded(site.run("sign", "--key", "demo", app))
    assert entries(site) > before


def test_another_hub_shows_the_same_log(site: Site, app: Path) -> None:
    port = free_port()
    second = site.directory / "second-hub"
    shutil.copytree(site.hub_directory, second)
    text = (second / "hub.toml").read_text()
    old = int(re.findall(r'listen_mtls = "127\.0\.0\.1:(\d+)"', text)[0])
    (second / "hub.toml").write_text(text.replace(f":{old + 1}", f":{port + 1}").replace(f":{old}", f":{port}"))
    shutil.copytree(site.directory / "client", site.directory / "second")
    config = site.directory / "second" / "client.toml"
    config.write_text(config.read_text().replace(f":{old + 1}", f":{port + 1}").replace(f":{old}", f":{port}"))
    hub = Running("hub", "run", "--dir", second, said=site.directory / "second-said")
    try:
        hub.until_event(event="hub ready")
        succeeded(site.run("sign", "--key", "demo", app))

        assert entries(site, "second") == entries(site)
        newest = (site.hub_directory / "head.checkpoint").read_text()
        assert (second / "head.checkpoint").read_text() == newest
        hub.stop()
    finally:
        hub.end()


def test_the_doctor_looks_at_the_server(site: Site, postgres: PostgresServer) -> None:
    found = privyseal("doctor", "--dir", site.hub_directory, "--json")
    rows = {row["subject"]: row for row in json.loads(found.out)["rows"]}

    assert rows["database"]["verdict"] == "warn"
    assert "no synchronous standby" in rows["database"]["found"]
    assert "agree" in rows["log head"]["found"]


def test_old_entries_go_while_no_hub_is_connected(site: Site, app: Path) -> None:
    refused(privyseal("log", "prune", "--dir", site.hub_directory), 2, "store.in_use")
    site.stop()
    asyncio.run(add_refusals(site.hub_directory, 600))

    # As if it were twenty years later.
    done = asyncio.run(prune_log(site.hub_directory, Retention(years=-18), dry_run=False))

    assert done.entries == 512
    assert 0 < done.bodies <= 512
    site.start_hub()
    site.start_agent()
    site.until_online("demo")
    assert succeeded(site.run("log", "verify", "--json")).document["pruned"] == 512
    succeeded(site.run("sign", "--key", "demo", app))
    succeeded(site.run("verify", "--trust", site.roots, app))
    assert succeeded(site.run("log", "verify", "--json")).document["pruned"] == 512
