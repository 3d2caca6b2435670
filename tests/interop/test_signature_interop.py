# SPDX-License-Identifier: Apache-2.0
"""`privyseal signature` beside osslsigncode's extract-signature, attach-signature and remove-signature."""

from pathlib import Path

import pytest

from authenticode_judges import accepted_by_osslsigncode
from installation import copy_of_program
from interop_tools import run_program
from pe_samples import sign
from pki_samples import signer
from programs import privyseal, refused, succeeded, unchanged

pytestmark = pytest.mark.interop


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root.pem"
    path.write_bytes(signer().root.pem)
    return path


@pytest.fixture
def built(tmp_path: Path) -> Path:
    return copy_of_program(tmp_path, "built.exe")


@pytest.fixture
def published(built: Path, tmp_path: Path) -> Path:
    path = tmp_path / "published.exe"
    path.write_bytes(sign(built.read_bytes()))
    return path


def test_the_published_file_comes_back_byte_for_byte(built: Path, published: Path, root: Path) -> None:
    succeeded(privyseal("signature", "extract", published))
    signature = published.with_name("published.exe.p7s")
    outcome = privyseal("signature", "attach", "--json", "--trust", root, built, signature)

    assert succeeded(outcome).document["subjects"]
    assert built.read_bytes() == published.read_bytes()
    assert accepted_by_osslsigncode(built, root)


def test_what_they_extract_is_what_we_extract(published: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.p7s"
    code, said = run_program("osslsigncode", "extract-signature", "-in", published, "-out", theirs)
    assert code == 0, said

    succeeded(privyseal("signature", "extract", published, "-o", tmp_path / "ours.p7s"))

    ours = (tmp_path / "ours.p7s").read_bytes()
    assert theirs.read_bytes().rstrip(b"\0") == ours.rstrip(b"\0")


def test_they_attach_what_we_extract(built: Path, published: Path, root: Path, tmp_path: Path) -> None:
    succeeded(privyseal("signature", "extract", published, "-o", tmp_path / "ours.p7s"))

    attached = tmp_path / "attached.exe"
    arguments = ("-CAfile", root, "-sigin", tmp_path / "ours.p7s", "-in", built, "-out", attached)
    code, said = run_program("osslsigncode", "attach-signature", *arguments)

    assert code == 0, said
    assert accepted_by_osslsigncode(attached, root)


def test_several_files_go_on_after_one_that_fails(built: Path, published: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.exe"
    copy.write_bytes(published.read_bytes())

    with unchanged(built):
        outcome = privyseal("signature", "remove", published, built, copy, published)

    assert outcome.code == 9
    assert "2 of 3 files" in outcome.out
    assert f"failed    {built} [authenticode.not_signed]" in outcome.out
    assert published.read_bytes() == copy.read_bytes()
    _, said = run_program("osslsigncode", "verify", "-in", copy)
    assert "No signature found" in said


def test_several_files_need_a_directory(published: Path, built: Path, tmp_path: Path) -> None:
    with unchanged(published, built):
        outcome = privyseal("signature", "remove", published, built, "-o", tmp_path / "one.exe", "--json")

    refused(outcome, 2, "usage.arguments")


def test_a_signature_whose_root_nobody_named(built: Path, published: Path) -> None:
    succeeded(privyseal("signature", "extract", published))

    with unchanged(built, published):
        outcome = privyseal("signature", "attach", "--json", built, published.with_name("published.exe.p7s"))

    refused(outcome, 3, "chain.untrusted")
