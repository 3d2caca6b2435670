# SPDX-License-Identifier: Apache-2.0
"""`verify` for a release: many files, directories, what may be required; without a hub and without a configuration."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pe_samples import make_pe, sign
from pki_samples import authority, tsa
from programs import Outcome, privyseal, refused, succeeded

IMAGE = make_pe()


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A directory with two signed programs, one of them below, and files that nobody would sign."""
    folder = tmp_path / "release"
    (folder / "parts").mkdir(parents=True)
    (folder / "app.exe").write_bytes(sign(IMAGE))
    (folder / "parts" / "one.dll").write_bytes(sign(IMAGE))
    (folder / "README").write_text("text")
    (folder / "empty").touch()
    (tmp_path / "roots.pem").write_bytes(authority().pem + tsa().root.pem)
    return folder


def verify(release: Path, *arguments: str | Path) -> Outcome:
    return privyseal("verify", "--trust", release.parent / "roots.pem", *arguments, cwd=release.parent)


def documents(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.out.splitlines()]


def break_program(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0x210] ^= 1
    path.write_bytes(data)


def test_a_directory_gets_a_line_for_each_signature(release: Path) -> None:
    outcome = succeeded(verify(release, "release"))

    lines = outcome.out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["verified", "release/app.exe", "primary"],
        ["verified", "release/parts/one.dll", "primary"],
    ]
    assert all("CN=Test Signer ec" in line and "timestamp.missing" in line for line in lines)
    assert outcome.err == (
        "2 files verified, 0 failed, 2 of no format that can be signed; 2 verified without a judged receipt\n"
    )


def test_no_line_of_a_file_that_failed_says_verified(release: Path) -> None:
    """The signature holds, but a receipt was asked for: whoever looks for the word must not find it."""
    outcome = verify(release, "--require-receipt", "release")

    assert outcome.code == 3
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["holds", "failed", "holds", "failed"]
    assert "receipt" not in outcome.err


def test_some_that_fail_are_9_and_all_that_fail_are_3(release: Path) -> None:
    break_program(release / "app.exe")
    some = verify(release, "--json", "release")
    (release / "parts" / "one.dll").write_bytes(IMAGE)
    every = verify(release, "release")

    assert some.code == 9
    bad, good = documents(some)
    assert (bad["verified"], bad["error"]["code"]) == (False, "authenticode.digest_mismatch")
    assert [one["code"] for one in bad["signatures"][0]["findings"]] == [
        "authenticode.digest_mismatch",
        "timestamp.missing",
        "pe.checksum",
    ]
    assert (good["verified"], good["error"]) == (True, None)
    assert every.code == 3
    assert "[authenticode.digest_mismatch]" in every.out
    assert "[file.unsigned]" in every.out
    assert every.err == "0 files verified, 2 failed, 2 of no format that can be signed\n"


def test_files_that_were_named_are_all_judged(release: Path) -> None:
    """Unlike in a directory, nothing that was named is passed over."""
    outcome = verify(release, "--json", release / "app.exe", release / "README", release / "none.exe")

    assert outcome.code == 9
    found = [(one["verified"], one["error"] and one["error"]["code"]) for one in documents(outcome)]
    assert found == [(True, None), (False, "format.not_recognised"), (False, "file.unreadable")]


def test_one_file_is_told_in_detail(release: Path) -> None:
    said = succeeded(verify(release, release / "app.exe")).out

    for words in ("signer ", "issuer ", "chain ", "timestamp none", "warning ", "windows ", "receipt   none"):
        assert words in said
    assert "CN=Test Signer ec < CN=Test Intermediate ec < CN=Test Root, which is trusted" in said


def test_the_document_of_a_file_has_one_form(release: Path) -> None:
    good = succeeded(verify(release, "--json", release / "app.exe")).document
    break_program(release / "app.exe")
    bad = refused(verify(release, "--json", release / "app.exe"), 3, "authenticode.digest_mismatch").document
    unsigned = refused(verify(release, "--json", release / "README"), 1, "format.not_recognised").document

    assert set(good) == set(bad) == set(unsigned)
    (signature,) = good["signatures"]
    assert signature["chain"] == ["CN=Test Signer ec", "CN=Test Intermediate ec", "CN=Test Root"]
    assert (signature["kind"], signature["page_hashes"], signature["anchored"]) == ("primary", "absent", True)
    assert good["windows"] == signature["windows"] != ""


@pytest.mark.parametrize(("asked", "code"), [("timestamp", "timestamp.required"), ("receipt", "receipt.missing")])
def test_what_is_required_and_missing(release: Path, asked: str, code: str) -> None:
    refused(verify(release, f"--require-{asked}", "--json", release / "app.exe"), 3, code)


def test_roots_may_be_named_several_times(release: Path) -> None:
    (release.parent / "root.pem").write_bytes(authority().pem)
    roots = ("--trust", release.parent / "roots.pem", "--trust", release.parent / "root.pem")

    succeeded(privyseal("verify", *roots, release / "app.exe", cwd=release))


def test_a_directory_without_anything_to_verify_is_no_success(release: Path) -> None:
    bare = release.parent / "bare"
    bare.mkdir()

    outcome = verify(release, "--json", bare)

    assert outcome.code == 3
    assert outcome.document["error"]["code"] == "verify.nothing"


def test_a_program_that_was_overwritten_does_not_pass_for_another_file(release: Path) -> None:
    (release / "app.exe").write_bytes(b"no program")
    (release / "parts" / "one.dll").rename(release / "parts" / "one")
    (release / "driver.bin").write_bytes(b"")
    (release / "driver.bin.tlog-proof").write_text("a receipt")

    outcome = verify(release, "--json", "release")

    found = {one["file"]: one["error"] and one["error"]["code"] for one in documents(outcome)}
    assert found == {
        "release/app.exe": "format.not_recognised",
        "release/driver.bin": "file.empty",
        "release/parts/one": None,
    }
    assert outcome.code == 9


def test_names_that_are_not_unicode(release: Path) -> None:
    name = os.fsdecode(b"not-utf-8-\xff.exe")
    (release / "app.exe").rename(release / name)

    (found, _) = documents(succeeded(verify(release, "--json", "release")))
    said = succeeded(verify(release, "release")).out

    assert found["file"] == f"release/{name}"
    assert "release/not-utf-8-?.exe" in said


def test_links_that_lead_in_circles_or_nowhere(release: Path) -> None:
    (release / "circle").symlink_to(release)
    (release / "lost.exe").symlink_to(release / "nowhere")

    assert len(succeeded(verify(release, release)).out.splitlines()) == 2


def test_a_directory_that_cannot_be_read_is_no_success(release: Path) -> None:
    """Deeper than a path can be long; permissions would not stop root."""
    folder = os.open(release, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=folder)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)

    outcome = verify(release, release)

    assert outcome.code == 2
    assert "[file.unusable]" in outcome.err


@pytest.mark.parametrize("arguments", [(), ("--receipt", "r", "a.exe", "b.exe"), ("--receipt", "r", ".")])
def test_usage(release: Path, arguments: tuple[str, ...]) -> None:
    refused(verify(release, *arguments), 2, "usage.arguments")
