# SPDX-License-Identifier: Apache-2.0
"""Making software tokens, and certificates for trying things out."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store

from privyseal.errors import ConfigError, PrivysealError, UnsupportedInputError
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_journal import PinJournal
from privyseal.tokens.pin_supply import PinSupply
from privyseal.tokens.software import SoftwareDriver, create_software_token, generate_key, set_certificates
from privyseal.tokens.testca import ROOT_NAME, make_test_ca
from softhsm import need

PIN = b"canary-pin"
NOW = datetime(2026, 6, 1, tzinfo=UTC)
YEAR = timedelta(days=365)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    create_software_token(tmp_path / "token", pin=PIN, label="demo")
    return tmp_path / "token"


def key(token: Path, key_id: bytes = b"\x01", pin: bytes = PIN) -> bytes:
    return generate_key(token, pin=pin, kind="p256", key_id=key_id, label="release")


def chain(spki: bytes) -> tuple[bytes, ...]:
    ca = make_test_ca(not_before=NOW, not_after=NOW + 2 * YEAR)
    return ca.issue_code_signing(spki=spki, common_name="Lab", not_before=NOW, not_after=NOW + YEAR)


def driver(token: Path, progress: list[str]) -> SoftwareDriver:
    pin = PinBuffer()
    pin.fill(PIN)
    journal = str(token.parent / "pin.journal")
    config = TokenConfig(name="demo", kind="software", path=str(token), journal=journal)
    return SoftwareDriver(
        config,
        supply=PinSupply(config, prompted=pin),
        journal=PinJournal(journal),
        progress=progress.append,
    )


def test_the_files_are_for_their_owner_alone_and_hold_no_pin(token: Path) -> None:
    key(token)

    assert token.stat().st_mode & 0o777 == 0o700
    for path in token.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert PIN not in path.read_bytes()
    assert sorted(path.name for path in token.iterdir()) == ["01.key.pem", "pin-check.pem", "token.json"]


def test_a_key_file_is_what_openssl_reads(token: Path) -> None:
    need(programs=("openssl",))
    spki = key(token)

    arguments = ["-in", str(token / "01.key.pem"), "-passin", f"pass:{PIN.decode()}", "-pubout", "-outform", "DER"]
    public = subprocess.run(["openssl", "pkey", *arguments], capture_output=True, check=True).stdout

    assert public == spki


def code_of(error: pytest.ExceptionInfo[PrivysealError]) -> str:
    return error.value.code


def test_making_a_key_needs_the_tokens_pin_a_free_id_and_a_token(token: Path, tmp_path: Path) -> None:
    key(token)
    with pytest.raises(PrivysealError) as caught:
        key(token, b"\x02", pin=b"another")
    assert code_of(caught) == "token.pin_incorrect"
    with pytest.raises(PrivysealError) as caught:
        key(token)
    assert code_of(caught) == "token.key_exists"
    with pytest.raises(PrivysealError) as caught:
        key(tmp_path / "elsewhere")
    assert code_of(caught) == "token.not_found"
    for key_id in (b"", b"x" * 33):
        with pytest.raises(PrivysealError) as caught:
            key(token, key_id)
        assert code_of(caught) == "config.token"


def test_a_token_is_not_made_over_something_else(token: Path, tmp_path: Path) -> None:
    before = (token / "token.json").read_bytes()
    with pytest.raises(ConfigError, match="is not empty"):
        create_software_token(token, pin=PIN, label="again")
    assert (token / "token.json").read_bytes() == before

    with pytest.raises(PrivysealError) as caught:
        create_software_token(tmp_path / "new", pin=b"", label="x")
    assert code_of(caught) == "token.pin_missing"
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        create_software_token(tmp_path / "file", pin=PIN, label="x")


def test_certificates_must_fit_the_key(token: Path) -> None:
    own, other = chain(key(token, b"\x01")), chain(key(token, b"\x02"))
    for key_id, certificates, code in (
        (b"\x01", other, "token.certificate"),
        (b"\x01", (), "token.certificate"),
        (b"\x01", (b"no certificate",), "token.certificate"),
        (b"\x07", own, "token.key_not_found"),
    ):
        with pytest.raises(PrivysealError) as caught:
            set_certificates(token, key_id=key_id, chain=certificates)
        assert code_of(caught) == code

    set_certificates(token, key_id=b"\x01", chain=own)

    assert driver(token, []).keys()[0].certificates == own


def test_login_is_journalled_once_and_signing_is_announced(token: Path) -> None:
    key(token)
    progress: list[str] = []
    opened = driver(token, progress)

    for _ in range(2):
        opened.sign(key_id=b"\x01", mechanism=Mechanism.ECDSA_SHA256, digest=bytes(32))

    assert progress == ["C_Login", "C_Sign", "C_Sign"]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("token.json", b"{}", "token.not_found"),
        ("token.json", b"[" * 100_000, "token.not_found"),
        ("token.json", b"x" * 1_000_000, "token.not_found"),
        ("token.json", b'{"label":"a","serial":"b","keys":[{"id":"../..","label":"","spki":""}]}', "token.not_found"),
        ("01.chain.pem", b"no certificate", "token.certificate"),
        ("01.key.pem", b"no key", "token.pin_incorrect"),
    ],
)
def test_damaged_files_are_told(token: Path, name: str, content: bytes, code: str) -> None:
    key(token)
    (token / name).write_bytes(content)

    with pytest.raises(PrivysealError) as caught:
        driver(token, []).keys()

    assert code_of(caught) == code


def test_a_test_certificate_is_one_for_code_signing_under_its_root(token: Path) -> None:
    leaf, root = (x509.load_der_x509_certificate(der) for der in chain(key(token)))

    assert root.subject.rfc4514_string() == f"CN={ROOT_NAME}"
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CODE_SIGNING]
    authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    subject = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority.key_identifier == subject.digest
    policy = ExtensionPolicy.permit_all().require_present(x509.ExtendedKeyUsage, Criticality.NON_CRITICAL, None)
    verifier = (
        PolicyBuilder()
        .store(Store([root]))
        .time(NOW)
        .extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=policy)
        .build_client_verifier()
    )
    assert verifier.verify(leaf, []).chain == [leaf, root]


def test_a_test_certificate_lies_within_its_root_and_names_a_key_that_can_sign(token: Path) -> None:
    ca = make_test_ca(not_before=NOW, not_after=NOW + YEAR)
    spki = key(token)
    for start, end, name in (
        (NOW - YEAR, NOW, "x"),
        (NOW, NOW + 2 * YEAR, "x"),
        (NOW.replace(tzinfo=None), NOW + YEAR, "x"),
        (NOW, NOW + YEAR, "x" * 65),
        (NOW + YEAR, NOW, "x"),
    ):
        with pytest.raises(ConfigError) as caught:
            ca.issue_code_signing(spki=spki, common_name=name, not_before=start, not_after=end)
        assert caught.value.code == "config.test_ca"
    edwards = ed25519.Ed25519PrivateKey.generate().public_key()
    with pytest.raises(UnsupportedInputError) as unsupported:
        ca.issue_code_signing(
            spki=edwards.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            common_name="x",
            not_before=NOW,
            not_after=NOW + YEAR,
        )
    assert unsupported.value.code == "key.unsupported"
