# SPDX-License-Identifier: Apache-2.0
"""Which tokens may serve which key profiles: one token each, or those that a pool of hub.toml names."""

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Final

from privyseal.errors import ConfigError, DeniedError, PrivysealError
from privyseal.hub.config import PoolTable
from privyseal.hub.entries import key_sha256
from privyseal.hub.services.certificates import own_certificate
from privyseal.hub.services.queue_board import Line
from privyseal.ports.store import ProfileRow

__all__ = ["Pools"]


class Pools:
    """The pools of one hub."""

    def __init__(self, tables: Sequence[PoolTable]) -> None:
        self._tables: Final = {table.profile: table for table in tables}

    def __bool__(self) -> bool:
        return bool(self._tables)

    @property
    def rollovers(self) -> dict[str, int]:
        """From when on (milliseconds) requests are for the successors, by key profile."""
        return {name: since for name, table in self._tables.items() if (since := table.since_ms) is not None}

    def has(self, profile: str) -> bool:
        """Whether a key profile may have several tokens."""
        return profile in self._tables

    def places(self, profile: str) -> tuple[str, ...]:
        """The tokens that a pool names, in its order."""
        table = self._tables[profile]
        return (*table.tokens, *table.successors)

    def current(self, rows: Iterable[ProfileRow]) -> tuple[ProfileRow, ...]:
        """Of all that was ever announced for one key profile, what stands: in a pool its tokens, else what came last.

        The rows of former tokens are kept for what those have signed, or may have.
        """
        known = {row.place: row for row in rows}
        if not known:
            return ()
        name = next(iter(known.values())).name
        if self.has(name):
            return tuple(known[place] for place in self.places(name) if place in known)
        return (max(known.values(), key=lambda row: row.entry_index),)

    def serves(self, profile: ProfileRow, line: Line) -> bool:
        """Whether the token of this row may take from a line."""
        table = self._tables.get(line.profile)
        if table is not None and profile.place not in (table.successors if line.successor else table.tokens):
            return False
        return not line.key or (bool(profile.chain) and line.key == key_sha256(profile.chain))

    def unfit(self, profile: ProfileRow, rows: Sequence[ProfileRow], now_ms: int) -> PrivysealError | None:
        """Why a pool does not use one of its tokens now; None also for a key profile without a pool.

        Clients of a pool do not choose the token, so all of them must be as the first of hub.toml that is known,
        whether that one has a link or not. None signs while its certificate is not valid: another one may.

        Args:
            profile: The token's row.
            rows: Those of all tokens of the pool, in its order.
            now_ms: By the hub's clock.
        """
        if not self.has(profile.name):
            return None
        before = rows[: next((at for at, row in enumerate(rows) if row.place == profile.place), len(rows))]
        if before and _promises(before[0]) != _promises(profile):
            return ConfigError(
                "profile.differs",
                f"token {profile.place} serves key profile {profile.name!r} with another level, witness, opaque or test"
                f" than token {before[0].place}, which hub.toml names first",
                hint="make the [[key]] tables of all agents in the pool alike",
            )
        twin = next((row for row in before if _is_twin(row, profile)), None)
        if twin is not None:
            return ConfigError(
                "profile.same_key",
                f"tokens {twin.place} and {profile.place} of one agent have the same key for key profile"
                f" {profile.name!r}",
                hint="generate another key in one of them, or give it an agent of its own: the log numbers the uses"
                " of a key at an agent in one row",
            )
        return _invalid(profile, now_ms)


def _promises(profile: ProfileRow) -> tuple[object, ...]:
    return profile.level, profile.witness, sorted(profile.opaque), profile.test


def _is_twin(one: ProfileRow, other: ProfileRow) -> bool:
    if one.agent != other.agent or not one.chain or not other.chain:
        return False
    return key_sha256(one.chain) == key_sha256(other.chain)


def _invalid(profile: ProfileRow, now_ms: int) -> DeniedError | None:
    certificate = own_certificate(profile)
    now = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
    if certificate is None or certificate.not_before <= now <= certificate.not_after:
        return None
    if now > certificate.not_after:
        code, when = "certificate.expired", "has expired"
    else:
        code, when = "certificate.not_yet_valid", "is not valid yet"
    return DeniedError(
        code,
        f"the certificate of token {profile.place} for key profile {profile.name!r} {when}",
        hint="the other tokens of the pool sign; import a certificate that is valid now, and restart the agent",
    )
