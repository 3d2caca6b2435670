# SPDX-License-Identifier: Apache-2.0
"""Signatures apart from their files: removed, extracted, attached; a file is whole at all times."""

from pathlib import Path

import pytest

from pe_samples import ANCHORS, make_pe, sign, table_of, verify, with_table
from pki_samples import NOW, signer
from privyseal.client.signature_file import attach_signature, extract_signature, remove_signatures, signature_path
from privyseal.errors import ConfigError, MalformedInputError, PrivysealError, UnsupportedInputError
from privyseal.formats.model import Placement, SignOptions, TrustAnchors
from programs import unchanged

IMAGE = make_pe(sections=(b"\x90" * 512, b"data" * 128), overlay=b"its own")
NOBODY = TrustAnchors(code_signing=())


def now_ms() -> int:
    return int(NOW.timestamp() * 1000)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    path = tmp_path / "built.exe"
    path.write_bytes(IMAGE)
    return path


@pytest.fixture
def published(tmp_path: Path) -> Path:
    path = tmp_path / "published.exe"
    path.write_bytes(sign(IMAGE))
    return path


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_program_that_was_built_again_becomes_the_published_one(built: Path, tmp_path: Path, algorithm: str) -> None:
    published = tmp_path / "published.exe"
    published.write_bytes(sign(IMAGE, signer("ec"), options=SignOptions(digest_algorithm=algorithm)))

    done = extract_signature(published, signature_path(published))
    attached = attach_signature(built, done.target, built, ANCHORS_EC, now_ms)

    assert done.difference == ""
    assert done.target.stat().st_size == done.size_bytes
    assert built.read_bytes() == published.read_bytes()
    assert [one.problem for one in attached.signatures] == [""]


ANCHORS_EC = TrustAnchors(code_signing=(signer("ec").root.der,))


def test_removing_writes_elsewhere_if_it_is_told_to(published: Path, tmp_path: Path) -> None:
    before = published.read_bytes()

    assert remove_signatures(published, tmp_path / "bare.exe") == "authenticode-pe"

    assert published.read_bytes() == before
    assert verify((tmp_path / "bare.exe").read_bytes()) == ()


def test_an_unsigned_file_has_nothing_to_take(built: Path) -> None:
    with unchanged(built):
        for act in (remove_signatures, extract_signature):
            with pytest.raises(UnsupportedInputError) as raised:
                act(built, built.with_name("out"))
            assert raised.value.code == "authenticode.not_signed"
            assert str(built) in raised.value.message


def test_a_signature_is_not_written_over_its_program(published: Path) -> None:
    with unchanged(published), pytest.raises(ConfigError) as raised:
        extract_signature(published, published.parent / "." / published.name)

    assert raised.value.code == "files.same_target"


@pytest.mark.parametrize("at", [0, 600, len(IMAGE) - 1])
def test_the_signature_of_another_program_is_refused(published: Path, built: Path, at: int) -> None:
    signature = extract_signature(published, signature_path(published)).target
    other = bytearray(IMAGE)
    other[at or 0x40] ^= 1
    built.write_bytes(other)

    with unchanged(built), pytest.raises(MalformedInputError) as raised:
        attach_signature(built, signature, built, ANCHORS, now_ms)

    assert raised.value.code == "authenticode.other_artifact"


def test_a_signature_by_nobody_known_is_not_attached(published: Path, built: Path) -> None:
    signature = extract_signature(published, signature_path(published)).target

    with unchanged(built), pytest.raises(PrivysealError) as raised:
        attach_signature(built, signature, built, NOBODY, now_ms)

    assert raised.value.code == "chain.untrusted"
    assert "--trust" in raised.value.hint


def test_a_damaged_signature_is_not_attached(published: Path, built: Path) -> None:
    signature = extract_signature(published, signature_path(published)).target
    data = signature.read_bytes()
    for damaged in (b"", b"nonsense", data[:-1], data[:-200] + bytes(200), data + b"more"):
        signature.write_bytes(damaged)
        with unchanged(built), pytest.raises(PrivysealError) as raised:
            attach_signature(built, signature, built, ANCHORS, now_ms)
        assert raised.value.exit_status in {1, 3}, damaged[:20]


def test_it_says_when_a_signature_is_not_all_that_the_file_has(tmp_path: Path) -> None:
    several = tmp_path / "several.exe"
    several.write_bytes(sign(sign(IMAGE), options=SignOptions(placement=Placement.ENTRY)))
    padded = tmp_path / "padded.exe"
    signed = sign(IMAGE)
    table = table_of(signed)
    longer = (int.from_bytes(table[:4], "little") + 8).to_bytes(4, "little")
    padded.write_bytes(with_table(signed, longer + table[4:] + bytes(8)))

    assert "more than this signature" in extract_signature(several, tmp_path / "several.p7s").difference
    assert extract_signature(padded, tmp_path / "padded.p7s").difference != ""


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("nothing to sign")

    with pytest.raises(UnsupportedInputError, match=r"notes\.txt"):
        remove_signatures(text, text)
    with pytest.raises(MalformedInputError, match=r"missing\.exe"):
        remove_signatures(tmp_path / "missing.exe", text)
