# SPDX-License-Identifier: Apache-2.0
"""A key that is elsewhere signs certification requests like one that is here."""

import copy
import hashlib
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from privyseal.errors import MalformedInputError, PrivysealError, UnsupportedInputError, VerificationError
from privyseal.pki.mechanism import Mechanism, hash_algorithm
from privyseal.pki.remote_key import RemoteKey, remote_key
from privyseal.pki.request import certification_request, parse_subject

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
RSA_KEY = rsa.generate_private_key(65537, 2048)
P256_KEY = ec.generate_private_key(ec.SECP256R1())
P384_KEY = ec.generate_private_key(ec.SECP384R1())
NAME = parse_subject("CN=ACME")


class Elsewhere:
    """Holds the key; remembers what it was asked."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self.asked: list[tuple[Mechanism, bytes]] = []

    @property
    def spki(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, mechanism: Mechanism, digest: bytes) -> bytes:
        self.asked.append((mechanism, digest))
        prehashed = Prehashed(hash_algorithm(mechanism.digest_algorithm))
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(digest, padding.PKCS1v15(), prehashed)
        return self._key.sign(digest, ec.ECDSA(prehashed))

    def key(self) -> RemoteKey:
        return remote_key(self.spki, self.sign)


@pytest.mark.parametrize(
    ("key", "mechanism"),
    [
        (RSA_KEY, Mechanism.RSA_SHA256),
        (P256_KEY, Mechanism.ECDSA_SHA256),
        (P384_KEY, Mechanism.ECDSA_SHA384),
    ],
    ids=["rsa", "p256", "p384"],
)
def test_a_request_is_signed_over_its_digest_only(key: Key, mechanism: Mechanism) -> None:
    elsewhere = Elsewhere(key)

    request = x509.load_pem_x509_csr(certification_request(NAME, elsewhere.key()))

    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == "CN=ACME"
    digest = hashlib.new(mechanism.digest_algorithm, request.tbs_certrequest_bytes).digest()
    assert elsewhere.asked == [(mechanism, digest)]


def test_a_signature_that_does_not_hold_makes_no_request() -> None:
    other = Elsewhere(ec.generate_private_key(ec.SECP256R1()))
    key = remote_key(Elsewhere(P256_KEY).spki, other.sign)

    with pytest.raises(VerificationError) as caught:
        certification_request(NAME, key)

    assert caught.value.code == "csr.signature"


def test_a_digest_made_before_is_signed_as_it_is() -> None:
    elsewhere = Elsewhere(RSA_KEY)
    digest = hashlib.sha512(b"artifact").digest()
    key = elsewhere.key()
    assert isinstance(key, rsa.RSAPrivateKey)

    signature = key.sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA512()))

    RSA_KEY.public_key().verify(signature, b"artifact", padding.PKCS1v15(), hashes.SHA512())
    assert elsewhere.asked == [(Mechanism.RSA_SHA512, digest)]


def test_what_would_need_the_key_itself_is_refused() -> None:
    rsa_key, ec_key = Elsewhere(RSA_KEY).key(), Elsewhere(P256_KEY).key()
    assert isinstance(rsa_key, rsa.RSAPrivateKey)
    assert isinstance(ec_key, ec.EllipticCurvePrivateKey)
    attempts: list[Callable[[], object]] = [
        lambda: rsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        lambda: ec_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        rsa_key.private_numbers,
        ec_key.private_numbers,
        lambda: rsa_key.decrypt(b"", padding.PKCS1v15()),
        lambda: ec_key.exchange(ec.ECDH(), P256_KEY.public_key()),
        lambda: rsa_key.sign(b"", padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()),
    ]

    for attempt in attempts:
        with pytest.raises(UnsupportedInputError) as caught:
            attempt()
        assert caught.value.code == "key.remote"


def test_sha1_is_refused() -> None:
    key = Elsewhere(P256_KEY).key()
    assert isinstance(key, ec.EllipticCurvePrivateKey)

    with pytest.raises(UnsupportedInputError) as caught:
        key.sign(b"artifact", ec.ECDSA(hashes.SHA1()))

    assert caught.value.code == "digest.unsupported"


def test_a_copy_is_the_same_key() -> None:
    key = Elsewhere(P384_KEY).key()

    assert copy.copy(key) is key
    assert copy.deepcopy(key) is key
    assert key.key_size == 384


def test_other_kinds_of_keys_are_refused() -> None:
    spki = (
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )

    with pytest.raises(PrivysealError) as caught:
        remote_key(spki, Elsewhere(P256_KEY).sign)

    assert caught.value.code == "key.unsupported"


def test_a_subject_is_read_as_rfc_4514_writes_it() -> None:
    name = parse_subject("CN=ACME\\, Ltd,OU=Release,O=ACME,C=DE")

    assert [one.value for one in name] == ["DE", "ACME", "Release", "ACME, Ltd"]


@pytest.mark.parametrize("text", ["", "ACME", "CN", "C=Germany", "CN=" + "x" * 100_000, "CN=a,,O=b", "=x"])
def test_what_is_no_subject_is_refused(text: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_subject(text)

    assert caught.value.code == "csr.subject"
