# SPDX-License-Identifier: Apache-2.0
"""Properties of the log's text and bundle codecs: round trip, mutation, truncation, only named errors."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.tlog.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from privyseal.tlog.note import Note, NoteSignature, NoteSigner, parse_note, parse_vkey
from privyseal.tlog.proof import inclusion_proof, inclusion_tiles
from privyseal.tlog.receipt import MAX_RECEIPT_BYTES, Receipt, parse_receipt, verify_receipt
from privyseal.tlog.tile import decode_bundle, encode_bundle, parse_path
from privyseal.tlog.tree import Frontier, leaf_hash

SIGNER = NoteSigner(name="log.example/a", key=Ed25519PrivateKey.from_private_bytes(b"a" * 32))
ENTRIES = tuple(b"entry %d" % number for number in range(21))

hashes = st.binary(min_size=32, max_size=32)
names = st.text(min_size=1, max_size=20).filter(
    lambda text: "+" not in text and not any(char.isspace() or char < " " for char in text)
)
lines = st.text(max_size=30).filter(lambda text: all(char >= " " for char in text))
full_lines = lines.filter(bool)
signatures = st.builds(
    NoteSignature,
    name=names,
    key_id=st.binary(min_size=4, max_size=4),
    signature=st.binary(min_size=1, max_size=80),
)
checkpoints = st.builds(
    Checkpoint,
    origin=full_lines,
    size=st.integers(0, 2**63 - 1),
    root=hashes,
    extensions=st.lists(full_lines, max_size=3).map(tuple),
)
receipts = st.builds(
    Receipt,
    index=st.integers(0, 2**63 - 1),
    proof=st.lists(hashes, max_size=64).map(tuple),
    checkpoint=checkpoints.map(lambda checkpoint: sign_checkpoint(checkpoint, SIGNER)),
    extra=st.binary(max_size=200),
)


@given(st.lists(lines, min_size=1), st.lists(signatures, min_size=1, max_size=4))
def test_a_note_survives_its_text(text: list[str], signed: list[NoteSignature]) -> None:
    note = Note(text="\n".join(text) + "\n", signatures=tuple(signed))

    assert parse_note(note.encode()) == note
    assert parse_note(note.encode().encode()) == note


@given(checkpoints)
def test_a_checkpoint_survives_its_text(checkpoint: Checkpoint) -> None:
    assert parse_checkpoint(checkpoint.text) == checkpoint


@given(receipts)
def test_a_receipt_survives_its_text(receipt: Receipt) -> None:
    assert parse_receipt(receipt.encode()) == receipt


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256).map(tuple))
def test_a_bundle_survives_its_encoding(entries: tuple[bytes, ...]) -> None:
    assert decode_bundle(encode_bundle(entries), width=len(entries)) == entries


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=9).map(tuple), st.data())
def test_a_cut_or_longer_bundle_is_refused(entries: tuple[bytes, ...], data: st.DataObject) -> None:
    bundle = encode_bundle(entries)
    wrong = data.draw(st.integers(0, len(bundle) - 1).map(lambda end: bundle[:end]) | st.just(bundle + b"x"))

    with pytest.raises(MalformedInputError) as caught:
        decode_bundle(wrong, width=len(entries))

    assert caught.value.code == "bundle.malformed"


def honest_receipt() -> Receipt:
    frontier = Frontier()
    for entry in ENTRIES:
        frontier = frontier.append(leaf_hash(entry)).frontier
    leaves = b"".join(leaf_hash(entry) for entry in ENTRIES)
    size = len(ENTRIES)
    tiles = dict.fromkeys(inclusion_tiles(7, size), leaves)
    return Receipt(
        index=7,
        proof=inclusion_proof(7, size, tiles),
        checkpoint=sign_checkpoint(Checkpoint(origin="log.example/a", size=size, root=frontier.root), SIGNER),
        extra=ENTRIES[7],
    )


RECEIPT = honest_receipt()
RECEIPT_TEXT = RECEIPT.encode()


def verify(text: str | bytes) -> Checkpoint:
    receipt = parse_receipt(text)
    return verify_receipt(receipt, entry=receipt.extra, origin="log.example/a", verifiers=(SIGNER.verifier,))


def test_an_honest_receipt_holds() -> None:
    assert verify(RECEIPT_TEXT).size == len(ENTRIES)


@pytest.mark.parametrize("end", range(len(RECEIPT_TEXT)))
def test_a_receipt_cut_off_anywhere_is_refused(end: int) -> None:
    with pytest.raises((MalformedInputError, VerificationError)):
        verify(RECEIPT_TEXT[:end])


def test_a_receipt_with_any_flipped_bit_is_refused() -> None:
    whole = RECEIPT_TEXT.encode()
    accepted = []
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            verify(bytes(changed))
        except (MalformedInputError, VerificationError):
            continue
        accepted.append(bit)

    assert accepted == []


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("header", lambda text: text.replace("@v1", "@v2")),
        ("index with zeroes", lambda text: text.replace("index 7", "index 07")),
        ("no index", lambda text: text.replace("index 7\n", "")),
        ("two indexes", lambda text: text.replace("index 7\n", "index 7\nindex 7\n")),
        ("huge index", lambda text: text.replace("index 7", "index " + "7" * 100_000)),
        ("empty extra", lambda text: text.replace("index 7\n", "extra \nindex 7\n")),
        ("extra behind", lambda text: text.replace("index 7\n", "index 7\nextra AAAA\n")),
        ("many hashes", lambda text: text.replace("index 7\n", "index 7\n" + "A" * 43 + "=\n" * 100)),
        ("million lines", lambda text: text.replace("index 7\n", "index 7\n" + "A\n" * 400_000)),
        ("carriage returns", lambda text: text.replace("\n", "\r\n")),
        ("no checkpoint", lambda text: text.partition("\n\n")[0] + "\n\n"),
        ("size bomb", lambda text: text + "x" * MAX_RECEIPT_BYTES),
    ],
)
def test_malformed_receipts_are_refused(what: str, change: Callable[[str], str]) -> None:
    with pytest.raises(MalformedInputError):
        parse_receipt(change(RECEIPT_TEXT))


def test_a_receipt_does_not_hold_for_another_entry_or_log() -> None:
    with pytest.raises(VerificationError) as entry:
        verify_receipt(RECEIPT, entry=ENTRIES[8], origin="log.example/a", verifiers=(SIGNER.verifier,))
    with pytest.raises(VerificationError) as origin:
        verify_receipt(RECEIPT, entry=ENTRIES[7], origin="log.example/b", verifiers=(SIGNER.verifier,))

    assert (entry.value.code, origin.value.code) == ("proof.inclusion", "checkpoint.origin")


PARSERS = [
    parse_note,
    parse_receipt,
    lambda text: parse_note(text.encode(errors="replace")),
    parse_checkpoint,
    parse_vkey,
    parse_path,
]
ALPHABET = st.sampled_from(
    [
        "\n",
        "\n\n",
        "— ",
        " ",
        "+",
        "=",
        "/",
        "x",
        "0",
        "7",
        "index ",
        "extra ",
        "name",
        "AAAA",
        "\x00",
        "\ud800",
        "é",
        "c2sp.org/tlog-proof@v1\n",
        "tile/",
        "entries/",
        ".p/",
        "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
    ]
)


def problem(parse: Callable[[], object]) -> str:
    """The code of a refusal; anything but a refusal by name leaves as it comes."""
    try:
        parse()
    except MalformedInputError as error:
        return error.code
    return ""


@given(st.sampled_from(PARSERS), st.lists(ALPHABET, max_size=20).map("".join) | st.text())
def test_any_text_is_read_or_refused_by_name(parse: Callable[[str], object], text: str) -> None:
    code = problem(lambda: parse(text))

    assert not code or code.endswith(".malformed")


@given(st.binary(max_size=600), st.integers(1, 256))
def test_any_bundle_is_read_or_refused_by_name(data: bytes, width: int) -> None:
    code = problem(lambda: decode_bundle(data, width=width))

    assert code in ("", "bundle.malformed")
    if not code:
        assert encode_bundle(decode_bundle(data, width=width)) == data
