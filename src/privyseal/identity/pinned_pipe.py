# SPDX-License-Identifier: Apache-2.0
"""TLS 1.3 inside a pipe, between a client and an agent that know each other's keys and nobody else's.

The client opens in clear with the certificate of its key for this lease; the agent is the server of TLS, lets in that
one key, and says first of all, inside, why it is the agent (`channel.agent_proof`); the client says that it goes on.
Whatever carries the pipe can hold it up and count its bytes.
"""

import asyncio
import hmac
import ssl
from typing import Final

from privyseal.errors import PrivysealError, VerificationError
from privyseal.identity.channel import (
    MAX_CERTIFICATE_BYTES,
    PROOF_BYTES,
    AgentPins,
    ClientPins,
    agent_context,
    agent_proof,
    client_context,
    spki_sha256,
)
from privyseal.ports.pipe import MAX_PIECE_BYTES, Pipe

__all__ = ["HANDSHAKE_SECONDS", "PinnedPipe", "accept_pinned", "dial_pinned"]

HANDSHAKE_SECONDS: Final = 10.0
_OPENING: Final = b"privyseal-usb/1\n"
#: The client's first word inside: it has not given this connection up meanwhile, for another way to the same agent.
_READY: Final = b"\x01"


class PinnedPipe:
    """What is inside; a `Pipe` itself. Made by `accept_pinned` and `dial_pinned`.

    Attributes:
        peer_key: SHA-256 of the other side's SPKI.
    """

    def __init__(self, under: Pipe, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._under: Final = under
        self._incoming: Final = ssl.MemoryBIO()
        self._outgoing: Final = ssl.MemoryBIO()
        self._tls: Final = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._sending: Final = asyncio.Lock()
        self.peer_key = b""

    async def shake_hands(self) -> None:
        """Do TLS's handshake.

        Raises:
            ssl.SSLError, OSError: it did not come about.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._feed():
                    raise ConnectionError("the connection ended in the handshake") from None
            except ssl.SSLError:
                await self._flush()  # the alert says why
                raise
            else:
                await self._flush()
                self.peer_key = spki_sha256(self._tls.getpeercert(binary_form=True) or b"")
                return

    async def send(self, data: bytes) -> None:
        """Send a piece; it returns when there is room for more."""
        async with self._sending:
            try:
                self._tls.write(data)
            except ssl.SSLError as error:
                raise _broken(error) from error
            await self._flush_now()

    async def receive(self) -> bytes:
        """The next piece; empty at the end, also at one that nobody inside has said."""
        return await self.receive_most(MAX_PIECE_BYTES)

    async def receive_most(self, most_bytes: int) -> bytes:
        """The same, and no more than so many bytes of it."""
        while True:
            try:
                return self._tls.read(most_bytes)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                raise _broken(error) from error
            await self._flush()
            if not await self._feed():
                return b""

    def close(self) -> None:
        """End both ways."""
        self._under.close()

    async def closed(self) -> None:
        """Wait until nothing is left of what carries it."""
        await self._under.closed()

    async def _feed(self) -> bool:
        data = await self._under.receive()
        self._incoming.write(data)
        return bool(data)

    async def _flush(self) -> None:
        """Send what TLS has to say by itself."""
        if self._outgoing.pending:
            async with self._sending:
                await self._flush_now()

    async def _flush_now(self) -> None:
        while self._outgoing.pending:
            await self._under.send(self._outgoing.read(MAX_PIECE_BYTES))


def _broken(error: ssl.SSLError) -> ConnectionError:
    return ConnectionError(f"what came was changed on its way, or is no part of this channel: {error.reason}")


async def accept_pinned(
    pipe: Pipe, pins: AgentPins, *, wait_seconds: float = HANDSHAKE_SECONDS, seconds: float = HANDSHAKE_SECONDS
) -> PinnedPipe:
    """The agent's side. The pipe is closed if it does not come about.

    Args:
        pipe: Where the client is expected.
        pins: Who that is.
        wait_seconds: How long it may take until it comes.
        seconds: How long the handshake may take then.

    Raises:
        VerificationError: `channel.client_key` if another one than the order's client dials, `channel.certificate`.
        ConnectionError, TimeoutError: it did not come about in time, or at all.
    """
    try:
        async with asyncio.timeout(wait_seconds):
            opening = await pipe.receive()
        async with asyncio.timeout(seconds):
            certificate = _certificate(opening)
            if spki_sha256(certificate) != pins.tls_key:
                raise _other_client()
            inside = PinnedPipe(pipe, agent_context(pins.key, certificate), server_side=True)
            await inside.shake_hands()
            if inside.peer_key != pins.tls_key:
                raise _other_client()
            proof = agent_proof(
                pins.secret, agent_key=pins.key.sha256, client_key=pins.tls_key, request_id=pins.request_id
            )
            await inside.send(proof)
            if await _read(inside, len(_READY)) != _READY:
                raise ConnectionError("the client does not say that it goes on")
    except ssl.SSLError as error:
        pipe.close()
        raise _broken(error) from error
    except (OSError, PrivysealError, asyncio.CancelledError):
        pipe.close()
        raise
    return inside


async def dial_pinned(pipe: Pipe, pins: ClientPins, *, seconds: float = HANDSHAKE_SECONDS) -> PinnedPipe:
    """The client's side. The pipe is closed if it does not come about.

    Raises:
        VerificationError: `channel.agent_proof` if whoever answers is not the agent, `channel.certificate`.
        ConnectionError, TimeoutError: it did not come about in time, or at all.
    """
    try:
        async with asyncio.timeout(seconds):
            await pipe.send(_OPENING + pins.key.certificate)
            inside = PinnedPipe(pipe, client_context(pins.key), server_side=False)
            await inside.shake_hands()
            expected = agent_proof(
                pins.secret, agent_key=inside.peer_key, client_key=pins.key.sha256, request_id=pins.request_id
            )
            if not hmac.compare_digest(await _read(inside, PROOF_BYTES), expected):
                raise VerificationError(
                    "channel.agent_proof",
                    "whoever answers for this lease is not the agent that the trust bundle names",
                    hint="somebody stands between this machine and the agent; nothing was told to it: tell an"
                    " administrator",
                )
            await inside.send(_READY)
    except ssl.SSLError as error:
        pipe.close()
        raise _broken(error) from error
    except (OSError, PrivysealError, asyncio.CancelledError):
        pipe.close()
        raise
    return inside


def _other_client() -> VerificationError:
    return VerificationError(
        "channel.client_key", "whoever dials for this lease does not hold the key that its order names"
    )


def _certificate(opening: bytes) -> bytes:
    """What stands in the first piece, which no pipe cuts: nothing was sent before it."""
    if not opening:
        raise ConnectionError("the connection ended before it began")
    if not opening.startswith(_OPENING) or len(opening) > len(_OPENING) + MAX_CERTIFICATE_BYTES:
        raise VerificationError("channel.certificate", "the other side does not begin as a client does")
    return opening[len(_OPENING) :]


async def _read(inside: PinnedPipe, size: int) -> bytes:
    """Exactly so many bytes: what follows them in the same piece stays for the channel."""
    found = b""
    while len(found) < size:
        piece = await inside.receive_most(size - len(found))
        if not piece:
            raise ConnectionError("the other side ended before it had said all that belongs to the handshake")
        found += piece
    return found
