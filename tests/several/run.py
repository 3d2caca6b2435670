# SPDX-License-Identifier: Apache-2.0
"""A cell whose ways can be broken, with clients; at its end all that they were told is judged."""

import asyncio
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cell_site import LEASE_SECONDS, PROFILE, Cell, make_cell
from postgres_server import PostgresServer
from privyseal.client.config import ClientConfig
from privyseal.client.hub import HubClient
from programs import Running, until
from several.clients import Client, History, Load, loaded
from several.judge import judge
from several.proxy import Ways, running_ways

__all__ = ["BOUND_SECONDS", "LONGER_SECONDS", "Lab", "passes", "running_lab"]

#: Longer than a lease, and as long again, for who took it over.
LONGER_SECONDS = 2 * LEASE_SECONDS
#: None waits longer than that for one signature, whatever breaks for `LONGER_SECONDS`.
BOUND_SECONDS = 60.0


@dataclass(kw_only=True)
class Lab:
    """A cell of two hubs, its ways, and the histories of all its clients."""

    cell: Cell
    postgres: PostgresServer
    database: str
    configs: tuple[ClientConfig, ...]
    chain: tuple[bytes, ...]
    histories: list[History] = field(default_factory=list)

    @property
    def ways(self) -> Sequence[Ways]:
        return self.cell.ways

    @property
    def agent(self) -> Running:
        return self.cell.site.running["agent"]

    @contextmanager
    def load(self, count: int = 20, *, items: int = 1, may_fail: Collection[str] = ()) -> Iterator[Load]:
        """So many clients at work, all of them served once before the block begins; judged at its end.

        Each of their requests is for so many items.
        """
        with loaded(self.configs, count, self.chain, items=items) as load:
            load.until_all_serve("at the beginning")
            yield load
        self.histories += load.histories
        self.judge(may_fail=may_fail)

    def client(self, first: int = 0) -> Client:
        """One that begins with this hub."""
        return Client(self.configs[0], first=first)

    def ask(self, client: Client, items: int = 1) -> History:
        history = client.prepare(items=items, chain=self.chain)
        self.histories.append(history)
        return history

    def sign(self, first: int = 0, items: int = 1) -> History:
        """One request, from the beginning to the end."""
        client = self.client(first)
        return client.send(self.ask(client, items))

    def signed_by(self, number: int) -> int:
        """How often a hub process has written down what was signed."""
        return sum(one["event"] == "jobs signed" for one in self.cell.hubs[number].events)

    def find_holder(self) -> int:
        """Which hub has the token's lease now; it has something signed."""
        before = [self.signed_by(number) for number in self.cell.hubs]
        self.sign()
        return until(
            lambda: [number for number in self.cell.hubs if self.signed_by(number) > before[number]],
            "the hub that had something signed",
        )[0]

    @property
    def told(self) -> str:
        """How many signatures, and how long they took, in words."""
        seconds = sorted(one.seconds for one in self.histories)
        middle = seconds[len(seconds) // 2]
        return f"{len(seconds)} requests, {middle:.2f} s in the middle, {seconds[-1]:.1f} s at most"

    def both_serve(self) -> None:
        """Hubs run, and the agent has a link to each."""
        for number, hub in self.cell.hubs.items():
            if hub.process.poll() is not None:
                self.cell.start(number)
        if self.agent.process.poll() is not None:
            self.cell.site.start_agent()
        for number in self.cell.hubs:
            self.cell.until_linked(number)

    def judged(self, *, bound_seconds: float, may_fail: Collection[str] = ()) -> list[str]:
        """What is wrong, in words."""
        return judge(self.cell, self.histories, bound_seconds=bound_seconds, may_fail=may_fail)

    def judge(self, *, may_fail: Collection[str] = ()) -> None:
        wrong = self.judged(bound_seconds=BOUND_SECONDS, may_fail=may_fail)
        assert not wrong, "\n".join(wrong[:20])


def passes(seconds: float) -> None:
    """A partition, or a pause, is measured by time, and by nothing that happens."""
    threading.Event().wait(seconds)


@contextmanager
def running_lab(
    directory: Path, postgres: PostgresServer, *, tokens: int = 1, sign_ms: int = 30, token_lines: str = ""
) -> Iterator[Lab]:
    """A lab; hubs and agent must stop well at the end, if they were not killed."""
    database = asyncio.run(postgres.make_database())
    with running_ways(2, postgres.socket) as ways:
        url = postgres.url(database)
        cell = make_cell(directory, url, tokens=tokens, sign_ms=sign_ms, token_lines=token_lines, ways=ways)
        try:
            names = ("client", "desk", "night")
            with ThreadPoolExecutor() as beside:
                tuple(beside.map(cell.site.add_client, names[1:]))
            configs = tuple(cell.site.client(_at_both(cell, name)) for name in names)
            chain = HubClient(configs[0]).profile(PROFILE).chain
            yield Lab(cell=cell, postgres=postgres, database=database, configs=configs, chain=chain)
            for one in ways:
                one.heal()
            cell.stop_agents()
            for hub in cell.hubs.values():
                if hub.process.returncode is None:
                    hub.stop()
        finally:
            cell.end()


def _at_both(cell: Cell, name: str) -> str:
    cell.point(name, 0, 1)
    return name
