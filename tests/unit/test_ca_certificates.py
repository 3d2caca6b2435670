# SPDX-License-Identifier: Apache-2.0
"""The TLS CA: chains that OpenSSL accepts for the one purpose each is for, and requests that are not believed."""

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError
from privyseal.identity.ca import check_csr, issue_member, issue_server, make_ca, make_csr, member_uri, new_tls_key
from wire_samples import mutated

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
CA_KEY, LEAF_KEY = new_tls_key(), new_tls_key()
CA = make_ca("hub.example", CA_KEY, NOW)
URI = member_uri("hub.example", "client", "build-1")
MEMBER = issue_member(CA, CA_KEY, LEAF_KEY.public_key(), URI, NOW)
SERVER = issue_server(CA, CA_KEY, LEAF_KEY.public_key(), ("localhost", "127.0.0.1", "::1"), NOW)


def openssl(folder: Path, certificate: x509.Certificate, *more: str) -> tuple[int, str]:
    """What `openssl verify` says."""
    program = shutil.which("openssl")
    assert program, "the tests need openssl"
    for name, one in (("ca.pem", CA), ("leaf.pem", certificate)):
        (folder / name).write_bytes(one.public_bytes(Encoding.PEM))
    done = subprocess.run(
        [program, "verify", "-x509_strict", "-CAfile", "ca.pem", *more, "leaf.pem"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("certificate", "purpose"),
    [
        pytest.param(MEMBER, ("-purpose", "sslclient"), id="member"),
        pytest.param(SERVER, ("-purpose", "sslserver", "-verify_hostname", "localhost"), id="server-name"),
        pytest.param(SERVER, ("-purpose", "sslserver", "-verify_ip", "127.0.0.1"), id="server-ipv4"),
        pytest.param(SERVER, ("-purpose", "sslserver", "-verify_ip", "::1"), id="server-ipv6"),
    ],
)
def test_openssl_accepts_the_chain(tmp_path: Path, certificate: x509.Certificate, purpose: tuple[str, ...]) -> None:
    status, said = openssl(tmp_path, certificate, *purpose)

    assert status == 0, said


@pytest.mark.parametrize(
    ("certificate", "purpose"),
    [
        pytest.param(MEMBER, ("-purpose", "sslserver"), id="member-as-server"),
        pytest.param(SERVER, ("-purpose", "sslclient"), id="server-as-client"),
        pytest.param(SERVER, ("-verify_hostname", "hub.example"), id="other-name"),
        pytest.param(MEMBER, ("-attime", str(int(NOW.timestamp()) + 366 * 86_400)), id="expired"),
        pytest.param(MEMBER, ("-attime", str(int(NOW.timestamp()) - 600)), id="not-yet"),
    ],
)
def test_openssl_refuses_another_use(tmp_path: Path, certificate: x509.Certificate, purpose: tuple[str, ...]) -> None:
    status, _ = openssl(tmp_path, certificate, *purpose)

    assert status == 2


def test_openssl_refuses_a_member_that_issues(tmp_path: Path) -> None:
    uri = member_uri("hub.example", "client", "build-2")
    below = issue_member(MEMBER, LEAF_KEY, new_tls_key().public_key(), uri, NOW)
    (tmp_path / "chain.pem").write_bytes(MEMBER.public_bytes(Encoding.PEM))

    status, said = openssl(tmp_path, below, "-untrusted", "chain.pem")

    assert status == 2
    assert "invalid CA certificate" in said


def test_a_member_is_named_by_its_uri_alone() -> None:
    names = MEMBER.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert list(names) == [x509.UniformResourceIdentifier("privyseal://hub.example/client/build-1")]
    assert MEMBER.subject.rfc4514_string() == "CN=build-1"


def test_a_name_that_is_too_long_for_a_subject_is_whole_in_the_uri() -> None:
    uri = member_uri("hub.example", "agent", "a" * 100)
    certificate = issue_member(CA, CA_KEY, LEAF_KEY.public_key(), uri, NOW)

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [uri]


def test_no_certificate_outlives_its_ca() -> None:
    late = CA.not_valid_after_utc - dt.timedelta(days=30)

    assert issue_member(CA, CA_KEY, LEAF_KEY.public_key(), URI, late).not_valid_after_utc == CA.not_valid_after_utc
    assert MEMBER.not_valid_after_utc == NOW + dt.timedelta(days=365)


def test_serial_numbers_differ() -> None:
    numbers = {issue_member(CA, CA_KEY, LEAF_KEY.public_key(), URI, NOW).serial_number for _ in range(20)}

    assert len(numbers) == 20


def test_a_request_gives_its_key() -> None:
    assert check_csr(make_csr(LEAF_KEY, "whoever")) == LEAF_KEY.public_key()


CSR = make_csr(LEAF_KEY, "build")


def csr(private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """A request by a key of any kind."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "build")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    algorithm = None if isinstance(private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(private, algorithm).public_bytes(Encoding.DER)


def refused(data: bytes) -> None:
    with pytest.raises(MalformedInputError) as caught:
        check_csr(data)
    assert caught.value.code == "join.csr"


def test_a_request_by_a_key_of_another_kind_is_refused() -> None:
    refused(csr(rsa.generate_private_key(65537, 2048)))
    refused(csr(ed25519.Ed25519PrivateKey.generate()))
    refused(csr(ec.generate_private_key(ec.SECP384R1())))
    refused(csr(ec.generate_private_key(ec.SECP256K1())))


def test_a_request_whose_algorithms_nobody_knows_is_refused() -> None:
    curve, algorithm = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d040302")
    assert curve in CSR
    assert algorithm in CSR

    refused(CSR.replace(curve, bytes.fromhex("06082a8648ce3d030177")))
    refused(CSR.replace(algorithm, bytes.fromhex("06082a8648ce3d040377")))
    refused(CSR.replace(bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0277")))


def test_a_request_that_somebody_else_signed_is_refused() -> None:
    mine, other = make_csr(LEAF_KEY, "build"), make_csr(new_tls_key(), "build")
    point = LEAF_KEY.public_key().public_numbers().x.to_bytes(32, "big")
    stranger = x509.load_der_x509_csr(other).public_key()
    assert isinstance(stranger, ec.EllipticCurvePublicKey)

    refused(mine.replace(point, stranger.public_numbers().x.to_bytes(32, "big")))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x30\x00", b"\x30\x84\xff\xff\xff\xff", b"-----BEGIN", b"\x30\x80" * 50_000],
    ids=["empty", "sequence", "length", "pem", "deep"],
)
def test_what_is_no_request(data: bytes) -> None:
    refused(data)


@given(st.data())
def test_a_changed_request_is_refused(data: st.DataObject) -> None:
    spoilt = data.draw(mutated(CSR))
    refused(spoilt)


def test_a_request_of_another_version_is_refused() -> None:
    version = CSR.index(b"\x02\x01\x00")
    refused(CSR[: version + 2] + b"\x01" + CSR[version + 3 :])


@given(st.binary(max_size=200))
def test_noise_is_no_request(noise: bytes) -> None:
    refused(noise)
