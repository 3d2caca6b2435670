# SPDX-License-Identifier: Apache-2.0
"""What an audit of a reader's traffic tells, and what a lease's rules may ask of it. None of it holds a byte of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = [
    "AnswerInstead",
    "Blind",
    "CardEvent",
    "EndLease",
    "EndReason",
    "Forward",
    "Initialisation",
    "KeyGeneration",
    "KeyUse",
    "LeaseCounts",
    "LeaseEnds",
    "LeaseRules",
    "Outcome",
    "PinChange",
    "PinOutcome",
    "PinVerification",
    "PrivateKeyOperation",
    "Tally",
    "Unproven",
    "Verdict",
    "Write",
]


class KeyUse(StrEnum):
    """What a private key was used for, as far as the command says."""

    SIGN = "sign"
    DECIPHER = "decipher"
    #: INTERNAL or GENERAL AUTHENTICATE: with PIV keys, signing and deciphering look the same.
    AUTHENTICATE = "authenticate"
    AGREE = "agree"
    ATTEST = "attest"


class Outcome(StrEnum):
    """How a command ended."""

    OK = "ok"
    REFUSED = "refused"
    #: Under secure messaging, without an answer, or with an error that leaves it open.
    UNKNOWN = "unknown"


class PinOutcome(StrEnum):
    """How a VERIFY ended."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    #: The card did not compare it: wrong length, no such reference, no such command.
    DECLINED = "declined"
    #: No PIN was given: how many tries are left, is it verified, or the end of that.
    QUESTION = "question"
    UNKNOWN = "unknown"


class Write(StrEnum):
    """How a card's contents or life cycle are changed."""

    PUT_DATA = "put-data"
    FILES = "files"
    ERASE = "erase"
    LIFE_CYCLE = "life-cycle"
    RESET = "reset"
    KEYS = "keys"


class Blind(StrEnum):
    """Why use of the card cannot be told completely."""

    NOT_CCID = "not-ccid"
    OTHER_TRAFFIC = "other-traffic"
    CHARACTER_LEVEL = "character-level"
    PROTOCOL = "protocol-unknown"
    SLOT = "slot-unknown"
    FRAMING = "framing-lost"
    CHAINING = "chaining-lost"
    OVERLAP = "commands-overlap"
    UNMATCHED_ANSWER = "answer-without-command"
    T1_BLOCK = "t1-block-malformed"
    T1_SEQUENCE = "t1-sequence-lost"
    MALFORMED_COMMAND = "command-malformed"
    UNKNOWN_COMMAND = "command-unknown"
    VENDOR_COMMAND = "vendor-command"
    TUNNEL = "tunnel"
    READER_COMMAND = "reader-vendor-command"
    PIN_PAD = "pin-pad-command-unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKeyOperation:
    """A private key of the card was to be used; with `ok` it was."""

    use: KeyUse
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class PinVerification:
    """A VERIFY.

    Attributes:
        tries_left: Where a refusal says so.
    """

    outcome: PinOutcome
    tries_left: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGeneration:
    """A key pair was to be made on the card, in the place of any there was."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class PinChange:
    """A PIN was replaced, unblocked, or its use switched on or off."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialisation:
    """The card's contents or life cycle were to be changed."""

    write: Write
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Unproven:
    """From here on there may have been uses that nobody saw. Told once for each reason."""

    reason: Blind


class EndReason(StrEnum):
    """Why a lease is to end."""

    OPERATIONS = "operations-used-up"
    PIN_REFUSED = "pin-refused"
    #: The rules refuse a command, on a reader where nothing can be answered in the card's place.
    REFUSED = "command-refused"
    #: The rules cannot be held against what the host sends.
    UNREADABLE = "unreadable-under-rules"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseEnds:
    """The lease is to end once this answer was given to the host."""

    reason: EndReason


CardEvent = PrivateKeyOperation | PinVerification | KeyGeneration | PinChange | Initialisation | Unproven | LeaseEnds


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Give the payload to the reader."""

    events: tuple[CardEvent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerInstead:
    """Do not give the payload to the reader; `payload` is what the host reads next from the bulk-in endpoint."""

    payload: bytes
    events: tuple[CardEvent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndLease:
    """Do not give the payload to the reader, and end the lease."""

    reason: EndReason
    events: tuple[CardEvent, ...] = ()


Verdict = Forward | AnswerInstead | EndLease


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRules:
    """What a lease does not allow. With any rule, a host that sends what cannot be read at once loses its lease.

    Attributes:
        refuse_unreadable: Commands of vendors, to card or reader, and tunnels; without it they may do what the
            other rules refuse, and make the lease unproven.
        max_private_key_operations: The lease ends with the answer to the last one. Those of unknown outcome count.
        end_at_refused_pin: The lease ends with the answer to a VERIFY that was refused, or of unknown outcome.
    """

    refuse_key_generation: bool = False
    refuse_pin_change: bool = False
    refuse_initialisation: bool = False
    refuse_unreadable: bool = False
    max_private_key_operations: int | None = None
    end_at_refused_pin: bool = False

    @property
    def is_strict(self) -> bool:
        """Whether there is any rule."""
        return self != _NO_RULES


_NO_RULES: Final = LeaseRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How often one thing ended in one way.

    Attributes:
        what: `private-key-operation`, `pin-verification`, `key-generation`, `pin-change`, `initialisation`.
        kind: A `KeyUse` or `Write`; empty for the others.
        outcome: An `Outcome` or `PinOutcome`.
    """

    what: str
    kind: str
    outcome: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseCounts:
    """All that was seen of a lease; counts, never contents.

    Attributes:
        tallies: Ordered by what, kind and outcome.
        unproven: Each reason once, in the order in which they came up; empty if all could be read.
        refused: Commands that were answered in the card's place.
        apdus: Commands to the card, those of chains and with GET RESPONSE once.
        command_bytes, answer_bytes: Of bulk payloads, with headers.
    """

    tallies: tuple[Tally, ...]
    unproven: tuple[Blind, ...]
    refused: int
    apdus: int
    command_bytes: int
    answer_bytes: int

    def total(self, what: str, *outcomes: str) -> int:
        """How many of a thing, of these outcomes or of all."""
        return sum(one.count for one in self.tallies if one.what == what and (not outcomes or one.outcome in outcomes))
