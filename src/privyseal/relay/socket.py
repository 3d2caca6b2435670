# SPDX-License-Identifier: Apache-2.0
"""A WebSocket as a pipe: a piece is a binary frame. Both sides of a lease dial one at a hub, which pairs them."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, Protocol

import aiohttp
import msgspec

from privyseal.errors import IdentityError, PrivysealError, UnavailableError
from privyseal.ports.pipe import MAX_PIECE_BYTES
from privyseal.wire.api import Problem, error_from_problem

__all__ = ["CLOSE_SECONDS", "MAX_FRAME_BYTES", "SocketPipe", "WebSocket", "dial_relay"]

#: aiohttp refuses what reaches this.
MAX_FRAME_BYTES: Final = MAX_PIECE_BYTES + 1
#: How long the other end's goodbye is waited for.
CLOSE_SECONDS: Final = 2.0
_CONNECT_SECONDS: Final = 10.0
_MAX_PROBLEM_BYTES: Final = 65_536
_GONE: Final = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)


class WebSocket(Protocol):
    """What a pipe needs of aiohttp's WebSockets, of either side."""

    async def send_bytes(self, data: bytes) -> None:
        """Send one binary frame; it waits while much is unsent."""
        ...

    async def receive(self) -> aiohttp.WSMessage:
        """The next frame, or one that says that the connection is gone."""
        ...

    async def close(self) -> object:
        """End the connection, also while somebody waits in `receive`."""
        ...


class SocketPipe:
    """A `Pipe` over a WebSocket."""

    def __init__(self, socket: WebSocket, session: aiohttp.ClientSession | None = None) -> None:
        """Take over a socket, and the session that it was dialled with."""
        self._socket: Final = socket
        self._session: Final = session
        self._closing: asyncio.Task[None] | None = None

    async def send(self, data: bytes) -> None:
        """Send a frame; it returns when there is room for more."""
        try:
            await self._socket.send_bytes(data)
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error

    async def receive(self) -> bytes:
        """The next frame; empty at the end. A hub that ends the connection says why, which is raised."""
        while True:
            message = await self._socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                if message.data:
                    return bytes(message.data)
                continue
            if message.type in _GONE:
                if message.extra:
                    raise ConnectionError(f"the hub ended the connection: {message.extra}")
                return b""
            raise ConnectionError("the connection broke")

    def close(self) -> None:
        """End it, in the background."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())

    async def closed(self) -> None:
        """Wait until nothing is left of it; after `close`."""
        if self._closing is not None:
            await self._closing

    async def _close(self) -> None:
        try:
            await self._socket.close()
        finally:
            if self._session is not None:
                await self._session.close()


async def dial_relay(url: str, tls: ssl.SSLContext, proof: Callable[[], Mapping[str, str]] = dict) -> SocketPipe:
    """A pipe to whoever dials the other end for the same request, at this hub.

    Args:
        url: Of the route at the hub.
        tls: How the hub is known, and with the certificate of a member, how that is.
        proof: Makes fields that say who asks, for each HTTP request anew, where no certificate can.

    Raises:
        UnavailableError: `hub.unreachable`, `hub.answer`. IdentityError: `hub.certificate`.
        PrivysealError: what the hub said.
    """
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS))
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            socket = await session.ws_connect(
                url,
                ssl=tls,
                headers=proof(),
                compress=0,
                max_msg_size=MAX_FRAME_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
            )
        return SocketPipe(socket, session)
    except aiohttp.WSServerHandshakeError:
        error = await _refusal(session, url, tls, proof())
        await session.close()
        raise error from None
    except (aiohttp.ClientError, OSError) as error:
        await session.close()
        raise _unreachable(url, error) from error
    except BaseException:
        await session.close()
        raise


async def _refusal(
    session: aiohttp.ClientSession, url: str, tls: ssl.SSLContext, fields: Mapping[str, str]
) -> PrivysealError:
    """What the hub has against it: aiohttp drops what comes with a handshake that is refused, so it is asked again."""
    try:
        async with asyncio.timeout(_CONNECT_SECONDS), session.get(url, ssl=tls, headers=fields) as answer:
            status = HTTPStatus(answer.status)
            said = await answer.content.read(_MAX_PROBLEM_BYTES)
        return error_from_problem(msgspec.json.decode(said, type=Problem))
    except (aiohttp.ClientError, OSError) as error:
        return _unreachable(url, error)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return UnavailableError("hub.answer", f"{url} does not answer as a hub does: HTTP {status:d}")


def _unreachable(url: str, error: BaseException) -> PrivysealError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return IdentityError(
            "hub.certificate",
            f"what answers at {url} is not the hub that was pinned when this machine joined",
            hint="tell an administrator; do not join again before the reason is known",
        )
    return UnavailableError(
        "hub.unreachable", f"the hub at {url} does not answer: {error}", hint="can this machine reach it?"
    )
