# SPDX-License-Identifier: Apache-2.0
"""Signed notes, verifier keys and checkpoints (C2SP signed-note, tlog-checkpoint)."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.tlog.checkpoint import (
    Checkpoint,
    open_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
)
from privyseal.tlog.note import (
    Note,
    NoteSignature,
    NoteSigner,
    VerifierKey,
    parse_note,
    parse_vkey,
    verify_note,
)

# The example in the documentation of Go's golang.org/x/mod/sumdb/note: judged by somebody else's signature.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXg"
    "KvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

# The example of C2SP tlog-checkpoint.
C2SP_CHECKPOINT = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5"
    "/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)

SIGNER = NoteSigner(name="log.example/a", key=Ed25519PrivateKey.from_private_bytes(b"a" * 32))
OTHER = NoteSigner(name="log.example/b", key=Ed25519PrivateKey.from_private_bytes(b"b" * 32))
TEXT = "text\n\nwith an empty line\n"


def note_by(*signers: NoteSigner, text: str = TEXT) -> Note:
    return Note(text=text, signatures=tuple(signer.sign(text) for signer in signers))


def test_a_note_signed_by_go_verifies() -> None:
    key = parse_vkey(GO_VKEY)

    assert verify_note(parse_note(GO_NOTE), (key,)) == (key,)
    assert parse_note(GO_NOTE).encode() == GO_NOTE
    assert key.vkey == GO_VKEY


def test_the_example_checkpoint_is_read_as_it_stands() -> None:
    note = parse_note(C2SP_CHECKPOINT.encode())

    checkpoint = parse_checkpoint(note.text)

    assert checkpoint.origin == "example.com/behind-the-sofa"
    assert checkpoint.size == 20852163
    assert checkpoint.text == note.text
    assert note.encode() == C2SP_CHECKPOINT


def test_unknown_signatures_are_ignored() -> None:
    note = note_by(OTHER, SIGNER)

    assert verify_note(note, (SIGNER.verifier,)) == (SIGNER.verifier,)
    assert verify_note(note, (SIGNER.verifier, OTHER.verifier)) == (SIGNER.verifier, OTHER.verifier)


@pytest.mark.parametrize("shared", ["name", "key ID"])
def test_sharing_a_name_or_a_key_id_is_not_enough(shared: str) -> None:
    honest = SIGNER.sign(TEXT)
    stranger = NoteSignature(
        name=honest.name if shared == "name" else "stranger",
        key_id=b"none" if shared == "name" else honest.key_id,
        signature=b"no signature at all",
    )

    assert verify_note(Note(text=TEXT, signatures=(stranger, honest)), (SIGNER.verifier,))
    with pytest.raises(VerificationError) as caught:
        verify_note(Note(text=TEXT, signatures=(stranger,)), (SIGNER.verifier,))
    assert caught.value.code == "note.unsigned"


def test_one_bad_signature_of_a_known_key_spoils_the_note() -> None:
    honest = SIGNER.sign(TEXT)
    bad = NoteSignature(name=honest.name, key_id=honest.key_id, signature=bytes(64))

    for signatures in ((honest, bad), (bad, honest)):
        with pytest.raises(VerificationError) as caught:
            verify_note(Note(text=TEXT, signatures=signatures), (SIGNER.verifier,))
        assert caught.value.code == "note.signature"


def test_a_key_that_signed_twice_counts_once() -> None:
    assert verify_note(note_by(SIGNER, SIGNER), (SIGNER.verifier,)) == (SIGNER.verifier,)


def test_another_text_is_not_signed() -> None:
    note = Note(text="other\n", signatures=note_by(SIGNER).signatures)

    with pytest.raises(VerificationError) as caught:
        verify_note(note, (SIGNER.verifier,))

    assert caught.value.code == "note.signature"


def test_sixteen_large_signatures_are_accepted() -> None:
    large = tuple(
        NoteSignature(name=f"witness.example/{number}", key_id=b"idid", signature=bytes(5000)) for number in range(16)
    )
    note = Note(text=TEXT, signatures=(*large, SIGNER.sign(TEXT)))

    assert verify_note(parse_note(note.encode()), (SIGNER.verifier,))


GOOD = note_by(SIGNER).encode()


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "text\n",
        "text\n\n",
        "text\n\nno signature\n",
        GOOD[:-1],
        GOOD + "\n",
        GOOD + "trailing\n",
        GOOD.replace("—", "-"),
        GOOD.replace("— ", "—"),
        GOOD.replace("log.example/a", "log example/a"),
        GOOD.replace("log.example/a", "log+example/a"),
        GOOD.replace("log.example/a", ""),
        GOOD.replace("log.example/a", "log\u00a0example"),
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("text", "te\x00xt"),
        GOOD.replace("text", "te\txt"),
        GOOD.replace("text", "te\ud800xt"),
        GOOD[:-3] + "\n",
        GOOD[:-1] + " \n",
        GOOD[:-1] + "!\n",
        "text\n\n— name AAAA\n",
        "text\n\n— name AAAAAAB=\n",
        "text\n\n" + "— name AAAAAAA=\n" * 65,
        "x" * 600_000,
        "\n" * 600_000,
        "\u20ac" * 200_000,
        b"\xff\xfe",
        b"x" * 600_000,
    ],
)
def test_malformed_notes_are_refused(note: str | bytes) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_note(note)

    assert caught.value.code == "note.malformed"


@pytest.mark.parametrize("text", ["", "no newline", "tab\there\n", "bell\x07\n", "sur\ud800\n", "x" * 600_000 + "\n"])
def test_what_cannot_stand_in_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        SIGNER.sign(text)

    assert caught.value.code == "note.malformed"


MATERIAL = GO_VKEY.split("+", 2)[2]


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "+",
        "++",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        f"PeterNeumann+c74f20a4+{MATERIAL}",
        f"PeterNeumann+c74f20a+{MATERIAL}",
        f"PeterNeumann+0xc74f20+{MATERIAL}",
        f"Peter Neumann+c74f20a3+{MATERIAL}",
        f"+c74f20a3+{MATERIAL}",
        f"PeterNeumann+c74f20a3+{MATERIAL}=",
        f"PeterNeumann+c74f20a3+{MATERIAL[:-4]}",
        "PeterNeumann+c74f20a3+" + base64.b64encode(b"\x04" + bytes(32)).decode(),
        "PeterNeumann+c74f20a3+" + base64.b64encode(b"\x01").decode(),
        "x" * 10_000,
        f"\ud800+c74f20a3+{MATERIAL}",
    ],
)
def test_malformed_verifier_keys_are_refused(vkey: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_vkey(vkey)

    assert caught.value.code == "vkey.malformed"


def test_a_point_that_is_no_key_verifies_nothing() -> None:
    key = VerifierKey(name="log.example/a", public_key=b"\xff" * 32)
    forged = NoteSignature(name=key.name, key_id=key.key_id, signature=bytes(64))

    with pytest.raises(VerificationError) as caught:
        verify_note(Note(text=TEXT, signatures=(forged,)), (key,))

    assert caught.value.code == "note.signature"


ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f"origin\n5\n{ROOT}",
        "origin\n5\n",
        f"\n5\n{ROOT}\n",
        f"origin\n05\n{ROOT}\n",
        f"origin\n\n{ROOT}\n",
        f"origin\n-5\n{ROOT}\n",
        f"origin\n+5\n{ROOT}\n",
        f"origin\n 5\n{ROOT}\n",
        f"origin\n5_0\n{ROOT}\n",
        f"origin\n\u0665\n{ROOT}\n",
        f"origin\n{2**63}\n{ROOT}\n",
        f"origin\n{'9' * 100_000}\n{ROOT}\n",
        f"origin\n5\n{ROOT[:-1]}\n",
        f"origin\n5\n{ROOT[:-2]}J=\n",
        "origin\n5\nAAAA\n",
        f"origin\n5\n{ROOT}\n\n",
        f"origin\n5\n{ROOT}\n\nextension\n",
        f"origin\n5\n{ROOT}\r\n",
        f"origin\n5\n{ROOT}\nexten\tsion\n",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_checkpoint(text)

    assert caught.value.code == "checkpoint.malformed"


def test_a_checkpoint_opens_with_the_log_key_alone() -> None:
    checkpoint = Checkpoint(origin="log.example/a", size=0, root=bytes(32), extensions=("one", "two"))
    note = sign_checkpoint(checkpoint, SIGNER)

    assert open_checkpoint(note, origin="log.example/a", verifiers=(SIGNER.verifier,)) == checkpoint
    with pytest.raises(VerificationError) as unsigned:
        open_checkpoint(note, origin="log.example/a", verifiers=(OTHER.verifier,))
    with pytest.raises(VerificationError) as elsewhere:
        open_checkpoint(note, origin="log.example/other", verifiers=(SIGNER.verifier,))
    assert (unsigned.value.code, elsewhere.value.code) == ("note.unsigned", "checkpoint.origin")
