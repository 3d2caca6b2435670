# SPDX-License-Identifier: Apache-2.0
"""`privyseal signtool` in a running installation: signing as builds call it, judged by osslsigncode."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authenticode_judges import accepted_by_osslsigncode
from installation import Site, Up, copy_of_program
from interop_tools import run_program
from pki_samples import authority, tsa
from privyseal.client.hub import HubClient
from privyseal.client.receipts import receipt_path
from privyseal.pki import tsp
from programs import Outcome, environment, privyseal, succeeded, unchanged
from signtool_outcomes import FD, ended, failed
from tsa_samples import OpensslTsa, TsaHost, html, running_tsa


@pytest.fixture
def root(up: Up) -> Path:
    return up.directory / "test-root.pem"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[TsaHost]:
    with running_tsa() as running:
        running.behaviour = OpensslTsa(tmp_path / "tsa", certs=True)
        yield running


@pytest.fixture
def trusting(up: Up, root: Path, tmp_path: Path) -> Path:
    """The client's configuration, with the TSA's root among those that it trusts; and a file with both roots."""
    roots = tmp_path / "roots.pem"
    roots.write_bytes(tsa().root.pem + root.read_bytes())
    text = up.client().path.read_text()
    text = text.replace('identity = "client"', f'identity = "{up.client().identity.directory}"')
    head, _, tail = text.partition("trust = [")
    path = tmp_path / "privyseal.toml"
    path.write_text(f'{head}trust = ["{roots}"{tail[tail.index("]") :]}')
    return path


@pytest.mark.interop
def test_signing_and_verifying_as_builds_do(up: Up, app: Path, root: Path) -> None:
    other = copy_of_program(app.parent, "other.dll")

    outcome = succeeded(
        up.run("signtool", "SIGN", "/FD", "sha384", "-d", "My app", "/du", "https://example.com/", app, other)
    )

    assert set(outcome.out.splitlines()) == {f"Successfully signed: {app}", f"Successfully signed: {other}"}
    assert "trying things out" in outcome.err
    for file in (app, other):
        assert accepted_by_osslsigncode(file, root)
        succeeded(up.run("verify", file))
    _, said = run_program("osslsigncode", "verify", "-in", app, "-CAfile", root)
    assert "My app" in said
    assert "https://example.com/" in said
    assert "Number of files" not in succeeded(up.run("signtool", "verify", "/pa", app, other)).out


@pytest.mark.interop
def test_page_hashes_nested_signatures_and_more_certificates(up: Up, app: Path, root: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.cer"
    extra.write_bytes(authority("Cross").der)

    succeeded(up.run("signtool", "sign", *FD, "/ph", "/ac", extra, app))
    succeeded(up.run("signtool", "sign", "/as", "/fd", "SHA512", app))

    assert accepted_by_osslsigncode(app, root)
    assert authority("Cross").der in app.read_bytes()
    outcome = ended(up.run("signtool", "verify", "/pa", "/all", "/tw", "/ph", "/v", app), 2)
    assert "Page hashes of signature 0: checked" in outcome.out
    assert "Number of warnings: 2" in outcome.out
    assert outcome.err.count("has no timestamp") == 2


def test_quiet_and_verbose(up: Up, app: Path) -> None:
    quiet = succeeded(up.run("signtool", "sign", "/q", *FD, app))
    verbose = succeeded(up.run("signtool", "sign", "/debug", *FD, app))

    assert (quiet.out, quiet.err) == ("", "")
    for line in (
        "The following certificates were considered:",
        "After EKU filter, 1 certs were left.",
        "The following certificate was selected:",
        "Number of files successfully Signed: 1",
        "Number of errors: 0",
    ):
        assert line in verbose.out.splitlines()


def test_a_file_that_fails_does_not_stop_the_others(up: Up, app: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a program")

    with unchanged(text):
        outcome = up.run("signtool", "sign", *FD, app, text, tmp_path / "missing.exe", tmp_path)

    failed(outcome, "file.not_regular", "format.not_recognised", "file.unreadable")
    assert f"Successfully signed: {app}" in outcome.out
    assert "Number of errors: 3" in outcome.out


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ((), "signtool.no_digest"),
        (("/fd", "SHA1"), "digest.unsupported"),
        ((*FD, "/tr", "http://127.0.0.1:9/"), "signtool.no_digest"),
        ((*FD, "/sha1", "12 34"), "signtool.hash"),
        ((*FD, "/u", "nothing"), "signtool.usage"),
        ((*FD, "/f", "key.pfx", "/p", "CANARY"), "signtool.refused"),
        ((*FD, "/f", "key.pfx"), "certificate.with_key"),
        ((*FD, "/n", "nobody"), "certificate.none"),
    ],
)
def test_what_is_refused_leaves_the_file_alone(up: Up, app: Path, flags: tuple[str, ...], code: str) -> None:
    with unchanged(app):
        outcome = failed(up.run("signtool", "sign", *flags, app), code)

    assert "CANARY" not in outcome.err + outcome.out
    assert "  next: " in outcome.err


def test_the_certificate_chooses_the_key_profile(site: Site, app: Path, tmp_path: Path) -> None:
    client = HubClient(site.client())
    release = client.profile("release").chain[0]
    leaf = x509.load_der_x509_certificate(release)
    (tmp_path / "release.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    thumbprint = hashlib.sha1(release).hexdigest().upper()
    spaced = "\u200e" + " ".join(thumbprint[place : place + 2] for place in range(0, 40, 2))

    several = failed(site.run("signtool", "sign", *FD, app), "certificate.several")
    assert "release (" in several.err
    assert "pinned (" in several.err
    for flags in (("/sha1", spaced), ("/f", str(tmp_path / "release.pem")), ("/sha1", thumbprint.lower(), "/a")):
        outcome = succeeded(site.run("signtool", "sign", "/v", *FD, *flags, app))
        selected = outcome.out.partition("The following certificate was selected:")[2]
        assert f"SHA1 hash: {thumbprint}" in selected
        assert "Key profile: release" in selected
        assert "    Rejected:  " in outcome.out
    untrusted = failed(site.run("signtool", "verify", "/pa", app), "chain.untrusted")
    assert "client.toml" in untrusted.err


def test_requirements_of_verify(up: Up, app: Path) -> None:
    chain = HubClient(up.client()).profile("demo").chain
    signer, root = (hashlib.sha1(one).hexdigest() for one in (chain[0], chain[-1]))
    succeeded(up.run("signtool", "sign", *FD, app))

    def verify(*flags: str) -> Outcome:
        return up.run("signtool", "verify", "/pa", *flags, app)

    succeeded(verify("/sha1", "00" * 20, "/sha1", signer, "/ca", root, "/r", "test ROOT", "/u", "code signing"))
    failed(verify("/sha1", root), "verify.signer")
    failed(verify("/ca", signer), "verify.authority")
    failed(verify("/r", "nobody"), "verify.root")
    failed(verify("/ds", "x"), "signtool.number")
    ended(verify("/u", "1.2.3"), 2)


def test_a_receipt_of_another_file_is_a_warning(up: Up, app: Path) -> None:
    other = copy_of_program(app.parent, "other.exe")
    other.write_bytes(other.read_bytes() + bytes(8))
    succeeded(up.run("signtool", "sign", *FD, app, other))
    receipt_path(app).write_bytes(receipt_path(other).read_bytes())

    outcome = ended(up.run("signtool", "verify", "/pa", app), 2)

    assert "[receipt.mismatch]" in outcome.err


@pytest.mark.interop
@pytest.mark.parametrize("flag", ["/tr", "/t"])
def test_timestamps_while_signing_and_later(app: Path, host: TsaHost, trusting: Path, flag: str) -> None:
    later = copy_of_program(app.parent, "later.exe")
    digest = ("/td", "SHA512") if flag == "/tr" else ()

    def run(*arguments: str | Path) -> Outcome:
        return privyseal(*arguments, config=trusting)

    outcome = succeeded(run("signtool", "sign", *FD, flag, host.url, *digest, app))
    succeeded(run("signtool", "sign", *FD, later))
    ended(run("signtool", "verify", "/pa", "/tw", later), 2)
    succeeded(run("signtool", "timestamp", flag, host.url, *digest, later))
    succeeded(run("signtool", "timestamp", flag, host.url, *digest, "/tp", "0", later))

    assert ("RFC 3161" in outcome.err) == (flag == "/t")
    for file in (app, later):
        assert accepted_by_osslsigncode(file, trusting.with_name("roots.pem"), timestamped=True)
        succeeded(run("signtool", "verify", "/pa", "/tw", file))
    asked = {tsp.parse_request(request).digest_algorithm for request in host.requests}
    assert asked == {"sha512" if digest else "sha256"}
    with unchanged(later):
        failed(run("signtool", "timestamp", flag, host.url, *digest, "/tp", "7", later), "timestamp.no_such_signature")


def test_without_its_timestamp_a_file_stays_unsigned(app: Path, host: TsaHost, trusting: Path) -> None:
    host.behaviour = html

    with unchanged(app):
        outcome = privyseal("signtool", "sign", *FD, "/tr", host.url, "/td", "sha256", app, config=trusting)

    assert outcome.code == 1
    assert "[timestamp." in outcome.err
    assert "--timestamp" not in outcome.err


@pytest.mark.interop
def test_removing_parts_and_all(up: Up, app: Path, root: Path) -> None:
    succeeded(up.run("signtool", "sign", *FD, app))
    succeeded(up.run("signtool", "sign", "/as", "/fd", "sha384", app))
    signed = app.stat().st_size

    with unchanged(app):
        failed(up.run("signtool", "remove", app), "signtool.remove")
    succeeded(up.run("signtool", "remove", "/u", app))
    assert app.stat().st_size < signed
    assert accepted_by_osslsigncode(app, root)
    failed(up.run("signtool", "verify", "/pa", "/ds", "1", app), "verify.no_such_signature")
    succeeded(up.run("signtool", "remove", "/c", app))
    assert accepted_by_osslsigncode(app, root)
    succeeded(up.run("signtool", "remove", "/s", app))

    _, said = run_program("osslsigncode", "verify", "-in", app)
    assert "No signature found" in said
    failed(up.run("signtool", "remove", "/s", app), "authenticode.not_signed")
    failed(up.run("signtool", "verify", "/pa", app), "file.unsigned")


def test_the_driver_policy_is_not_claimed_to_be_judged(up: Up, app: Path) -> None:
    succeeded(up.run("signtool", "sign", *FD, app))

    outcome = ended(up.run("signtool", "verify", app), 2)

    assert "driver policy" in outcome.err


def test_the_command_tree_is_not_imported(up: Up, app: Path) -> None:
    program = (
        "import sys\nfrom privyseal.cli.main import main\n"
        f"code = main(['signtool', 'sign', '/fd', 'sha256', {str(app)!r}])\n"
        "assert code == 0, code\nassert 'cyclopts' not in sys.modules\nassert 'rich' not in sys.modules\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(app.parent, up.config),
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr.decode()


def test_it_stands_among_the_commands(up: Up) -> None:
    assert "signtool" in succeeded(up.run("--help")).out
    for arguments in ((), ("/?",), ("sign", "/?"), ("sign", "--help")):
        assert succeeded(up.run("signtool", *arguments)).out.startswith("Usage: privyseal signtool")
