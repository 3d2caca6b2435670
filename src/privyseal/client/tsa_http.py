# SPDX-License-Identifier: Apache-2.0
"""One exchange with a time-stamping authority over HTTP (RFC 3161 §3.4), bounded in time and size.

The deadline is one for the whole exchange: each read from the socket gets what is left of it, so that a peer that
sends a byte now and then gains nothing. Only the system's own name resolution keeps its own time.
"""

import datetime as dt
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
from privyseal.wire.tsa import MAX_TSA_ANSWER_BYTES, TSA_HEADERS, TsaAnswer, check_tsa_url, judge_tsa_answer

__all__ = ["HttpTsa"]

_CONNECT_SECONDS: Final = 10.0
_READ_BYTES: Final = 64 * 1024
_MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 307, 308})


class _Within(io.RawIOBase):
    """The socket's bytes; every read gets what is left of the time, and all of them what is left of the size.

    The size is bounded here, below HTTP: http.client reads to the end for a chunk that says it has -1 bytes.
    """

    def __init__(self, stream: socket.socket, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline
        self._left_bytes = MAX_TSA_ANSWER_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]  # the stub has a private protocol
        self._stream.settimeout(_left(self._deadline))
        count = self._stream.recv_into(buffer)
        self._left_bytes -= count
        if self._left_bytes < 0:
            raise MalformedInputError("tsa.too_large", f"it answers with more than {MAX_TSA_ANSWER_BYTES} bytes")
        return count


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


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
                return judge_tsa_answer(answer, dt.datetime.now(dt.UTC))
            try:
                url = urllib.parse.urljoin(url, answer.location)
                check_tsa_url(url)
            except (ConfigError, ValueError) as error:
                raise MalformedInputError("tsa.redirects", "it redirects to what is no http or https URL") from error
        raise MalformedInputError("tsa.redirects", f"it redirects more than {_MAX_REDIRECTS} times")


def _exchange(url: str, request: bytes, deadline: float) -> TsaAnswer:
    try:
        return _post(urllib.parse.urlsplit(url), request, deadline)
    except TimeoutError as error:
        raise UnavailableError("tsa.timeout", "it does not answer in time") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _failure(error) from error


def _failure(error: OSError | http.client.HTTPException | ValueError) -> PrivysealError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return UnsupportedInputError("tsa.tls", f"its TLS certificate is not trusted: {error.verify_message}")
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return UnsupportedInputError("tsa.tls", f"no TLS connection: {error.reason or error}")
    if isinstance(error, OSError):
        return UnavailableError("tsa.unreachable", f"it cannot be reached: {error.strerror or error}")
    if isinstance(error, http.client.IncompleteRead):
        return MalformedInputError("tsa.truncated", "its answer ends early")
    return MalformedInputError("tsa.not_http", f"it does not speak HTTP: {type(error).__name__}")


def _post(place: urllib.parse.SplitResult, request: bytes, deadline: float) -> TsaAnswer:
    with _connect(place, deadline) as stream:
        connection = http.client.HTTPConnection(place.hostname or "", place.port)
        connection.sock = stream
        stream.settimeout(_left(deadline))
        target = urllib.parse.urlunsplit(("", "", place.path or "/", place.query, ""))
        connection.request("POST", target, body=request, headers={**TSA_HEADERS, "Connection": "close"})
        with http.client.HTTPResponse(stream, method="POST") as response:
            response.fp.close()
            response.fp = io.BufferedReader(_Within(stream, deadline))
            response.begin()
            return TsaAnswer(
                status=response.status,
                content_type=response.headers.get("Content-Type", ""),
                location=response.headers.get("Location", ""),
                retry_after=response.headers.get("Retry-After", ""),
                body=_body(response) if response.status == HTTPStatus.OK else b"",
            )


def _body(response: http.client.HTTPResponse) -> bytes:
    """In pieces: a single read would make room first for whatever length the peer has announced."""
    body = b"".join(iter(lambda: response.read(_READ_BYTES), b""))
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return body


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
