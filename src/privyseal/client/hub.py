# SPDX-License-Identifier: Apache-2.0
"""The hub's API as calls: profiles, requests, status."""

import time
from typing import Final

import msgspec

from privyseal.client.config import ClientConfig
from privyseal.client.transport import MtlsTransport
from privyseal.errors import ConfigError, UnavailableError
from privyseal.wire.api import (
    HubStatus,
    ProfileView,
    RequestView,
    SignatureItem,
    SignatureRequest,
    decode_body,
)
from privyseal.wire.names import NAME_RULE, is_name

__all__ = ["HubClient"]

_POLL_SECONDS: Final = 30
_RETRIES: Final = 3


class HubClient:
    """One client's connection to its hub; not safe to share between threads."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._transport = MtlsTransport(config)

    def profile(self, name: str) -> ProfileView:
        """A key profile.

        Raises:
            ConfigError: `profile.unknown`. TokenError: what stands in the way at the agent. And what every call may
                raise: UnavailableError, IdentityError.
        """
        if not is_name(name):
            raise ConfigError(
                "profile.unknown", f"{name!r} cannot be a key profile: {NAME_RULE}", hint="privyseal status lists them"
            )
        return decode_body(self._transport.request("GET", f"/v1/profiles/{name}"), ProfileView)

    def status(self) -> HubStatus:
        """What the hub says of itself."""
        return decode_body(self._transport.request("GET", "/v1/status"), HubStatus)

    def sign(self, envelope: bytes, preimages: tuple[SignatureItem, ...]) -> RequestView:
        """Submit a request and wait until it is done.

        The request carries its own idempotency key: after a lost connection the same bytes are sent again.

        Raises:
            UnavailableError: `request.waiting` after `wait_seconds`, naming the request's address.
            DeniedError, ConflictError, TokenError: what the hub said.
        """
        body = msgspec.json.encode(SignatureRequest(envelope=envelope, preimages=preimages))
        deadline = time.monotonic() + self._config.wait_seconds
        view = self._retry("POST", f"/v1/signatures?wait={_POLL_SECONDS}", body)
        while view.state == "waiting":
            if time.monotonic() > deadline:
                raise UnavailableError(
                    "request.waiting",
                    f"request {view.id[:16]}… is not done after {self._config.wait_seconds:.0f} s; "
                    f"{view.position} jobs are before it",
                    hint="it stays in the queue until it expires; the same command asks anew",
                )
            view = self._retry("GET", f"/v1/signatures/{view.id}?wait={_POLL_SECONDS}", None)
        return view

    def _retry(self, method: str, path: str, body: bytes | None) -> RequestView:
        """Once more on a lost connection, and only then: what the hub answers is an answer."""
        for attempt in range(_RETRIES):
            try:
                return decode_body(self._transport.request(method, path, body), RequestView)
            except UnavailableError as error:
                if error.code != "hub.unreachable" or attempt == _RETRIES - 1:
                    raise
                time.sleep(0.2 * 2**attempt)
        raise AssertionError  # the loop returns or raises
