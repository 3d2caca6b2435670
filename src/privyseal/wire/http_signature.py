# SPDX-License-Identifier: Apache-2.0
"""HTTP Message Signatures (RFC 9421) by a client's request key: who asks, where a proxy has ended TLS.

A narrow profile, of which exactly one spelling is taken: label `privyseal`, Ed25519, the components `@method`, `@path`,
`@query` and, if there is a body, `content-digest` (RFC 9530, SHA-256), in that order; the parameters `created`,
`keyid` (the raw request key in hex), `alg`, `expires`, `nonce` (16 bytes in hex) and `tag` (the hub's name), in that
order. The tag takes the place of `@authority`, which proxies change: it ties a request to one hub, as a statement does.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privyseal.errors import IdentityError

__all__ = [
    "CONTENT_DIGEST",
    "LIFE_SECONDS",
    "SIGNATURE",
    "SIGNATURE_INPUT",
    "Message",
    "Proof",
    "check_body",
    "check_proof",
    "content_digest",
    "message_to_sign",
    "parse_proof",
    "sign_message",
    "signature_base",
]

CONTENT_DIGEST: Final = "Content-Digest"
SIGNATURE_INPUT: Final = "Signature-Input"
SIGNATURE: Final = "Signature"
#: From `created` to `expires`, and how far a hub's clock may be from `created`, either way.
LIFE_SECONDS: Final = 60
_BARE: Final = ("@method", "@path", "@query")
_WITH_BODY: Final = (*_BARE, "content-digest")
_LABEL: Final = "privyseal"
_COVERED: Final = {" ".join(f'"{name}"' for name in names): names for names in (_BARE, _WITH_BODY)}
_INPUT: Final = re.compile(
    rf"{_LABEL}=\((?P<covered>[^()]*)\)"
    r";created=(?P<created>[1-9][0-9]{0,14})"
    r';keyid="(?P<key>[0-9a-f]{64})"'
    r';alg="ed25519"'
    r";expires=(?P<expires>[1-9][0-9]{0,14})"
    r';nonce="(?P<nonce>[0-9a-f]{32})"'
    r';tag="(?P<tag>[a-z0-9./-]{1,255})"'
)
_SIGNATURE: Final = re.compile(rf"{_LABEL}=:([A-Za-z0-9+/]{{86}}==):")
_DIGEST: Final = re.compile(r"sha-256=:[A-Za-z0-9+/]{43}=:")
_TARGET: Final = re.compile(r"/[!-~]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What of a request is signed.

    Attributes:
        method: In capitals.
        target: Path and query exactly as they stand in the request line.
        digest: The field Content-Digest; empty without a body.
    """

    method: str
    target: str
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The signature of a request, not checked yet.

    Attributes:
        key: Raw Ed25519 public key: the request key of whom it says that it is from.
        hub: Name of the hub that it is for.
        created_s, expires_s: Seconds since the epoch.
        nonce: 16 bytes, never used twice.
        covers_body: Whether `content-digest` is signed.
    """

    key: bytes
    hub: str
    created_s: int
    expires_s: int
    nonce: bytes
    covers_body: bool
    signature: bytes = b""

    @property
    def parameters(self) -> str:
        """The value of `@signature-params`."""
        covered = " ".join(f'"{name}"' for name in (_WITH_BODY if self.covers_body else _BARE))
        return (
            f'({covered});created={self.created_s};keyid="{self.key.hex()}";alg="ed25519";expires={self.expires_s}'
            f';nonce="{self.nonce.hex()}";tag="{self.hub}"'
        )


def content_digest(body: bytes) -> str:
    """The field Content-Digest of a body."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def message_to_sign(method: str, target: str, body: bytes | None) -> Message:
    """A request as it is about to be sent."""
    return Message(method=method, target=target, digest=content_digest(body) if body else "")


def signature_base(components: Sequence[tuple[str, str]], parameters: str) -> bytes:
    """The bytes that are signed (RFC 9421 §2.5).

    Args:
        components: Names and values, in their order.
        parameters: The value of `@signature-params`.
    """
    lines = [f'"{name}": {value}' for name, value in components]
    return "\n".join((*lines, f'"@signature-params": {parameters}')).encode("ascii")


def _base(message: Message, proof: Proof) -> bytes:
    path, mark, query = message.target.partition("?")
    # Without a query the component's value is a question mark alone, as with an empty one (RFC 9421 §2.2.7).
    values = {"@method": message.method, "@path": path, "@query": (mark or "?") + query}
    if proof.covers_body:
        values["content-digest"] = message.digest
    return signature_base(tuple(values.items()), proof.parameters)


def sign_message(message: Message, key: Ed25519PrivateKey, *, hub: str, created_s: int, nonce: bytes) -> dict[str, str]:
    """The fields to be sent with a request.

    Args:
        message: The request.
        key: The request key.
        hub: Name of the hub.
        created_s: Now, in seconds since the epoch.
        nonce: 16 random bytes.
    """
    proof = Proof(
        key=key.public_key().public_bytes_raw(),
        hub=hub,
        created_s=created_s,
        expires_s=created_s + LIFE_SECONDS,
        nonce=nonce,
        covers_body=bool(message.digest),
    )
    signature = base64.b64encode(key.sign(_base(message, proof))).decode()
    fields = {SIGNATURE_INPUT: f"{_LABEL}={proof.parameters}", SIGNATURE: f"{_LABEL}=:{signature}:"}
    return fields | ({CONTENT_DIGEST: message.digest} if message.digest else {})


def parse_proof(signature_input: str, signature: str) -> Proof:
    """Read the two fields.

    Raises:
        IdentityError: `proof.malformed` for every spelling but one.
    """
    given, signed = _INPUT.fullmatch(signature_input), _SIGNATURE.fullmatch(signature)
    covered = _COVERED.get(given["covered"]) if given is not None else None
    if given is None or signed is None or covered is None:
        raise _malformed(f"{SIGNATURE_INPUT} and {SIGNATURE} are not those of a client")
    raw = base64.b64decode(signed[1])
    if base64.b64encode(raw).decode() != signed[1]:
        raise _malformed(f"{SIGNATURE} has another spelling than its bytes")
    return Proof(
        key=bytes.fromhex(given["key"]),
        hub=given["tag"],
        created_s=int(given["created"]),
        expires_s=int(given["expires"]),
        nonce=bytes.fromhex(given["nonce"]),
        covers_body=covered is _WITH_BODY,
        signature=raw,
    )


def check_proof(message: Message, proof: Proof, *, hub: str, now_s: float) -> None:
    """Whether a request is from whom it says, for this hub, and of now. Its nonce and its body are still to be judged.

    Raises:
        IdentityError: `proof.hub`, `proof.time`, `proof.signature`, `proof.malformed`.
    """
    if not _TARGET.fullmatch(message.target) or "#" in message.target:
        raise _malformed("the request's target is no path of a hub")
    if proof.covers_body != bool(message.digest) or (message.digest and not _DIGEST.fullmatch(message.digest)):
        raise _malformed(f"{CONTENT_DIGEST} is not the one that is signed")
    if proof.hub != hub:
        raise IdentityError("proof.hub", f"the request is signed for hub {proof.hub!r}, this is {hub!r}")
    if proof.expires_s != proof.created_s + LIFE_SECONDS:
        raise _malformed(f"a signature is good for {LIFE_SECONDS} s")
    if abs(now_s - proof.created_s) > LIFE_SECONDS:
        raise IdentityError(
            "proof.time",
            f"the request was signed {now_s - proof.created_s:+.0f} s away from now by the hub's clock",
            hint=f"set this machine's clock (NTP): up to {LIFE_SECONDS} s are taken; or the request was held back",
        )
    try:
        Ed25519PublicKey.from_public_bytes(proof.key).verify(proof.signature, _base(message, proof))
    except (InvalidSignature, ValueError, UnicodeEncodeError) as error:
        raise IdentityError(
            "proof.signature",
            "the request is not the one that its client has signed: method, path, query or digest differ",
            hint="what stands between client and hub must pass them on as they are: docs/several-hubs.md",
        ) from error


def check_body(message: Message, body: bytes) -> None:
    """Whether a body is the one whose digest is signed; none if none is.

    Raises:
        IdentityError: `proof.digest`.
    """
    if message_to_sign(message.method, message.target, body).digest != message.digest:
        raise IdentityError(
            "proof.digest",
            "the body is not the one that the client has signed",
            hint="what stands between client and hub must pass bodies on as they are: docs/several-hubs.md",
        )


def _malformed(why: str) -> IdentityError:
    return IdentityError(
        "proof.malformed",
        f"the request is not signed as one at this listener must be: {why}",
        hint="is client.toml `proxied`, and are client and hub of the same release?",
    )
