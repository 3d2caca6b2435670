# SPDX-License-Identifier: Apache-2.0
"""What the lines of a PIN journal say of each token, and whether a PIN may be presented after that (pure)."""

import hashlib
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

import msgspec

from privyseal.errors import TokenError
from privyseal.ports.token import PinState
from privyseal.tokens.pin import PinBuffer

__all__ = ["Histories", "JournalEvent", "JournalLine", "PinHistory", "fingerprint_of", "new_fingerprint", "objection"]

_MAX_REFUSED: Final = 64

_Salt = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{32})?$")]
JournalEvent = Literal[
    "attempt", "accepted", "refused", "not-judged", "changed", "unchanged", "blocked", "cleared", "state"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PinHistory:
    """What the journal says of one token.

    Attributes:
        salt: Hex; the same for all PINs of this token.
        accepted: Fingerprint of the PIN that the token accepted last, or empty.
        refused: Fingerprints that it refused and that nobody has forgiven.
        attempted: Fingerprint of the last attempt.
        unknown: Attempts in a row whose outcome is not known.
        blocked: Whether a refusal, or a word of the token about its PIN, stops all further attempts.
        cleared: Whether a person cleared the token and nothing was tried since.
        changing: Fingerprint of a PIN that was to take the accepted one's place, while nobody knows whether it did.
    """

    salt: _Salt = ""
    accepted: str = ""
    refused: tuple[str, ...] = ()
    attempted: str = ""
    unknown: int = 0
    blocked: bool = False
    cleared: bool = False
    changing: str = ""

    def fingerprint(self, pin: PinBuffer) -> str:
        """By which this history knows a PIN; empty if it knows none. Some 40 ms."""
        return fingerprint_of(pin, self.salt) if self.salt else ""


class JournalLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the journal."""

    event: JournalEvent
    at_ms: int
    serial: str
    salt: _Salt = ""
    fingerprint: str = ""
    new_fingerprint: str = ""
    forgive_refused: bool = False
    state: PinHistory | None = None


_decoder = msgspec.json.Decoder(JournalLine)


def _after(history: PinHistory, line: JournalLine) -> PinHistory:  # noqa: PLR0911 - an answer for each event
    """The history with one more line."""
    tried = history.attempted
    match line.event:
        case "attempt":
            return replace(
                history,
                salt=line.salt,
                attempted=line.fingerprint,
                unknown=history.unknown + 1,
                cleared=False,
                changing=line.new_fingerprint or history.changing,
            )
        case "accepted":
            kept = _without(history.refused, tried)
            return replace(history, accepted=tried, refused=kept, unknown=0, blocked=False, changing="")
        case "refused":
            accepted = "" if history.accepted == tried else history.accepted
            refused = _with(history.refused, tried)
            return replace(history, accepted=accepted, refused=refused, unknown=0, blocked=True)
        case "changed":
            # The PIN that was right until now is wrong from now on: known without presenting it.
            refused = _with(_without(history.refused, history.changing), tried)
            return replace(history, accepted=history.changing, refused=refused, unknown=0, blocked=False, changing="")
        case "unchanged":
            return replace(history, changing="")
        case "not-judged":
            return replace(history, unknown=max(history.unknown - 1, 0))
        case "blocked":
            return replace(history, blocked=True)
        case "cleared":
            refused = () if line.forgive_refused else history.refused
            return replace(history, refused=refused, unknown=0, blocked=False, cleared=True)
        case "state":
            return line.state or history


def _without(fingerprints: tuple[str, ...], one: str) -> tuple[str, ...]:
    return tuple(item for item in fingerprints if item != one)


def _with(fingerprints: tuple[str, ...], one: str) -> tuple[str, ...]:
    return (*_without(fingerprints, one), one)[-_MAX_REFUSED:]


class Histories:
    """The histories of all tokens, as lines are added."""

    def __init__(self) -> None:
        self._by_serial: dict[str, PinHistory] = {}
        #: What holds for a token that no readable line names.
        self._others = PinHistory()

    def get(self, serial: str) -> PinHistory:
        """What is known of a token."""
        return self._by_serial.get(serial, self._others)

    def add(self, raw: bytes) -> None:
        """Take one more line as it stands in the file."""
        try:
            # Without its line ending a line was torn, even if what is left can be read.
            line = _decoder.decode(raw) if raw.endswith(b"\n") else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            line = None
        if line is None:
            self._others = _unreadable(self._others)
            self._by_serial = {serial: _unreadable(item) for serial, item in self._by_serial.items()}
            return
        self._by_serial[line.serial] = _after(self.get(line.serial), line)

    def lines(self, at_ms: int) -> bytes:
        """The same in one line a token, after one unreadable line if there was any."""
        head = b"unreadable lines came before\n" if self._others.unknown else b""
        encoded = (
            msgspec.json.encode(JournalLine(event="state", at_ms=at_ms, serial=serial, state=history))
            for serial, history in self._by_serial.items()
        )
        return head + b"".join(line + b"\n" for line in encoded)


def _unreadable(history: PinHistory) -> PinHistory:
    """An unreadable line may be the outcome of an attempt that is counted already: it makes no second one."""
    return replace(history, unknown=max(history.unknown, 1))


def objection(history: PinHistory, fingerprint: str, pin_state: PinState) -> str:
    """Why this PIN must not be presented now; empty if it may."""
    if history.blocked:
        return "it refused a PIN, and nobody has looked into it since"
    if fingerprint in history.refused:
        return "it refused this same PIN before"
    was_accepted = fingerprint == history.accepted
    if history.unknown and not (history.unknown == 1 and was_accepted and pin_state is PinState.OK):
        return "nobody knows what became of an attempt before"
    if pin_state is PinState.FINAL_TRY and not was_accepted and not history.cleared:
        return "one more wrong PIN would lock it, and this PIN was never accepted"
    return ""


def new_fingerprint(new: PinBuffer, salt: str, fingerprint: str) -> str:
    """Fingerprint of a PIN that is to take the place of another.

    Raises:
        TokenError: `token.pin_new` if it is the same.
    """
    found = fingerprint_of(new, salt)
    if found == fingerprint:
        raise TokenError(
            "token.pin_new",
            "the new PIN is the present one, or looks like it in the PIN journal, which could not tell them apart",
            hint="take another new PIN",
        )
    return found


def fingerprint_of(pin: PinBuffer, salt: str) -> str:
    """12 bits of a salted scrypt value of a PIN."""
    # 16 MiB and some 40 ms: felt by whoever searches, not by a login.
    value = hashlib.scrypt(pin.view, salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=2)
    return value.hex()[:3]
