# SPDX-License-Identifier: Apache-2.0
"""Several hubs over one PostgreSQL as programs of their own, an agent that is linked to all, and clients."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from installation import Site, add_to_agent, agent_text, free_port, make_site
from lab.fault_shim import FaultyToken, around
from lab.shim_orders import delays
from privyseal.client.hub import HubClient
from privyseal.errors import PrivysealError
from programs import Running, until
from several.proxy import Ways
from softhsm import fresh_softhsm

__all__ = ["PROFILE", "Cell", "make_cell"]

LEASE_SECONDS = 2.0
PROFILE = "release"


@dataclass(kw_only=True)
class Cell:
    """Hub number 0 is the site's own; the token counts what it has signed."""

    site: Site
    token: FaultyToken
    directories: list[Path]
    ports: list[int]
    ways: Sequence[Ways] = ()
    hubs: dict[int, Running] = field(default_factory=dict)

    def url(self, number: int) -> str:
        """Where clients find a hub."""
        port = self.ways[number].clients.place if self.ways else self.ports[number]
        return f"https://127.0.0.1:{port}"

    def start(self, number: int, more: Mapping[str, str] | None = None) -> Running:
        if number in self.hubs:
            self.hubs[number].end()
        said = self.site.directory / f"hub-{number}-said"
        self.hubs[number] = hub = Running("hub", "run", "--dir", self.directories[number], said=said, more=more)
        hub.until_event(event="hub ready")
        return hub

    def client(self, name: str, *numbers: int) -> str:
        """A client that asks these hubs, in no order; its name for `Site.run`."""
        if not (self.site.directory / name).exists():
            shutil.copytree(self.site.directory / "client", self.site.directory / name)
        self.point(name, *numbers)
        return name

    def point(self, name: str, *numbers: int) -> None:
        """Have a client that has joined ask these hubs."""
        path = self.site.directory / name / "client.toml"
        hubs = ", ".join(f'"{self.url(number)}"' for number in numbers)
        webs = ", ".join(f'"https://127.0.0.1:{self.ports[number] + 1}"' for number in numbers)
        text = re.sub(r"(?m)^hub = .*$", f"hub = [{hubs}]", path.read_text())
        path.write_text(re.sub(r"(?m)^web = .*$", f"web = [{webs}]", text))

    def until_linked(self, number: int) -> None:
        """Wait until a hub has the agent's link, and says that it can sign."""
        client = HubClient(self.site.client(self.client(f"look-{number}", number)))

        def look() -> bool:
            try:
                return any(one.online and one.name == PROFILE for one in client.status().profiles)
            except PrivysealError:
                return False

        until(look, f"hub {number} with its agent", seconds=60)

    def end(self) -> None:
        self.site.end()
        for hub in self.hubs.values():
            hub.end()


def make_cell(directory: Path, database: str, *, hubs: int = 2, sign_ms: int = 30, ways: Sequence[Ways] = ()) -> Cell:
    """Hubs that run, an agent with the key profile `release`, and a client that has joined.

    Args:
        directory: Where all of them have their files.
        database: URL of an empty PostgreSQL database.
        hubs: How many.
        sign_ms: How long the token takes for a signature, at least.
        ways: The ways between them, if they are to be broken.
    """
    urls = [_through(database, one) for one in ways] or [database] * hubs
    site = make_site(directory, database=urls[0])
    text = (site.hub_directory / "hub.toml").read_text()
    first = int(re.findall(r'listen_mtls = "127\.0\.0\.1:(\d+)"', text)[0])
    site.running["hub"].stop()
    ports = [first, *(free_port() for _ in range(hubs - 1))]
    token = around(fresh_softhsm(directory / "hsm"))
    token.break_with(delays("C_Sign", sign_ms))
    cell = Cell(site=site, token=token, directories=[], ports=ports, ways=ways)
    for one, port in zip(ways, ports, strict=bool(ways)):
        one.link.lead_to(port)
        one.clients.lead_to(port)
    for number, port in enumerate(ports):
        place = site.hub_directory if number == 0 else directory / f"hub-{number}"
        if number:
            shutil.copytree(site.hub_directory, place)
        own = text.replace(f":{first + 1}", f":{port + 1}").replace(f":{first}", f":{port}")
        own = own.replace(urls[0], urls[number])
        (place / "hub.toml").write_text(own + f"\n[queue]\nlease_seconds = {LEASE_SECONDS}\n")
        cell.directories.append(place)
    try:
        add_to_agent(site, agent_text(token))
        agent = site.agent_directory / "agent.toml"
        links = [one.link.place for one in ways] or ports
        dialled = ", ".join(f'"https://127.0.0.1:{port}"' for port in links)
        agent.write_text(re.sub(r"(?m)^hub = .*$", f"hub = [{dialled}]", agent.read_text()))
        for number in range(hubs):
            cell.start(number)
        site.start_agent()
        for number in range(hubs):
            cell.until_linked(number)
        site.save_roots(PROFILE)
    except BaseException:
        cell.end()
        raise
    return cell


def _through(database: str, ways: Ways) -> str:
    """The database's URL, with the socket of a way to it."""
    assert isinstance(ways.database.place, Path)
    return re.sub(r"host=[^&]*", f"host={ways.database.place.parent}", database)
