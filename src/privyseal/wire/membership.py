# SPDX-License-Identifier: Apache-2.0
"""Bodies of the HTTP API about who stands: joining, authority statements, unlocks (JSON; `bytes` travel as base64)."""

import msgspec

__all__ = ["CertificateState", "Decreed", "JoinRequest", "JoinResponse", "UnlockView"]


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    pass


class CertificateState(_Body, frozen=True):
    """GET /v1/certificates/{sha256}: `standing`, `revoked` or `unknown`."""

    state: str


class Decreed(_Body, frozen=True):
    """An authority statement was carried out: its SHA-256, and the names of the keys that signed it."""

    statement: str
    authorities: tuple[str, ...]


class UnlockView(_Body, frozen=True):
    """POST /v1/unlocks: what the agent says of its token.

    Attributes:
        agent, token: Their names.
        serial: The token's serial number.
        nonce: What an unlock of it must hold, in hex; empty in the answer to an unlock.
        keys: How many signing keys the token shows after it took its PIN.
    """

    agent: str
    token: str
    serial: str
    nonce: str = ""
    keys: int = 0


class JoinRequest(_Body, frozen=True):
    """POST /v1/join.

    Attributes:
        secret: The join code's secret.
        csr: PKCS#10 request for the TLS key, DER.
        request_key: Raw Ed25519 public key.
        proof: Signature by the request key over `joining.proof_message(...)`: it is held by who joins.
    """

    secret: bytes
    csr: bytes
    request_key: bytes
    proof: bytes


class JoinResponse(_Body, frozen=True):
    """The TLS certificate (PEM), under which name and role it stands, and a checkpoint whose tree holds its entry."""

    certificate: str
    role: str
    name: str
    profiles: tuple[str, ...]
    mtls_urls: tuple[str, ...]
    checkpoint: str
