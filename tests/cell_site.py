# SPDX-License-Identifier: Apache-2.0
"""Several hubs over one PostgreSQL as programs of their own, an agent that is linked to all, and clients."""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from installation import Site, add_to_agent, agent_text, free_port, make_site
from lab.fault_shim import FaultyToken, around
from lab.shim_orders import delays
from programs import Running, until
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
    hubs: dict[int, Running] = field(default_factory=dict)

    def url(self, number: int) -> str:
        return f"https://127.0.0.1:{self.ports[number]}"

    def start(self, number: int) -> Running:
        if number in self.hubs:
            self.hubs[number].end()
        said = self.site.directory / f"hub-{number}-said"
        self.hubs[number] = hub = Running("hub", "run", "--dir", self.directories[number], said=said)
        hub.until_event(event="hub ready")
        return hub

    def client(self, name: str, *numbers: int) -> str:
        """A client that asks these hubs, in no order; its name for `Site.run`."""
        if not (self.site.directory / name).exists():
            shutil.copytree(self.site.directory / "client", self.site.directory / name)
        path = self.site.directory / name / "client.toml"
        hubs = ", ".join(f'"{self.url(number)}"' for number in numbers)
        webs = ", ".join(f'"https://127.0.0.1:{self.ports[number] + 1}"' for number in numbers)
        text = re.sub(r"(?m)^hub = .*$", f"hub = [{hubs}]", path.read_text())
        path.write_text(re.sub(r"(?m)^web = .*$", f"web = [{webs}]", text))
        return name

    def until_linked(self, number: int) -> None:
        """Wait until a hub has the agent's link, and says that it can sign."""
        name = self.client(f"look-{number}", number)
        until(lambda: self._online(name), f"hub {number} with its agent")

    def _online(self, name: str) -> bool:
        outcome = self.site.run("status", "--json", client=name)
        return outcome.code == 0 and any(
            one["online"] and one["name"] == PROFILE for one in outcome.document["profiles"]
        )

    def end(self) -> None:
        self.site.end()
        for hub in self.hubs.values():
            hub.end()


def make_cell(directory: Path, database: str, *, hubs: int = 2, sign_ms: int = 30) -> Cell:
    """Hubs that run, an agent with the key profile `release`, and a client that has joined.

    Args:
        directory: Where all of them have their files.
        database: URL of an empty PostgreSQL database.
        hubs: How many.
        sign_ms: How long the token takes for a signature, at least.
    """
    site = make_site(directory, database=database)
    text = (site.hub_directory / "hub.toml").read_text()
    first = int(re.findall(r'listen_mtls = "127\.0\.0\.1:(\d+)"', text)[0])
    site.running["hub"].stop()
    ports = [first, *(free_port() for _ in range(hubs - 1))]
    token = around(fresh_softhsm(directory / "hsm"))
    token.break_with(delays("C_Sign", sign_ms))
    cell = Cell(site=site, token=token, directories=[], ports=ports)
    for number, port in enumerate(ports):
        place = site.hub_directory if number == 0 else directory / f"hub-{number}"
        if number:
            shutil.copytree(site.hub_directory, place)
        own = text.replace(f":{first + 1}", f":{port + 1}").replace(f":{first}", f":{port}")
        (place / "hub.toml").write_text(own + f"\n[queue]\nlease_seconds = {LEASE_SECONDS}\n")
        cell.directories.append(place)
    try:
        add_to_agent(site, agent_text(token))
        agent = site.agent_directory / "agent.toml"
        urls = ", ".join(f'"{cell.url(number)}"' for number in range(hubs))
        agent.write_text(re.sub(r"(?m)^hub = .*$", f"hub = [{urls}]", agent.read_text()))
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
