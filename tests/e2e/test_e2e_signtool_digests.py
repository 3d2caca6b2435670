# SPDX-License-Identifier: Apache-2.0
"""`signtool sign` in three steps, /dg, /ds and /di: with files of our making, and with those of other programs."""

import base64
import hashlib
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authenticode_judges import accepted_by_osslsigncode
from installation import Site, Up, copy_of_program
from privyseal.client.hub import HubClient
from privyseal.client.receipts import receipt_path
from privyseal.pki import cms
from programs import Outcome, privyseal, succeeded, unchanged
from signtool_outcomes import FD, failed
from unsigned_samples import with_attributes


@pytest.fixture
def digests(tmp_path: Path) -> Path:
    folder = tmp_path / "digests"
    folder.mkdir()
    return folder


@pytest.fixture
def made(up: Up, app: Path, digests: Path) -> Path:
    """app.exe.dig, with app.exe.p7u beside it."""
    with unchanged(app):
        succeeded(up.run("signtool", "sign", "/dg", digests, *FD, "/d", "My app", app))
    return digests / "app.exe.dig"


def make_foreign(made: Path, *, reverse: bool = False) -> None:
    """What another program would have made of the same file."""
    unsigned_path = made.with_suffix(".p7u")
    data = with_attributes(unsigned_path.read_bytes(), reverse=reverse)
    unsigned_path.write_bytes(data)
    attributes = cms.parse_signed_data(data).signer_infos[0].signed_attributes
    # As a shell of Windows may leave it.
    made.write_bytes(base64.b64encode(hashlib.sha256(attributes).digest()) + b"\r\n")


@pytest.mark.interop
def test_three_steps_give_what_one_gives(up: Up, app: Path, made: Path) -> None:
    one = copy_of_program(app.parent, "one.exe")
    succeeded(up.run("signtool", "sign", *FD, "/d", "My app", one))

    signed = succeeded(up.run("signtool", "sign", "/ds", "/v", made))
    succeeded(up.run("signtool", "sign", "/di", made.parent, app))

    assert len(base64.b64decode(made.read_bytes(), validate=True)) == 32
    assert "format authenticode-pe" in signed.out
    assert accepted_by_osslsigncode(app, up.directory / "test-root.pem")
    assert app.stat().st_size == one.stat().st_size
    # The hub has read what it signed, so the receipt speaks of the program.
    succeeded(up.run("verify", "--require-receipt", app))


@pytest.mark.interop
@pytest.mark.parametrize("reverse", [False, True])
def test_a_p7u_of_another_program_is_signed_as_a_bare_digest(
    up: Up,
    app: Path,
    made: Path,
    reverse: bool,  # noqa: FBT001
) -> None:
    make_foreign(made, reverse=reverse)

    signed = succeeded(up.run("signtool", "sign", "/ds", "/v", *FD, made))
    succeeded(up.run("signtool", "sign", "/di", made.parent, app))

    assert "format digest" in signed.out
    succeeded(up.run("signtool", "verify", "/pa", app))
    if not reverse:  # OpenSSL hashes the attributes in DER's order, whatever their order in the file
        assert accepted_by_osslsigncode(app, up.directory / "test-root.pem")
    assert receipt_path(made.with_name("app.exe.dig.signed")).is_file()
    assert not receipt_path(app).exists()


def test_a_bare_digest_needs_a_key_profile_that_allows_it(site: Site, app: Path, digests: Path) -> None:
    thumbprint = hashlib.sha1(HubClient(site.client()).profile("release").chain[0]).hexdigest()
    succeeded(site.run("signtool", "sign", "/dg", digests, "/sha1", thumbprint, *FD, app))
    made = digests / "app.exe.dig"
    make_foreign(made)

    with unchanged(made):
        failed(site.run("signtool", "sign", "/ds", made), "policy.opaque")


def test_the_key_profile_is_that_of_the_certificate_in_the_p7u(site: Site, app: Path, digests: Path) -> None:
    leaf, *rest = HubClient(site.client()).profile("release").chain
    pem = b"".join(x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in (leaf, *rest))
    (digests / "release.pem").write_bytes(pem)

    none = privyseal(
        "signtool", "sign", "/dg", digests, *FD, "/f", digests / "release.pem", "/n", "x", app, cwd=digests
    )
    failed(none, "certificate.none")
    # No configuration is there: with the certificate at hand, no hub is asked.
    succeeded(privyseal("signtool", "sign", "/dg", digests, *FD, "/f", digests / "release.pem", app, cwd=digests))
    outcome = succeeded(site.run("signtool", "sign", "/ds", "/v", digests / "app.exe.dig"))
    succeeded(privyseal("signtool", "sign", "/di", digests, app, cwd=digests))

    assert "Key profile: release" in outcome.out.partition("was selected")[2]
    assert accepted_by_osslsigncode(app, site.roots)
    failed(site.run("signtool", "sign", "/ds", "/sha1", "00" * 20, digests / "app.exe.dig"), "certificate.none")


def sign_digest(up: Up, made: Path, *flags: str) -> Outcome:
    with unchanged(made):
        return up.run("signtool", "sign", "/ds", *flags, made)


def test_a_digest_that_is_not_that_of_the_p7u(up: Up, made: Path) -> None:
    right = made.read_bytes()
    for wrong, code in (
        (base64.b64encode(bytes(32)), "digest.mismatch"),
        (base64.b64encode(b"short"), "digest.mismatch"),
        (b"", "digest.mismatch"),
        (b"no base64!", "digest.text"),
        (right.decode().encode("utf-16"), "digest.text"),
        (right * 2000, "file.too_large"),
    ):
        made.write_bytes(wrong)
        failed(sign_digest(up, made), code)
    made.write_bytes(right)
    failed(sign_digest(up, made, "/fd", "sha512"), "digest.algorithm")
    failed(up.run("signtool", "sign", "/ds", made.with_suffix(".p7u")), "digest.name")
    made.with_suffix(".p7u").unlink()
    failed(sign_digest(up, made), "file.unreadable")


def test_a_p7u_that_contradicts_itself(up: Up, app: Path, made: Path) -> None:
    unsigned_path = made.with_suffix(".p7u")
    right = unsigned_path.read_bytes()
    for wrong in (b"", right[:-1], right + b"x", os.urandom(200)):
        unsigned_path.write_bytes(wrong)
        outcome = sign_digest(up, made)
        assert outcome.code == 1
        assert "Traceback" not in outcome.err
        assert "app.exe.p7u" in outcome.err


def test_what_does_not_belong_together_is_not_put_together(up: Up, app: Path, made: Path) -> None:
    folder = made.parent
    with unchanged(app):
        failed(up.run("signtool", "sign", "/di", folder, app), "file.unreadable")
    succeeded(up.run("signtool", "sign", "/ds", made))
    signed = folder / "app.exe.dig.signed"
    right = signed.read_bytes()

    signed.write_bytes(base64.b64encode(bytes(384)))
    with unchanged(app):
        outcome = up.run("signtool", "sign", "/di", folder, app)
        assert outcome.code == 1, outcome
        assert "nothing was written" in outcome.err
    signed.write_bytes(right)
    program = app.read_bytes()
    app.write_bytes(program[:-1] + bytes([program[-1] ^ 1]))
    with unchanged(app):
        failed(up.run("signtool", "sign", "/di", folder, app), "authenticode.other_artifact")


def test_names_that_would_meet_are_refused(up: Up, app: Path, digests: Path) -> None:
    other = copy_of_program(digests, "app.exe")

    with unchanged(app, other):
        failed(up.run("signtool", "sign", "/dg", digests, *FD, app, other), "files.same_target")
    with unchanged(app):
        failed(up.run("signtool", "sign", "/dg", digests / "missing", *FD, app), "file.unwritable")
