# SPDX-License-Identifier: Apache-2.0
"""Certificates of key profiles that end soon: 60, 30 and 7 days before, and once they have."""

import asyncio
import datetime as dt
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import structlog

from privyseal.errors import MalformedInputError
from privyseal.pki.x509 import Certificate, parse_certificate
from privyseal.ports.clock import Clock
from privyseal.ports.store import ProfileRow
from privyseal.wire.api import CertificateWarning
from privyseal.wire.events import CertificateEvent

__all__ = ["CertificateWatch", "own_certificate", "warning"]

_LOG: Final = structlog.get_logger("privyseal.hub.certificates")
_DAY_SECONDS: Final = 86_400.0
#: Days left, and the level from there on.
_LEVELS: Final = ((7, "urgent"), (30, "warning"), (60, "notice"))


_parsed: Final = lru_cache(maxsize=256)(parse_certificate)


def own_certificate(profile: ProfileRow) -> Certificate | None:
    """A key profile's own certificate; None while none that can be read is known."""
    if not profile.chain:
        return None
    try:
        return _parsed(profile.chain[0])
    except MalformedInputError:
        return None


def warning(profile: ProfileRow, now_ms: int) -> CertificateWarning | None:
    """What is to be said of a key profile's certificate now; None if it stands for more than 60 days."""
    found = own_certificate(profile)
    if found is None:
        return None
    left = found.not_after - dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
    days = left // dt.timedelta(days=1)
    level = "expired" if left < dt.timedelta() else next((name for bound, name in _LEVELS if days <= bound), "")
    if not level:
        return None
    return CertificateWarning(
        profile=profile.name,
        token=profile.place,
        subject=found.subject,
        not_after=found.not_after.isoformat(),
        days=days,
        level=level,
    )


class CertificateWatch:
    """Says so in the hub's log and to whoever listens: at the start, once a day, and when it has become worse."""

    def __init__(
        self,
        *,
        profiles: Callable[[], tuple[ProfileRow, ...]],
        clock: Clock,
        told: Callable[[CertificateEvent], None],
        every_seconds: float = _DAY_SECONDS,
    ) -> None:
        """`profiles` gives the key profiles as they are now; `told` is called with each warning."""
        self._profiles: Final = profiles
        self._clock: Final = clock
        self._told: Final = told
        self._every_seconds: Final = every_seconds
        self._said: dict[tuple[str, str], tuple[str, str]] = {}

    async def run(self) -> None:
        """Look once a day, until cancelled."""
        while True:
            self._said.clear()
            self.look()
            await asyncio.sleep(self._every_seconds)

    def look(self) -> None:
        """Tell what was not told today."""
        now_ms = self._clock()
        for profile in self._profiles():
            found = warning(profile, now_ms)
            if found is None or self._said.get((found.profile, found.token)) == (found.not_after, found.level):
                continue
            self._said[found.profile, found.token] = (found.not_after, found.level)
            _tell(found)
            self._told(
                CertificateEvent(
                    at=now_ms,
                    profile=found.profile,
                    token=found.token,
                    subject=found.subject,
                    not_after=found.not_after,
                    days=found.days,
                    level=found.level,
                )
            )


def _tell(found: CertificateWarning) -> None:
    if found.level == "expired":
        _LOG.error(
            "certificate has expired: nothing is signed with it",
            profile=found.profile,
            token=found.token,
            ended=found.not_after,
        )
        return
    say = _LOG.info if found.level == "notice" else _LOG.warning
    say(
        "certificate ends soon",
        profile=found.profile,
        token=found.token,
        urgency=found.level,
        days=found.days,
        ends=found.not_after,
    )
