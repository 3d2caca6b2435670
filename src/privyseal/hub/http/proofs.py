# SPDX-License-Identifier: Apache-2.0
"""Who asks at the proxied listener: the client whose request key has signed the HTTP request.

Nothing else says who: no address, no X-Forwarded-For, no certificate that a proxy claims to have seen.
"""

import time

from aiohttp import web

from privyseal.errors import IdentityError
from privyseal.hub.core import Hub
from privyseal.hub.nonces import Nonces
from privyseal.ports.store import Enrolment, ReadTx
from privyseal.wire.http_signature import (
    CONTENT_DIGEST,
    SIGNATURE,
    SIGNATURE_INPUT,
    Message,
    check_body,
    check_proof,
    parse_proof,
)

__all__ = ["Proofs"]


class Proofs:
    """Judges signed requests."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._nonces = Nonces()

    async def member(self, request: web.Request) -> Enrolment:
        """The client that signed the request, body included.

        The body is read only after the signature over its digest holds: a stranger cannot make the hub read it.

        Raises:
            IdentityError: a code of `proof`; `identity.unknown`, `identity.revoked`, `identity.role`.
            UnavailableError: `proof.too_many`.
        """
        if request.headers.getall(SIGNATURE, ()) == ():
            raise IdentityError(
                "proof.missing",
                "a request to the proxied listener must be signed by a client's request key",
                hint="set `proxied = true` in client.toml; agents use the mtls listener",
            )
        message = Message(
            method=request.method, target=request.raw_path, digest=_only(request, CONTENT_DIGEST, missing="")
        )
        proof = parse_proof(_only(request, SIGNATURE_INPUT), _only(request, SIGNATURE))
        check_proof(message, proof, hub=self._hub.bundle.hub, now_s=self._hub.clock() / 1000)
        member = await self._client(proof.key)
        self._nonces.take(proof.key, proof.nonce, time.monotonic())
        check_body(message, await request.read())
        return member

    async def _client(self, request_key: bytes) -> Enrolment:
        """Read each time: a standing that was ended anywhere is ended here."""

        async def read(tx: ReadTx) -> Enrolment | None:
            return await tx.enrolment_by_request_key("client", request_key)

        enrolment = await self._hub.store.read(read)
        if enrolment is None:
            raise IdentityError(
                "identity.unknown", "this request key belongs to no client of the hub", hint="join again"
            )
        if enrolment.revoked_ms is not None:
            raise IdentityError(
                "identity.revoked",
                f"the standing of client {enrolment.name!r} was ended by an administrator",
                hint="ask an administrator for a new join code",
            )
        return enrolment


def _only(request: web.Request, name: str, missing: str | None = None) -> str:
    """A field that stands there once; or not at all, if something stands for that."""
    values = request.headers.getall(name, ())
    if not values and missing is not None:
        return missing
    if len(values) != 1:
        raise IdentityError("proof.malformed", f"the request has {len(values)} fields {name}, where one belongs")
    return values[0]
