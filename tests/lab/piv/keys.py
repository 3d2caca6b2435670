# SPDX-License-Identifier: Apache-2.0
"""The private keys of a card with their certificates: made once, kept in a directory, loaded by every card after.

They are files in the clear: keys of a test double.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils
from cryptography.x509.oid import NameOID

__all__ = ["ALGORITHMS", "DEFAULT_LAYOUT", "CardKey", "load_or_make_keys"]

#: P1 of GENERAL AUTHENTICATE by the kind of key (SP 800-78-4, table 6-2).
ALGORITHMS = {"rsa2048": 0x07, "p256": 0x11}

#: Kind of key by slot: 9A signs once the PIN was given, 9C wants it for each signature, 9D decrypts.
DEFAULT_LAYOUT = {0x9A: "rsa2048", 0x9C: "p256", 0x9D: "rsa2048"}

_NAMES = {0x9A: "Lab release", 0x9C: "Lab careful", 0x9D: "Lab exchange"}
_HASH_BY_BYTES: dict[int, hashes.HashAlgorithm] = {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}


@dataclass(frozen=True, slots=True, kw_only=True)
class CardKey:
    """One key in its slot; `certificate` is DER."""

    private_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    certificate: bytes

    @property
    def algorithm(self) -> int:
        return ALGORITHMS["rsa2048" if isinstance(self.private_key, rsa.RSAPrivateKey) else "p256"]

    def operate(self, challenge: bytes) -> bytes | None:
        """The private-key operation of GENERAL AUTHENTICATE; None if the challenge does not fit the key.

        RSA is done without padding, as the card's caller has padded (SP 800-73-4 part 2, A.4).
        """
        if isinstance(self.private_key, rsa.RSAPrivateKey):
            return _raw_rsa(self.private_key, challenge)
        algorithm = _HASH_BY_BYTES.get(len(challenge))
        return None if algorithm is None else self.private_key.sign(challenge, ec.ECDSA(utils.Prehashed(algorithm)))


def _raw_rsa(key: rsa.RSAPrivateKey, challenge: bytes) -> bytes | None:
    numbers = key.private_numbers()
    modulus, value = numbers.public_numbers.n, int.from_bytes(challenge, "big")
    if len(challenge) != key.key_size // 8 or value >= modulus:
        return None
    # By the Chinese remainder theorem: four times as fast (RFC 8017 §5.1.2).
    first, second = pow(value, numbers.dmp1, numbers.p), pow(value, numbers.dmq1, numbers.q)
    result = second + numbers.q * ((first - second) * numbers.iqmp % numbers.p)
    return result.to_bytes(key.key_size // 8, "big")


def load_or_make_keys(directory: Path, layout: dict[int, str]) -> dict[int, CardKey]:
    """The keys of a layout (kind by slot); what the directory does not hold yet is made there."""
    return {slot: _load(directory, slot, kind) for slot, kind in layout.items()}


def _load(directory: Path, slot: int, kind: str) -> CardKey:
    key_file, certificate_file = (directory / f"{slot:02x}-{kind}.{ending}" for ending in ("key.pem", "der"))
    if not certificate_file.exists():
        _make(key_file, certificate_file, slot, kind)
    private_key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    assert isinstance(private_key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return CardKey(private_key=private_key, certificate=certificate_file.read_bytes())


def _make(key_file: Path, certificate_file: Path, slot: int, kind: str) -> None:
    private_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if kind == "rsa2048":
        private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        private_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAMES.get(slot, f"Lab {slot:02X}"))])
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=365))
        .sign(private_key, hashes.SHA256())
    )
    key_file.write_bytes(
        private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.DER))
