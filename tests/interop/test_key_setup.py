# SPDX-License-Identifier: Apache-2.0
"""Keys, requests and certificates from the command line, judged by OpenSSL and by OpenSC's pkcs11-tool."""

import datetime as dt
import json
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from lab.fault_shim import FaultyToken, around
from pki_samples import Issued, authority
from privyseal.tokens.software import create_software_token
from programs import Outcome, privyseal, refused, succeeded
from softhsm import ALWAYS_ID, EC_ID, LABEL, PIN, RSA_ID
from token_setup import HEAD, SUBJECT, Host, issue_by_openssl, make_host, openssl

pytestmark = pytest.mark.interop

DAY = dt.timedelta(days=1)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return make_host(tmp_path)


@pytest.fixture
def added(tmp_path: Path) -> Host:
    return make_host(tmp_path, add=True)


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("rsa-3072", "RSA 3072 bits"),
        ("rsa-2048", "RSA 2048 bits"),
        ("ec-p256", "EC_POINT 256"),
        ("ec-p384", "EC_POINT 384"),
    ],
)
def test_a_generated_key_cannot_leave_the_token(added: Host, kind: str, theirs: str) -> None:
    outcome = succeeded(added.key("generate", "--label", "fresh", "--id", "a1", "--type", kind, "--json"))

    assert outcome.document["id"] == "a1"
    assert ("at least 3072 bits" in outcome.err) == (kind == "rsa-2048")
    listed = added.hsm.pkcs11_tool("--list-objects").decode()
    public, private = sorted(one for one in re.split(r"\n(?=P)", listed) if "ID:         a1" in one)[::-1]
    assert theirs in public
    assert "label:      fresh" in private
    assert "sensitive, always sensitive, never extractable, local" in private


def test_an_id_or_label_in_use_is_refused(added: Host) -> None:
    refused(added.key("generate", "--label", "release", "--type", "ec-p256"), 8, "token.key_exists")
    refused(added.key("generate", "--label", "x", "--id", "01", "--type", "ec-p256"), 8, "token.key_exists")
    refused(added.key("generate", "--label", "", "--type", "ec-p256"), 2, "usage.label")
    refused(added.key("generate", "--label", "a\nb", "--type", "ec-p256"), 2, "usage.label")
    refused(added.key("generate", "--label", "x", "--type", "rsa-1024"), 2, "usage.arguments")
    refused(added.key("generate", "--label", "x", "--type", "ec-p256", "--token", "none"), 2, "token.unknown")


@pytest.mark.parametrize("key_id", [RSA_ID, EC_ID, ALWAYS_ID])
def test_openssl_believes_a_request(added: Host, key_id: bytes) -> None:
    path = added.request(key_id)

    said = openssl("req", "-in", path, "-verify", "-noout", "-subject", "-nameopt", "RFC2253")

    assert "verify OK" in said
    assert "subject=CN=ACME\\, Ltd,O=ACME,C=DE" in said
    public = added.hsm.pkcs11_tool("--read-object", "--type", "pubkey", "--id", key_id.hex())
    theirs = load_der_public_key(public).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert openssl("req", "-in", path, "-pubkey", "-noout").encode() == theirs


def test_a_request_for_nobody_is_refused(added: Host) -> None:
    output = added.hsm.directory / "x.csr"

    refused(added.key("csr", "--id", "01", "--subject", "ACME", "-o", output), 1, "csr.subject")

    assert not output.exists()


def test_a_certificate_by_openssl_is_imported_to_the_token(added: Host, tmp_path: Path) -> None:
    files = issue_by_openssl(tmp_path, added.request(ALWAYS_ID))

    outcome = succeeded(added.key("import", *files, "--id", ALWAYS_ID.hex(), "--json")).document

    assert outcome["on_token"] is True
    assert outcome["chain"] == ["CN=ACME\\, Ltd,O=ACME,C=DE", "CN=Middle CA", "CN=Root CA"]
    assert outcome["remarks"] == []
    theirs = added.hsm.pkcs11_tool("--read-object", "--type", "cert", "--id", ALWAYS_ID.hex())
    assert theirs == x509.load_pem_x509_certificate(files[0].read_bytes()).public_bytes(Encoding.DER)
    listed = added.hsm.pkcs11_tool("--list-objects", "--type", "cert").decode()
    assert "subject:    DN: CN=Middle CA" in listed
    keys = succeeded(added.run("key", "list", "--dir", added.agent, "--json")).document["keys"]
    assert next(key for key in keys if key["id"] == ALWAYS_ID.hex())["certificates"] == 3


def test_a_renewal_is_used_and_a_der_file_read(added: Host, tmp_path: Path) -> None:
    leaf, middle, root = issue_by_openssl(tmp_path, added.request(RSA_ID), days=500)
    binary = tmp_path / "leaf.cer"
    openssl("x509", "-in", leaf, "-outform", "DER", "-out", binary)
    both = tmp_path / "both.pem"
    both.write_bytes(root.read_bytes() + middle.read_bytes())

    text = succeeded(added.key("import", binary, both, "--id", "01")).out

    assert "valid for 500 days; public CAs issue for at most 460" in text
    listed = succeeded(added.run("key", "list", "--dir", added.agent, "--json")).document["keys"]
    assert next(key for key in listed if key["id"] == "01")["subject"] == "CN=ACME\\, Ltd,O=ACME,C=DE"


def test_what_must_not_be_imported_is_refused_before_the_token_is_written_to(added: Host, tmp_path: Path) -> None:
    leaf, middle, root = issue_by_openssl(tmp_path, added.request(ALWAYS_ID))
    (tmp_path / "tls").mkdir()
    tls = issue_by_openssl(tmp_path / "tls", added.request(ALWAYS_ID), purpose="serverAuth")
    before = added.hsm.pkcs11_tool("--list-objects", "--type", "cert")
    text = tmp_path / "text.pem"
    text.write_text("-----BEGIN RUBBISH-----")

    refused(added.key("import", leaf, middle, root, "--id", "01"), 3, "certificate.other_key")
    refused(added.key("import", leaf, middle, "--id", "03"), 3, "chain.incomplete")
    refused(added.key("import", leaf, root, "--id", "03"), 3, "chain.incomplete")
    refused(added.key("import", *tls, "--id", "03"), 3, "chain.eku")
    refused(added.key("import", text, "--id", "03"), 1, "certificate.malformed")
    refused(added.key("import", added.config, "--id", "03"), 1, "certificate.malformed")
    refused(added.key("import", tmp_path / "gone.pem", "--id", "03"), 2, "file.missing")
    refused(added.key("import", "--id", "03"), 2, "usage.arguments")
    assert added.hsm.pkcs11_tool("--list-objects", "--type", "cert") == before


def expired_chain(request: Path) -> bytes:
    """A chain whose leaf ended yesterday, PEM."""
    root: Issued = authority()
    now = dt.datetime.now(dt.UTC)
    wanted = x509.load_pem_x509_csr(request.read_bytes())
    builder = (
        x509.CertificateBuilder()
        .subject_name(wanted.subject)
        .issuer_name(root.certificate.subject)
        .public_key(wanted.public_key())
        .serial_number(7)
        .not_valid_before(now - 9 * DAY)
        .not_valid_after(now - DAY)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    )
    return builder.sign(root.key, hashes.SHA256()).public_bytes(Encoding.PEM) + root.pem


def test_an_expired_certificate_is_refused(added: Host, tmp_path: Path) -> None:
    chain = tmp_path / "expired.pem"
    chain.write_bytes(expired_chain(added.request(RSA_ID)))

    refused(added.key("import", chain, "--id", "01"), 3, "chain.expired")


def test_a_token_that_takes_no_certificate_leaves_a_chain_file(host: Host, tmp_path: Path) -> None:
    shim: FaultyToken = around(host.hsm)
    config = shim.config()
    variables = ", ".join(f"{name} = {json.dumps(value)}" for name, value in config.environment.items())
    host.config.write_text(
        f'{HEAD}[[token]]\nname = "lab"\nkind = "pkcs11"\nmodule = "{config.module}"\ntoken_label = "{LABEL}"\n'
        f'pin_file = "{config.pin_file}"\nenvironment = {{ {variables} }}\n'
        '[[key]]\nprofile = "release"\ntoken = "lab"\nid = "03"\n'
    )
    files = issue_by_openssl(tmp_path, host.request(ALWAYS_ID))
    shim.break_with("C_CreateObject rv e2")

    outcome = succeeded(host.key("import", *files, "--id", "03"))

    chain = host.agent / "lab-03.chain.pem"
    assert chain.read_bytes() == b"".join(path.read_bytes() for path in files)
    assert "CKR_TOKEN_WRITE_PROTECTED" in outcome.out
    assert 'the [[key]] of profile release in agent.toml needs: chain = "lab-03.chain.pem"' in outcome.out


def test_a_test_certificate_lets_everything_be_tried(added: Host, tmp_path: Path) -> None:
    outcome = succeeded(added.key("test-certificate", "--id", "03", "--name", "Trial", "--json")).document

    root = Path(outcome["root"])
    assert root == added.agent / "test-root.pem"
    leaf = tmp_path / "leaf.pem"
    der = added.hsm.pkcs11_tool("--read-object", "--type", "cert", "--id", "03")
    leaf.write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    assert "leaf.pem: OK" in openssl("verify", "-CAfile", root, "-purpose", "any", leaf)
    refused(added.key("test-certificate", "--id", "03", "--name", "Trial"), 2, "file.exists")

    # The real certificate arrives.
    (tmp_path / "real").mkdir()
    succeeded(added.key("import", *issue_by_openssl(tmp_path / "real", added.request(ALWAYS_ID)), "--id", "03"))
    keys = succeeded(added.run("key", "list", "--dir", added.agent, "--json")).document["keys"]
    assert next(key for key in keys if key["id"] == "03")["subject"] == "CN=ACME\\, Ltd,O=ACME,C=DE"
    other = ("--root", tmp_path / "other.pem")
    refused(added.key("test-certificate", "--id", "03", "--name", "Trial", *other), 2, "key.certified")
    assert not other[1].exists()


def test_software_tokens_are_set_up_the_same_way(tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    create_software_token(agent / "token", pin=PIN, label="soft")
    (agent / "pin").touch(mode=0o600)
    (agent / "pin").write_bytes(PIN)
    (agent / "agent.toml").write_text(
        f'{HEAD}[[token]]\nname = "soft"\nkind = "software"\npath = "token"\npin_file = "pin"\n'
    )

    def key(verb: str, *arguments: str | Path) -> Outcome:
        return succeeded(privyseal("key", verb, *arguments, "--dir", agent))

    key("generate", "--label", "release", "--type", "ec-p256")
    key("csr", "--subject", SUBJECT, "-o", tmp_path / "csr.pem")
    assert "verify OK" in openssl("req", "-in", tmp_path / "csr.pem", "-verify", "-noout")
    assert "CN=Trial" in key("test-certificate", "--name", "Trial").out
    key("import", *issue_by_openssl(tmp_path, tmp_path / "csr.pem"))
    assert "ACME" in key("list").out
