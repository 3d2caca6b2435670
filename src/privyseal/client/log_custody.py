# SPDX-License-Identifier: Apache-2.0
"""Custody of keys as a log tells it: who can have used them, what their counters said, which were frozen.

The log is verified on the way, and with it that no agent's event was left out; nothing is answered before its last
entry was read and the checkpoint's root came out.
"""

from dataclasses import dataclass, field

from privyseal.client.custody_timeline import Stretch, coverage, timeline
from privyseal.client.log import PublicLog
from privyseal.client.log_uses import Interval
from privyseal.errors import ConfigError
from privyseal.tlog.audit import LogCheck
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.entry import Custody, Entry, Freeze, Intent, KeyEntry, Reconcile

__all__ = ["Count", "CustodyReport", "KeyCustody", "report_custody"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """One reconciliation.

    Attributes:
        index: Of its entry.
        anew: Whether the agent began to count anew here, after it had counted before.
        accepted: Whether that was because a person had accepted the counter; else its journal was lost or replaced, and
            uses since the count before may have gone unseen.
    """

    index: int
    entry: Reconcile
    anew: bool = False
    accepted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCustody:
    """One key on one token.

    Attributes:
        key: SHA-256 of the SubjectPublicKeyInfo.
        token: The token's serial number.
        profiles: Key profiles that used the key.
        stretches: The whole time that is asked for, from the moment on at which the log speaks of the key first.
        counts: Reconciliations, all of them: a counter has no beginning in an interval.
        freezes: (index, entry), all of them.
    """

    key: str
    token: str
    profiles: tuple[str, ...]
    stretches: tuple[Stretch, ...]
    counts: tuple[Count, ...]
    freezes: tuple[tuple[int, Freeze], ...]

    @property
    def coverage(self) -> float:
        """How much of the time is proven, in percent."""
        return coverage(self.stretches)

    @property
    def is_frozen(self) -> bool:
        """Whether the key is frozen where the log ends."""
        return bool(self.freezes) and self.freezes[-1][1].frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class CustodyReport:
    """What a log says of the custody of keys.

    Attributes:
        until_ms: Where the time that is asked for ends: at the log's last entry at the latest.
        pruned: How many entries from the beginning on are not there any more.
    """

    checkpoint: Checkpoint
    until_ms: int
    keys: tuple[KeyCustody, ...]
    pruned: int = 0


@dataclass(slots=True)
class _Told:
    """What was told of one key on one token."""

    first_ms: int
    custody: list[Custody] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    freezes: list[tuple[int, Freeze]] = field(default_factory=list)


class _Collected:
    """What is gathered while the log is read."""

    def __init__(self) -> None:
        self.told: dict[tuple[str, str], _Told] = {}
        self.profiles: dict[str, set[str]] = {}
        self.last_ms = 0

    def feed(self, index: int, entry: Entry) -> None:
        self.last_ms = entry.ts
        match entry:
            case Intent():
                self.profiles.setdefault(entry.key, set()).add(entry.profile)
            case KeyEntry():
                self.profiles.setdefault(entry.key, set()).add(entry.profile)
                self._of(entry)
            case Custody():
                self._of(entry).custody.append(entry)
            case Reconcile():
                told = self._of(entry)
                told.counts.append(_count(index, entry, told))
            case Freeze():
                self._of(entry).freezes.append((index, entry))
            case _:
                pass

    def _of(self, entry: KeyEntry | Custody | Reconcile | Freeze) -> _Told:
        return self.told.setdefault((entry.key, entry.token), _Told(first_ms=entry.ts))

    def custody(self, key: str, token: str, interval: Interval) -> KeyCustody:
        told = self.told[key, token]
        since_ms = max(told.first_ms, interval.start or 0)
        until_ms = self.until_ms(interval)
        return KeyCustody(
            key=key,
            token=token,
            profiles=tuple(sorted(self.profiles.get(key, ()))),
            stretches=timeline(told.custody, since_ms, until_ms) if since_ms < until_ms else (),
            counts=tuple(told.counts),
            freezes=tuple(told.freezes),
        )

    def until_ms(self, interval: Interval) -> int:
        return self.last_ms if interval.end is None else min(self.last_ms, interval.end)

    def named(self, key: str) -> bool:
        """Whether the log has heard of a key or profile of this name."""
        return not key or any(key == one or key in profiles for one, profiles in self.profiles.items())

    def is_meant(self, key: str, wanted: str) -> bool:
        return not wanted or wanted == key or wanted in self.profiles.get(key, ())


def _count(index: int, entry: Reconcile, told: _Told) -> Count:
    before = told.counts[-1] if told.counts else None
    anew = before is not None and before.entry.enrolled != entry.enrolled
    accepted = before is not None and any(at > before.index and not one.frozen for at, one in told.freezes)
    return Count(index=index, entry=entry, anew=anew, accepted=anew and accepted)


def report_custody(log: PublicLog, key: str, interval: Interval) -> CustodyReport:
    """Read a whole log, verify it, and answer with the custody of keys.

    Args:
        log: The log.
        key: Name of a key profile, or SHA-256 of a SubjectPublicKeyInfo in hex; empty for all.
        interval: When.

    Raises:
        ConfigError: `report.unknown_key` if the log has never heard of the key.
        LogIntegrityError: the log does not hold; an agent's event was left out.
        UnavailableError: it cannot be read.
    """
    checkpoint, check, collected = log.checkpoint(), LogCheck(), _Collected()
    for index, entry in log.checked_entries(check, checkpoint):
        collected.feed(index, entry)
    if not collected.named(key):
        raise ConfigError(
            "report.unknown_key",
            f"the log names no key profile and no key {key}",
            hint="name a key profile, or the key by the SHA-256 of its SubjectPublicKeyInfo in hex",
        )
    return CustodyReport(
        checkpoint=checkpoint,
        until_ms=collected.until_ms(interval),
        keys=tuple(collected.custody(*pair, interval) for pair in collected.told if collected.is_meant(pair[0], key)),
        pruned=check.skipped,
    )
