# SPDX-License-Identifier: Apache-2.0
"""A pool whose hub and agents are programs of their own, which may be killed."""

import concurrent.futures
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from api_client import Asked, Reply, api_of, ask
from installation import Site, make_site, software_token
from privyseal.client.log import LogReader
from privyseal.client.log_files import verify_log
from privyseal.tlog.entry import Entry, Intent, KeyEntry, Result, Unknown, parse_entry
from privyseal.wire.api import HubStatus, RequestView, SignatureRequest
from privyseal.wire.members import MemberStatus
from programs import Running, privyseal, succeeded, until

__all__ = ["PROFILE", "PoolPrograms", "running_programs"]

PROFILE = "demo"


@dataclass(kw_only=True)
class PoolPrograms:
    """A site with agents of any names, each with directory and output of its own."""

    site: Site
    threads: concurrent.futures.ThreadPoolExecutor = field(
        default_factory=lambda: concurrent.futures.ThreadPoolExecutor(max_workers=8)
    )

    def directory(self, agent: str) -> Path:
        return self.site.directory / agent

    def add_agent(self, name: str) -> Path:
        code = self.site.invite("agent", name)
        succeeded(privyseal("agent", "join", "--dir", self.directory(name), told=code))
        return self.directory(name)

    def write_agent(self, name: str, *tables: str) -> None:
        """Put these tables in the place of all that agent.toml says of tokens and keys."""
        path = self.directory(name) / "agent.toml"
        path.write_text(path.read_text().split("\n[[")[0] + "\n" + "".join(tables))

    def write_pool(self, text: str) -> None:
        """Put this pool in the place of what hub.toml says, and start the hub again."""
        self.site.running["hub"].stop()
        path = self.site.hub_directory / "hub.toml"
        path.write_text(path.read_text().split("\n[[pool]]")[0] + text)
        self.site.start_hub()

    def start_agent(self, name: str) -> Running:
        said = self.site.directory / f"{name}-said"
        self.site.running[name] = agent = Running("agent", "run", "--dir", self.directory(name), said=said)
        return agent

    def agent(self, name: str) -> Running:
        return self.site.running[name]

    def members(self) -> dict[str, MemberStatus]:
        api = api_of(self.site.client())
        try:
            status = msgspec.json.decode(api("GET", "/v1/status").body, type=HubStatus)
        finally:
            api.close()
        return {one.token: one for profile in status.profiles if profile.name == PROFILE for one in profile.members}

    def until_ready(self, *places: str) -> None:
        """Wait until exactly these tokens take what is asked for now."""

        def look() -> bool:
            return {one.token for one in self.members().values() if one.online and one.is_asked} == set(places)

        until(look, f"tokens {places} ready")

    def ask(self, items: int = 1) -> Asked:
        return ask(self.site.client(), PROFILE, items=items)

    def call(self, method: str, path: str, body: bytes | None = None) -> Reply:
        api = api_of(self.site.client())
        try:
            return api(method, path, body)
        finally:
            api.close()

    def queue(self, items: int = 1, key: str = "") -> str:
        """Send a request without waiting for it; its name."""
        asked = self.ask(items)
        body = SignatureRequest(envelope=asked.envelope, preimages=asked.preimages, key=key)
        return self.view(self.call("POST", "/v1/signatures?wait=0", msgspec.json.encode(body))).id

    def view(self, reply: Reply) -> RequestView:
        assert reply.status in (200, 202), reply
        return msgspec.json.decode(reply.body, type=RequestView)

    def look(self, request_id: str, wait_seconds: float = 0) -> RequestView:
        return self.view(self.call("GET", f"/v1/signatures/{request_id}?wait={wait_seconds}&enough=5000"))

    def ended(self, request_id: str) -> RequestView:
        view = self.look(request_id, 20)
        assert view.state == "done", (view.position, view.total, len(view.items))
        return view

    def freeze(self, agent: str) -> None:
        """Stop an agent's token workers between two instructions."""
        for pid in self.agent(agent).children:
            os.kill(pid, signal.SIGSTOP)

    def kill_workers(self, agent: str) -> None:
        """End an agent's token workers; it starts others."""
        for pid in self.agent(agent).children:
            os.kill(pid, signal.SIGKILL)

    def entries(self) -> list[Entry]:
        """All entries, once the log has been found sound."""
        reader = LogReader(self.site.client())
        verify_log(reader)
        return [parse_entry(entry) for _, entry in reader.entries(0, reader.checkpoint().size)]

    def open_items(self) -> dict[tuple[str, int], str]:
        """Items whose newest INTENT has no outcome, and the key that it is for."""
        found: dict[tuple[str, int], str] = {}
        for entry in self.entries():
            if isinstance(entry, Intent):
                assert (entry.request, entry.item) not in found, "a second INTENT while the first one is open"
                found[entry.request, entry.item] = entry.key
            elif isinstance(entry, Result | Unknown):
                found.pop((entry.request, entry.item))
        return found

    def signatures(self) -> Counter[str]:
        """How many signatures each key has made; no item has two of them."""
        entries = self.entries()
        intents = {(one.request, one.item, one.fence): one.key for one in entries if isinstance(one, Intent)}
        done = [one for one in entries if isinstance(one, Result) and one.outcome == "ok"]
        assert len({(one.request, one.item) for one in done}) == len(done), "an item was signed twice"
        return Counter(intents[one.request, one.item, one.fence] for one in done)

    def key_entries(self) -> list[KeyEntry]:
        return [one for one in self.entries() if isinstance(one, KeyEntry)]


@contextmanager
def running_programs(directory: Path, agents: tuple[str, ...], pool: str) -> Iterator[PoolPrograms]:
    """A hub with this pool, and agents with one software token each, all of them able to sign."""
    site = make_site(directory)
    programs = PoolPrograms(site=site)
    try:
        for name in agents:
            programs.add_agent(name)
            programs.write_agent(name, software_token(programs.directory(name)))
        programs.write_pool(pool)
        for name in agents:
            programs.start_agent(name)
        programs.until_ready(*(f"{name}/software" for name in agents))
        yield programs
        for name in (*agents, "hub"):
            if site.running[name].process.poll() is None:
                site.running[name].stop()
    finally:
        programs.threads.shutdown(wait=False)
        site.end()
