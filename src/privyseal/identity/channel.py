# SPDX-License-Identifier: Apache-2.0
"""The keys of a channel between a client and an agent, and how each knows the other; no hub and no CA has a say in it.

Each side makes a P-256 key for one lease. The client's stands, as a hash, in the order that its request key signs. The
agent's follows from a secret that the order carries sealed to the agent's key in the client's own pinned trust bundle:
whoever has opened it says under which key it speaks.
"""

import datetime as dt
import hashlib
import hmac
import secrets
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from privyseal.errors import ConfigError, VerificationError
from privyseal.identity.bundle import TrustBundle
from privyseal.identity.sealing import open_sealed, seal_to
from privyseal.tlog.entry import canonical_json

__all__ = [
    "MAX_CERTIFICATE_BYTES",
    "PROOF_BYTES",
    "AgentPins",
    "ChannelKey",
    "ChannelUse",
    "ClientPins",
    "agent_context",
    "agent_proof",
    "client_context",
    "new_channel_key",
    "open_secret",
    "seal_secret",
    "sealing_key_of",
    "spki_sha256",
]

PROOF_BYTES: Final = 32
MAX_CERTIFICATE_BYTES: Final = 1024
_SECRET_BYTES: Final = 32
_SEAL_LABEL: Final = b"privyseal usb channel secret v1\n"
_PROOF_LABEL: Final = b"privyseal usb channel agent v1\n"
#: A key is made for one lease, and known by its hash; whose clock is how wrong has no part in it (RFC 5280 §4.1.2.5).
_NOT_BEFORE: Final = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_NOT_AFTER: Final = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelKey:
    """A key for one lease, with its self-signed certificate.

    Attributes:
        certificate: DER.
        sha256: SHA-256 of its SubjectPublicKeyInfo (DER), 32 bytes: `tls_key` of an order.
    """

    key: ec.EllipticCurvePrivateKey
    certificate: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelUse:
    """What a channel is for. A secret opens for this alone.

    Attributes:
        hub: Name of the hub, as in the trust bundle.
        agent: Name of the agent.
        device: Which of its devices, as the order names it.
        idempotency_key: Of the request statement.
        tls_key: SHA-256 of the client's SPKI.
    """

    hub: str
    agent: str
    device: str
    idempotency_key: str
    tls_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPins:
    """What an agent goes by: its own key, whom it lets in (`tls_key` of the order), and the secret that it opened."""

    key: ChannelKey
    request_id: str
    tls_key: bytes
    secret: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPins:
    """What a client goes by: its own key, and the secret that only the agent can have opened."""

    key: ChannelKey
    request_id: str
    secret: bytes


def new_channel_key() -> ChannelKey:
    """A fresh key, with a certificate that says nothing but the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "privyseal usb channel")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoded = certificate.public_bytes(Encoding.DER)
    return ChannelKey(key=key, certificate=encoded, sha256=spki_sha256(encoded))


def spki_sha256(certificate: bytes) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo (DER) of a P-256 certificate (DER).

    Raises:
        VerificationError: `channel.certificate`.
    """
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise VerificationError("channel.certificate", "the other side shows no certificate") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise VerificationError("channel.certificate", "the other side shows a key that is not of P-256")
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def sealing_key_of(bundle: TrustBundle, agent: str) -> bytes:
    """The raw X25519 key of an agent, as the trust bundle that is pinned here names it.

    Raises:
        ConfigError: `channel.agent_key`.
    """
    for known in bundle.statement.agents:
        if known.name == agent:
            return known.key
    raise ConfigError(
        "channel.agent_key",
        f"the trust bundle that is pinned here holds no sealing key of agent {agent!r}",
        hint=f"an administrator adds it: privyseal hub trust --agent {agent}=x25519:KEY; a hub alone cannot name one",
    )


def _info(use: ChannelUse) -> bytes:
    """All that a secret is for, so that it opens for nothing else."""
    return _SEAL_LABEL + canonical_json(
        {
            "agent": use.agent,
            "device": use.device,
            "hub": use.hub,
            "idempotency_key": use.idempotency_key,
            "tls_key": use.tls_key.hex(),
        }
    )


def seal_secret(sealing_key: bytes, use: ChannelUse) -> tuple[bytes, bytes]:
    """A fresh secret of 32 bytes, and the same sealed to an agent's raw X25519 key: `sealed` of an order.

    Raises:
        ConfigError: `key.text` if nothing can be sealed to that key.
    """
    secret = secrets.token_bytes(_SECRET_BYTES)
    return secret, seal_to(sealing_key, secret, _info(use))


def open_secret(key: X25519PrivateKey, sealed: bytes, use: ChannelUse) -> bytes:
    """The secret.

    Raises:
        VerificationError: `sealed.closed` if it was sealed to another key, or for another use.
    """
    secret = open_sealed(key, sealed, _info(use))
    if len(secret) != _SECRET_BYTES:
        raise VerificationError("sealed.closed", f"a secret of {len(secret)} bytes was sealed, not of {_SECRET_BYTES}")
    return secret


def agent_proof(secret: bytes, *, agent_key: bytes, client_key: bytes, request_id: str) -> bytes:
    """What only the agent can say of its key: HMAC-SHA256 over both keys' hashes and the request. 32 bytes."""
    said = _PROOF_LABEL + agent_key + client_key + request_id.encode("ascii")
    return hmac.digest(secret, said, "sha256")


def agent_context(key: ChannelKey, client_certificate: bytes) -> ssl.SSLContext:
    """TLS 1.3 for the agent's side, which lets in whoever holds the key of this one certificate (DER)."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, key)
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=client_certificate)
    except ssl.SSLError as error:
        raise VerificationError("channel.certificate", "the other side shows no certificate") from error
    return context


def client_context(key: ChannelKey) -> ssl.SSLContext:
    """TLS 1.3 for the client's side. It takes any certificate: what follows in the channel says whether it is right."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, key)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context(protocol: int, key: ChannelKey) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The module `ssl` takes keys from files alone: this one is encrypted under a password that no file ever holds.
    password = secrets.token_hex(32)
    encryption = BestAvailableEncryption(password.encode())
    encoded = key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    certificate = x509.load_der_x509_certificate(key.certificate).public_bytes(Encoding.PEM)
    with tempfile.TemporaryDirectory(prefix="privyseal-") as directory:
        path = Path(directory) / "channel.pem"
        path.write_bytes(encoded + certificate)
        context.load_cert_chain(path, password=password)
    return context
