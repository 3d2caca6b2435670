# SPDX-License-Identifier: Apache-2.0
"""The hub behind a proxy that ends TLS: the proxy shows a certificate of its own, and each request is signed."""

import secrets
import ssl

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from urllib3.exceptions import HTTPError

from privyseal.client.config import ClientConfig
from privyseal.client.transport import WebTransport
from privyseal.client.verifying import read_roots
from privyseal.errors import IdentityError, PrivysealError
from privyseal.ports.clock import Clock, system_clock
from privyseal.wire.http_signature import message_to_sign, sign_message

__all__ = ["ProxiedTransport", "proxied_context"]


class ProxiedTransport(WebTransport):
    """The proxy at one address. It can see and delay what goes through it; what it changes is refused."""

    def __init__(
        self, url: str, context: ssl.SSLContext, key: Ed25519PrivateKey, hub: str, clock: Clock = system_clock
    ) -> None:
        """`key` is the client's request key, `hub` the hub's name."""
        super().__init__(url, context)
        self._key = key
        self._hub = hub
        self._clock = clock

    def _proof(self, method: str, path: str, body: bytes | None) -> dict[str, str]:
        return sign_message(
            message_to_sign(method, path, body),
            self._key,
            hub=self._hub,
            created_s=self._clock() // 1000,
            nonce=secrets.token_bytes(16),
        )

    def _failure(self, error: HTTPError) -> PrivysealError:
        failure = super()._failure(error)
        if not isinstance(failure, IdentityError):
            return failure
        return IdentityError(
            "hub.proxy_certificate",
            f"the proxy at {self.url} shows a certificate that is not trusted: {error.__cause__ or error}",
            hint="name its root under `hub_ca` in client.toml",
        )


def proxied_context(config: ClientConfig) -> ssl.SSLContext:
    """TLS that believes the proxy's own CA, or those of the system.

    Raises:
        ConfigError: `file.missing`, `trust.malformed`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if config.hub_ca is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cadata=b"".join(read_roots((config.hub_ca,))))
    return context
