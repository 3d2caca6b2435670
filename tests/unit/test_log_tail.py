# SPDX-License-Identifier: Apache-2.0
"""The end of a log as it grows: what is shown stands under a signed checkpoint, and waiting backs off."""

from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from log_samples import ORIGIN, SIGNER, GrownLog, genesis, intent_at, result_of, sha
from privyseal.client.log_tail import Chosen, LogTail, Shown, follow
from privyseal.errors import LogIntegrityError, UnavailableError
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.entry import Deny


def indexes(shown: tuple[Shown, ...]) -> list[int]:
    return [one.index for one in shown]


def newest(log: GrownLog, chosen: Chosen) -> list[int]:
    return indexes(LogTail(log.public(), chosen).newest())


def mixed(size: int) -> GrownLog:
    """Intents at odd places, their results behind them; the time is the place."""
    log = GrownLog()
    log.commit(genesis())
    for place in range(1, size, 2):
        intent = intent_at(place, place)
        log.commit(intent, result_of(place + 1, place, intent))
    return log


@pytest.mark.parametrize("last", [0, 1, 44, 45, 256, 257, 300, 301, 5000])
def test_the_newest_entries_are_shown_in_their_order(last: int) -> None:
    log = mixed(601)

    assert newest(log, Chosen(last=last)) == list(range(max(0, 601 - last), 601))


def test_no_more_is_read_than_is_needed() -> None:
    log = mixed(601)

    newest(log, Chosen(last=20))

    assert [path for path in log.reads if "entries" in path] == ["tile/entries/002.p/89"]


def test_entries_are_chosen_by_type_and_time() -> None:
    log = mixed(601)

    assert newest(log, Chosen(kinds=frozenset(("result",)), last=3)) == [596, 598, 600]
    assert newest(log, Chosen(kinds=frozenset(("admin",)), last=3)) == [0]
    assert newest(log, Chosen(kinds=frozenset(("deny",)))) == []
    assert newest(log, Chosen(since=598)) == [598, 599, 600]
    assert newest(log, Chosen(since=400, kinds=frozenset(("intent",)))) == list(range(401, 601, 2))
    assert newest(log, Chosen(since=590, last=2)) == [599, 600]
    assert newest(log, Chosen()) == list(range(601))


def test_an_entry_that_the_checkpoint_does_not_cover_is_not_shown() -> None:
    log = mixed(601)
    log.entries[600] = log.entries[600].replace(b'"outcome":"ok"', b'"outcome":"no"')

    with pytest.raises(LogIntegrityError) as caught:
        newest(log, Chosen(last=3))
    assert caught.value.code == "log.root"


def test_entries_of_a_type_from_a_newer_version_are_shown() -> None:
    log = mixed(3)
    log.commit(b'{"t":"freeze","ts":9,"v":1}')

    assert LogTail(log.public(), Chosen(last=1)).newest()[0].entry["t"] == "freeze"


@pytest.mark.parametrize("data", [b"", b"[]", b'{"t":1,"ts":1}', b'{"t":"x","ts":1.5}', b"[" * 60_000], ids=len)
def test_bytes_that_are_no_entry(data: bytes) -> None:
    log = mixed(3)
    log.commit(data)

    with pytest.raises(LogIntegrityError) as caught:
        newest(log, Chosen(last=1))
    assert caught.value.code == "log.entry"


@dataclass
class Hours:
    """What happens while somebody waits; at the end of the list the waiting is interrupted."""

    events: list[object]
    waited: list[float] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        if not self.events:
            raise KeyboardInterrupt
        event = self.events.pop(0)
        if callable(event):
            event()


def followed(log: GrownLog, chosen: Chosen, hours: Hours) -> tuple[list[list[int]], list[str]]:
    tail = LogTail(log.public(), chosen)
    batches: list[list[int]] = []
    troubles: list[str] = []
    tail.newest()
    with suppress(KeyboardInterrupt):
        batches.extend(map(indexes, follow(tail, wait=hours.wait, trouble=lambda error: troubles.append(error.code))))
    return batches, troubles


def deny(log: GrownLog, count: int = 1) -> None:
    first = len(log.entries)
    log.commit(*(Deny(ts=first, client="", profile="", request=sha(n), code="") for n in range(count)))


@pytest.mark.parametrize("size", [1, 255, 257])
def test_new_entries_are_shown_as_they_come(size: int) -> None:
    log = mixed(size)
    hours = Hours([lambda: deny(log), None, None, lambda: deny(log, 300), None])

    batches, troubles = followed(log, Chosen(last=1), hours)

    assert batches == [[size], list(range(size + 1, size + 301))]
    assert troubles == []
    assert hours.waited == [1.0, 1.0, 1.5, 2.25, 1.0, 1.5]


def test_waiting_has_an_end() -> None:
    hours = Hours([None] * 20)

    followed(mixed(3), Chosen(), hours)

    assert max(hours.waited) == hours.waited[-1] == 15.0


def test_unwanted_entries_are_checked_all_the_same() -> None:
    log = mixed(3)
    chosen = Chosen(kinds=frozenset(("result",)))
    assert followed(log, chosen, Hours([lambda: deny(log), None]))[0] == []

    def lie() -> None:
        deny(log)
        log.entries[-1] += b" "

    with pytest.raises(LogIntegrityError) as caught:
        followed(log, chosen, Hours([lie]))
    assert caught.value.code == "log.root"


def test_a_log_that_is_cut_or_rewritten_ends_it() -> None:
    log = mixed(9)

    with pytest.raises(LogIntegrityError) as caught:
        followed(log, Chosen(), Hours([lambda: log.notes.append(log.notes[0])]))
    assert caught.value.code == "log.rewound"

    fork = sign_checkpoint(Checkpoint(origin=ORIGIN, size=9, root=bytes(32)), SIGNER)
    log = mixed(9)
    with pytest.raises(LogIntegrityError) as caught:
        followed(log, Chosen(), Hours([lambda: log.notes.append(fork)]))
    assert caught.value.code == "log.root"


def test_a_hub_that_is_away_for_a_while_is_asked_again() -> None:
    log = mixed(3)

    class Away(GrownLog):
        is_away = False

        def read(self, path: str) -> bytes | None:
            if self.is_away:
                raise UnavailableError("hub.unreachable", "away")
            return log.read(path)

    away = Away()

    def leave() -> None:
        away.is_away = True

    def come_back() -> None:
        away.is_away = False
        deny(log)

    batches, troubles = followed(away, Chosen(), Hours([leave, None, come_back, leave, None]))

    assert batches == [[3]]
    assert troubles == ["hub.unreachable", "hub.unreachable"]
