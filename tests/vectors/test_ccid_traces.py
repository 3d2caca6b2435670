# SPDX-License-Identifier: Apache-2.0
"""Recorded conversations of libccid with the lab's card: the audit counts as the card did then."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from card_traces import traced
from privyseal.usbip.card_events import Blind, Forward, LeaseCounts, LeaseRules
from privyseal.usbip.card_watch import CardWatch
from privyseal.usbip.ccid import read_class_descriptor
from watched_readers import TPDU, class_descriptor

FILES = sorted((Path(__file__).parent / "ccid").glob("*.txt"))
TRACES = {path.stem: traced(path.read_text()) for path in FILES}


def audit(messages: list[tuple[bytes, bytes]], rules: LeaseRules) -> LeaseCounts:
    descriptor = read_class_descriptor(class_descriptor(TPDU, max_message_bytes=271))
    watch = CardWatch(descriptor, packet_bytes=64, rules=rules)
    for command, answer in messages:
        if isinstance(watch.command(command), Forward):
            watch.answer(answer)
    watch.finish()
    return watch.counts


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recorded_conversation_counts_as_the_card_counted_it(path: Path) -> None:
    told = re.search(r"operations (\d+), PINs (\d+), of which refused (\d+), commands (\d+)", path.read_text())
    assert told is not None
    operations, pins, refused, commands = map(int, told.groups())

    counts = audit(TRACES[path.stem], LeaseRules())

    assert counts.total("private-key-operation", "ok") == counts.total("private-key-operation") == operations == 2
    assert counts.total("pin-verification", "accepted", "refused") == pins
    assert counts.total("pin-verification", "refused") == refused
    assert counts.apdus == commands
    assert counts.unproven == (Blind.READER_COMMAND,)


@settings(deadline=None, max_examples=200)
@given(
    name=st.sampled_from(sorted(TRACES)),
    changes=st.lists(st.tuples(st.integers(0, 999), st.integers(0, 60), st.integers(0, 255)), min_size=1, max_size=5),
    lost=st.lists(st.tuples(st.integers(0, 999), st.booleans()), max_size=3),
    rules=st.sampled_from([LeaseRules(), LeaseRules(refuse_unreadable=True)]),
)
def test_a_conversation_that_was_changed_on_its_way(
    name: str, changes: list[tuple[int, int, int]], lost: list[tuple[int, bool]], rules: LeaseRules
) -> None:
    messages = list(TRACES[name])
    for number, place, value in changes:
        pair = list(messages[number % len(messages)])
        one = pair[place % 2]
        at = place % len(one)
        pair[place % 2] = one[:at] + bytes((value,)) + one[at + 1 :]
        messages[number % len(messages)] = (pair[0], pair[1])
    for number, is_answer in lost:
        command, answer = messages[number % len(messages)]
        messages[number % len(messages)] = (command, b"") if is_answer else (b"", answer)

    counts = audit(messages, rules)

    assert counts.total("private-key-operation") <= 4 + 2 * (len(changes) + len(lost))
