# SPDX-License-Identifier: Apache-2.0
"""From the objects on a token to `TokenKey`: public keys from raw attributes, chains from certificates.

Follows PKCS#11 v3.1 §4 (attributes), RFC 8017 §9.2 (DigestInfo) and RFC 3279 §2.2.3 (ECDSA-Sig-Value).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from privyseal.errors import TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.ports.token import KeyKind, PinState
from privyseal.tokens.cryptoki_types import TokenFlags
from privyseal.tokens.pin import PinBuffer

__all__ = [
    "CURVE_PARAMS",
    "TokenCertificate",
    "chain_for",
    "check_new_pin",
    "digest_info",
    "ec_spki",
    "ecdsa_sig_value",
    "free_key_id",
    "key_taken",
    "pin_state",
    "read_certificate",
    "rsa_spki",
    "signature_bytes",
]

_MAX_CHAIN: Final = 8

#: CKA_EC_PARAMS by the kind of key.
CURVE_PARAMS: Final[dict[KeyKind, bytes]] = {
    "p256": bytes.fromhex("06082a8648ce3d030107"),
    "p384": bytes.fromhex("06052b81040022"),
}

#: DER of CKA_EC_PARAMS (namedCurve) for the curves that code is signed with.
_CURVES: Final[dict[bytes, ec.EllipticCurve]] = {
    CURVE_PARAMS["p256"]: ec.SECP256R1(),
    CURVE_PARAMS["p384"]: ec.SECP384R1(),
    bytes.fromhex("06052b81040023"): ec.SECP521R1(),
}

#: DigestInfo up to the digest itself (RFC 8017 §9.2, note 1).
_DIGEST_INFO: Final = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCertificate:
    """A certificate object: its CKA_ID, and what a chain is built by."""

    key_id: bytes
    der: bytes
    spki: bytes
    not_before_s: float
    certificate: x509.Certificate


def check_new_pin(new: PinBuffer, min_bytes: int, max_bytes: int) -> None:
    """A new PIN has a length that the token takes.

    Raises:
        TokenError: `token.pin_length`.
    """
    if not min_bytes <= len(new) <= max_bytes:
        raise TokenError(
            "token.pin_length",
            f"the new PIN has {len(new)} bytes; this token takes {min_bytes} to {max_bytes}",
            hint="nothing was presented to the token",
        )


def pin_state(flags: int) -> PinState:
    """What the flags of CK_TOKEN_INFO say of the user PIN."""
    if flags & TokenFlags.USER_PIN_LOCKED:
        return PinState.LOCKED
    if flags & TokenFlags.USER_PIN_FINAL_TRY:
        return PinState.FINAL_TRY
    if flags & TokenFlags.USER_PIN_COUNT_LOW:
        return PinState.COUNT_LOW
    return PinState.OK


def free_key_id(is_taken: Callable[[bytes], bool]) -> bytes:
    """The first CKA_ID of one byte, 01 and on, that nothing on the token has.

    Raises:
        TokenError: `token.key_exists` if all are taken.
    """
    for number in range(1, 256):
        if not is_taken(candidate := bytes([number])):
            return candidate
    raise key_taken("each CKA_ID from 01 to ff")


def key_taken(what: str) -> TokenError:
    """The error for a CKA_ID or label that is in use."""
    return TokenError(
        "token.key_exists",
        f"an object on the token has {what} already",
        hint="choose another one; `privyseal key list` shows what is there",
    )


def _spki(public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def rsa_spki(modulus: bytes | None, public_exponent: bytes | None) -> bytes | None:
    """SubjectPublicKeyInfo from CKA_MODULUS and CKA_PUBLIC_EXPONENT; None if they make no public key."""
    if not modulus or not public_exponent:
        return None
    numbers = rsa.RSAPublicNumbers(e=int.from_bytes(public_exponent, "big"), n=int.from_bytes(modulus, "big"))
    try:
        return _spki(numbers.public_key())
    except (ValueError, OverflowError):
        return None


def ec_spki(params: bytes | None, point: bytes | None) -> bytes | None:
    """SubjectPublicKeyInfo from CKA_EC_PARAMS and CKA_EC_POINT; None if they make no public key we know.

    The point should be a DER OCTET STRING around the uncompressed point (§6.3.3), but some modules give it
    bare.
    """
    curve = _CURVES.get(params or b"")
    if curve is None or not point:
        return None
    bare_bytes = 1 + 2 * ((curve.key_size + 7) // 8)
    header = bytes((0x04, bare_bytes)) if bare_bytes < 0x80 else bytes((0x04, 0x81, bare_bytes))
    if point[: len(header)] == header and len(point) == len(header) + bare_bytes:
        point = point[len(header) :]
    try:
        return _spki(ec.EllipticCurvePublicKey.from_encoded_point(curve, point))
    except ValueError:
        return None


def read_certificate(key_id: bytes, der: bytes) -> TokenCertificate | None:
    """A certificate object, or None if what stands on the token is no certificate that can be read."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        # The parser is lazy: what a chain needs is touched here, inside the try.
        _ = (certificate.subject, certificate.issuer)
        spki = certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        not_before_s = certificate.not_valid_before_utc.timestamp()
    except (ValueError, OverflowError, UnsupportedAlgorithm):
        return None
    return TokenCertificate(key_id=key_id, der=der, spki=spki, not_before_s=not_before_s, certificate=certificate)


def _issued(issuer: TokenCertificate, subject: TokenCertificate) -> bool:
    try:
        subject.certificate.verify_directly_issued_by(issuer.certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def chain_for(
    *, key_id: bytes, spki: bytes | None, certificates: Sequence[TokenCertificate]
) -> tuple[TokenCertificate, ...]:
    """The leaf for a key and whatever of its issuers the token holds, leaf first.

    A known public key decides alone; only where the token shows none, a certificate with the key's CKA_ID
    stands for it. Of several (after a renewal) the one that became valid last is taken.
    """
    if spki is None:
        leaves = [item for item in certificates if item.key_id == key_id]
    else:
        leaves = [item for item in certificates if item.spki == spki]
    if not leaves:
        return ()
    chain = [max(leaves, key=lambda item: (item.key_id == key_id, item.not_before_s))]
    while len(chain) < _MAX_CHAIN:
        top = chain[-1]
        issuer = next(
            (item for item in certificates if item not in chain and _issued(item, top)),
            None,
        )
        if issuer is None or top.certificate.subject == top.certificate.issuer:
            break
        chain.append(issuer)
    return tuple(chain)


def digest_info(mechanism: Mechanism, digest: bytes) -> bytes:
    """What CKM_RSA_PKCS pads and signs: the DER DigestInfo."""
    return _DIGEST_INFO[mechanism.digest_algorithm] + digest


def signature_bytes(spki: bytes, mechanism: Mechanism) -> int:
    """How long the token's bare signature must be: the modulus, or r and s at the size of the curve's order.

    Raises:
        TokenError: `token.mechanism` if the key is of another kind than the mechanism.
    """
    public_key = serialization.load_der_public_key(spki)
    if isinstance(public_key, rsa.RSAPublicKey) and mechanism.is_rsa:
        return (public_key.key_size + 7) // 8
    if isinstance(public_key, ec.EllipticCurvePublicKey) and not mechanism.is_rsa:
        return 2 * ((public_key.curve.key_size + 7) // 8)
    raise TokenError(
        "token.mechanism",
        f"{mechanism.value} does not fit a key of kind {type(public_key).__name__}",
        hint="choose the mechanism by the certificate's public key",
    )


def ecdsa_sig_value(raw: bytes) -> bytes:
    """DER ECDSA-Sig-Value from CKM_ECDSA's r||s (§6.3.1), whose length the caller has checked.

    Raises:
        TokenError: `token.failed` if r or s is zero, which no signature has.
    """
    half = len(raw) // 2
    r, s = int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
    if r == 0 or s == 0:
        raise TokenError("token.failed", "the token answered with an ECDSA signature of zero", begun=True)
    return encode_dss_signature(r, s)
