# SPDX-License-Identifier: Apache-2.0
"""The hub's way to witnesses that have a URL: one bounded POST (C2SP tlog-witness). Redirects are not followed."""

import asyncio
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from privyseal.errors import UnavailableError
from privyseal.hub.hosts import SameHost, same_host

__all__ = ["WitnessClient", "WitnessReply"]

_EXCHANGE_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 5.0
#: A cosignature's line with room for several of 5 kB, or a few words.
_MAX_ANSWER_BYTES: Final = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessReply:
    """What a witness answered, as it came."""

    status: int
    content_type: str
    text: str


class WitnessClient:
    """Asks witnesses; connections are kept for the next checkpoint."""

    def __init__(self, *, is_here: SameHost = same_host, exchange_seconds: float = _EXCHANGE_SECONDS) -> None:
        self._is_here: Final = is_here
        self._exchange_seconds: Final = exchange_seconds
        self._session: aiohttp.ClientSession | None = None

    async def is_here(self, url: str) -> bool:
        """Whether the witness at a URL runs on this very host.

        Raises:
            UnavailableError: `witness.unreachable` if its name has no address.
        """
        parts = urlsplit(url)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(parts.hostname or "", parts.port)
        except (OSError, ValueError) as error:
            raise UnavailableError("witness.unreachable", f"the witness at {url} has no address: {error}") from error
        return any(self._is_here(str(sockaddr[0])) for *_, sockaddr in found)

    async def add_checkpoint(self, url: str, body: str) -> WitnessReply:
        """Put a checkpoint before a witness.

        Raises:
            UnavailableError: `witness.unreachable`, `witness.answer`.
        """
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._exchange_seconds, connect=_CONNECT_SECONDS)
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False, cookie_jar=jar)
        try:
            return await _post(self._session, url.rstrip("/") + "/add-checkpoint", body)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError("witness.unreachable", f"the witness at {url} does not answer: {reason}") from error

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


async def _post(session: aiohttp.ClientSession, url: str, body: str) -> WitnessReply:
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    async with session.post(url, data=body.encode(), headers=headers, allow_redirects=False) as response:
        data = bytearray()
        async for part in response.content.iter_chunked(_MAX_ANSWER_BYTES):
            data += part
            if len(data) > _MAX_ANSWER_BYTES:
                raise UnavailableError("witness.answer", f"the answer of the witness at {url} does not end")
        return WitnessReply(
            status=response.status, content_type=response.content_type, text=data.decode("utf-8", "replace")
        )
