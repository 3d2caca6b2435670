# SPDX-License-Identifier: Apache-2.0
"""A witness's decision (C2SP tlog-witness): every status it can give, and that it never contradicts itself."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from lying_hub import MemoryLog
from lying_logs import log_of
from privyseal.errors import MalformedInputError
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.note import NoteSignature, NoteSigner, parse_note
from privyseal.tlog.tree import EMPTY_ROOT
from privyseal.tlog.witness import (
    MAX_BODY_BYTES,
    NOTHING_SEEN,
    AddCheckpoint,
    Extension,
    Refusal,
    Seen,
    judge_checkpoint,
    parse_add_checkpoint,
)

ORIGIN = "log.example/a"
LOG = NoteSigner(name=ORIGIN, key=Ed25519PrivateKey.from_private_bytes(b"a" * 32))
NEW_KEY = NoteSigner(name=ORIGIN, key=Ed25519PrivateKey.from_private_bytes(b"n" * 32))
STRANGER = NoteSigner(name=ORIGIN, key=Ed25519PrivateKey.from_private_bytes(b"s" * 32))
LOGS = {ORIGIN: (LOG.verifier, NEW_KEY.verifier)}


HONEST = log_of(*"abcdefghij")
FORKED = log_of(*"abcXefghij")


def prefix(log: MemoryLog, size: int) -> MemoryLog:
    shorter = MemoryLog()
    shorter.entries[:] = log.entries[:size]
    return shorter


def seen(log: MemoryLog, size: int) -> dict[str, Seen]:
    return {ORIGIN: Seen(size=size, root=log.root(size))}


def request(
    old: int, new: int, log: MemoryLog = HONEST, *, origin: str = ORIGIN, signer: NoteSigner = LOG
) -> AddCheckpoint:
    """An honest log's request, proof included."""
    grown = prefix(log, new)
    checkpoint = Checkpoint(origin=origin, size=new, root=grown.root())
    return AddCheckpoint(
        old_size=old,
        proof=grown.consistency(old) if old <= new else (),
        note=parse_note(sign_checkpoint(checkpoint, signer)),
        checkpoint=checkpoint,
    )


def judged(asked: AddCheckpoint, last: dict[str, Seen] | None = None) -> Extension | Refusal:
    return judge_checkpoint(asked.encode(), logs=LOGS, seen=last or {})


def refused(asked: AddCheckpoint, last: dict[str, Seen] | None = None) -> tuple[int, int | None]:
    verdict = judged(asked, last)
    assert isinstance(verdict, Refusal)
    assert verdict.reason
    return verdict.status, verdict.size


@pytest.mark.parametrize(("old", "new"), [(old, new) for old in range(11) for new in range(old, 11)])
def test_every_growth_of_an_honest_log_is_accepted(old: int, new: int) -> None:
    verdict = judged(request(old, new), seen(HONEST, old) if old else None)

    assert verdict == Extension(
        origin=ORIGIN,
        seen=Seen(size=new, root=HONEST.root(new)),
        text=Checkpoint(origin=ORIGIN, size=new, root=HONEST.root(new)).text,
    )


def test_each_key_of_a_log_counts() -> None:
    assert isinstance(judged(request(0, 3, signer=NEW_KEY)), Extension)


def test_signatures_of_strangers_are_ignored() -> None:
    asked = request(0, 3)
    stranger = STRANGER.sign(asked.note.text)

    assert isinstance(
        judged(replace(asked, note=replace(asked.note, signatures=(stranger, *asked.note.signatures)))), Extension
    )


def test_extension_lines_are_part_of_what_is_cosigned() -> None:
    checkpoint = Checkpoint(origin=ORIGIN, size=3, root=HONEST.root(3), extensions=("more",))
    verdict = judged(replace(request(0, 3), note=parse_note(sign_checkpoint(checkpoint, LOG)), checkpoint=checkpoint))

    assert isinstance(verdict, Extension)
    assert verdict.text.endswith("\nmore\n")


def test_404_for_an_unknown_origin_also_if_a_known_key_signed() -> None:
    assert refused(request(0, 3, origin="log.example/other")) == (404, None)


def test_403_without_a_signature_of_a_known_key() -> None:
    assert refused(request(0, 3, signer=STRANGER)) == (403, None)


def test_403_for_a_known_key_s_signature_that_does_not_hold() -> None:
    asked = request(0, 3)
    line = asked.note.signatures[0]
    bad = NoteSignature(name=line.name, key_id=line.key_id, signature=bytes(64))

    assert refused(replace(asked, note=replace(asked.note, signatures=(bad,)))) == (403, None)


def test_403_comes_before_anything_that_tells_the_witness_s_state() -> None:
    assert refused(request(0, 3, signer=STRANGER), seen(HONEST, 5)) == (403, None)


@pytest.mark.parametrize("last", [0, 3, 5])
def test_400_if_the_old_size_is_above_the_checkpoint_s(last: int) -> None:
    assert refused(request(4, 3), seen(HONEST, last)) == (400, None)


@pytest.mark.parametrize(("old", "new", "last"), [(0, 7, 5), (4, 7, 5), (6, 7, 5), (2, 4, 5), (1, 1, 0), (3, 3, 5)])
def test_409_with_the_size_that_was_cosigned_last(old: int, new: int, last: int) -> None:
    assert refused(request(old, new), seen(HONEST, last)) == (409, last)


def test_409_without_a_size_for_a_second_root_at_one_size() -> None:
    assert refused(request(5, 5, FORKED), seen(HONEST, 5)) == (409, None)
    assert refused(replace_root(request(0, 0), b"r" * 32)) == (409, None)


def replace_root(asked: AddCheckpoint, root: bytes) -> AddCheckpoint:
    checkpoint = replace(asked.checkpoint, root=root)
    return replace(asked, note=parse_note(sign_checkpoint(checkpoint, LOG)), checkpoint=checkpoint)


@pytest.mark.parametrize(("old", "new"), [(old, new) for old in range(4, 10) for new in range(old + 1, 11)])
def test_422_for_a_forked_log(old: int, new: int) -> None:
    assert refused(request(old, new, FORKED), seen(HONEST, old)) == (422, None)


def test_a_fork_behind_the_last_cosigned_entry_is_no_fork_to_the_witness() -> None:
    assert isinstance(judged(request(3, 9, FORKED), seen(HONEST, 3)), Extension)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda proof: proof[:-1],
        lambda proof: (*proof, bytes(32)),
        lambda proof: (bytes(32), *proof[1:]),
        lambda proof: tuple(reversed(proof)),
        lambda _: (),
    ],
    ids=["shorter", "longer", "other", "reversed", "empty"],
)
def test_422_for_a_proof_that_does_not_hold(spoil: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> None:
    asked = request(5, 9)

    assert refused(replace(asked, proof=spoil(asked.proof)), seen(HONEST, 5)) == (422, None)


def test_422_for_a_proof_where_it_must_be_empty() -> None:
    assert refused(replace(request(0, 3), proof=(bytes(32),))) == (422, None)
    assert refused(replace(request(5, 5), proof=(bytes(32),)), seen(HONEST, 5)) == (422, None)


GOOD = request(5, 9).encode()
NOTE = GOOD[GOOD.index("\n\n") + 2 :]


NO_REQUESTS: tuple[str | bytes, ...] = (
    "",
    "\n",
    "old 0\n",
    "old 0\n\n",
    "old 0\n" + NOTE,
    "\n\n" + NOTE,
    "new 5\n\n" + NOTE,
    "old\n\n" + NOTE,
    "old  5\n\n" + NOTE,
    "old -1\n\n" + NOTE,
    "old 05\n\n" + NOTE,
    "old +5\n\n" + NOTE,
    "old 5 \n\n" + NOTE,
    "old \u0665\n\n" + NOTE,
    f"old {2**63}\n\n" + NOTE,
    "old 5\nAAAA\n\n" + NOTE,
    "old 5\nno base64\n\n" + NOTE,
    "old 5\n" + 64 * ("A" * 43 + "=\n") + "\n" + NOTE,
    GOOD.replace("=\n", "\n"),
    GOOD.replace("\n", "\r\n"),
    GOOD.replace("\n\n", "\n\n\n", 1),
    GOOD[:-1],
    GOOD + "x" * MAX_BODY_BYTES,
    GOOD.replace(f"{ORIGIN}\n9\n", f"{ORIGIN}\n09\n"),
    "old 0\n\nlog.example/a\n\n" + NOTE.split("\n\n")[1],
    GOOD.replace("log.example/a\n", "log.example/a\x00\n"),
    b"old 0\n\n\xff\xfe",
)


@pytest.mark.parametrize("body", NO_REQUESTS, ids=range(len(NO_REQUESTS)))
def test_400_for_what_is_no_request(body: str | bytes) -> None:
    verdict = judge_checkpoint(body, logs=LOGS, seen=seen(HONEST, 5))

    assert isinstance(verdict, Refusal)
    assert (verdict.status, verdict.size) == (400, None)


def test_the_largest_proof_and_note_fit() -> None:
    asked = request(0, 3)
    large = tuple(
        NoteSignature(name=f"witness.example/{number}", key_id=b"idid", signature=bytes(5000)) for number in range(15)
    )
    note = replace(asked.note, signatures=(*asked.note.signatures, *large))
    body = replace(asked, proof=(bytes(32),) * 63, note=note).encode()

    assert len(body) <= MAX_BODY_BYTES
    assert len(parse_add_checkpoint(body).proof) == 63


@given(st.integers(0, 2**63 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63))
def test_a_request_survives_its_text(old_size: int, proof: list[bytes]) -> None:
    asked = replace(request(0, 9), old_size=old_size, proof=tuple(proof))

    assert parse_add_checkpoint(asked.encode()) == asked
    assert parse_add_checkpoint(asked.encode().encode()) == asked


@given(st.integers(0, len(GOOD.encode()) - 1), st.integers(0, 255))
def test_a_changed_byte_never_gets_another_tree_cosigned(place: int, value: int) -> None:
    body = bytearray(GOOD.encode())
    body[place] = value

    verdict = judge_checkpoint(bytes(body), logs=LOGS, seen=seen(HONEST, 5))

    assert isinstance(verdict, Refusal) or verdict.seen == Seen(size=9, root=HONEST.root(9))


@given(st.binary(max_size=300))
def test_anything_else_is_refused_by_name(body: bytes) -> None:
    assert isinstance(judge_checkpoint(body, logs=LOGS, seen={}), Refusal)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10), st.integers(0, 10)), max_size=12))
def test_a_witness_never_goes_back_nor_cosigns_two_roots_at_one_size(asks: list[tuple[bool, int, int]]) -> None:
    state: dict[str, Seen] = {}
    cosigned = [NOTHING_SEEN]
    for forked, old, new in asks:
        verdict = judged(request(old, new, FORKED if forked else HONEST), state)
        if isinstance(verdict, Extension):
            state = state | {verdict.origin: verdict.seen}
            cosigned.append(verdict.seen)

    sizes = [one.size for one in cosigned]
    assert sizes == sorted(sizes)
    roots = {(one.size, one.root) for one in cosigned}
    assert len(roots) == len({size for size, _ in roots})
    assert any({one.root for one in cosigned} <= {log.root(size) for size in range(11)} for log in (HONEST, FORKED))


def test_only_named_errors_leave_the_parser() -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_add_checkpoint("old 5\n")
    assert caught.value.code == "witness.request"
    assert Seen(size=0, root=EMPTY_ROOT) == NOTHING_SEEN
