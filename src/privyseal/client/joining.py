# SPDX-License-Identifier: Apache-2.0
"""Joining a hub with a join code: pin the bundle by its hash, make keys here, get a certificate for them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.client.transport import WebTransport, fetch_unpinned, web_context
from privyseal.errors import ConfigError, PrivysealError
from privyseal.identity.bundle import TrustBundle, open_bundle
from privyseal.identity.ca import make_csr, new_tls_key
from privyseal.identity.joining import parse_join_code, proof_message
from privyseal.identity.keyfile import save_private_key, write_public
from privyseal.wire.api import decode_body
from privyseal.wire.membership import JoinRequest, JoinResponse

__all__ = ["Membership", "join"]

Keys = dict[Path, Ed25519PrivateKey | ec.EllipticCurvePrivateKey]


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What joining brought; `checkpoint` is the hub's newest, not verified yet."""

    name: str
    role: str
    profiles: tuple[str, ...]
    bundle: TrustBundle
    mtls_urls: tuple[str, ...]
    web_url: str
    request_key: bytes
    checkpoint: str


def join(code_text: str, role: str, directory: Path) -> Membership:
    """Join and leave keys, certificate and bundle in `directory`.

    Raises:
        ConfigError: `join.code`, `join.role`, `join.exists`, `join.unwritable`.
        VerificationError: `bundle.hash` if the hub is not the one that the code names.
        IdentityError: `join.refused`. UnavailableError: the hub cannot be reached.
    """
    code = parse_join_code(code_text, role)
    request_path = directory / "request.key"
    if request_path.exists():
        raise ConfigError(
            "join.exists",
            f"{directory} holds the keys of another {role} already",
            hint="give another directory, or move the old one away",
        )
    # The first fetch believes nobody: the bundle is judged by the hash in the code, and the rest goes by its CA.
    bundle = open_bundle(fetch_unpinned(code.web_url, "/v1/bundle"), code.bundle_sha256)
    tls_key, request_key = new_tls_key(), Ed25519PrivateKey.generate()
    csr = make_csr(tls_key, role)
    public = request_key.public_key().public_bytes_raw()
    body = JoinRequest(
        secret=code.secret,
        csr=csr,
        request_key=public,
        proof=request_key.sign(proof_message(code.secret, csr)),
    )
    web = WebTransport(code.web_url, web_context(bundle.statement.ca))
    keys: Keys = {directory / "tls.key": tls_key, request_path: request_key}
    with _kept(keys):  # before the code is spent
        write_public(directory / "bundle.json", bundle.envelope)
        answer = decode_body(web.request("POST", "/v1/join", msgspec.json.encode(body)), JoinResponse)
        write_public(directory / "tls.pem", answer.certificate.encode())
    return Membership(
        name=answer.name,
        role=answer.role,
        profiles=answer.profiles,
        bundle=bundle,
        mtls_urls=answer.mtls_urls,
        web_url=code.web_url,
        request_key=public,
        checkpoint=answer.checkpoint,
    )


@contextlib.contextmanager
def _kept(keys: Keys) -> Iterator[None]:
    """Keep these keys, unless the block fails: then none of them stays, and the directory can be used again."""
    try:
        for path, key in keys.items():
            save_private_key(path, key)
        yield
    except (OSError, PrivysealError) as error:
        for path in keys:
            with contextlib.suppress(OSError):
                path.unlink()
        if isinstance(error, OSError):
            raise ConfigError(
                "join.unwritable",
                f"the new keys cannot be kept at {error.filename}: {error.strerror}",
                hint="give another directory with --dir",
            ) from error
        raise
