# SPDX-License-Identifier: Apache-2.0
"""HTTP to one address: urllib3 over TLS 1.3, only the CA that is given, problem documents back into errors."""

import datetime as dt
import http.client
import ssl
import time
import urllib.parse
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

import msgspec
import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError

from privyseal.errors import IdentityError, PrivysealError, UnavailableError
from privyseal.wire.api import Problem, error_from_problem
from privyseal.wire.retry_after import parse_retry_after

__all__ = ["WebTransport", "fetch_unpinned", "web_context"]

_CONNECT_SECONDS: Final = 10.0
_READ_SECONDS: Final = 90.0
_MAX_BUNDLE_BYTES: Final = 1024 * 1024
_ANSWER_SECONDS: Final = 300.0
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024
#: What an answer may take longer than the question was ready to wait.
_GRACE_SECONDS: Final = 15.0
#: Said by whatever stands in front of a hub that it cannot reach.
_GATEWAY: Final = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)


def web_context(ca_pem: str) -> ssl.SSLContext:
    """TLS 1.3 that believes this one CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=ca_pem)
    return context


def fetch_unpinned(url: str, path: str) -> bytes:
    """GET from a server that nobody vouches for: only for a trust bundle, which is then judged by its hash.

    Raises:
        UnavailableError: `hub.unreachable`, `hub.answer`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    place = urllib.parse.urlsplit(url)
    connection = http.client.HTTPSConnection(
        place.hostname or "", place.port, context=context, timeout=_CONNECT_SECONDS
    )
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        data = response.read(_MAX_BUNDLE_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(
            "hub.unreachable", f"the hub at {url} does not answer: {error}", hint="can this machine reach it?"
        ) from error
    finally:
        connection.close()
    if response.status != HTTPStatus.OK:
        raise UnavailableError("hub.answer", f"{url}{path} answered with HTTP {response.status}")
    return data


def _read(response: urllib3.BaseHTTPResponse, url: str, deadline: float) -> bytes:
    """The body as it came: a hub that was taken over may send without end, slowly, or little that unpacks to much."""
    body = bytearray()
    while piece := response.read1(_PIECE_BYTES, decode_content=False):
        body += piece
        if len(body) > _MAX_ANSWER_BYTES:
            raise UnavailableError("hub.answer", f"{url} answers with more than {_MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline:
            raise UnavailableError("hub.answer", f"the answer of {url} did not end in time")
    return bytes(body)


def _answer(response: urllib3.BaseHTTPResponse, url: str, data: bytes) -> bytes:
    if response.status < 400:
        return data
    try:
        problem = msgspec.json.decode(data, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if response.status in _GATEWAY:
            raise UnavailableError(
                "hub.gateway",
                f"what stands in front of the hub at {url} answered with HTTP {response.status}",
                hint="it does not reach the hub: is the hub running?",
                retry_after_seconds=parse_retry_after(response.headers.get("Retry-After", ""), dt.datetime.now(dt.UTC)),
            ) from error
        raise UnavailableError("hub.answer", f"{url} answered with HTTP {response.status}") from error
    raise error_from_problem(problem)


def _timeout(seconds: float | None, silence_seconds: float | None) -> urllib3.Timeout:
    """For an answer that is worth waiting for so long, from a server that may say nothing for so long."""
    connect, read = _CONNECT_SECONDS, _READ_SECONDS
    if silence_seconds is not None:
        connect, read = min(connect, silence_seconds), min(read, silence_seconds)
    if seconds is not None:
        connect, read = min(connect, max(1.0, seconds)), min(read, seconds + _GRACE_SECONDS)
    return urllib3.Timeout(connect=connect, read=read)


class WebTransport:
    """A listener that asks for no client certificate."""

    def __init__(self, url: str, context: ssl.SSLContext, *, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self.url = url.rstrip("/")
        self._answer_seconds = answer_seconds
        self._pool = urllib3.PoolManager(
            ssl_context=context,
            retries=False,
        )
        #: Bodies sent and received so far.
        self.sent_bytes = 0
        self.received_bytes = 0

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        seconds: float | None = None,
        silence_seconds: float | None = None,
    ) -> bytes:
        """One request; answers with the body.

        Args:
            method: GET or POST.
            path: With its query.
            body: What is sent, if anything.
            seconds: How long the answer is worth waiting for; without it, as long as any answer takes.
            silence_seconds: How long nothing may come before the hub counts as gone, if less than it may take at most.

        Raises:
            UnavailableError: `hub.unreachable`, `hub.gateway`, `hub.answer`.
            IdentityError: `hub.certificate` if the server is not the pinned hub.
            PrivysealError: what the hub said.
        """
        url = self.url + path
        self.sent_bytes += len(body or b"")
        deadline = time.monotonic() + self._answer_seconds
        headers = {"Content-Type": "application/json"} | self._proof(method, path, body)
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=_timeout(seconds, silence_seconds),
                preload_content=False,
            )
            try:
                data = _read(response, url, deadline)
                self.received_bytes += len(data)
            except BaseException:
                response.close()
                raise
        except HTTPError as error:
            raise self._failure(error) from error
        response.release_conn()
        return _answer(response, url, data)

    def stream(self, path: str, headers: dict[str, str], *, silence_seconds: float) -> Iterator[bytes]:
        """GET what does not end; answers with its pieces as they come, until the hub ends it.

        Args:
            path: Path at the hub.
            headers: To be sent.
            silence_seconds: How long nothing may come before the hub counts as gone.

        Raises:
            UnavailableError, IdentityError, PrivysealError: as `request`.
        """
        url = self.url + path
        headers = headers | self._proof("GET", path, None)
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=silence_seconds)
        try:
            response = self._pool.request("GET", url, headers=headers, timeout=timeout, preload_content=False)
            try:
                if response.status >= 400:
                    _answer(response, url, _read(response, url, time.monotonic() + silence_seconds))
                while piece := response.read1(_PIECE_BYTES, decode_content=False):
                    yield piece
            finally:
                response.close()
        except HTTPError as error:
            raise self._failure(error) from error

    def _proof(self, method: str, path: str, body: bytes | None) -> dict[str, str]:  # noqa: ARG002 - see below
        """Headers that say who asks; none where TLS says it, or nobody asks for it."""
        return {}

    def _failure(self, error: HTTPError) -> PrivysealError:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            if dates := _wrong_dates(error):
                return IdentityError(
                    "hub.certificate",
                    f"the certificate of the hub at {self.url} {dates} by this machine's clock",
                    hint="set this machine's clock (NTP); if it is right, tell an administrator of the hub",
                )
            return IdentityError(
                "hub.certificate",
                f"the server at {self.url} does not show a certificate of the pinned hub",
                hint="somebody stands in between, or the hub was made anew: ask an administrator for a join code",
            )
        return UnavailableError(
            "hub.unreachable",
            f"the hub at {self.url} does not answer: {_reason(error)}",
            hint="is it running, and can this machine reach it?",
        )


def _wrong_dates(error: HTTPError) -> str:
    """OpenSSL's word for dates that do not hold, which is mostly the fault of a clock."""
    return next((word for word in ("has expired", "is not yet valid") if word in str(error)), "")


def _reason(error: BaseException) -> str:
    if isinstance(error, MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, NewConnectionError):
        return str(error).rsplit(": ", 1)[-1]
    return str(error) or type(error).__name__
