# SPDX-License-Identifier: Apache-2.0
"""A bare client of the hub's two listeners: it sends whatever bytes a test wants, with whatever certificate."""

import hashlib
import io
import json
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import urllib3

from pe_samples import make_pe
from privyseal.client.config import ClientConfig
from privyseal.client.hub import HubClient
from privyseal.client.transport import web_context
from privyseal.formats.authenticode.pe import PE
from privyseal.formats.model import SignOptions
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import system_clock
from privyseal.tlog.entry import ArtifactDigest
from privyseal.wire.api import SignatureItem, SignatureRequest
from privyseal.wire.statement import ClaimedFile, RequestItem, RequestStatement, seal_request

__all__ = ["Api", "Asked", "Reply", "api_of", "ask", "web_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer of the hub."""

    status: int
    kind: str
    caching: str
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> tuple[int, str]:
        """Status and code of an RFC 9457 problem document, which it must be."""
        assert self.kind == "application/problem+json", self
        document = self.document
        assert document["status"] == self.status
        assert document["title"]
        assert document["detail"]
        return self.status, document["code"]


class Api:
    """One listener, with or without a client certificate."""

    def __init__(self, url: str, ca: str, identity: Path | None = None) -> None:
        self.context: ssl.SSLContext = web_context(ca)
        if identity is not None:
            self.context.load_cert_chain(identity / "tls.pem", identity / "tls.key")
        self.url = url
        self._pool = urllib3.PoolManager(ssl_context=self.context, retries=False, timeout=30.0)

    def __call__(self, method: str, path: str, body: bytes | None = None) -> Reply:
        answer = self._pool.request(method, self.url + path, body=body)
        return Reply(
            status=answer.status,
            kind=answer.headers.get("Content-Type", ""),
            caching=answer.headers.get("Cache-Control", ""),
            body=answer.data,
        )

    def close(self) -> None:
        self._pool.clear()


def api_of(config: ClientConfig, identity: Path | None = None) -> Api:
    """The mtls listener, as a client sees it."""
    ca = config.load_bundle().statement.ca
    return Api(config.hub_urls[0], ca, config.identity.directory if identity is None else identity)


def web_of(config: ClientConfig) -> Api:
    """The web listener."""
    return Api(config.web_urls[0], config.load_bundle().statement.ca)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, before it is sent."""

    statement: RequestStatement
    envelope: bytes
    preimages: tuple[SignatureItem, ...]

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(SignatureRequest(envelope=self.envelope, preimages=self.preimages))


def ask(
    config: ClientConfig,
    profile: str = "demo",
    *,
    items: int = 1,
    chain: tuple[bytes, ...] = (),
    **changes: Any,
) -> Asked:
    """A sound request of this client for some images; `changes` replaces fields of its statement.

    The hub is asked for the profile's certificates, unless `chain` says them.
    """
    chain = chain or HubClient(config).profile(profile).chain
    named, preimages = [], []
    for place in range(items):
        image = make_pe(overlay=secrets.token_bytes(16) + bytes([place % 256]) * 8)
        scan = PE.scan(io.BytesIO(image), SignOptions())
        preimage = PE.preimage(scan, chain, SignOptions())
        preimages.append(SignatureItem(signed=preimage.signed, detail=preimage.detail))
        named.append(
            RequestItem(
                preimage=hashlib.sha256(preimage.signed).hexdigest(),
                artifact=ArtifactDigest(alg=scan.artifact.algorithm, digest=scan.artifact.digest.hex()),
                claimed=ClaimedFile(name="app.exe", sha256=hashlib.sha256(image).hexdigest(), size=len(image)),
            )
        )
    now_ms = system_clock()
    sound = RequestStatement(
        hub=config.load_bundle().hub,
        profile=profile,
        format=PE.name,
        items=tuple(named),
        idempotency_key=secrets.token_hex(16),
        created=now_ms,
        not_after=now_ms + 3_600_000,
    )
    statement = msgspec.structs.replace(sound, **changes)
    envelope = seal_request(statement, load_ed25519(config.identity.request_key))
    return Asked(statement=statement, envelope=envelope, preimages=tuple(preimages))
