# SPDX-License-Identifier: Apache-2.0
"""HTTP to the hub: urllib3 over TLS 1.3, only the pinned CA, problem documents back into errors.

A handshake that ends without an answer can mean "not you" or "not now". The client looks at its own dates first, then
asks the web listener for the state of its certificate, and only then calls the hub unavailable.
"""

import datetime as dt
import hashlib
import http.client
import ssl
import time
import urllib.parse
from collections.abc import Iterator
from typing import Final, TypeVar

import msgspec
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError

from privyseal.client.config import ClientConfig
from privyseal.errors import ConfigError, IdentityError, PrivysealError, UnavailableError
from privyseal.identity.keyfile import read_private
from privyseal.wire.api import CertificateState, Problem, error_from_problem

__all__ = ["MtlsTransport", "WebTransport", "fetch_unpinned", "web_context"]

T = TypeVar("T")
_CONNECT_SECONDS: Final = 10.0
_READ_SECONDS: Final = 90.0
_MAX_BUNDLE_BYTES: Final = 1024 * 1024
_ANSWER_SECONDS: Final = 300.0
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024


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
    if response.status != http.HTTPStatus.OK:
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
        raise UnavailableError("hub.answer", f"{url} answered with HTTP {response.status}") from error
    raise error_from_problem(problem)


class WebTransport:
    """The web listener: server certificate only."""

    def __init__(self, url: str, context: ssl.SSLContext, *, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self._url = url.rstrip("/")
        self._answer_seconds = answer_seconds
        self._pool = urllib3.PoolManager(
            ssl_context=context,
            retries=False,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
        )
        #: Bodies sent and received so far.
        self.sent_bytes = 0
        self.received_bytes = 0

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """One request; answers with the body.

        Raises:
            UnavailableError: `hub.unreachable`, `hub.answer`.
            IdentityError: `hub.certificate` if the server is not the pinned hub.
            PrivysealError: what the hub said.
        """
        url = self._url + path
        self.sent_bytes += len(body or b"")
        deadline = time.monotonic() + self._answer_seconds
        headers = {"Content-Type": "application/json"}
        try:
            response = self._pool.request(method, url, body=body, headers=headers, preload_content=False)
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
        url = self._url + path
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

    def _failure(self, error: HTTPError) -> PrivysealError:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            if dates := _wrong_dates(error):
                return IdentityError(
                    "hub.certificate",
                    f"the certificate of the hub at {self._url} {dates} by this machine's clock",
                    hint="set this machine's clock (NTP); if it is right, tell an administrator of the hub",
                )
            return IdentityError(
                "hub.certificate",
                f"the server at {self._url} does not show a certificate of the pinned hub",
                hint="somebody stands in between, or the hub was made anew: ask an administrator for a join code",
            )
        return UnavailableError(
            "hub.unreachable",
            f"the hub at {self._url} does not answer: {_reason(error)}",
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


class MtlsTransport(WebTransport):
    """The mtls listener, with the client's certificate."""

    def __init__(self, config: ClientConfig) -> None:
        bundle = config.load_bundle()
        context = web_context(bundle.statement.ca)
        read_private(config.identity.tls_key)
        try:
            context.load_cert_chain(config.identity.tls_certificate, config.identity.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                "file.not_a_key",
                f"cannot use {config.identity.tls_certificate} and {config.identity.tls_key}: {error}",
            ) from error
        super().__init__(config.hub_url, context)
        self._config = config
        self._ca = bundle.statement.ca

    def _failure(self, error: HTTPError) -> PrivysealError:
        failure = super()._failure(error)
        if isinstance(failure, IdentityError) or isinstance(error, NewConnectionError):
            return failure
        return self._own_standing() or failure

    def _own_standing(self) -> IdentityError | None:
        """Why the hub may have hung up on this client's certificate, if that is why."""
        certificate = x509.load_pem_x509_certificate(self._config.identity.tls_certificate.read_bytes())
        now = dt.datetime.now(dt.UTC)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            return IdentityError(
                "identity.certificate_expired",
                f"this client's TLS certificate is valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} only",
                hint="check this machine's clock; else join again with a new join code",
            )
        fingerprint = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        web = WebTransport(self._config.web_url, web_context(self._ca))
        try:
            state = msgspec.json.decode(web.request("GET", f"/v1/certificates/{fingerprint}"), type=CertificateState)
        except (PrivysealError, msgspec.DecodeError):
            return None
        if state.state == "standing":
            return None
        return IdentityError(
            f"identity.{state.state}",
            f"the hub does not take this client's certificate: {state.state}",
            hint="ask an administrator for a new join code, then: privyseal client join",
        )
