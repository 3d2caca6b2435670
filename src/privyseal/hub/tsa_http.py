# SPDX-License-Identifier: Apache-2.0
"""The hub's way to TSAs: one bounded POST. URLs come from hub.toml alone, and redirects are not followed."""

import datetime as dt
from http import HTTPStatus
from typing import Final

import aiohttp

from privyseal.errors import MalformedInputError, UnavailableError, UnsupportedInputError
from privyseal.wire.tsa import MAX_TSA_ANSWER_BYTES, TSA_HEADERS, TsaAnswer, judge_tsa_answer

__all__ = ["TsaClient"]

_EXCHANGE_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 5.0
_READ_BYTES: Final = 64 * 1024


class TsaClient:
    """Asks TSAs; connections are kept for the next question."""

    def __init__(self, *, exchange_seconds: float = _EXCHANGE_SECONDS) -> None:
        self._exchange_seconds = exchange_seconds
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, url: str, request: bytes) -> bytes:
        """Send a TimeStampReq; answers with what may be a TimeStampResp.

        Raises:
            UnavailableError: `tsa.unreachable`, `tsa.timeout`, `tsa.unavailable`, `tsa.busy`.
            UnsupportedInputError: `tsa.http_status`, `tsa.tls`.
            MalformedInputError: `tsa.not_a_timestamp`, `tsa.too_large`, `tsa.not_http`, `tsa.truncated`.
        """
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._exchange_seconds, connect=_CONNECT_SECONDS)
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False, cookie_jar=jar)
        try:
            answer = await self._post(self._session, url, request)
        except TimeoutError as error:
            raise UnavailableError("tsa.timeout", "it does not answer in time") from error
        except aiohttp.ClientSSLError as error:
            raise UnsupportedInputError("tsa.tls", f"no TLS connection: {error}") from error
        except aiohttp.ClientPayloadError as error:
            raise MalformedInputError("tsa.truncated", "its answer ends early") from error
        except (aiohttp.ClientResponseError, ValueError) as error:
            raise MalformedInputError("tsa.not_http", f"it does not speak HTTP: {type(error).__name__}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnavailableError("tsa.unreachable", f"it cannot be reached: {error}") from error
        return judge_tsa_answer(answer, dt.datetime.now(dt.UTC))

    async def _post(self, session: aiohttp.ClientSession, url: str, request: bytes) -> TsaAnswer:
        async with session.post(url, data=request, headers=TSA_HEADERS, allow_redirects=False) as response:
            body = await _body(response.content) if response.status == HTTPStatus.OK else b""
            return TsaAnswer(
                status=response.status,
                content_type=response.headers.get("Content-Type", ""),
                location=response.headers.get("Location", ""),
                retry_after=response.headers.get("Retry-After", ""),
                body=body,
            )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


async def _body(stream: aiohttp.StreamReader) -> bytes:
    parts, size = [], 0
    async for part in stream.iter_chunked(_READ_BYTES):
        parts.append(part)
        size += len(part)
        if size > MAX_TSA_ANSWER_BYTES:
            raise MalformedInputError("tsa.too_large", f"it answers with more than {MAX_TSA_ANSWER_BYTES} bytes")
    return b"".join(parts)
