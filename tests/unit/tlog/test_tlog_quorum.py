# SPDX-License-Identifier: Apache-2.0
"""Quorum policies (C2SP tlog-policy): what is a policy, and when one is met, counted here once more by hand."""

import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.note import Note, NoteSignature, NoteSigner
from privyseal.tlog.quorum import MAX_POLICY_BYTES, QuorumPolicy, open_cosigned, parse_policy, policy_of_all

LOG = NoteSigner(name="log.example/a", key=Ed25519PrivateKey.from_private_bytes(b"a" * 32))
NAMES = ("X1", "X2", "X3", "Y1", "Y2", "Y3")
WITNESSES = {
    name: Cosigner(name=f"witness.example/{name}", key=Ed25519PrivateKey.from_private_bytes(name.encode() * 16))
    for name in NAMES
}
VKEY = {name: witness.verifier.vkey for name, witness in WITNESSES.items()}
TEXT = Checkpoint(origin="log.example/a", size=3, root=bytes(32)).text

#: The example of C2SP tlog-policy.
EXAMPLE = f"""
log {LOG.verifier.vkey}

witness X1 {VKEY["X1"]}
witness X2 {VKEY["X2"]} https://x2.example/
\twitness  X3\t{VKEY["X3"]}
group X-witnesses 2 X1 X2 X3

# the other organization's
  # also a comment
witness Y1 {VKEY["Y1"]}
witness Y2 {VKEY["Y2"]}
witness Y3 {VKEY["Y3"]}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def policy(text: str) -> QuorumPolicy:
    return parse_policy(text.encode())


def note_by(*names: str, log: NoteSigner = LOG) -> bytes:
    lines = (log.sign(TEXT), *(WITNESSES[name].sign(TEXT, place) for place, name in enumerate(names)))
    return Note(text=TEXT, signatures=lines).encode().encode()


def test_the_example_is_met_by_two_of_x_and_one_of_y_and_by_nothing_less() -> None:
    example = policy(EXAMPLE)

    assert [one.url for one in example.witnesses] == ["", "https://x2.example/", "", "", "", ""]
    for count in range(len(NAMES) + 1):
        for names in itertools.combinations(NAMES, count):
            enough = len([name for name in names if name[0] == "X"]) >= 2 and any(name[0] == "Y" for name in names)
            assert example.is_met(frozenset(names)) == enough


def test_a_checkpoint_that_meets_it_tells_who_cosigned_when() -> None:
    opened = open_cosigned(note_by("X3", "Y2", "X1"), policy(EXAMPLE), (LOG.verifier,))

    assert opened.checkpoint.size == 3
    assert [(name, one.seconds) for name, one in opened.cosigned] == [("X1", 2), ("X3", 0), ("Y2", 1)]


@pytest.mark.parametrize("names", [(), ("X1", "X2"), ("X1", "Y1"), ("Y1", "Y2", "Y3")])
def test_too_few_cosignatures_are_told(names: tuple[str, ...]) -> None:
    with pytest.raises(VerificationError) as caught:
        open_cosigned(note_by(*names), policy(EXAMPLE), (LOG.verifier,))

    assert caught.value.code == "quorum.not_met"
    assert "X-and-Y" in caught.value.message


def test_a_witness_that_cosigned_twice_counts_once() -> None:
    with pytest.raises(VerificationError) as caught:
        open_cosigned(note_by("X1", "X1", "Y1"), policy(EXAMPLE), (LOG.verifier,))

    assert caught.value.code == "quorum.not_met"


def test_witnesses_do_not_speak_for_the_log() -> None:
    stranger = NoteSigner(name=LOG.verifier.name, key=Ed25519PrivateKey.from_private_bytes(b"s" * 32))
    renamed = NoteSigner(name="log.example/b", key=Ed25519PrivateKey.from_private_bytes(b"a" * 32))

    for note, keys, code in (
        (note_by("X1", "X2", "Y1", log=stranger), (LOG.verifier,), "note.unsigned"),
        (note_by("X1", "X2", "Y1", log=renamed), (renamed.verifier,), "checkpoint.origin"),
        (note_by("X1", "X2", "Y1"), (), "checkpoint.origin"),
    ):
        with pytest.raises(VerificationError) as caught:
            open_cosigned(note, policy(EXAMPLE), keys)
        assert caught.value.code == code


def test_a_cosignature_that_does_not_hold_is_not_passed_over() -> None:
    good = WITNESSES["X1"].sign(TEXT, 5)
    bad = NoteSignature(name=good.name, key_id=good.key_id, signature=bytes(72))
    note = Note(text=TEXT, signatures=(LOG.sign(TEXT), bad)).encode().encode()

    with pytest.raises(VerificationError) as caught:
        open_cosigned(note, policy(f"witness w {VKEY['X1']}\nquorum none\n"), (LOG.verifier,))
    assert caught.value.code == "note.signature"


def test_one_witness_or_none_can_be_the_quorum() -> None:
    single = policy(f"witness w {VKEY['X1']}\nquorum w\n")

    assert single.is_met(frozenset({"w"}))
    assert not single.is_met(frozenset())
    assert policy("quorum none").is_met(frozenset())


def test_the_policy_of_named_keys_wants_all_of_them() -> None:
    both = policy_of_all((WITNESSES["X1"].verifier, WITNESSES["X2"].verifier, WITNESSES["X1"].verifier))

    first, second = ("+".join(VKEY[name].split("+")[:2]) for name in ("X1", "X2"))
    assert both.is_met(frozenset({first, second}))
    assert not both.is_met(frozenset({first}))
    assert policy_of_all(()).is_met(frozenset())


def test_names_are_octets() -> None:
    two = f"witness \u212a {VKEY['X1']}\nwitness K {VKEY['X2']}\n".encode() + b"witness \xff " + VKEY["Y1"].encode()

    assert len({one.name for one in parse_policy(two + b"\nquorum K").witnesses}) == 3


W = f"witness w {VKEY['X1']}\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 0),
        (W, 0),
        (W + "quorum w\nquorum w\n", 0),
        (W + "quorum x\n", 2),
        ("quorum w\n" + W, 1),
        (W + "quorum\n", 2),
        (W + "quorum w w\n", 2),
        (W + "qourum w\n", 2),
        (W + W.replace("w ", "v ") + "quorum w\n", 2),
        (W + f"witness w {VKEY['X2']}\nquorum w\n", 2),
        (f"witness none {VKEY['X1']}\nquorum none\n", 1),
        (f"witness w {LOG.verifier.vkey}\nquorum w\n", 1),
        (f"witness w {VKEY['X1']} https://a https://b\nquorum w\n", 1),
        (f"witness {VKEY['X1']}\nquorum none\n", 1),
        (W + f"log {VKEY['X2']}\nquorum w\n", 2),
        (W + f"log {LOG.verifier.vkey}\nlog {LOG.verifier.vkey}\nquorum w\n", 3),
        (W + "group g any\nquorum w\n", 2),
        (W + "group g any v\nquorum w\n", 2),
        (W + "group g any g\nquorum w\n", 2),
        (W + "group g any none\nquorum w\n", 2),
        (W + "group none any w\nquorum w\n", 2),
        (W + "group w any w\nquorum w\n", 2),
        (W + "group g any w w\nquorum w\n", 2),
        (W + "group g any w\ngroup h any w\nquorum h\n", 3),
        (W + "group g 0 w\nquorum g\n", 2),
        (W + "group g 2 w\nquorum g\n", 2),
        (W + "group g 01 w\nquorum g\n", 2),
        (W + "group g -1 w\nquorum g\n", 2),
        (W + "group g \u0661 w\nquorum g\n", 2),
        (W + "group g most w\nquorum g\n", 2),
        (W + "quorum w\r\n", 0),
        (W + "quorum w\x00\n", 0),
        (W + "quorum\u00a0w\n", 2),
        (W + "quorum w\n" + "#" * MAX_POLICY_BYTES, 0),
    ],
    ids=itertools.count(),
)
def test_what_is_no_policy_is_refused_by_its_line(text: str, line: int) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_policy(text.encode())

    assert caught.value.code == "quorum.malformed"
    assert caught.value.message.startswith(f"line {line} ") == bool(line)


@given(st.integers(1, 6), st.sets(st.sampled_from(NAMES)))
def test_a_threshold_is_counted(least: int, cosigned: set[str]) -> None:
    lines = [f"witness {name} {VKEY[name]}\n" for name in NAMES]
    counted = policy("".join(lines) + f"group g {least} {' '.join(NAMES)}\nquorum g\n")

    assert counted.is_met(frozenset(cosigned)) == (len(cosigned) >= least)


@given(st.binary(max_size=300))
def test_anything_else_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_policy(data)
    assert caught.value.code == "quorum.malformed"


PQ = {
    name: Cosigner(name=f"witness.example/{name}", key=MLDSA44PrivateKey.from_seed_bytes(name.encode() * 16))
    for name in NAMES[:2]
}
BOTH = "".join(
    f"witness {name} {VKEY[name]}\nwitness {name}-pq {PQ[name].verifier.vkey} https://{name}.example/\n" for name in PQ
)


def test_cosignatures_of_both_types_meet_a_policy() -> None:
    mixed = policy(f"{BOTH}group X1-any any X1 X1-pq\ngroup X2-any any X2 X2-pq\ngroup q all X1-any X2-any\nquorum q\n")

    for met, signers in (
        (True, (WITNESSES["X1"], PQ["X2"])),
        (True, (PQ["X1"], PQ["X2"])),
        (False, (WITNESSES["X1"], PQ["X1"])),
    ):
        lines = (LOG.sign(TEXT), *(one.sign(TEXT, 5) for one in signers))
        note = Note(text=TEXT, signatures=lines).encode().encode()
        if met:
            assert len(open_cosigned(note, mixed, (LOG.verifier,)).cosigned) == 2
            continue
        with pytest.raises(VerificationError) as caught:
            open_cosigned(note, mixed, (LOG.verifier,))
        assert caught.value.code == "quorum.not_met"


@pytest.mark.parametrize(
    "rest",
    [
        "group q 2 X1 X1-pq\nquorum q",
        "group q all X1 X1-pq\nquorum q",
        "group q 2 X1 X1-pq X2\nquorum q",
        "group a any X1 X2\ngroup b any X1-pq X2-pq\ngroup q all a b\nquorum q",
        "group a any X1\ngroup q 2 a X1-pq\nquorum q",
    ],
)
def test_a_witness_with_two_keys_cannot_count_twice(rest: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        policy(f"{BOTH}{rest}\n")

    assert caught.value.code == "quorum.malformed"
    assert "witness.example/X1 has keys of two types" in caught.value.message
    assert "X1 and X1-pq" in caught.value.message


@pytest.mark.parametrize("rest", ["quorum X1", "group q all X1 X2\nquorum q", "group q any X1 X1-pq X2\nquorum q"])
def test_a_witness_with_two_keys_may_count_once(rest: str) -> None:
    assert policy(f"{BOTH}{rest}\n").is_met(frozenset({"X1", "X2"}))


def test_a_name_is_defined_once_also_for_two_keys() -> None:
    with pytest.raises(MalformedInputError) as caught:
        policy(f"witness X1 {VKEY['X1']}\nwitness X1 {PQ['X1'].verifier.vkey}\nquorum X1\n")
    assert "is taken" in caught.value.message


def test_all_of_two_keys_means_both() -> None:
    both = policy_of_all((WITNESSES["X1"].verifier, PQ["X1"].verifier))
    names = tuple(one.name for one in both.witnesses)

    assert both.is_met(frozenset(names))
    assert not any(both.is_met(frozenset({name})) for name in names)


def test_a_policy_s_log_may_sign_with_ml_dsa_alone() -> None:
    log = Cosigner(name="log.example/a", key=MLDSA44PrivateKey.from_seed_bytes(b"l" * 32))
    accepting = policy(f"log {log.verifier.vkey}\nquorum none\n")
    keys = tuple(one.key for one in accepting.logs)

    note = Note(text=TEXT, signatures=(log.sign(TEXT, 0),)).encode().encode()
    assert open_cosigned(note, accepting, keys).checkpoint.size == 3
    with pytest.raises(VerificationError):
        open_cosigned(note, accepting, (LOG.verifier,))
    with pytest.raises(MalformedInputError):
        policy(f"log {log.verifier.vkey}\nlog {log.verifier.vkey}\nquorum none\n")
