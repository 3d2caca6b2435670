# SPDX-License-Identifier: Apache-2.0
"""Public keys from raw attributes, chains from loose certificates, signatures in their two shapes."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from asn1crypto.algos import DigestInfo, DSASignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.testca import make_test_ca
from privyseal.tokens.token_objects import (
    TokenCertificate,
    chain_for,
    digest_info,
    ec_spki,
    ecdsa_sig_value,
    read_certificate,
    rsa_spki,
    signature_bytes,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CURVES: dict[str, tuple[ec.EllipticCurve, bytes]] = {
    "P-256": (ec.SECP256R1(), bytes.fromhex("06082a8648ce3d030107")),
    "P-384": (ec.SECP384R1(), bytes.fromhex("06052b81040022")),
    "P-521": (ec.SECP521R1(), bytes.fromhex("06052b81040023")),
}


def spki(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def spki_again(der: bytes) -> bytes:
    """The same public key, read and written by cryptography."""
    return serialization.load_der_public_key(der).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@cache
def rsa_key() -> rsa.RSAPublicKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()


@cache
def ec_key(name: str = "P-256", number: int = 0) -> ec.EllipticCurvePublicKey:
    return ec.generate_private_key(CURVES[name][0]).public_key()


@pytest.mark.parametrize("name", CURVES)
def test_an_ec_point_is_read_bare_and_in_its_octet_string(name: str) -> None:
    key = ec_key(name)
    bare = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    header = bytes((4, len(bare))) if len(bare) < 128 else bytes((4, 0x81, len(bare)))

    assert ec_spki(CURVES[name][1], bare) == spki(key)
    assert ec_spki(CURVES[name][1], header + bare) == spki(key)


@given(st.sampled_from([curve[1] for curve in CURVES.values()]), st.binary(max_size=140))
def test_what_is_no_point_makes_no_public_key(params: bytes, point: bytes) -> None:
    found = ec_spki(params, point)

    if found is not None:
        assert spki_again(found) == found


def test_unknown_curves_and_missing_attributes_make_no_public_key() -> None:
    secp256k1 = bytes.fromhex("06052b8104000a")

    assert ec_spki(secp256k1, b"\x04" + bytes(64)) is None
    assert ec_spki(None, None) is None
    assert rsa_spki(None, b"\x01\x00\x01") is None
    assert rsa_spki(b"\x01", None) is None


def test_an_rsa_key_is_read_with_and_without_a_leading_zero() -> None:
    numbers = rsa_key().public_numbers()
    modulus = numbers.n.to_bytes(256, "big")

    assert rsa_spki(modulus, b"\x01\x00\x01") == spki(rsa_key())
    assert rsa_spki(b"\x00" + modulus, b"\x01\x00\x01") == spki(rsa_key())


@given(st.binary(max_size=300), st.binary(max_size=8))
def test_any_bytes_make_an_rsa_key_or_none(modulus: bytes, exponent: bytes) -> None:
    found = rsa_spki(modulus, exponent)

    if found is not None:
        assert spki_again(found) == found


@pytest.mark.parametrize("mechanism", [item for item in Mechanism if item.is_rsa])
def test_a_digest_info_is_what_its_standard_says(mechanism: Mechanism) -> None:
    digest = hashlib.new(mechanism.digest_algorithm, b"x").digest()

    parsed = DigestInfo.load(digest_info(mechanism, digest), strict=True)

    assert parsed["digest_algorithm"]["algorithm"].native == mechanism.digest_algorithm
    assert parsed["digest"].native == digest


@given(st.integers(1, 2**256 - 1), st.integers(1, 2**256 - 1))
def test_r_and_s_become_a_sig_value_that_others_read(r: int, s: int) -> None:
    value = ecdsa_sig_value(r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    assert decode_dss_signature(value) == (r, s)
    assert DSASignature.load(value, strict=True).native == {"r": r, "s": s}


@pytest.mark.parametrize("raw", [bytes(64), bytes(32) + b"\x01" * 32, b"\x01" * 32 + bytes(32), b""])
def test_a_signature_of_zero_is_refused_as_begun(raw: bytes) -> None:
    with pytest.raises(TokenError) as caught:
        ecdsa_sig_value(raw)

    assert caught.value.begun is True


def test_a_signature_is_as_long_as_its_key_says() -> None:
    assert signature_bytes(spki(rsa_key()), Mechanism.RSA_SHA256) == 256
    assert [signature_bytes(spki(ec_key(name)), Mechanism.ECDSA_SHA384) for name in CURVES] == [64, 96, 132]
    with pytest.raises(TokenError, match="does not fit"):
        signature_bytes(spki(rsa_key()), Mechanism.ECDSA_SHA256)


@cache
def certificates(number: int = 0, *, key_id: bytes = b"\x01", days: int = 0) -> tuple[TokenCertificate, ...]:
    """A leaf for `ec_key(number=number)` and its root, as they may lie on a token."""
    start = NOW + timedelta(days=days)
    ca = make_test_ca(not_before=start, not_after=start + timedelta(days=30))
    chain = ca.issue_code_signing(
        spki=spki(ec_key(number=number)), common_name="x", not_before=start, not_after=start + timedelta(days=20)
    )
    read = [read_certificate(kind, der) for kind, der in zip((key_id, b""), chain, strict=True)]
    return tuple(item for item in read if item)


def ders(chain: Sequence[TokenCertificate]) -> list[bytes]:
    return [item.der for item in chain]


def test_a_chain_is_found_in_any_order_among_others() -> None:
    leaf, root = certificates()
    others = certificates(1)

    chain = chain_for(key_id=b"\x01", spki=leaf.spki, certificates=[*others, root, leaf])

    assert ders(chain) == [leaf.der, root.der]


def test_the_public_key_decides_and_the_id_only_where_it_is_unknown() -> None:
    leaf, root = certificates()
    others = certificates(1)

    assert chain_for(key_id=b"\x01", spki=spki(ec_key("P-384")), certificates=[leaf, root]) == ()
    assert ders(chain_for(key_id=b"\x07", spki=leaf.spki, certificates=[*others, leaf])) == [leaf.der]
    assert ders(chain_for(key_id=b"\x01", spki=None, certificates=[leaf, root])) == [leaf.der, root.der]
    assert chain_for(key_id=b"\x07", spki=None, certificates=[leaf, root]) == ()


def test_of_two_certificates_for_a_key_the_renewed_one_is_taken() -> None:
    old, old_root = certificates()
    new, new_root = certificates(days=10)

    chain = chain_for(key_id=b"\x01", spki=old.spki, certificates=[old, new, old_root, new_root])

    assert ders(chain) == [new.der, new_root.der]


@given(st.data())
def test_a_damaged_certificate_is_left_out_or_read(data: st.DataObject) -> None:
    leaf, root = certificates()
    der = bytearray(leaf.der)
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))

    read = read_certificate(b"\x01", bytes(der[: data.draw(st.integers(0, len(der)))] or der))

    if read is not None:
        assert ders(chain_for(key_id=b"\x01", spki=None, certificates=[read, root]))[0] == read.der
