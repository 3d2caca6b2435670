# SPDX-License-Identifier: Apache-2.0
"""Cosignatures with ML-DSA-44 (C2SP tlog-cosignature): what is signed is computed here once more, field by field."""

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import ConfigError, MalformedInputError, VerificationError
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint
from privyseal.tlog.cosignature import (
    Cosignature,
    Cosigner,
    CosignerKey,
    LogKey,
    cosignatures,
    parse_cosigner_vkey,
    parse_log_vkey,
)
from privyseal.tlog.note import Note, NoteSignature, NoteSigner, parse_note, verify_note
from privyseal.tlog.tree import EMPTY_ROOT, leaf_hash

KEY = MLDSA44PrivateKey.from_seed_bytes(b"w" * 32)
RAW = KEY.public_key().public_bytes_raw()
WITNESS = Cosigner(name="witness.example/w1", key=KEY)
SAME = Cosigner(name="witness.example/w1", key=Ed25519PrivateKey.from_private_bytes(b"w" * 32))
LOG = NoteSigner(name="example.com/behind-the-sofa", key=Ed25519PrivateKey.from_private_bytes(b"l" * 32))
TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
SIGNATURE_BYTES = 2420

LITEWITNESS = (Path(__file__).parents[2] / "vectors/torchwood/litewitness-mldsa.txt").read_text("utf-8")
_, _, LITEWITNESS_VKEY, LITEWITNESS_NOTE = LITEWITNESS.split("\n", 3)

lines = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=60)
checkpoints = st.builds(
    Checkpoint,
    origin=lines,
    size=st.integers(0, 2**63 - 1),
    root=st.binary(min_size=32, max_size=32),
    extensions=st.lists(lines, max_size=2).map(tuple),
)
times = st.integers(0, 2**63 - 1)


def note_by(*signatures: NoteSignature, text: str = TEXT) -> Note:
    return Note(text=text, signatures=signatures)


def refusal(text: str, signature: bytes, key: CosignerKey = WITNESS.verifier) -> str:
    with pytest.raises(VerificationError) as caught:
        key.verify(text, signature)
    assert caught.value.code == "note.signature"
    return caught.value.message


def test_what_is_signed_is_what_the_specification_says() -> None:
    signature = WITNESS.sign(TEXT, 1679315147).signature

    assert len(signature) == 8 + SIGNATURE_BYTES
    assert signature[:8] == bytes.fromhex("00000000641850cb")
    message = (
        b"subtree/v1\n\x00"
        b"\x12witness.example/w1"
        b"\x00\x00\x00\x00\x64\x18\x50\xcb"
        b"\x1bexample.com/behind-the-sofa"
        b"\x00\x00\x00\x00\x00\x00\x00\x00"
        b"\x00\x00\x00\x00\x01\x3e\x2d\xc3"
        + bytes.fromhex("0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62")
    )
    KEY.public_key().verify(signature[8:], message)


def test_key_id_and_vkey_are_those_of_type_6() -> None:
    identifier = hashlib.sha256(b"witness.example/w1\n\x06" + RAW).digest()[:4]

    assert WITNESS.sign(TEXT, 0).key_id == identifier
    assert WITNESS.verifier.vkey == (
        f"witness.example/w1+{identifier.hex()}+{base64.b64encode(bytes([6]) + RAW).decode()}"
    )
    assert parse_cosigner_vkey(WITNESS.verifier.vkey) == WITNESS.verifier
    assert WITNESS.verifier.algorithm == "ML-DSA-44"


def test_the_checkpoint_that_litewitness_is_tested_with_verifies() -> None:
    key = parse_log_vkey(LITEWITNESS_VKEY)
    note = parse_note(LITEWITNESS_NOTE)

    assert verify_note(note, (key,)) == (key,)
    checkpoint = open_checkpoint(LITEWITNESS_NOTE, origin="example.com/mldsa-log", verifiers=(key,))
    assert (checkpoint.size, checkpoint.root) == (1, leaf_hash(b"testonly"))
    assert isinstance(key, CosignerKey)
    assert cosignatures(note, (key,)) == (Cosignature(key=key, seconds=0),)
    assert note.encode() == LITEWITNESS_NOTE


def test_the_key_of_litewitness_s_test_comes_out_of_its_seed() -> None:
    seed = bytes.fromhex("2886adc2b0eabfce67c0472939127998bf886cf256bfee8ba76a253fce1146e0")
    signer = Cosigner(name="example.com/mldsa-log", key=MLDSA44PrivateKey.from_seed_bytes(seed))

    assert signer.verifier.vkey == LITEWITNESS_VKEY


@given(checkpoints, times)
def test_a_cosignature_verifies_and_tells_its_time(checkpoint: Checkpoint, seconds: int) -> None:
    assert WITNESS.verifier.verify(checkpoint.text, WITNESS.sign(checkpoint.text, seconds).signature) == seconds


@given(times, st.integers(0, 8 * (8 + SIGNATURE_BYTES) - 1))
def test_no_bit_can_be_changed(seconds: int, bit: int) -> None:
    signature = WITNESS.sign(TEXT, seconds).signature
    changed = int.from_bytes(signature, "big") ^ (1 << bit)

    refusal(TEXT, changed.to_bytes(len(signature), "big"))


SIGNED = WITNESS.sign(TEXT, 7).signature


@given(st.one_of(st.integers(0, len(SIGNED) - 1).map(lambda end: SIGNED[:end]), st.binary(max_size=100)))
def test_a_cosignature_of_another_length_is_told_by_its_length(signature: bytes) -> None:
    assert f"has {len(signature)} bytes; of ML-DSA-44 it has 2428" in refusal(TEXT, signature)
    assert "bytes; of ML-DSA-44 it has 2428" in refusal(TEXT, SIGNED + signature + b"\0")


@given(checkpoints, checkpoints)
def test_another_tree_is_not_cosigned(one: Checkpoint, other: Checkpoint) -> None:
    if (one.origin, one.size, one.root) != (other.origin, other.size, other.root):
        refusal(other.text, WITNESS.sign(one.text, 7).signature)


def test_it_covers_the_tree_and_not_the_extension_lines() -> None:
    extended = TEXT + "extension\n"

    assert WITNESS.verifier.verify(extended, SIGNED) == 7
    refusal(extended, SAME.sign(TEXT, 7).signature, SAME.verifier)


def test_the_name_is_part_of_what_is_signed() -> None:
    renamed = CosignerKey(name="witness.example/w2", signature_type=6, public_key=RAW)

    refusal(TEXT, SIGNED, renamed)


def test_a_text_that_is_no_checkpoint_has_no_cosignature() -> None:
    with pytest.raises(MalformedInputError) as caught:
        WITNESS.sign("text\n", 7)
    assert caught.value.code == "checkpoint.malformed"
    assert "cannot be one" in refusal("text\n", SIGNED)


@pytest.mark.parametrize("origin", ["o" * 255, "ö" * 127])
def test_an_origin_has_up_to_255_bytes(origin: str) -> None:
    text = Checkpoint(origin=origin, size=0, root=EMPTY_ROOT).text

    assert WITNESS.verifier.verify(text, WITNESS.sign(text, 1).signature) == 1


@pytest.mark.parametrize("origin", ["o" * 256, "ö" * 128])
def test_an_origin_has_no_more_than_255_bytes(origin: str) -> None:
    text = Checkpoint(origin=origin, size=0, root=EMPTY_ROOT).text

    with pytest.raises(MalformedInputError) as caught:
        WITNESS.sign(text, 1)
    assert caught.value.code == "checkpoint.malformed"
    assert "has 256 bytes" in refusal(text, SIGNED)


def test_a_time_above_the_bound_is_refused() -> None:
    late = 2**63

    assert "2^63-1" in refusal(TEXT, late.to_bytes(8, "big") + SIGNED[8:])
    for seconds in (-1, late):
        with pytest.raises(MalformedInputError) as caught:
            WITNESS.sign(TEXT, seconds)
        assert caught.value.code == "cosignature.time"


def test_one_witness_signs_with_both_types_under_one_name() -> None:
    note = parse_note(
        note_by(LOG.sign(TEXT), SAME.sign(TEXT, 5), WITNESS.sign(TEXT, 6), WITNESS.sign(TEXT, 0)).encode()
    )

    assert cosignatures(note, (WITNESS.verifier,)) == (Cosignature(key=WITNESS.verifier, seconds=6),)
    assert [one.seconds for one in cosignatures(note, (SAME.verifier, WITNESS.verifier))] == [5, 6]


def test_a_bad_line_of_either_type_spoils_the_note_for_whoever_knows_its_key() -> None:
    bad = NoteSignature(name=WITNESS.verifier.name, key_id=WITNESS.verifier.key_id, signature=bytes(2428))
    note = note_by(SAME.sign(TEXT, 5), bad)

    assert [one.seconds for one in cosignatures(note, (SAME.verifier,))] == [5]
    with pytest.raises(VerificationError):
        cosignatures(note, (SAME.verifier, WITNESS.verifier))


def test_a_further_key_of_a_log_must_hold_and_is_not_enough() -> None:
    further = Cosigner(name=LOG.verifier.name, key=KEY)
    good, bad = further.sign(TEXT, 0), further.sign(TEXT.replace("1", "2"), 0)

    known, also = (LOG.verifier,), (further.verifier,)
    assert verify_note(note_by(LOG.sign(TEXT), good), known, also=also) == known
    assert verify_note(note_by(LOG.sign(TEXT)), known, also=also) == known
    assert verify_note(note_by(LOG.sign(TEXT), bad), known) == known
    for signatures, code in (((LOG.sign(TEXT), bad), "note.signature"), ((good,), "note.unsigned")):
        with pytest.raises(VerificationError) as caught:
            verify_note(note_by(*signatures), known, also=also)
        assert caught.value.code == code


def test_sixteen_cosigners_fit_into_a_note() -> None:
    signers = [Cosigner(name=f"witness.example/{number}", key=KEY) for number in range(16)]
    note = note_by(LOG.sign(TEXT), *(one.sign(TEXT, 9) for one in signers)).encode()

    found = cosignatures(parse_note(note.encode()), tuple(one.verifier for one in signers))

    assert [one.seconds for one in found] == [9] * 16


@pytest.mark.parametrize(("name", "raw"), [("", RAW), ("a b", RAW), ("w", RAW[:-1]), ("w", RAW[:32]), ("w" * 256, RAW)])
def test_a_key_has_a_name_of_255_bytes_and_1312_bytes(name: str, raw: bytes) -> None:
    with pytest.raises(MalformedInputError) as caught:
        CosignerKey(name=name, signature_type=6, public_key=raw)
    assert caught.value.code == "vkey.malformed"


def test_a_log_s_key_is_of_type_1_or_6() -> None:
    keys: tuple[LogKey, ...] = (LOG.verifier, WITNESS.verifier)

    assert tuple(parse_log_vkey(key.vkey) for key in keys) == keys
    with pytest.raises(MalformedInputError):
        parse_log_vkey(SAME.verifier.vkey)
    with pytest.raises(MalformedInputError):
        parse_cosigner_vkey(LOG.verifier.vkey)


def test_an_installation_without_ml_dsa_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "mldsa_supported", lambda: False)

    with pytest.raises(ConfigError) as caught:
        WITNESS.verifier.verify(TEXT, SIGNED)
    assert caught.value.code == "mldsa.unsupported"
