# SPDX-License-Identifier: Apache-2.0
"""The custodian when its journal fails at each statement, and when the agent ends there: a freeze is never lost."""

import hashlib
from pathlib import Path

import pytest

from failing_journal import Faults
from privyseal.agent.custody import Custodian
from privyseal.agent.custody_spans import Moment
from privyseal.agent.outbox import Outbox
from privyseal.errors import PrivysealError, UnavailableError
from privyseal.ports.token import KeyCounter, PinState, TokenInfo, TokenKey
from privyseal.storage.journal import SqliteJournal
from privyseal.tlog.entry import Custody, Entry, Freeze, parse_entry

INFO = TokenInfo(
    label="hub", serial="0001", manufacturer="ACME", model="1", hardware=True, pin_state=PinState.OK
)  # fmt: skip
KEY = TokenKey(key_id=b"\x01", label="release", spki=b"spki", certificates=())
NAME = hashlib.sha256(KEY.spki).hexdigest()
STEPS = (
    "SELECT value FROM memory",
    "SELECT number, entry",
    "BEGIN IMMEDIATE",
    "INSERT INTO event",
    "INSERT OR REPLACE INTO memory",
)


def counter(count: int) -> tuple[KeyCounter, ...]:
    return (KeyCounter(key_id=KEY.key_id, count=count, source="card"),)


class Site:
    """A journal that can fail, and a custodian of which time passes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.faults = Faults()
        self.now_ms = 1_000_000

    async def open(self) -> Custodian:
        self.journal = await SqliteJournal.open(self._path, connect=self.faults.connect, origin="hub.example")
        outbox = Outbox(journal=self.journal, clock=lambda: self.now_ms, request_key=b"a" * 32)
        custodian = await Custodian.open(name="card", journal=self.journal, outbox=outbox, clocks=self.clocks)
        await custodian.attached(INFO, (KEY,))
        return custodian

    async def crash(self) -> Custodian:
        self.faults.fail_at = ""
        await self.journal.close()
        return await self.open()

    def clocks(self) -> Moment:
        return Moment(wall_ms=self.now_ms, awake_ms=self.now_ms, boot_ms=self.now_ms)

    async def look(self, custodian: Custodian, *, others: int = 0) -> None:
        self.now_ms += 5_000
        await custodian.looked(healthy=True, others=others, card_events=1)

    async def told(self) -> list[Entry]:
        return [parse_entry(event.entry) for event in await self.journal.events(100)]

    async def freezes(self) -> int:
        return sum(isinstance(entry, Freeze) and entry.frozen for entry in await self.told())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("crash", [False, True])
async def test_a_mismatch_is_told_and_kept_whatever_fails(tmp_path: Path, step: str, crash: bool) -> None:  # noqa: FBT001
    site = Site(tmp_path / "journal.db")
    custodian = await site.open()
    await custodian.reconcile(counter(10))

    site.faults.fail_at = step
    with pytest.raises(UnavailableError):
        await custodian.reconcile(counter(12))
    site.faults.fail_at = ""
    if crash:
        custodian = await site.crash()
    await custodian.reconcile(counter(12))

    assert custodian.frozen == {NAME}
    told = await site.freezes()
    assert told == 1 if not crash else told >= 1
    custodian = await site.crash()
    assert custodian.frozen == {NAME}
    await site.journal.close()


@pytest.mark.parametrize("step", ["BEGIN IMMEDIATE", "INSERT INTO event", "INSERT OR REPLACE INTO memory"])
async def test_an_interval_is_told_once_the_journal_works_again(tmp_path: Path, step: str) -> None:
    site = Site(tmp_path / "journal.db")
    custodian = await site.open()
    for _ in range(4):
        await site.look(custodian)

    site.faults.fail_at = step
    with pytest.raises(PrivysealError):
        await site.look(custodian, others=1)
    site.faults.fail_at = ""
    for _ in range(14):
        await site.look(custodian)
    await custodian.stopping()

    intervals = [(one.since, one.until, one.reason) for one in await site.told() if isinstance(one, Custody)]
    assert sorted(set(intervals)) == [
        (1_005_000, 1_020_000, ""),
        (1_020_000, 1_080_000, "shared"),
        (1_080_000, 1_095_000, ""),
    ]
    await site.journal.close()
