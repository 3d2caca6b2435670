# SPDX-License-Identifier: Apache-2.0
"""The mtls listener of a hub, with the client's certificate.

A handshake that ends without an answer can mean "not you" or "not now". The client looks at its own dates first, then
asks the web listener for the state of its certificate, and only then calls the hub unavailable.
"""

import datetime as dt
import hashlib
import ssl

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from urllib3 import exceptions
from urllib3.exceptions import HTTPError, NewConnectionError

from privyseal.client.cell import web_cell
from privyseal.client.config import ClientConfig
from privyseal.client.transport import WebTransport, web_context
from privyseal.errors import ConfigError, IdentityError, PrivysealError
from privyseal.identity.keyfile import read_private
from privyseal.wire.membership import CertificateState

__all__ = ["MtlsTransport", "mtls_context"]


class MtlsTransport(WebTransport):
    """The mtls listener at one address."""

    def __init__(self, url: str, context: ssl.SSLContext, config: ClientConfig) -> None:
        super().__init__(url, context)
        self._config = config

    def _failure(self, error: HTTPError) -> PrivysealError:
        failure = super()._failure(error)
        # Nobody who hangs up on a certificate says nothing: who does hangs, and its web listener would as well.
        if isinstance(failure, IdentityError) or isinstance(error, NewConnectionError | exceptions.TimeoutError):
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
        try:
            answer = web_cell(self._config).request("GET", f"/v1/certificates/{fingerprint}")
            state = msgspec.json.decode(answer, type=CertificateState)
        except (PrivysealError, msgspec.DecodeError):
            return None
        if state.state == "standing":
            return None
        return IdentityError(
            f"identity.{state.state}",
            f"the hub does not take this client's certificate: {state.state}",
            hint="ask an administrator for a new join code, then: privyseal client join",
        )


def mtls_context(config: ClientConfig) -> ssl.SSLContext:
    """TLS with the client's certificate.

    Raises:
        ConfigError: `file.missing`, `file.not_a_key` and their like.
    """
    context = web_context(config.load_bundle().statement.ca)
    identity = config.identity
    read_private(identity.tls_key)
    try:
        context.load_cert_chain(identity.tls_certificate, identity.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "file.not_a_key", f"cannot use {identity.tls_certificate} and {identity.tls_key}: {error}"
        ) from error
    return context
