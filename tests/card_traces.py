# SPDX-License-Identifier: Apache-2.0
"""What programs said to the lab's card and what it answered, written down by it, through an audited reader."""

from collections.abc import Iterable

from lab.piv.orders import State
from privyseal.usbip.card_events import LeaseCounts
from privyseal.usbip.card_watch import CardWatch
from watched_readers import started

__all__ = ["assert_as_the_card", "replay", "traced"]


def assert_as_the_card(counts: LeaseCounts, state: State) -> None:
    """The audit has counted what the card has."""
    assert counts.total("private-key-operation", "ok") == state.operations
    assert counts.total("pin-verification", "accepted", "refused") == state.pins_judged
    assert counts.total("pin-verification", "refused") == state.pins_refused
    assert counts.apdus == len(state.commands)


def traced(text: str) -> list[tuple[bytes, bytes]]:
    """Commands and answers of a record of `Station`, in their order."""
    lines = [line.split(" ", 1) for line in text.splitlines() if line[:1] in ("<", ">")]
    commands = [bytes.fromhex(data) for sign, data in lines if sign == ">"]
    answers = [bytes.fromhex(data) for sign, data in lines if sign == "<"]
    return list(zip(commands, answers, strict=True))


def replay(trace: Iterable[tuple[bytes, bytes]], level: str) -> CardWatch:
    """The same conversation through a reader of this level (`LEVELS`); the audit of it, at its end."""
    pairs = list(trace)
    answers = iter([answer for _, answer in pairs])
    transmit, watch = started(level, lambda _: next(answers))
    for command, answer in pairs:
        assert transmit(command) == answer
    watch.finish()
    return watch
