# SPDX-License-Identifier: Apache-2.0
"""docs/several-hubs.md, "Two hubs": a second hub is made by the page, and both go by a changed trust bundle."""

import asyncio
import base64
import re
import subprocess
from pathlib import Path

import pytest

from installation import Site, add_to_agent, copy_of_program, free_port, make_site, software_token
from pages import ROOT, blocks, commands
from postgres_server import PostgresServer
from programs import Running, privyseal, succeeded, until

pytestmark = pytest.mark.interop

PAGE = ROOT / "docs" / "several-hubs.md"
SEALED = "token-host=x25519:KEY"


def place(site: Site, number: int) -> Path:
    return site.directory / f"hub-{number}"


def start(site: Site, number: int) -> Running:
    name = f"hub-{number}" if number > 1 else "hub"
    site.running[name] = hub = Running("hub", "run", "--dir", place(site, number), said=site.directory / f"{name}-said")
    hub.until_event(event="hub ready")
    return hub


def test_a_second_hub_is_made_from_the_first(tmp_path: Path, postgres: PostgresServer) -> None:
    shell, trust = (block.text for block in blocks(PAGE, "sh") if block.section == "Two hubs")
    database = asyncio.run(postgres.make_database())
    site = make_site(tmp_path / "site", database=postgres.url(database))
    try:
        site.running["hub"].stop()
        place(site, 1).symlink_to(site.hub_directory)
        subprocess.run(["sh", "-euc", shell], cwd=site.directory, check=True)
        ports = [int(re.findall(r'listen_mtls = ".*:(\d+)"', config(site, 1).read_text())[0]), free_port()]
        listening_elsewhere(config(site, 2), *ports)
        urls = [f"https://localhost:{port}" for port in ports]
        for number in (1, 2):
            with config(site, number).open("a") as file:
                file.write(f"urls = {urls}\n".replace("'", '"'))
            start(site, number)
        add_to_agent(site, software_token(site.agent_directory))
        for path in (site.agent_directory / "agent.toml", site.config):
            path.write_text(re.sub(r"(?m)^hub = .*$", f"hub = {urls}".replace("'", '"'), path.read_text()))
        site.start_agent()
        signs_at_each(site, urls, tmp_path)

        for command in commands(PAGE, "privyseal", trust):
            key = base64.b64encode(bytes(32)).decode()
            words = [word.replace(SEALED, f"lab=x25519:{key}") for word in command.words]
            succeeded(privyseal(*words, cwd=site.directory))
        bundles = {(place(site, number) / "bundle.json").read_bytes() for number in (1, 2)}
        assert len(bundles) == 1
        signs_at_each(site, urls, tmp_path)
        site.running["hub-2"].stop()
        site.stop()
    finally:
        site.end()


def config(site: Site, number: int) -> Path:
    return place(site, number) / "hub.toml"


def listening_elsewhere(path: Path, port: int, other: int) -> None:
    path.write_text(path.read_text().replace(f":{port + 1}", f":{other + 1}").replace(f":{port}", f":{other}"))


def signs_at_each(site: Site, urls: list[str], folder: Path) -> None:
    """Each hub has the agent's link, and has something signed."""
    whole = site.config.read_text()
    for url in urls:
        web = re.sub(r"\d+$", lambda port: str(int(port[0]) + 1), url)
        text = re.sub(r"(?m)^hub = .*$", f'hub = "{url}"', whole)
        site.config.write_text(re.sub(r"(?m)^web = .*$", f'web = "{web}"', text))
        until(lambda: is_online(site), f"the key profile at {url}", seconds=60)
        succeeded(site.run("sign", "--key", "demo", copy_of_program(folder)))
    site.config.write_text(whole)


def is_online(site: Site) -> bool:
    told = site.run("status", "--json")
    return told.code == 0 and any(one["online"] for one in told.document["profiles"])
