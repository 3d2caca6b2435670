# SPDX-License-Identifier: Apache-2.0
"""The journal port: what an agent must know after a crash, so that no token use happens twice or unseen.

Before C_Sign the agent calls `begin`; when that returns, the entries that asked for the signatures, the
checkpoint under which they were proven, and each (request, item, fence) as used are durable, in one commit.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from privyseal.errors import ConflictError

__all__ = [
    "AgentJournal",
    "JournalEntry",
    "JournalEvent",
    "JournalPart",
    "JournalState",
    "JournalUse",
    "Outcome",
    "OutcomeState",
]


class OutcomeState(StrEnum):
    """How far a token operation is known to have come."""

    BEGUN = "begun"  #: nothing is known of its end: the token may have been used
    SIGNED = "signed"  #: ended with a signature
    FAILED = "failed"  #: ended with an error


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalState:
    """The newest checkpoint that the agent has accepted.

    Attributes:
        checkpoint_note: The signed note, or None before the first.
        size: Its tree size; 0 before the first.
        root: Its root, 32 bytes; the hash of the empty tree before the first.
    """

    checkpoint_note: str | None
    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """A token operation that was begun, and what the agent relied on.

    Attributes:
        entry: The INTENT entry, verbatim.
        checkpoint_note: The signed checkpoint under which it was proven.
    """

    profile: str
    request_id: str
    item: int
    fence: int
    entry: bytes
    checkpoint_note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPart:
    """What a job wants of one request.

    Attributes:
        request_id: The request's name, as its entries have it.
        items: (item, INTENT entry verbatim).
    """

    request_id: str
    items: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a token operation.

    Attributes:
        signature: The signature; empty unless SIGNED.
        branch, code, message: The error, as in the taxonomy; empty unless FAILED.
    """

    state: OutcomeState
    signature: bytes = b""
    branch: str = ""
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalUse:
    """A token operation that was begun, and how far it is known to have come.

    Attributes:
        number: 1, 2, 3, … in the order in which they were begun, under any log.
        entry: The INTENT entry, verbatim.
    """

    number: int
    entry: bytes
    state: OutcomeState


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEvent:
    """Something that the agent tells the hub, until that has it on record.

    Attributes:
        seq: The agent's number for it: 1, 2, 3, ….
        entry: The log entry as the agent wrote it, without its number and place in the log.
    """

    seq: int
    entry: bytes


class AgentJournal(Protocol):
    """One agent's journal. Calls are serialised.

    Checkpoints and fences are those of the log that it follows; what was signed once is signed under any log.

    Every call raises UnavailableError `journal.unavailable` if the database failed and nothing was written
    (try again), `journal.closed` after `close`, and LogIntegrityError `journal.commit_unknown` if it cannot
    be known whether something was written: then every call fails so until the agent is started again.
    """

    async def follow(self, origin: str) -> None:
        """Go by the checkpoints and fences of another log from now on."""
        ...

    async def state(self) -> JournalState:
        """The newest checkpoint that was accepted."""
        ...

    async def raise_fence(self, token: str, fence: int) -> None:
        """Take note that a hub has the lease of a token under this fence; durable when this returns.

        Raises:
            DeniedError: `journal.stale_fence` if the token has seen a higher one.
            MalformedInputError: `journal.range`.
        """
        ...

    async def max_fence(self, token: str) -> int:
        """The highest fence under which something was begun with a token (its name in agent.toml); 0 if nothing was."""
        ...

    async def begin(
        self,
        *,
        checkpoint_note: str,
        size: int,
        root: bytes,
        token: str,
        profile: str,
        fence: int,
        parts: tuple[JournalPart, ...],
    ) -> tuple[ConflictError | None, ...]:
        """Write down that the items of one job are about to be signed; durable when this returns, with one fsync.

        A part of which an item must not be begun is left out whole, and takes no other part with it.

        Args:
            checkpoint_note: The signed checkpoint under which the entries were proven; the caller has checked
                that it extends `state()`.
            size: Its tree size.
            root: Its root.
            token: Name of the token in agent.toml; fences are its own, whatever the key profile.
            profile: Key profile.
            fence: Fence of the token's lease under which the hub sent the job.
            parts: One for each request.

        Returns:
            For each part None, or why it was not begun: `journal.used` if one of (request, item, fence) was begun
            before; `journal.signed` if one of (request, item) ended with a signature under another fence: there is one
            for each. The checkpoint is held all the same.

        Raises:
            DeniedError: `journal.stale_fence` if the token has seen a higher fence.
            LogIntegrityError: `journal.rewound` if the checkpoint is older than the one held, or another one
                of the same size.
            MalformedInputError: `journal.range` for a number or an entry that cannot be stored.
        """
        ...

    async def finish(
        self,
        request_id: str,
        item: int,
        fence: int,
        *,
        signature: bytes,
        branch: str,
        code: str,
        message: str,
    ) -> None:
        """Write down how one item ended: with a signature, or (if that is empty) with an error.

        A loss of power may take this back to BEGUN, and nothing else with it.

        Raises:
            ConflictError: `journal.not_begun`, or `journal.finished` if another end was written before.
        """
        ...

    async def outcome(self, request_id: str, item: int, fence: int) -> Outcome | None:
        """What is known of a token operation; None if it was never begun."""
        ...

    async def see_checkpoint(self, note: str, size: int, root: bytes) -> None:
        """Hold a newer checkpoint, which the caller has checked against `state()`; durable when this returns.

        Raises:
            LogIntegrityError: `journal.rewound`, as `begin`.
        """
        ...

    async def add_event(self, entry: bytes) -> None:
        """Write down what the hub must put on record; durable when this returns."""
        ...

    async def events(self, count: int) -> tuple[JournalEvent, ...]:
        """The oldest events that are not on record as far as this journal knows: `count` at most."""
        ...

    async def events_recorded(self, through: int) -> None:
        """The hub has all events up to a number on record.

        A number that was never given shows that this journal is not the one that the agent had before: the events that
        it holds are numbered anew, behind that one.
        """
        ...

    async def remember(self, name: str, value: bytes) -> None:
        """Keep a value under a name, in place of any other; durable when this returns."""
        ...

    async def recall(self, name: str) -> bytes | None:
        """The value under a name; None if there is none."""
        ...

    async def entries(self, start: int, count: int) -> tuple[JournalEntry, ...]:
        """What was begun, in that order: `count` at most from the `start`-th on.

        With it, what this agent signed under can be compared with the log: two signed checkpoints that
        contradict each other prove a fork.
        """
        ...

    async def uses(self, after: int, count: int) -> tuple[JournalUse, ...]:
        """Operations by their numbers: those above `after`, `count` at most."""
        ...

    async def last_use(self) -> int:
        """The number of the operation that was begun last; 0 if none was."""
        ...

    async def close(self) -> None:
        """Finish what was handed in and close. May be called twice."""
        ...
