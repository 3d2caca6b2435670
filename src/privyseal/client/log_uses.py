# SPDX-License-Identifier: Apache-2.0
"""Uses of keys as a log tells them: each intent with what became of it. The log is verified on the way.

Nothing is answered before the last entry was read and the checkpoint's root came out, so that no answer rests on an
entry that the log's key did not sign. Memory grows with the answer.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from privyseal.client.log import PublicLog
from privyseal.errors import ConfigError
from privyseal.tlog.audit import LogCheck
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.entry import Entry, Intent, KeyEntry, Result, TimestampEntry, Unknown

__all__ = ["Findings", "Interval", "Report", "Sought", "Use", "find_uses", "report_uses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One intent to use a key, and its end.

    Attributes:
        index: Of the intent.
        end: What became of it; None if nothing is recorded.
        end_index: Of that entry.
    """

    index: int
    intent: Intent
    end: Result | Unknown | None = None
    end_index: int | None = None

    @property
    def outcome(self) -> str:
        """`ok`, `failed`, `not-used`; `unknown`; `open` without a recorded end."""
        if self.end is None:
            return "open"
        return self.end.outcome if isinstance(self.end, Result) else "unknown"

    @property
    def signature(self) -> str:
        """SHA-256 of the signature value, or empty."""
        return self.end.signature if isinstance(self.end, Result) else ""


class _Pairing:
    """Intents that wait for their end."""

    def __init__(self) -> None:
        self._open: dict[int, Intent] = {}

    def feed(self, index: int, entry: Entry) -> Use | None:
        """The use that this entry ends."""
        if isinstance(entry, Intent):
            self._open[index] = entry
        if isinstance(entry, Result | Unknown):
            intent = self._open.pop(entry.intent, None)  # None if it was pruned
            if intent is not None:
                return Use(index=entry.intent, intent=intent, end=entry, end_index=index)
        return None

    def rest(self) -> Iterator[Use]:
        """Those without end."""
        return (Use(index=index, intent=intent) for index, intent in self._open.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What is looked for: digests in hex.

    Attributes:
        digests: Whatever they are the digest of: file, artifact, preimage or signature value.
        files: SHA-256 of files, as clients claimed them.
        artifacts: (algorithm, digest).
        signatures: SHA-256 of signature values.
    """

    digests: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    artifacts: frozenset[tuple[str, str]] = frozenset()
    signatures: tuple[str, ...] = ()

    def why(self, use: Use) -> tuple[str, ...]:
        """By what a use belongs to it; empty if it does not."""
        intent, wanted = use.intent, self.digests
        told = {
            "artifact": (intent.artifact.alg, intent.artifact.digest) in self.artifacts
            or intent.artifact.digest in wanted,
            "file": intent.claimed.sha256 in self.files | wanted,
            "preimage": not wanted.isdisjoint((intent.preimage, intent.digest)),
            "signature": bool(use.signature) and use.signature in {*self.signatures, *wanted},
        }
        return tuple(name for name, holds in told.items() if holds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a log holds of something.

    Attributes:
        uses: (use, by what it belongs to it), by index.
        timestamps: (index, entry): timestamps that were got for the signatures of these uses.
        pruned: How many entries from the beginning on are not there any more.
    """

    checkpoint: Checkpoint
    uses: tuple[tuple[Use, tuple[str, ...]], ...]
    timestamps: tuple[tuple[int, TimestampEntry], ...]
    pruned: int = 0


def find_uses(log: PublicLog, sought: Sought) -> Findings:
    """Read a whole log, verify it, and answer with what belongs to something.

    Raises:
        LogIntegrityError: the log does not hold.
        UnavailableError: it cannot be read.
    """
    checkpoint, check, pairing = log.checkpoint(), LogCheck(), _Pairing()
    uses: list[tuple[Use, tuple[str, ...]]] = []
    timestamps: list[tuple[int, TimestampEntry]] = []
    imprints: set[str] = set()
    for index, entry in log.checked_entries(check, checkpoint):
        use = pairing.feed(index, entry)
        if use is not None and (why := sought.why(use)):
            uses.append((use, why))
            imprints.add(_imprint_of(use.signature))
        if isinstance(entry, TimestampEntry) and entry.imprint in imprints:
            timestamps.append((index, entry))
    uses += [(use, why) for use in pairing.rest() if (why := sought.why(use))]
    return Findings(
        checkpoint=checkpoint,
        uses=tuple(sorted(uses, key=lambda one: one[0].index)),
        timestamps=tuple(timestamps),
        pruned=check.skipped,
    )


def _imprint_of(signature: str) -> str:
    """What a `timestamp` entry says of this signature (see there); empty if it is no digest."""
    try:
        return hashlib.sha256(bytes.fromhex(signature)).hexdigest() if signature else ""
    except ValueError:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Milliseconds since the epoch: from `start` on, up to and without `end`; None is open."""

    start: int | None = None
    end: int | None = None

    def touches(self, use: Use) -> bool:
        """Whether the key may have been used in it: an intent without end may still be carried out."""
        begins_before = self.end is None or use.intent.ts < self.end
        ends_after = self.start is None or use.end is None or use.end.ts >= self.start
        return begins_before and ends_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that a key was used for in an interval, by the intents' index.

    Attributes:
        pruned: How many entries from the beginning on are not there any more: uses in them are not told.
    """

    checkpoint: Checkpoint
    uses: tuple[Use, ...] = field(default=())
    pruned: int = 0

    def count(self, outcome: str) -> int:
        """How many uses ended so."""
        return sum(use.outcome == outcome for use in self.uses)


def report_uses(log: PublicLog, key: str, interval: Interval) -> Report:
    """Read a whole log, verify it, and answer with every use of a key.

    Args:
        log: The log.
        key: Name of a key profile, or SHA-256 of a SubjectPublicKeyInfo in hex.
        interval: When.

    Raises:
        ConfigError: `report.unknown_key` if the log has never heard of the key: a typing error must not pass for
            "nothing was signed".
        LogIntegrityError, UnavailableError: as in `find_uses`.
    """
    checkpoint, check, pairing = log.checkpoint(), LogCheck(), _Pairing()
    uses: list[Use] = []
    is_known = False
    for index, entry in log.checked_entries(check, checkpoint):
        is_known = is_known or (isinstance(entry, Intent | KeyEntry) and key in {entry.profile, entry.key})
        use = pairing.feed(index, entry)
        if use is not None:
            uses += _wanted((use,), key, interval.touches)
    if not is_known:
        raise ConfigError(
            "report.unknown_key",
            f"the log names no key profile and no key {key}",
            hint="name a key profile, or the key by the SHA-256 of its SubjectPublicKeyInfo in hex",
        )
    uses += _wanted(pairing.rest(), key, interval.touches)
    return Report(checkpoint=checkpoint, uses=tuple(sorted(uses, key=lambda use: use.index)), pruned=check.skipped)


def _wanted(uses: Iterable[Use], key: str, touches: Callable[[Use], bool]) -> Iterator[Use]:
    return (use for use in uses if key in {use.intent.profile, use.intent.key} and touches(use))
