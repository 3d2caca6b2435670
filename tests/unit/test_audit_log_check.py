# SPDX-License-Identifier: Apache-2.0
"""Recomputing a log: a true one passes, and each kind of tampering is named with the entry where it shows."""

from collections.abc import Callable
from dataclasses import replace as with_changes
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lying_hub import MemoryLog
from privyseal.errors import LogIntegrityError
from privyseal.tlog.audit import LogCheck
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.entry import (
    Admin,
    ArtifactDigest,
    Claimed,
    Deny,
    Entry,
    Intent,
    Result,
    TimestampEntry,
    Unknown,
    encode_entry,
    parse_entry,
)
from wire_samples import mutated

ARTIFACT = ArtifactDigest(alg="sha256", digest="22" * 32)


def intent(ts: int, item: int = 0, fence: int = 1, profile: str = "release") -> Intent:
    return Intent(
        ts=ts,
        request="11" * 32,
        item=item,
        profile=profile,
        key="33" * 32,
        format="authenticode-pe",
        binding="bound",
        mechanism="CKM_ECDSA_SHA256",
        preimage="44" * 32,
        digest="55" * 32,
        artifact=ARTIFACT,
        claimed=Claimed(sha256="66" * 32, size=1),
        client="77" * 32,
        agent="88" * 32,
        authority=1,
        fence=fence,
    )


def result(ts: int, index: int, of: Intent, outcome: str = "ok") -> Result:
    return Result(
        ts=ts,
        intent=index,
        request=of.request,
        item=of.item,
        profile=of.profile,
        key=of.key,
        format=of.format,
        artifact=of.artifact,
        fence=of.fence,
        outcome=outcome,
        signature="99" * 32 if outcome == "ok" else "",
        code="" if outcome == "ok" else "token.failed",
    )


def unknown(ts: int, index: int, of: Intent) -> Unknown:
    return Unknown(
        ts=ts, intent=index, request=of.request, item=of.item, profile=of.profile, fence=of.fence, code="token.timeout"
    )


FIRST, SECOND, LOST, AGAIN, OPEN = (
    intent(2),
    intent(2, item=1),
    intent(6, item=2),
    intent(8, item=2, fence=2),
    intent(9, item=3, fence=2),
)
LOG: tuple[Entry, ...] = (
    Admin(ts=1, action="genesis", bundle="00" * 32),
    FIRST,
    SECOND,
    result(3, 2, SECOND),
    result(4, 1, FIRST, "failed"),
    Deny(ts=5, client="", profile="release", request="", code="policy.profile"),
    LOST,
    unknown(7, 6, LOST),
    AGAIN,
    result(8, 8, AGAIN),
    OPEN,
)


TIMESTAMP = TimestampEntry(ts=9, client="77" * 32, token="aa" * 32, imprint="bb" * 32, tsa="cc" * 32)


def feed(entries: tuple[Entry | bytes, ...]) -> LogCheck:
    check = LogCheck()
    for entry in entries:
        check.feed(entry if isinstance(entry, bytes) else encode_entry(entry))
    return check


def checkpoint_of(entries: tuple[Entry, ...]) -> Checkpoint:
    log = MemoryLog()
    for entry in entries:
        log.append(entry)
    return Checkpoint(origin="hub.example", size=log.size, root=log.root())


def broken(entries: tuple[Entry | bytes, ...], index: int, words: str) -> None:
    """Feeding ends at this entry, with these words."""
    check = feed(entries[:index])
    with pytest.raises(LogIntegrityError) as caught:
        check.feed(_bytes(entries[index]))
    assert caught.value.code == "log.entry"
    assert caught.value.message.startswith(f"entry {index}: ")
    assert words in caught.value.message


def _bytes(entry: Entry | bytes) -> bytes:
    return entry if isinstance(entry, bytes) else encode_entry(entry)


def changed(index: int, **changes: Any) -> tuple[Entry, ...]:
    return (*LOG[:index], replace(LOG[index], **changes), *LOG[index + 1 :])


def test_a_true_log_passes() -> None:
    check = feed(LOG)

    check.check_checkpoint(checkpoint_of(LOG))
    summary = check.summary()
    assert (summary.size, summary.signatures, summary.open_intents) == (len(LOG), 2, (10,))
    assert dict(summary.counts) == {"admin": 1, "intent": 5, "result": 3, "unknown": 1, "deny": 1}
    assert summary.root == checkpoint_of(LOG).root


def test_an_empty_log_has_the_root_of_the_empty_tree() -> None:
    LogCheck().check_checkpoint(checkpoint_of(()))


@pytest.mark.parametrize("size", range(1, len(LOG)))
def test_every_beginning_of_a_true_log_is_one(size: int) -> None:
    feed(LOG[:size]).check_checkpoint(checkpoint_of(LOG[:size]))


@given(st.integers(0, len(LOG) - 1), st.integers(0, len(LOG) - 1))
def test_two_entries_that_changed_places_are_noticed(one: int, other: int) -> None:
    swapped = list(LOG)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    if swapped == list(LOG):
        return
    assert tampering(tuple(swapped)) in {"log.entry", "log.root"}


@given(st.integers(0, len(LOG) - 1))
def test_an_entry_that_was_dropped_is_noticed(place: int) -> None:
    assert tampering(LOG[:place] + LOG[place + 1 :]) in {"log.entry", "log.root"}


@given(st.integers(0, len(LOG) - 1), st.integers(0, len(LOG) - 1))
def test_an_entry_that_stands_there_twice_is_noticed(place: int, to: int) -> None:
    assert tampering((*LOG[:to], LOG[place], *LOG[to:])) in {"log.entry", "log.root"}


@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(LOG) - 1))
    spoilt = data.draw(mutated(encode_entry(LOG[place])))

    assert tampering((*LOG[:place], spoilt, *LOG[place + 1 :])) in {"log.entry", "log.root"}


def tampering(entries: tuple[Entry | bytes, ...]) -> str:
    """The code with which a log is refused that claims to be `LOG`."""
    with pytest.raises(LogIntegrityError) as caught:
        feed(entries).check_checkpoint(checkpoint_of(LOG))
    return caught.value.code


def test_a_root_or_size_of_another_log_is_noticed() -> None:
    checkpoint = checkpoint_of(LOG)
    for wrong in (
        with_changes(checkpoint, root=bytes(32)),
        with_changes(checkpoint, size=checkpoint.size + 1),
        with_changes(checkpoint, size=checkpoint.size - 1),
        checkpoint_of(LOG[:-1]),
    ):
        with pytest.raises(LogIntegrityError) as caught:
            feed(LOG).check_checkpoint(wrong)
        assert caught.value.code == "log.root"


@pytest.mark.parametrize("index", [0, 1, 5, 7, 9, 11])
def test_a_result_without_its_intent(index: int) -> None:
    result_of_nothing = result(20, index, FIRST)

    broken((*LOG, result_of_nothing), len(LOG), f"no open intent at index {index}")


@pytest.mark.parametrize("make", [result, unknown])
@pytest.mark.parametrize("index", [1, 2, 6, 8])
def test_an_intent_that_was_closed_is_not_closed_again(make: Callable[..., Entry], index: int) -> None:
    of = LOG[index]

    broken((*LOG, make(20, index, of)), len(LOG), f"no open intent at index {index}")


@pytest.mark.parametrize("index", [-1, 2**53 - 1, 11])
def test_an_intent_that_is_not_there(index: int) -> None:
    broken((*LOG, result(20, index, OPEN)), len(LOG), "no open intent")


@pytest.mark.parametrize(
    "changes",
    [{"request": "00" * 32}, {"item": 4}, {"profile": "demo"}, {"fence": 3}],
    ids=["request", "item", "profile", "fence"],
)
@pytest.mark.parametrize("make", [result, unknown])
def test_a_result_of_something_else(make: Callable[..., Entry], changes: dict[str, Any]) -> None:
    (field,) = changes

    broken((*LOG, replace(make(20, 10, OPEN), **changes)), len(LOG), f"`{field}`")


@pytest.mark.parametrize(
    "changes",
    [{"key": ""}, {"format": "other"}, {"artifact": replace(ARTIFACT, digest="00" * 32)}],
    ids=["key", "format", "artifact"],
)
def test_a_result_over_something_else(changes: dict[str, Any]) -> None:
    (field,) = changes

    broken((*LOG, replace(result(20, 10, OPEN), **changes)), len(LOG), f"`{field}`")


def pruned(count: int, *entries: Entry) -> LogCheck:
    """A log whose first entries are not there any more."""
    check = LogCheck()
    for _ in range(count):
        check.skip(bytes(32))
    for entry in entries:
        check.feed(encode_entry(entry))
    return check


def prune(ts: int, entries: int) -> Admin:
    return Admin(ts=ts, action="prune", bundle="", entries=entries, reason="old")


def ends(check: LogCheck) -> str:
    """The code with which it ends, or empty."""
    try:
        check.end(Checkpoint(origin="o", size=check.size, root=check.root))
    except LogIntegrityError as error:
        return error.code
    return ""


def test_what_was_pruned_must_be_said_in_what_is_left() -> None:
    assert ends(pruned(512, prune(9, 512))) == ""
    assert ends(pruned(256, prune(9, 256), prune(9, 512 - 256))) == ""
    assert pruned(256, prune(9, 256)).summary().pruned == 256
    assert ends(pruned(256)) == "log.pruned"
    assert ends(pruned(512, prune(9, 256))) == "log.pruned"


def test_ends_of_pruned_intents_are_no_false_alarm_and_stand_there_once() -> None:
    check = pruned(256, intent(5, fence=7), result(6, 12, OPEN), unknown(7, 13, OPEN), prune(8, 256))
    assert ends(check) == ""
    with pytest.raises(LogIntegrityError):
        check.feed(encode_entry(unknown(9, 12, OPEN)))
    for index in (-1, 256, 300):
        with pytest.raises(LogIntegrityError):
            pruned(256, result(6, index, OPEN))


@pytest.mark.parametrize("entries", [-256, 1, 255, 512, 2**53 - 1])
def test_what_cannot_be_pruned(entries: int) -> None:
    with pytest.raises(LogIntegrityError) as caught:
        pruned(256, prune(9, 256), prune(9, entries))
    assert "entry 257: it prunes" in caught.value.message


def test_pruning_is_not_taken_back() -> None:
    with pytest.raises(LogIntegrityError):
        pruned(512, prune(9, 512), prune(9, 256))


def test_a_second_genesis_does_not_hide_behind_pruning() -> None:
    with pytest.raises(LogIntegrityError):
        pruned(256, Admin(ts=1, action="genesis", bundle=""))


@pytest.mark.parametrize(
    "changes",
    [{"signature": ""}, {"outcome": "failed"}, {"outcome": "perhaps"}, {"outcome": "", "signature": ""}],
    ids=["unsigned", "failed-signed", "perhaps", "empty"],
)
def test_an_outcome_that_makes_no_sense(changes: dict[str, Any]) -> None:
    broken((*LOG, replace(result(20, 10, OPEN), **changes)), len(LOG), "outcome")


def test_a_second_signature_for_one_item() -> None:
    second = intent(20, item=1, fence=2)
    log = (*LOG, second, result(21, len(LOG), second))

    broken(log, len(log) - 1, "a second signature")


def test_a_fence_that_goes_down() -> None:
    broken((*LOG, intent(20, item=9, fence=1)), len(LOG), "fence 1 is lower")
    feed((*LOG, intent(20, item=9, fence=2), intent(20, item=9, fence=3), replace(intent(20), key="cd" * 32)))


def test_time_that_goes_back() -> None:
    broken(changed(5, ts=3), 5, "its time is 1 ms before")
    broken((*LOG, Deny(ts=8, client="", profile="", request="", code="")), len(LOG), "its time is 1 ms before")


def test_a_second_genesis() -> None:
    broken((*LOG, replace(LOG[0], ts=20)), len(LOG), "genesis")


def test_a_log_without_genesis() -> None:
    broken(LOG[1:], 0, "genesis")
    broken((Admin(ts=1, action="other", bundle=""),), 0, "genesis")


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[" * 60_000, b"\xff", b" " * 70_000], ids=["empty", "object", "deep", "binary", "huge"]
)
def test_bytes_that_are_no_entry(data: bytes) -> None:
    broken((*LOG, data), len(LOG), "entry.")


def test_entries_come_back_as_they_are() -> None:
    check = LogCheck()

    assert tuple(check.feed(encode_entry(entry)) for entry in LOG) == LOG
    assert check.size == len(LOG)
    assert parse_entry(encode_entry(LOG[-1])) == OPEN


def test_timestamps_are_counted_and_pair_with_nothing() -> None:
    before, after = feed(LOG).summary(), feed((*LOG, TIMESTAMP)).summary()

    assert after.counts == tuple(sorted((*before.counts, ("timestamp", 1))))
    assert (after.signatures, after.open_intents) == (before.signatures, before.open_intents)
    with pytest.raises(LogIntegrityError):
        feed((*LOG, replace(TIMESTAMP, ts=8)))
