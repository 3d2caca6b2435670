# SPDX-License-Identifier: Apache-2.0
"""What we sign holds for osslsigncode, signify, LIEF and yara, over real files of other projects."""

from pathlib import Path

import pefile
import pytest

from authenticode_judges import (
    accepted_by_lief,
    accepted_by_osslsigncode,
    accepted_by_signify,
    accepted_by_yara,
)
from inputs import MICROSOFT_SIGNED, UNSIGNED, Input
from interop_tools import run_program
from pe_samples import sign, verify
from pki_samples import authority, signer
from privyseal.formats.model import SignOptions

pytestmark = pytest.mark.interop

FILES = (*UNSIGNED, MICROSOFT_SIGNED[2], MICROSOFT_SIGNED[12], MICROSOFT_SIGNED[14])


@pytest.fixture
def root_pem(tmp_path: Path) -> Path:
    path = tmp_path / "root.pem"
    path.write_bytes(authority().pem)
    return path


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_judge_accepts(file: Input, kind: str, root_pem: Path, tmp_path: Path) -> None:
    signed = sign(file.read(), signer(kind))
    path = tmp_path / file.name
    path.write_bytes(signed)

    assert accepted_by_osslsigncode(path, root_pem)
    assert accepted_by_signify(signed, (authority().der,))
    assert accepted_by_lief(signed)
    assert accepted_by_yara(signed)
    assert [report.problem for report in verify(signed)] == [""]
    image = pefile.PE(data=signed, fast_load=True)
    assert image.OPTIONAL_HEADER.CheckSum == image.generate_checksum()


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_longer_digests_and_a_description_are_accepted(algorithm: str, root_pem: Path, tmp_path: Path) -> None:
    options = SignOptions(digest_algorithm=algorithm, program_name="Acmé ☂ Tool", program_url="https://example.test/")
    signed = sign(UNSIGNED[1].read(), signer("rsa"), options=options)
    path = tmp_path / "described.exe"
    path.write_bytes(signed)

    assert accepted_by_osslsigncode(path, root_pem)
    assert accepted_by_signify(signed, (authority().der,))
    assert accepted_by_lief(signed)
    _, said = run_program("osslsigncode", "verify", "-CAfile", root_pem, "-in", path)
    assert "Text description: Acmé ☂ Tool" in said
    assert "URL description: https://example.test/" in said


def test_no_judge_trusts_another_root(tmp_path: Path) -> None:
    other = authority("Elsewhere")
    root = tmp_path / "other.pem"
    root.write_bytes(other.pem)
    signed = sign(UNSIGNED[0].read(), signer("rsa"))
    path = tmp_path / "signed.exe"
    path.write_bytes(signed)

    assert not accepted_by_osslsigncode(path, root)
    assert not accepted_by_signify(signed, (other.der,))


def test_removing_our_signature_gives_back_the_padded_file(tmp_path: Path) -> None:
    original = UNSIGNED[0].read()
    signed, bare = tmp_path / "signed.exe", tmp_path / "bare.exe"
    signed.write_bytes(sign(original))

    status, said = run_program("osslsigncode", "remove-signature", "-in", signed, "-out", bare)

    assert status == 0, said
    before, after = pefile.PE(data=original, fast_load=True), pefile.PE(data=bare.read_bytes(), fast_load=True)
    before.OPTIONAL_HEADER.CheckSum = after.OPTIONAL_HEADER.CheckSum
    assert after.write() == before.write()
