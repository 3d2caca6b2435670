# SPDX-License-Identifier: Apache-2.0
"""Which signed HTTP requests have come already: none is taken twice while its signature is still good."""

from typing import Final

from privyseal.errors import IdentityError, UnavailableError
from privyseal.wire.http_signature import LIFE_SECONDS

__all__ = ["Nonces"]

#: A signature may come from the future by one life, and then lives for another.
_REMEMBERED_SECONDS: Final = 2.0 * LIFE_SECONDS + 1.0
#: For one client; some 130 requests a second without an end.
_MOST: Final = 16_384


class Nonces:
    """Remembers nonces in two generations: one that grows, and one that is forgotten when that one is old enough.

    It is this process's memory. Another hub of the cell, and this one after a restart, know nothing of it: there a
    request can be sent once more within its minute, which brings the same answer (idempotency key) or none at all.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most: Final = most
        self._new: dict[bytes, set[bytes]] = {}
        self._old: dict[bytes, set[bytes]] = {}
        self._began_s = 0.0

    def take(self, key: bytes, nonce: bytes, now_s: float) -> None:
        """Remember a nonce of a key whose signature was checked.

        Args:
            key: The request key.
            nonce: As signed.
            now_s: Monotonic, in seconds.

        Raises:
            IdentityError: `proof.replayed`.
            UnavailableError: `proof.too_many`.
        """
        if now_s - self._began_s > _REMEMBERED_SECONDS:
            self._old = self._new if now_s - self._began_s <= 2 * _REMEMBERED_SECONDS else {}
            self._new, self._began_s = {}, now_s
        ours = self._new.setdefault(key, set())
        if nonce in ours or nonce in self._old.get(key, ()):
            raise IdentityError(
                "proof.replayed",
                "this very request has come before",
                hint="what stands between client and hub must not repeat requests (HAProxy: no `retry-on` beyond "
                "conn-failure); if nothing there does, somebody has recorded it",
            )
        if len(ours) >= self._most:
            raise UnavailableError(
                "proof.too_many",
                f"the client has sent {self._most} signed requests within two minutes",
                hint="sign many files with one command: they are one request",
                retry_after_seconds=self._began_s + _REMEMBERED_SECONDS - now_s,
            )
        ours.add(nonce)
