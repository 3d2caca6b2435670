# SPDX-License-Identifier: Apache-2.0
"""The client's reading of a stream of events, whatever comes in it, and its lines for people."""

from collections.abc import Iterable

import msgspec
import pytest

from privyseal.cli.event_lines import event_line
from privyseal.client.events import read_events
from privyseal.errors import UnavailableError
from privyseal.wire.events import (
    AgentLinkEvent,
    CertificateEvent,
    GapEvent,
    HubEvent,
    JobEvent,
    RecordedEvent,
    TokenStateEvent,
    encode_event,
    event_name,
)

EVENTS: tuple[tuple[HubEvent, str], ...] = (
    (
        JobEvent(at=1, request="ab" * 32, profile="acme", items="0", state="signed"),
        "acme: item 0 of request abababababababab… signed",
    ),
    (
        JobEvent(at=1, request="ab" * 32, profile="acme", items="0-3", state="failed", code="token.failed"),
        "acme: items 0-3 of request abababababababab… failed [token.failed]",
    ),
    (
        TokenStateEvent(
            at=1,
            agent="pi",
            token="etoken",
            state="blocked",
            pin_state="count-low",
            code="token.pin_blocked",
            hint="go",
        ),
        "token etoken at pi is blocked, PIN count-low [token.pin_blocked]; next: go",
    ),
    (TokenStateEvent(at=1, agent="pi", token="etoken", state="ready", pin_state="ok"), "token etoken at pi is ready"),
    (
        RecordedEvent(at=1, agent="pi", index=7, kind="recover", token="01", detail={"step": "worker", "code": ""}),
        "token 01 at pi: recover step=worker (log entry 7)",
    ),
    (AgentLinkEvent(at=1, agent="pi", linked=True), "agent pi linked"),
    (AgentLinkEvent(at=1, agent="pi", linked=False), "agent pi lost: its key profiles are offline"),
    (
        CertificateEvent(
            at=1, profile="acme", token="pi/etoken", subject="CN=a", not_after="2026-12-31T00", days=5, level="urgent"
        ),
        "urgent: certificate of acme (pi/etoken) ends in 5 days, on 2026-12-31",
    ),
    (
        CertificateEvent(
            at=1, profile="acme", token="pi/etoken", subject="CN=a", not_after="2026-12-31T00", days=-5, level="expired"
        ),
        "expired: certificate of acme (pi/etoken) ended on 2026-12-31",
    ),
    (GapEvent(at=1), "some events were missed: privyseal status shows how things are"),
)


@pytest.mark.parametrize(("event", "line"), EVENTS)
def test_lines_for_people(event: HubEvent, line: str) -> None:
    assert event_line(event) == f"1970-01-01 00:00:00Z  {line}"


def test_a_time_that_is_none_is_shown_all_the_same() -> None:
    assert event_line(GapEvent(at=10**18)).startswith("1000000000000000000 ms")


def stream() -> bytes:
    parts = [
        f"id: x-{number}\nevent: {event_name(event)}\ndata: ".encode() + encode_event(event) + b"\n\n"
        for number, (event, _) in enumerate(EVENTS)
    ]
    return b"retry: 2000\n\n:\n\n" + b":\n\n".join(parts)


@pytest.mark.parametrize("size", [1, 2, 7, 100_000])
def test_events_are_read_however_they_are_cut(size: int) -> None:
    whole = stream()
    pieces = (whole[start : start + size] for start in range(0, len(whole), size))

    assert list(read_events(pieces)) == [(f"x-{number}", event) for number, (event, _) in enumerate(EVENTS)]


@pytest.mark.parametrize(
    "junk",
    [
        b'data: {"event":"of tomorrow","at":1}\n\n',
        b"data: no json\n\n",
        b"data\n\n",
        b"\xff\xfe: \xff\n\n",
        b"data: " + msgspec.json.encode([[]] * 10) + b"\n\n",
        b"event: job\n\n",
    ],
)
def test_what_is_no_event_of_this_release_is_passed_over(junk: bytes) -> None:
    assert len(list(read_events((junk, stream())))) == len(EVENTS)


def test_an_id_that_is_no_header_s_value_is_not_sent_back() -> None:
    data = encode_event(GapEvent(at=1))

    for bad in (b"a\rEvil: 1", b"\xc3\xa9", b"x" * 65, b"\x00"):
        ((event_id, _),) = read_events((b"id: " + bad + b"\ndata: " + data + b"\n\n",))
        assert event_id == ""


def test_an_event_without_end_is_not_kept() -> None:
    def endless(piece: bytes) -> Iterable[bytes]:
        while True:
            yield piece

    for piece in (b"x" * 65_536, b"data: " + b"x" * 65_536 + b"\n"):
        with pytest.raises(UnavailableError, match="of more than"):
            list(read_events(endless(piece)))
