# SPDX-License-Identifier: Apache-2.0
"""What a pool makes of its tokens' announcements, and the lines of its queue."""

import datetime as dt
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from privyseal.hub.config import PoolTable, QueueTable
from privyseal.hub.entries import key_sha256
from privyseal.hub.services.pools import Pools
from privyseal.hub.services.queue_board import Line, QueueBoard
from privyseal.policy.fair_queue import Priority
from privyseal.ports.queue import QueuedRequest, Request
from privyseal.ports.store import ProfileRow
from privyseal.tokens.testca import make_test_ca

BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
END = dt.datetime(2026, 12, 31, tzinfo=dt.UTC)
NOW_MS = int(dt.datetime(2026, 6, 1, tzinfo=dt.UTC).timestamp() * 1000)
SINCE = "2026-07-01T00:00:00Z"
SINCE_MS = int(dt.datetime.fromisoformat(SINCE).timestamp() * 1000)


def chain(end: dt.datetime = END) -> tuple[bytes, ...]:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ca = make_test_ca(not_before=BEGIN, not_after=END)
    return ca.issue_code_signing(spki=spki, common_name="Acme", not_before=BEGIN, not_after=end)


def row(token: str, entry_index: int = 1) -> ProfileRow:
    return ProfileRow(
        name="acme",
        agent="pi",
        token=token,
        chain=chain(),
        level="traced",
        opaque=("digest", "other"),
        token_label="",
        token_serial="",
        hardware=True,
        entry_index=entry_index,
    )


A, B, C = row("a"), row("b", 2), row("c", 3)
POOLS = Pools((PoolTable(profile="acme", tokens=("pi/b", "pi/a"), successors=("pi/c",), since=SINCE),))
NONE = Pools(())


def test_a_pool_s_tokens_stand_in_its_order_and_no_other_does() -> None:
    assert POOLS.current((A, B, C, row("former", 9))) == (B, A, C)
    assert POOLS.current((row("former"),)) == ()
    assert NONE.current((A, C, B)) == (C,)
    assert NONE.current(()) == ()


def test_lines_are_for_tokens_of_their_time_and_key() -> None:
    for one, today in ((A, True), (B, True), (C, False)):
        for key, has_it in (("", True), (key_sha256(one.chain), True), ("00", False)):
            assert POOLS.serves(one, Line(profile="acme", key=key)) == (today and has_it)
            assert POOLS.serves(one, Line(profile="acme", successor=True, key=key)) == (not today and has_it)
    assert not NONE.serves(replace(A, chain=()), Line(profile="acme", key="00"))


@pytest.mark.parametrize(
    "change", [{"level": "pinned"}, {"witness": "async"}, {"opaque": ("digest",)}, {"test": True}], ids=str
)
def test_whoever_promises_something_else_than_the_first_is_unfit(change: dict[str, object]) -> None:
    other = replace(A, **change)  # type: ignore[arg-type]
    rows = POOLS.current((other, B, C))

    found = POOLS.unfit(other, rows, NOW_MS)
    assert found is not None
    assert found.code == "profile.differs"
    assert [POOLS.unfit(one, rows, NOW_MS) for one in (B, C)] == [None, None]
    assert NONE.unfit(other, (other, B), NOW_MS) is None


def test_the_order_of_opaque_formats_is_none() -> None:
    assert POOLS.unfit(replace(A, opaque=("other", "digest")), (B, A), NOW_MS) is None


def test_one_key_in_two_tokens_of_an_agent_is_used_in_the_first() -> None:
    twin = replace(A, chain=B.chain)

    assert POOLS.unfit(B, (B, twin), NOW_MS) is None
    found = POOLS.unfit(twin, (B, twin), NOW_MS)
    assert found is not None
    assert found.code == "profile.same_key"
    assert POOLS.unfit(replace(twin, agent="other"), (B, replace(twin, agent="other")), NOW_MS) is None


def test_a_certificate_counts_within_its_dates() -> None:
    begin_ms, end_ms = (int(one.timestamp() * 1000) for one in (BEGIN, END))

    codes = [
        found.code if (found := POOLS.unfit(B, (B,), at_ms)) else ""
        for at_ms in (begin_ms - 1, begin_ms, end_ms, end_ms + 1)
    ]
    assert codes == ["certificate.not_yet_valid", "", "", "certificate.expired"]


def request(name: str, *, key: str = "", queued_ms: int = NOW_MS, items: int = 2) -> QueuedRequest:
    made = Request(
        id=name,
        client="ci",
        idempotency_key=name,
        profile="acme",
        envelope=b"",
        created_ms=0,
        not_after_ms=0,
        queued_ms=queued_ms,
        priority=Priority.NORMAL,
        key=key,
    )
    return QueuedRequest(request=made, seq=int(name), items=items)


def test_the_line_of_a_key_stays_while_something_of_it_is_taken() -> None:
    board = QueueBoard(QueueTable(), (), {})
    line = Line(profile="acme", key="k")
    for name in ("1", "2"):
        board.put(request(name, key="k"))
    board.put(request("3"))

    assert {pick.waiting.request_id for pick in board.take(line, NOW_MS, 4)} == {"1", "2"}
    board.update({"1": None})
    board.update({"2": request("2", key="k", items=1)})
    assert board.keyed_lines() == (line,)
    board.remove("2")
    assert board.keyed_lines() == ()
    assert board.items == 2


def test_a_request_stands_where_it_did_when_it_was_taken() -> None:
    board = QueueBoard(QueueTable(), (), {"acme": SINCE_MS})

    moments = [(SINCE_MS - 1, False), (SINCE_MS, True), (SINCE_MS + 1, True)]
    assert [board.line(request("1", queued_ms=at).request).successor for at, _ in moments] == [
        successor for _, successor in moments
    ]
