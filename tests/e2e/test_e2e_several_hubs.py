# SPDX-License-Identifier: Apache-2.0
"""Several hubs over one PostgreSQL and one agent: any of them takes a request, one of them uses the token."""

import asyncio
import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import api_of, ask
from cell_site import PROFILE, Cell, make_cell
from installation import copy_of_program
from postgres_server import PostgresServer
from programs import Outcome, succeeded, until

pytestmark = pytest.mark.interop


@pytest.fixture
def cell(postgres: PostgresServer, tmp_path: Path) -> Iterator[Cell]:
    database = asyncio.run(postgres.make_database())
    cell = make_cell(tmp_path / "cell", postgres.url(database))
    try:
        yield cell
        cell.site.running["agent"].stop()
        for hub in cell.hubs.values():
            if hub.process.returncode is None:
                hub.stop()
    finally:
        cell.end()


def programs(folder: Path, count: int) -> Path:
    """So many programs, each another one."""
    folder.mkdir()
    for number in range(count):
        path = copy_of_program(folder, f"app-{number}.exe")
        with path.open("r+b") as file:
            file.seek(0x40)  # the DOS stub, which nothing reads
            file.write(b"%8d" % number)
    return folder


def in_background(run: "Signing") -> "Signing":
    run.thread.start()
    return run


class Signing:
    """`privyseal sign` beside what the test does."""

    def __init__(self, cell: Cell, folder: Path, client: str) -> None:
        self.outcome: Outcome | None = None
        self._cell, self._folder, self._client = cell, folder, client
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.outcome = self._cell.site.run("sign", "--key", PROFILE, self._folder, "--json", client=self._client)

    def ended(self) -> Outcome:
        self.thread.join()
        assert self.outcome is not None
        return self.outcome


def signed_at(cell: Cell, number: int) -> int:
    """How often a hub has written down that something was signed."""
    return sum(one["event"] == "jobs signed" for one in cell.hubs[number].events)


def check(cell: Cell, client: str, *, signed: int) -> None:
    """The log holds, has one signature for each item, and the token was used for nothing that is not there."""
    found = succeeded(cell.site.run("log", "verify", "--json", client=client)).document
    assert found["open_intents"] == []
    told = succeeded(cell.site.run("log", "report", "--key", PROFILE, "--json", client=client)).out
    uses = [one for line in told.splitlines() if "summary" not in (one := json.loads(line))]
    made = Counter((one["request"], one["item"]) for one in uses if one["outcome"] == "ok")
    assert len(made) == signed
    assert set(made.values()) == {1}
    unknown = sum(one["outcome"] == "unknown" for one in uses)
    assert signed <= sum(cell.token.signed().values()) <= signed + unknown


def test_each_hub_takes_requests_and_all_of_it_is_in_one_log(cell: Cell, tmp_path: Path) -> None:
    for number in (0, 1, 0, 1):
        folder = programs(tmp_path / f"{number}-{len(list(tmp_path.iterdir()))}", 3)
        succeeded(cell.site.run("sign", "--key", PROFILE, folder, client=cell.client(f"one-{number}", number)))
        succeeded(cell.site.run("verify", "--trust", cell.site.roots, folder, client="client"))
    check(cell, "client", signed=12)


def test_a_killed_hub_costs_nobody_anything(cell: Cell, tmp_path: Path) -> None:
    client = cell.client("both", 0, 1)
    folder = programs(tmp_path / "batch", 100)
    signing = in_background(Signing(cell, folder, client))
    until(lambda: list(folder.glob("*.tlog-proof")), "a signed file")
    holder = next(
        number for number, hub in cell.hubs.items() if any("jobs signed" in one["event"] for one in hub.events)
    )
    cell.hubs[holder].kill()

    succeeded(signing.ended())
    cell.start(holder)
    check(cell, client, signed=100)


def test_a_hub_that_froze_longer_than_its_lease_releases_nothing_afterwards(cell: Cell, tmp_path: Path) -> None:
    client = cell.client("both", 0, 1)
    folder = programs(tmp_path / "batch", 100)
    signing = in_background(Signing(cell, folder, client))
    until(lambda: list(folder.glob("*.tlog-proof")), "a signed file")
    holder = next(
        number for number, hub in cell.hubs.items() if any("jobs signed" in one["event"] for one in hub.events)
    )
    other = 1 - holder
    cell.hubs[holder].signal(signal.SIGSTOP)
    until(lambda: signed_at(cell, other), "the other hub at the token")
    cell.hubs[holder].signal(signal.SIGCONT)

    succeeded(signing.ended())
    check(cell, client, signed=100)


def test_hubs_are_restarted_one_after_the_other_without_a_failed_request(cell: Cell, tmp_path: Path) -> None:
    client = cell.client("both", 0, 1)
    folder = programs(tmp_path / "batch", 400)
    signing = in_background(Signing(cell, folder, client))
    until(lambda: list(folder.glob("*.tlog-proof")), "a signed file")
    for number in (0, 1):
        cell.hubs[number].stop()
        cell.start(number)
        cell.until_linked(number)

    succeeded(signing.ended())
    check(cell, client, signed=400)


def test_a_request_is_answered_the_same_way_by_every_hub(cell: Cell) -> None:
    """The same bytes again, at the hub that signed them and at the other: one operation, one signature, one receipt."""
    configs = [cell.site.client(cell.client(f"one-{number}", number)) for number in (0, 1)]
    asked = ask(configs[0], PROFILE)
    other = ask(configs[0], PROFILE, idempotency_key=asked.statement.idempotency_key)
    before = sum(cell.token.signed().values())
    replies = []
    for config in (*configs, configs[0]):
        api = api_of(config)
        try:
            replies.append(api("POST", "/v1/signatures?wait=30&enough=1", asked.body).document)
            assert api("POST", "/v1/signatures", other.body).problem == (409, "idempotency.conflict")
        finally:
            api.close()

    assert replies[0] == replies[1] == replies[2]
    assert replies[0]["items"][0]["receipt"]
    assert sum(cell.token.signed().values()) == before + 1


def test_the_hub_that_has_no_lease_tells_where_its_client_stands(cell: Cell, tmp_path: Path) -> None:
    """Whichever hub has the token: a request that was handed in at the other is served, and seen from both."""
    for number in (0, 1):
        client = cell.client(f"one-{number}", number)
        folder = programs(tmp_path / client, 200)
        signing = in_background(Signing(cell, folder, client))
        until(lambda folder=folder: list(folder.glob("*.tlog-proof")), "a signed file")  # type: ignore[misc]
        for name in ("one-0", "one-1"):
            waiting = succeeded(cell.site.run("queue", "list", "--json", client=cell.client(name, int(name[-1]))))
            assert waiting.document["total"], name
        succeeded(signing.ended())
    check(cell, "client", signed=400)
