# SPDX-License-Identifier: Apache-2.0
"""Cosignatures with Ed25519 (C2SP tlog-cosignature): what is signed is computed here from its words."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.tlog.cosignature import Cosignature, Cosigner, CosignerKey, cosignatures, parse_cosigner_vkey
from privyseal.tlog.note import Note, NoteSignature, NoteSigner, parse_note, parse_vkey

KEY = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
RAW = KEY.public_key().public_bytes_raw()
SHORT = b"\n\x04" + RAW[:31]
WITNESS = Cosigner(name="witness.example/w1", key=KEY)
OTHER = Cosigner(name="witness.example/w2", key=Ed25519PrivateKey.from_private_bytes(b"v" * 32))

# The example of C2SP tlog-cosignature; its key is not published.
TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
EXAMPLE = (
    TEXT + "\n— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1n"
    "PZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)

texts = st.lists(st.text(max_size=20).filter(lambda line: "\n" not in line and line.isprintable()), min_size=1).map(
    lambda lines: "\n".join(lines) + "\n"
)
times = st.integers(0, 2**63 - 1)


def note_by(*signatures: NoteSignature) -> Note:
    return Note(text=TEXT, signatures=signatures)


def test_what_is_signed_is_what_the_specification_says() -> None:
    signature = WITNESS.sign(TEXT, 1679315147).signature

    assert signature[:8] == (1679315147).to_bytes(8, "big")
    message = (
        b"cosignature/v1\n"
        b"time 1679315147\n"
        b"example.com/behind-the-sofa\n"
        b"20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )
    KEY.public_key().verify(signature[8:], message)


def test_key_id_and_vkey_are_those_of_type_4() -> None:
    identifier = hashlib.sha256(b"witness.example/w1\n\x04" + RAW).digest()[:4]

    assert WITNESS.sign(TEXT, 0).key_id == identifier
    assert WITNESS.verifier.vkey == (
        f"witness.example/w1+{identifier.hex()}+{base64.b64encode(bytes([4]) + RAW).decode()}"
    )
    assert parse_cosigner_vkey(WITNESS.verifier.vkey) == WITNESS.verifier


def test_the_example_is_read_and_its_time_found() -> None:
    (line,) = parse_note(EXAMPLE).signatures

    assert int.from_bytes(line.signature[:8], "big") == 1679315147
    assert len(line.signature) == 8 + 64


@given(texts, times)
def test_a_cosignature_verifies_and_tells_its_time(text: str, seconds: int) -> None:
    assert WITNESS.verifier.verify(text, WITNESS.sign(text, seconds).signature) == seconds


@given(times, st.integers(0, 8 * 72 - 1))
def test_no_bit_can_be_changed(seconds: int, bit: int) -> None:
    signature = int.from_bytes(WITNESS.sign(TEXT, seconds).signature, "big") ^ (1 << bit)

    with pytest.raises(VerificationError) as caught:
        WITNESS.verifier.verify(TEXT, signature.to_bytes(72, "big"))
    assert caught.value.code == "note.signature"


@given(st.binary(max_size=100))
def test_anything_else_does_not_verify(signature: bytes) -> None:
    with pytest.raises(VerificationError):
        WITNESS.verifier.verify(TEXT, signature)


@given(texts, texts)
def test_another_text_is_not_cosigned(text: str, other: str) -> None:
    if text != other:
        with pytest.raises(VerificationError):
            WITNESS.verifier.verify(other, WITNESS.sign(text, 7).signature)


def test_a_time_above_the_bound_is_refused_though_it_is_signed() -> None:
    late = 2**63
    signature = late.to_bytes(8, "big") + KEY.sign(f"cosignature/v1\ntime {late}\n{TEXT}".encode())

    with pytest.raises(VerificationError):
        WITNESS.verifier.verify(TEXT, signature)
    for seconds in (-1, late):
        with pytest.raises(MalformedInputError) as caught:
            WITNESS.sign(TEXT, seconds)
        assert caught.value.code == "cosignature.time"


def test_strangers_are_ignored_and_the_newest_of_one_witness_counts() -> None:
    note = note_by(OTHER.sign(TEXT, 5), WITNESS.sign(TEXT, 9), WITNESS.sign(TEXT, 3))

    assert cosignatures(note, (WITNESS.verifier,)) == (Cosignature(key=WITNESS.verifier, seconds=9),)
    assert [one.seconds for one in cosignatures(note, (WITNESS.verifier, OTHER.verifier))] == [9, 5]
    assert cosignatures(note_by(OTHER.sign(TEXT, 5)), (WITNESS.verifier,)) == ()


def test_a_bad_line_of_a_known_witness_spoils_the_note() -> None:
    good = WITNESS.sign(TEXT, 9)
    bad = NoteSignature(name=good.name, key_id=good.key_id, signature=good.signature[:-1] + b"\x00\x00")

    with pytest.raises(VerificationError):
        cosignatures(note_by(good, bad), (WITNESS.verifier,))


def test_a_log_s_signature_is_no_cosignature_of_the_same_key() -> None:
    signer = NoteSigner(name=WITNESS.verifier.name, key=KEY)

    assert cosignatures(note_by(signer.sign(TEXT)), (WITNESS.verifier,)) == ()
    with pytest.raises(MalformedInputError) as as_witness:
        parse_cosigner_vkey(signer.verifier.vkey)
    with pytest.raises(MalformedInputError) as as_log:
        parse_vkey(WITNESS.verifier.vkey)
    assert as_witness.value.code == as_log.value.code == "vkey.malformed"


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "witness.example/w1",
        WITNESS.verifier.vkey[:-4],
        WITNESS.verifier.vkey.replace("w1", "w2"),
        WITNESS.verifier.vkey.replace("witness", "wit ness"),
        "w+" + hashlib.sha256(b"w\n").hexdigest()[:8] + "+",
        "w+"
        + hashlib.sha256(b"w\n\x04" + RAW[:31]).hexdigest()[:8]
        + "+"
        + base64.b64encode(b"\4" + RAW[:31]).decode(),
        "w" * 5000,
    ],
)
def test_no_witness_s_key_is_refused(vkey: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_cosigner_vkey(vkey)
    assert caught.value.code == "vkey.malformed"


def test_a_cosignature_of_another_length_is_told_by_its_length() -> None:
    with pytest.raises(VerificationError) as caught:
        WITNESS.verifier.verify(TEXT, bytes(2428))
    assert "2428 bytes" in caught.value.message


def test_a_key_has_a_name_and_32_bytes() -> None:
    for name, raw in (("", RAW), ("a b", RAW), ("w", RAW[:31])):
        with pytest.raises(MalformedInputError):
            CosignerKey(name=name, signature_type=4, public_key=raw)
