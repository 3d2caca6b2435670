# SPDX-License-Identifier: Apache-2.0
"""What one agent tells is numbered 1, 2, 3, …: the check of a log names the entry before which one was left out."""

import hashlib

import pytest
from msgspec.structs import replace

from log_samples import GrownLog, genesis, sha
from privyseal.errors import LogIntegrityError
from privyseal.tlog.audit import LogCheck
from privyseal.tlog.entry import Admin, Custody, Entry, PinEvent, TokenEvent, encode_entry

PI, PC = sha(1), sha(2)


def told(seq: int, agent: str = PI) -> TokenEvent:
    return TokenEvent(ts=2, agent=agent, seq=seq, at=1, token="0001", event="attached")


def feed(*entries: Entry, check: LogCheck | None = None) -> None:
    check = LogCheck() if check is None else check
    for entry in entries:
        check.feed(encode_entry(entry))


def test_each_agent_counts_for_itself_whatever_it_tells() -> None:
    custody = Custody(
        ts=2, agent=PI, seq=2, at=1, token="0001", key=sha(3), since=0, until=1, state="unproven", reason="gap"
    )
    pin = PinEvent(ts=2, agent=PC, seq=2, at=1, token="0002", event="refused")

    feed(genesis(), told(1), told(1, PC), custody, pin, told(3), told(3, PC))


@pytest.mark.parametrize(
    ("numbers", "last", "wrong"),
    [
        pytest.param((2,), 0, 2, id="the first one is missing"),
        pytest.param((1, 3), 1, 3, id="one is missing"),
        pytest.param((1, 1), 1, 1, id="one stands there twice"),
        pytest.param((1, 2, 1), 2, 1, id="it begins anew"),
        pytest.param((0,), 0, 0, id="it begins with 0"),
        pytest.param((-1,), 0, -1, id="below 0"),
    ],
)
def test_a_number_that_does_not_follow_is_named_with_its_entry(numbers: tuple[int, ...], last: int, wrong: int) -> None:
    with pytest.raises(LogIntegrityError) as caught:
        feed(genesis(), told(1, PC), *(told(seq) for seq in numbers))

    assert caught.value.code == "log.entry"
    assert caught.value.message.startswith(f"entry {len(numbers) + 1}: agent {PI} tells event {wrong} after {last}")


def test_a_pruned_log_may_begin_anywhere_but_goes_on_without_a_gap() -> None:
    check = LogCheck()
    check.skip(hashlib.sha256(b"").digest())
    feed(told(57), told(58), told(4, PC), check=check)

    with pytest.raises(LogIntegrityError, match="event 60 after 58"):
        feed(told(60), check=check)


def test_a_log_that_continues_another_may_begin_anywhere() -> None:
    continued = Admin(ts=1, action="genesis", bundle=sha(0), former=("note",))

    feed(continued, told(57), told(58))
    with pytest.raises(LogIntegrityError, match="event 57 after 57"):
        feed(continued, told(57), told(57))


def test_whoever_reads_a_log_hears_of_it() -> None:
    log = GrownLog()
    log.commit(genesis(), told(1), replace(told(3), ts=3))
    public = log.public()

    with pytest.raises(LogIntegrityError, match="entry 2: agent"):
        list(public.checked_entries(LogCheck(), public.checkpoint()))
