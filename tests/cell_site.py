# SPDX-License-Identifier: Apache-2.0
"""Several hubs over one PostgreSQL as programs of their own, an agent that is linked to all, and clients."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from installation import Site, agent_text, free_port, make_site
from lab.fault_shim import FaultyToken, around
from lab.shim_orders import delays
from privyseal.client.hub import HubClient
from privyseal.errors import PrivysealError
from programs import Running, privyseal, succeeded, until
from several.proxy import Ways
from softhsm import fresh_softhsm

__all__ = ["PROFILE", "Cell", "make_cell"]

LEASE_SECONDS = 2.0
PROFILE = "release"


@dataclass(kw_only=True)
class Cell:
    """Hub number 0 is the site's own; the tokens count what they have signed."""

    site: Site
    tokens: list[FaultyToken]
    directories: list[Path]
    ports: list[int]
    ways: Sequence[Ways] = ()
    hubs: dict[int, Running] = field(default_factory=dict)

    @property
    def token(self) -> FaultyToken:
        """The first of them."""
        return self.tokens[0]

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

    def agent_directory(self, number: int) -> Path:
        return self.site.agent_directory if number == 0 else self.site.directory / f"agent-{number}"

    def start_agent(self, number: int = 0) -> Running:
        directory = self.agent_directory(number)
        said = self.site.directory / f"{directory.name}-said"
        self.site.running[directory.name] = agent = Running("agent", "run", "--dir", directory, said=said)
        return agent

    def stop_agents(self) -> None:
        """They must stop well."""
        for number in range(len(self.tokens)):
            self.site.running[self.agent_directory(number).name].stop()

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


def make_cell(
    directory: Path,
    database: str,
    *,
    hubs: int = 2,
    tokens: int = 1,
    sign_ms: int = 30,
    token_lines: str = "",
    ways: Sequence[Ways] = (),
) -> Cell:
    """Hubs that run, an agent with the key profile `release`, and a client that has joined.

    Args:
        directory: Where all of them have their files.
        database: URL of an empty PostgreSQL database.
        hubs: How many.
        tokens: How many stand behind `release`, as a pool if there are several.
        sign_ms: How long the token takes for a signature, at least.
        token_lines: What else agent.toml says of each token.
        ways: The ways between them, if they are to be broken.
    """
    urls = [_through(database, one) for one in ways] or [database] * hubs
    site = make_site(directory, database=urls[0])
    text = (site.hub_directory / "hub.toml").read_text()
    first = int(re.findall(r'listen_mtls = "127\.0\.0\.1:(\d+)"', text)[0])
    site.running["hub"].stop()
    ports = [first, *(free_port() for _ in range(hubs - 1))]
    found = [around(fresh_softhsm(directory / f"hsm-{number}")) for number in range(tokens)]
    for token in found:
        token.break_with(delays("C_Sign", sign_ms))
    pool = ", ".join(f'"{_agent_name(number)}/lab"' for number in range(tokens))
    more = f'\n[[pool]]\nprofile = "{PROFILE}"\ntokens = [{pool}]\n' if tokens > 1 else ""
    cell = Cell(site=site, tokens=found, directories=[], ports=ports, ways=ways)
    for one, port in zip(ways, ports, strict=bool(ways)):
        one.link.lead_to(port)
        one.clients.lead_to(port)
    for number, port in enumerate(ports):
        place = site.hub_directory if number == 0 else directory / f"hub-{number}"
        if number:
            shutil.copytree(site.hub_directory, place)
        own = text.replace(f":{first + 1}", f":{port + 1}").replace(f":{first}", f":{port}")
        own = own.replace(urls[0], urls[number])
        (place / "hub.toml").write_text(own + f"\n[queue]\nlease_seconds = {LEASE_SECONDS}\n{more}")
        cell.directories.append(place)
    try:
        links = [f"https://127.0.0.1:{one.link.place}" for one in ways] or [
            f"https://127.0.0.1:{port}" for port in ports
        ]
        for number in range(hubs):
            cell.start(number)
        for number, token in enumerate(found):
            _add_agent(cell, number, agent_text(token, more=token_lines), links)
            for hub in range(hubs):
                cell.until_linked(hub)
        site.save_roots(PROFILE)
    except BaseException:
        cell.end()
        raise
    return cell


def _add_agent(cell: Cell, number: int, text: str, hubs: Sequence[str]) -> None:
    """Each token has an agent of its own; the first one's serves another key profile, too."""
    directory = cell.agent_directory(number)
    if number:
        code = cell.site.invite("agent", _agent_name(number))
        succeeded(privyseal("agent", "join", "--dir", directory, told=code))
        text = text.partition('\n[[key]]\nprofile = "pinned"')[0]
    path = directory / "agent.toml"
    dialled = ", ".join(f'"{url}"' for url in hubs)
    head = re.split(r"(?m)^\[\[", path.read_text())[0] + text
    path.write_text(re.sub(r"(?m)^hub = .*$", f"hub = [{dialled}]", head))
    cell.start_agent(number)


def _agent_name(number: int) -> str:
    return "lab" if number == 0 else f"lab-{number}"


def _through(database: str, ways: Ways) -> str:
    """The database's URL, with the socket of a way to it."""
    assert isinstance(ways.database.place, Path)
    return re.sub(r"host=[^&]*", f"host={ways.database.place.parent}", database)
