# SPDX-License-Identifier: Apache-2.0
"""Signature mechanisms: named as PKCS#11 names them, chosen by key and digest, and judged strictly."""

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from privyseal.errors import PrivysealError, UnsupportedInputError, VerificationError
from privyseal.pki.mechanism import DIGEST_SIZES, Mechanism, hash_algorithm, mechanism_for, verify_digest

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
DATA = b"signed attributes"


def spki(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign(mechanism: Mechanism, data: bytes = DATA) -> bytes:
    """A signature over data by the scheme, made by the library alone."""
    algorithm = hash_algorithm(mechanism.digest_algorithm)
    if mechanism.is_rsa:
        return RSA_KEY.sign(data, padding.PKCS1v15(), algorithm)
    return EC_KEY.sign(data, ec.ECDSA(algorithm))


def key_for(mechanism: Mechanism) -> bytes:
    return spki(RSA_KEY) if mechanism.is_rsa else spki(EC_KEY)


def digest(mechanism: Mechanism, data: bytes = DATA) -> bytes:
    return hashlib.new(mechanism.digest_algorithm, data).digest()


@pytest.mark.parametrize("mechanism", Mechanism, ids=lambda one: one.value)
def test_a_mechanism_is_found_by_key_and_digest(mechanism: Mechanism) -> None:
    assert mechanism_for(key_for(mechanism), mechanism.digest_algorithm) is mechanism
    assert Mechanism(mechanism.value) is mechanism
    assert mechanism.value.startswith("CKM_")
    assert ("RSA" in mechanism.value) == mechanism.is_rsa
    assert mechanism.digest_algorithm in DIGEST_SIZES


@pytest.mark.parametrize("mechanism", Mechanism, ids=lambda one: one.value)
def test_a_true_signature_holds(mechanism: Mechanism) -> None:
    verify_digest(key_for(mechanism), mechanism, digest(mechanism), sign(mechanism))


@pytest.mark.parametrize("mechanism", Mechanism, ids=lambda one: one.value)
def test_no_other_signature_holds(mechanism: Mechanism) -> None:
    signature = sign(mechanism)
    others = [b"", b"x", signature[:-1], signature + b"\0", bytes(len(signature)), sign(mechanism, b"other")]
    for other in others:
        with pytest.raises(VerificationError) as caught:
            verify_digest(key_for(mechanism), mechanism, digest(mechanism), other)
        assert caught.value.code == "signature.invalid"


@pytest.mark.parametrize("mechanism", Mechanism, ids=lambda one: one.value)
@pytest.mark.parametrize("length", [0, 1, 20, 31, 33, 65])
def test_a_digest_of_another_length_is_refused(mechanism: Mechanism, length: int) -> None:
    with pytest.raises(VerificationError) as caught:
        verify_digest(key_for(mechanism), mechanism, bytes(length), sign(mechanism))

    assert caught.value.code == "signature.invalid"


@pytest.mark.parametrize("mechanism", Mechanism, ids=lambda one: one.value)
def test_a_key_of_the_other_kind_is_refused(mechanism: Mechanism) -> None:
    other = spki(EC_KEY) if mechanism.is_rsa else spki(RSA_KEY)

    with pytest.raises(VerificationError) as caught:
        verify_digest(other, mechanism, digest(mechanism), sign(mechanism))

    assert caught.value.code == "signature.mechanism"


def test_an_rsa_signature_by_another_padding_does_not_hold() -> None:
    pss = RSA_KEY.sign(DATA, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())

    with pytest.raises(VerificationError) as caught:
        verify_digest(spki(RSA_KEY), Mechanism.RSA_SHA256, digest(Mechanism.RSA_SHA256), pss)

    assert caught.value.code == "signature.invalid"


@pytest.mark.parametrize("name", ["sha1", "md5", "SHA256", "sha224", "sha3-256", "", "sha256 "])
def test_other_digests_are_refused(name: str) -> None:
    for attempt in (lambda: hash_algorithm(name), lambda: mechanism_for(spki(EC_KEY), name)):
        with pytest.raises(UnsupportedInputError) as caught:
            attempt()
        assert caught.value.code == "digest.unsupported"


def test_a_key_that_signs_no_code_is_refused() -> None:
    with pytest.raises(UnsupportedInputError) as caught:
        mechanism_for(spki(ed25519.Ed25519PrivateKey.generate()), "sha256")

    assert caught.value.code == "key.unsupported"


@pytest.mark.parametrize("curve", [ec.SECP256K1(), ec.BrainpoolP256R1()], ids=lambda curve: curve.name)
def test_a_key_on_a_curve_that_is_not_nists_is_refused(curve: ec.EllipticCurve) -> None:
    with pytest.raises(UnsupportedInputError) as caught:
        mechanism_for(spki(ec.generate_private_key(curve)), "sha256")

    assert caught.value.code == "key.unsupported"


NO_KEYS = {
    "empty": b"",
    "noise": b"\xff" * 90,
    "cut": spki(EC_KEY)[:-1],
    "trailing": spki(EC_KEY) + b"\0",
    "unknown algorithm": spki(EC_KEY).replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0277")),
    "unknown curve": spki(EC_KEY).replace(bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030177")),
    "point not on the curve": spki(EC_KEY)[:-1] + bytes([spki(EC_KEY)[-1] ^ 1]),
}


@pytest.mark.parametrize("kind", NO_KEYS)
def test_a_subject_public_key_info_that_is_none_is_refused(kind: str) -> None:
    with pytest.raises(PrivysealError):
        mechanism_for(NO_KEYS[kind], "sha256")
    with pytest.raises(PrivysealError):
        verify_digest(NO_KEYS[kind], Mechanism.ECDSA_SHA256, bytes(32), b"")


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_noise_is_no_signature(noise: bytes) -> None:
    for mechanism in (Mechanism.RSA_SHA256, Mechanism.ECDSA_SHA256):
        with pytest.raises(VerificationError):
            verify_digest(key_for(mechanism), mechanism, digest(mechanism), noise)
