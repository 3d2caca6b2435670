# SPDX-License-Identifier: Apache-2.0
"""`privyseal timestamp` with OpenSSL's TSA; `openssl ts -verify` and osslsigncode judge what came of it."""

import hashlib
import io
from pathlib import Path

import pytest

from authenticode_judges import accepted_by_osslsigncode
from inputs import UNSIGNED
from interop_tools import run_program
from pe_samples import sign
from pki_samples import authority, signer, tsa
from privyseal.client.timestamping import Timestamper
from privyseal.client.tsa_http import HttpTsa
from privyseal.formats.authenticode.edits import EDITS
from privyseal.formats.authenticode.pe import PE
from privyseal.formats.model import Placement, SignOptions
from privyseal.pki import der
from programs import Outcome, privyseal, refused, succeeded, unchanged
from tsa_samples import OpensslTsa, Reply, TsaHost, busy, html, other_nonce, refusing, running_tsa

pytestmark = pytest.mark.interop


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    path = tmp_path / "roots.pem"
    path.write_bytes(authority().pem + tsa().root.pem)
    return path


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    path = tmp_path / "build" / "app.exe"
    path.parent.mkdir()
    path.write_bytes(sign(UNSIGNED[14].read(), signer("rsa")))
    return path


def run(roots: Path, *arguments: str | Path, tsas: tuple[TsaHost, ...]) -> Outcome:
    named = [text for host in tsas for text in ("--timestamp", host.url)]
    return privyseal("timestamp", *arguments, *named, "--trust", roots, cwd=roots.parent)


def signature_of(path: Path) -> bytes:
    (value,) = EDITS.signature_values(PE.scan(io.BytesIO(path.read_bytes()), SignOptions()))
    return value


@pytest.mark.parametrize("certs", [True, False])
@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_openssl_takes_our_tokens(certs: bool, algorithm: str, tmp_path: Path) -> None:  # noqa: FBT001
    """With `certs`, OpenSSL's answer holds a SET out of order."""
    local = OpensslTsa(tmp_path / "tsa", certs=certs)
    with running_tsa(local) as host:
        token = Timestamper((HttpTsa(url=host.url),), (tsa().root.der,)).token(b"signature", algorithm)

    assert local.accepts(token, b"signature")
    assert not local.accepts(token, b"another")


@pytest.mark.parametrize("certs", [True, False])
def test_a_signed_file_gets_its_timestamp(certs: bool, tmp_path: Path, signed: Path, roots: Path) -> None:  # noqa: FBT001
    before = signature_of(signed)
    assert not accepted_by_osslsigncode(signed, roots, timestamped=True)
    with running_tsa(OpensslTsa(tmp_path / "tsa", certs=certs)) as host:
        said = succeeded(run(roots, signed, "--json", tsas=(host,)))

    assert (said.document["added"], len(said.document["timestamps"])) == (1, 1)
    assert accepted_by_osslsigncode(signed, roots, timestamped=True)
    assert signature_of(signed) == before
    succeeded(privyseal("verify", "--trust", roots, signed, cwd=tmp_path))
    assert sorted(path.name for path in signed.parent.iterdir()) == ["app.exe"]


def test_what_has_a_timestamp_keeps_it_unless_all_are_wanted(tmp_path: Path, signed: Path, roots: Path) -> None:
    with running_tsa(OpensslTsa(tmp_path / "tsa", certs=True)) as host:
        succeeded(run(roots, signed, tsas=(host,)))
        with unchanged(signed):
            again = succeeded(run(roots, signed, "--json", tsas=(host,)))
        assert (again.document["added"], len(again.document["timestamps"]), len(host.requests)) == (0, 1, 1)
        old = signed.read_bytes()

        replaced = succeeded(run(roots, signed, "--all", "--json", tsas=(host,)))

    assert (replaced.document["added"], len(host.requests)) == (1, 2)
    assert signed.read_bytes() != old
    assert accepted_by_osslsigncode(signed, roots, timestamped=True)


def test_each_of_several_signatures_gets_its_own(tmp_path: Path, signed: Path, roots: Path) -> None:
    nested = SignOptions(digest_algorithm="sha384", placement=Placement.NESTED)
    signed.write_bytes(sign(signed.read_bytes(), signer("ec"), options=nested))
    with running_tsa(OpensslTsa(tmp_path / "tsa", certs=False)) as host:
        said = succeeded(run(roots, signed, "--json", tsas=(host,)))

    assert (said.document["added"], len(said.document["timestamps"]), len(host.requests)) == (2, 2, 2)
    assert accepted_by_osslsigncode(signed, roots, timestamped=True)


def test_osslsigncode_leaves_what_we_can_add_to(tmp_path: Path, roots: Path) -> None:
    """A file that another program signed."""
    by = signer("rsa")
    (tmp_path / "chain.pem").write_bytes(by.leaf.pem + by.intermediate.pem)
    (tmp_path / "key.pem").write_bytes(by.leaf.key_pem)
    plain, theirs = tmp_path / "plain.exe", tmp_path / "theirs.exe"
    plain.write_bytes(UNSIGNED[14].read())
    status, said = run_program(
        "osslsigncode", "sign", "-certs", tmp_path / "chain.pem", "-key", tmp_path / "key.pem",
        "-h", "sha384", "-in", plain, "-out", theirs,
    )  # fmt: skip
    assert status == 0, said

    with running_tsa(OpensslTsa(tmp_path / "tsa", certs=False)) as host:
        succeeded(run(roots, theirs, tsas=(host,)))

    assert accepted_by_osslsigncode(theirs, roots, timestamped=True)


def test_the_next_tsa_is_asked_and_the_first_one_is_named(tmp_path: Path, signed: Path, roots: Path) -> None:
    local = OpensslTsa(tmp_path / "tsa", certs=False)
    with running_tsa(html) as bad, running_tsa(other_nonce) as liar, running_tsa(local) as good:
        said = succeeded(run(roots, signed, tsas=(bad, liar, good)))

    assert f"no timestamp from {bad.url}" in said.err
    assert f"no timestamp from {liar.url}" in said.err
    assert accepted_by_osslsigncode(signed, roots, timestamped=True)


def test_several_files_some_of_which_fail(tmp_path: Path, signed: Path, roots: Path) -> None:
    plain, second = signed.with_name("plain.exe"), signed.with_name("second.exe")
    plain.write_bytes(UNSIGNED[14].read())
    second.write_bytes(signed.read_bytes())
    missing = signed.with_name("missing.exe")
    with running_tsa(OpensslTsa(tmp_path / "tsa", certs=True)) as host, unchanged(plain, missing):
        done = run(roots, signed, plain, missing, second, signed, "--json", tsas=(host,))

    assert done.code == 9, done
    document = done.document
    assert document["failed"] == 2
    codes = [one.get("error", {}).get("code", "") for one in document["files"]]
    assert codes == ["", "file.unsigned", "file.unreadable", ""]
    assert "[file.unsigned]" in done.err
    for path in (signed, second):
        assert accepted_by_osslsigncode(path, roots, timestamped=True)


def test_of_several_files_the_one_without_a_timestamp_is_named(signed: Path, roots: Path) -> None:
    second = signed.with_name("second file.exe")
    second.write_bytes(signed.read_bytes())
    with running_tsa(refusing) as host:
        said = run(roots, signed, second, tsas=(host,))

    assert said.code == 9, said
    for path in (signed, second):
        assert f"privyseal: {path}: no TSA gave a timestamp" in said.err


def test_a_file_stays_as_it_was_if_no_tsa_gives_a_timestamp(signed: Path, roots: Path) -> None:
    with running_tsa(busy("3600")) as host, unchanged(signed):
        refused(run(roots, signed, "--json", tsas=(host,)), 7, "timestamp.unavailable")
    with running_tsa(other_nonce) as host, unchanged(signed):
        refused(run(roots, signed, "--json", tsas=(host,)), 3, "timestamp.refused")


def test_a_signature_that_does_not_hold_costs_no_timestamp(signed: Path, roots: Path, tmp_path: Path) -> None:
    image = bytearray(signed.read_bytes())
    image[0x400] ^= 1
    signed.write_bytes(image)
    with running_tsa() as host, unchanged(signed):
        refused(run(roots, signed, "--json", tsas=(host,)), 3, "authenticode.digest_mismatch")
        alone = tmp_path / "alone.pem"
        alone.write_bytes(tsa().root.pem)
        signed_well = signed.with_name("well.exe")
        signed_well.write_bytes(sign(UNSIGNED[14].read(), signer("rsa")))
        untrusted = refused(run(alone, signed_well, "--json", tsas=(host,)), 3, "chain.untrusted")

        assert "--trust" in untrusted.document["error"]["hint"]
        assert host.requests == []
        signed_well.unlink()


def test_a_tsa_cannot_move_the_cursor(signed: Path, roots: Path) -> None:
    said = der.encode_tlv(0x30, der.encode_tlv(0x0C, b"\x1b[2J\r no"))
    body = der.encode_tlv(0x30, der.encode_tlv(0x30, b"\x02\x01\x02" + said))
    with running_tsa(lambda _: Reply(body=body)) as host, unchanged(signed):
        told = run(roots, signed, tsas=(host,))

    assert told.code == 7
    assert "?[2J? no" in told.err
    assert "\x1b" not in told.out + told.err


def test_no_tsa_no_file(signed: Path, roots: Path) -> None:
    with unchanged(signed):
        refused(run(roots, signed, "--json", tsas=()), 2, "timestamp.none")
        refused(run(roots, "--json", tsas=()), 2, "usage.arguments")


def test_the_imprint_is_made_with_the_signatures_digest(tmp_path: Path, roots: Path) -> None:
    path = tmp_path / "app.exe"
    path.write_bytes(sign(UNSIGNED[14].read(), signer("rsa"), options=SignOptions(digest_algorithm="sha512")))
    with running_tsa(OpensslTsa(tmp_path / "tsa", certs=False)) as host:
        succeeded(run(roots, path, tsas=(host,)))

    assert hashlib.sha512(signature_of(path)).digest() in host.requests[0]
    assert accepted_by_osslsigncode(path, roots, timestamped=True)
