# SPDX-License-Identifier: Apache-2.0
"""One exchange with a time-stamping authority over HTTP (RFC 3161 §3.4), bounded in time and size.

The deadline is one for the whole exchange: each read from the socket gets what is left of it, so that a peer that
sends a byte now and then gains nothing. Only the system's own name resolution keeps its own time.
"""

import datetime as dt
import email.utils
import errno
import http.client
import io
import socket
import ssl
import time
import urllib.parse
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from privyseal.errors import ConfigError, MalformedInputError, PrivysealError, UnavailableError, UnsupportedInputError

__all__ = ["BusyError", "HttpTsa", "check_tsa_url"]

_CONNECT_SECONDS: Final = 10.0
_MAX_ANSWER_BYTES: Final = 1024 * 1024
_READ_BYTES: Final = 64 * 1024
_MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 307, 308})
_MAX_RETRY_AFTER_SECONDS: Final = 86_400.0
_HEADERS: Final = {
    "Content-Type": "application/timestamp-query",
    "Accept": "application/timestamp-reply",
    "User-Agent": "privyseal",
    "Connection": "close",
}


class BusyError(UnavailableError):
    """The peer asks for patience.

    Attributes:
        retry_after_seconds: How long, as it said; None if it did not say.
    """

    def __init__(self, code: str, message: str, *, retry_after_seconds: float | None) -> None:
        super().__init__(code, message)
        self.retry_after_seconds = retry_after_seconds


def check_tsa_url(url: str) -> None:
    """A TSA's URL is http or https, and holds no credentials: it stands in messages.

    Raises:
        ConfigError: `timestamp.url`.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or "@" in parts.netloc or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(
            "timestamp.url",
            "a TSA is named by an http:// or https:// URL without credentials, for example http://tsa.example.com",
        )


class _Within(io.RawIOBase):
    """The socket's bytes; every read gets what is left of the time."""

    def __init__(self, stream: socket.socket, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]  # the stub has a private protocol
        self._stream.settimeout(_left(self._deadline))
        return self._stream.recv_into(buffer)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    content_type: str
    location: str
    retry_after: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTsa:
    """A time-stamping authority at a URL."""

    url: str

    @property
    def name(self) -> str:
        """How messages name it."""
        return self.url

    def ask(self, request: bytes, seconds: float) -> bytes:
        """Send a TimeStampReq and answer with what came back as a TimeStampResp.

        Args:
            request: DER.
            seconds: For all of it, redirects included.

        Raises:
            UnavailableError: `tsa.unreachable`, `tsa.timeout`, `tsa.unavailable`; as `BusyError`: `tsa.busy`.
            MalformedInputError: `tsa.not_a_timestamp`, `tsa.too_large`, `tsa.truncated`, `tsa.redirects`,
                `tsa.not_http`.
            UnsupportedInputError: `tsa.http_status`, `tsa.tls`.
        """
        deadline = time.monotonic() + seconds
        url = self.url
        for _ in range(_MAX_REDIRECTS + 1):
            answer = _exchange(url, request, deadline)
            if answer.status not in _REDIRECTS:
                return _judged(answer)
            try:
                url = urllib.parse.urljoin(url, answer.location)
                check_tsa_url(url)
            except (ConfigError, ValueError) as error:
                raise MalformedInputError("tsa.redirects", "it redirects to what is no http or https URL") from error
        raise MalformedInputError("tsa.redirects", f"it redirects more than {_MAX_REDIRECTS} times")


def _judged(answer: _Answer) -> bytes:
    if answer.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        seconds = _retry_after(answer.retry_after)
        patience = "" if seconds is None else f" and asks to wait {seconds:.0f} s"
        raise BusyError("tsa.busy", f"it answers with HTTP {answer.status}{patience}", retry_after_seconds=seconds)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise UnavailableError("tsa.unavailable", f"it answers with HTTP {answer.status}")
    if answer.status != HTTPStatus.OK:
        raise UnsupportedInputError("tsa.http_status", f"it answers with HTTP {answer.status}; is this a TSA's URL?")
    if answer.content_type.lower().startswith("text/") or answer.body.lstrip()[:1] == b"<":
        raise MalformedInputError("tsa.not_a_timestamp", "it answers with a page of text: a proxy may stand in between")
    return answer.body


def _exchange(url: str, request: bytes, deadline: float) -> _Answer:
    try:
        return _post(urllib.parse.urlsplit(url), request, deadline)
    except TimeoutError as error:
        raise UnavailableError("tsa.timeout", "it does not answer in time") from error
    except (OSError, http.client.HTTPException) as error:
        raise _failure(error) from error


def _failure(error: OSError | http.client.HTTPException) -> PrivysealError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return UnsupportedInputError("tsa.tls", f"its TLS certificate is not trusted: {error.verify_message}")
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return UnsupportedInputError("tsa.tls", f"no TLS connection: {error.reason or error}")
    if isinstance(error, OSError):
        return UnavailableError("tsa.unreachable", f"it cannot be reached: {error.strerror or error}")
    if isinstance(error, http.client.IncompleteRead):
        return MalformedInputError("tsa.truncated", "its answer ends early")
    return MalformedInputError("tsa.not_http", f"it does not speak HTTP: {type(error).__name__}")


def _post(place: urllib.parse.SplitResult, request: bytes, deadline: float) -> _Answer:
    with _connect(place, deadline) as stream:
        connection = http.client.HTTPConnection(place.hostname or "", place.port)
        connection.sock = stream
        stream.settimeout(_left(deadline))
        target = urllib.parse.urlunsplit(("", "", place.path or "/", place.query, ""))
        connection.request("POST", target, body=request, headers=_HEADERS)
        with http.client.HTTPResponse(stream, method="POST") as response:
            response.fp.close()
            response.fp = io.BufferedReader(_Within(stream, deadline))
            response.begin()
            return _Answer(
                status=response.status,
                content_type=response.headers.get("Content-Type", ""),
                location=response.headers.get("Location", ""),
                retry_after=response.headers.get("Retry-After", ""),
                body=_body(response) if response.status == HTTPStatus.OK else b"",
            )


def _body(response: http.client.HTTPResponse) -> bytes:
    parts, size = [], 0
    while part := response.read(_READ_BYTES):
        parts.append(part)
        size += len(part)
        if size > _MAX_ANSWER_BYTES:
            raise MalformedInputError("tsa.too_large", f"it answers with more than {_MAX_ANSWER_BYTES} bytes")
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(parts)


def _connect(place: urllib.parse.SplitResult, deadline: float) -> socket.socket:
    """A connection to one of the host's addresses."""
    host, secure = place.hostname or "", place.scheme == "https"
    failure: OSError = OSError(errno.EHOSTUNREACH, "the name has no address")
    for address in socket.getaddrinfo(host, place.port or (443 if secure else 80), type=socket.SOCK_STREAM):
        family, kind, protocol, _, where = address
        stream = socket.socket(family, kind, protocol)
        try:
            stream.settimeout(min(_CONNECT_SECONDS, _left(deadline)))
            stream.connect(where)
            if not secure:
                return stream
            stream.settimeout(_left(deadline))
            return ssl.create_default_context().wrap_socket(stream, server_hostname=host)
        except ssl.SSLError:
            stream.close()
            raise
        except OSError as error:
            stream.close()
            failure = error
    raise failure


def _retry_after(text: str) -> float | None:
    """Seconds of a Retry-After field: a number or an HTTP date (RFC 9110 §10.2.3)."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), _MAX_RETRY_AFTER_SECONDS)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    seconds = (moment - dt.datetime.now(dt.UTC)).total_seconds()
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_SECONDS)
