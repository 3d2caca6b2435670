# SPDX-License-Identifier: Apache-2.0
"""The parts of the status about the queue, for people; and what a hub remembers for them."""

from dataclasses import replace

from msgspec.structs import replace as changed

from privyseal.cli.moments import clock_text, duration_text
from privyseal.cli.status_queue import queue_lines, signature_lines, use_lines
from privyseal.cli.status_tokens import token_lines
from privyseal.hub.services.recent import Recent
from privyseal.ports.queue import Request
from privyseal.wire.api import ProfileStatus, TokenStatus
from privyseal.wire.queue import QueueDepth, TokenUse

NOW_MS = 1_772_366_400_000  # 2026-03-01 12:00:00 UTC
TOKEN = TokenStatus(
    agent="pi",
    linked=True,
    token="etoken",
    label="",
    serial="",
    model="",
    hardware=True,
    state="ready",
    pin_state="ok",
    signatures=0,
    failures=0,
    restarts=0,
    recoveries={},
)
USE = TokenUse(
    client="ci-7", profile="acme", priority="normal", request="ab" * 32, under_way=2, left=12, since_ms=NOW_MS - 60_000
)
PROFILE = ProfileStatus(
    name="acme",
    level="traced",
    hardware=True,
    token_label="",
    agent="pi",
    online=True,
    problem="",
    queued=0,
    subject="",
    not_after="",
)
REQUEST = Request(
    id="ab" * 32,
    client="ci-7",
    idempotency_key="once",
    profile="acme",
    envelope=b"",
    created_ms=1,
    not_after_ms=2,
    queued_ms=1,
    priority=1,
)


def words(line: str) -> list[str]:
    return [part for part in line.split("  ") if part]


def test_each_token_says_who_uses_it() -> None:
    busy = changed(TOKEN, users=(USE, changed(USE, client="night-1", since_ms=None)), lease="here")
    idle = changed(TOKEN, token="other")
    elsewhere = changed(TOKEN, token="third", lease="elsewhere")
    known = changed(TOKEN, token="fourth", lease="elsewhere", users=(changed(USE, since_ms=None),))

    _, *rows = use_lines((busy, idle, elsewhere, known), NOW_MS)

    assert [[word.strip() for word in words(row)] for row in rows] == [
        ["pi/etoken", "ci-7", "acme", "normal", "12", "11:59:00Z"],
        ["night-1", "acme", "normal", "12", "?"],
        ["pi/other", "nobody"],
        ["pi/third", "another hub process (lease elsewhere)"],
        ["pi/fourth", "ci-7 (lease elsewhere)", "acme", "normal", "12", "?"],
    ]
    assert list(use_lines((), NOW_MS)) == []


def test_the_queue_is_told_by_class_or_is_empty() -> None:
    depth = QueueDepth(waiting={"next": 3, "nightly": 40}, under_way=6, oldest_ms=NOW_MS - 86_400_000, eta_seconds=61.2)
    unknown = changed(PROFILE, name="other", queue=QueueDepth(under_way=1))

    _, *rows = queue_lines((changed(PROFILE, queue=depth), unknown), NOW_MS)

    assert [[word.strip() for word in words(row)] for row in rows] == [
        ["acme", "3 next, 40 nightly", "6", "2026-02-28 12:00:00Z", "1 min 01 s"],
        ["other", "-", "1", "-", "?"],
    ]
    assert list(queue_lines((PROFILE,), NOW_MS)) == ["queue   empty"]
    assert list(queue_lines((), NOW_MS)) == []


def test_what_ended_alike_is_one_row_and_the_newest_comes_first() -> None:
    recent = Recent()
    other = replace(REQUEST, id="cd" * 32, client="night-1")
    recent.ended(REQUEST, 2, outcome="signed", code="", at_ms=NOW_MS)
    recent.ended(other, 1, outcome="unknown", code="token.outcome_unknown", at_ms=NOW_MS + 1000)
    recent.ended(REQUEST, 3, outcome="signed", code="", at_ms=NOW_MS + 2000)
    recent.ended(REQUEST, 1, outcome="not-used", code="request.cancelled", at_ms=NOW_MS + 3000)

    _, *rows = signature_lines(recent.signatures, NOW_MS)

    assert [[word.strip() for word in words(row)] for row in rows] == [
        ["12:00:03Z", "ci-7", "acme", "1", "cancelled [request.cancelled]"],
        ["12:00:02Z", "ci-7", "acme", "5", "signed"],
        ["12:00:01Z", "night-1", "acme", "1", "failed [token.outcome_unknown]"],
    ]
    assert list(signature_lines((), NOW_MS)) == []


def test_only_a_little_is_remembered() -> None:
    recent = Recent()
    for number in range(10_000):
        recent.begun(f"{number:064x}", number)
        recent.ended(replace(REQUEST, id=f"{number:064x}"), 1, outcome="signed", code="", at_ms=number)

    assert len(recent.signatures) == 20
    assert recent.since_ms(f"{0:064x}") is None
    recent.begun(f"{9_999:064x}", 77)
    assert recent.since_ms(f"{9_999:064x}") == 9_999, "since the first item"
    assert len(recent._begun) <= 4096


def test_times_for_people() -> None:
    assert [duration_text(seconds) for seconds in (0.2, 59.4, 61, 7199, 7200, 90_000)] == [
        "0 s", "59 s", "1 min 01 s", "119 min 59 s", "2 h 00 min", "25 h 00 min",
    ]  # fmt: skip
    assert clock_text(NOW_MS, NOW_MS) == "12:00:00Z"
    assert clock_text(2**60, NOW_MS).endswith("Z")


def test_a_token_that_may_be_elsewhere_is_told_with_the_next_step() -> None:
    lines = list(token_lines((changed(TOKEN, relocation=("usb-port", "network")),)))

    assert lines[-2] == "  etoken: may be in another place (usb-port, network); custody is unproven"
    assert "privyseal token resume etoken" in lines[-1]
    assert len(list(token_lines((TOKEN,)))) == 2
