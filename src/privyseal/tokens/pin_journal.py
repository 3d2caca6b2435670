# SPDX-License-Identifier: Apache-2.0
"""The PIN journal: no wrong PIN is presented twice, whatever crashes in between (DESIGN promise 5).

An append-only file of JSON lines. An attempt is written and synced before C_Login, its outcome after. An
attempt without an outcome has an unknown one. So has a line that cannot be read (torn by a crash): as nobody
can tell which token it was about, it counts for every token.

A line never holds the PIN, only 12 bits of a salted scrypt value of it: enough to notice that the same PIN
comes again (a different one passes for it once in 4096 times), too little to find a PIN by; a token locks
long before the few hundred six-digit PINs that fit one value are tried.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from privyseal.errors import TokenError
from privyseal.ports.clock import Clock, system_clock
from privyseal.ports.token import PinState
from privyseal.tokens.pin import PinBuffer

__all__ = ["PinAttempt", "PinHistory", "PinJournal"]

_MAX_LINE_BYTES: Final = 8192
_COMPACT_ABOVE_BYTES: Final = 256 * 1024
_MAX_REFUSED: Final = 64
_OPEN_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

_Salt = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{32})?$")]
Outcome = Literal["accepted", "refused", "not-judged"]


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
    """

    salt: _Salt = ""
    accepted: str = ""
    refused: tuple[str, ...] = ()
    attempted: str = ""
    unknown: int = 0
    blocked: bool = False
    cleared: bool = False


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    event: Literal["attempt", "accepted", "refused", "not-judged", "blocked", "cleared", "state"]
    at_ms: int
    serial: str
    salt: _Salt = ""
    fingerprint: str = ""
    forgive_refused: bool = False
    state: PinHistory | None = None


_decoder = msgspec.json.Decoder(_Line)


def _after(history: PinHistory, line: _Line) -> PinHistory:
    """The history with one more line."""
    if line.event == "attempt":
        return replace(
            history,
            salt=line.salt,
            attempted=line.fingerprint,
            unknown=history.unknown + 1,
            cleared=False,
        )
    if line.event == "accepted":
        tried = history.attempted
        kept = tuple(item for item in history.refused if item != tried)
        return replace(history, accepted=tried, refused=kept, unknown=0, blocked=False)
    if line.event == "refused":
        tried = history.attempted
        refused = (*(item for item in history.refused if item != tried), tried)[-_MAX_REFUSED:]
        accepted = "" if history.accepted == tried else history.accepted
        return replace(history, accepted=accepted, refused=refused, unknown=0, blocked=True)
    if line.event in ("not-judged", "blocked"):
        judged_not = line.event == "not-judged"
        unknown = max(history.unknown - 1, 0) if judged_not else history.unknown
        return replace(history, unknown=unknown, blocked=history.blocked or not judged_not)
    if line.event == "cleared":
        refused = () if line.forgive_refused else history.refused
        return replace(history, refused=refused, unknown=0, blocked=False, cleared=True)
    return line.state or history


class PinAttempt:
    """One attempt that stands in the journal; it is of unknown outcome until `conclude` is called."""

    def __init__(self, journal: "PinJournal", serial: str) -> None:
        self._journal = journal
        self._serial = serial

    def conclude(self, outcome: Outcome) -> None:
        """Journal the outcome durably. `not-judged`: the module failed before it looked at the PIN.

        Raises:
            TokenError: `token.pin_journal` if it cannot be written.
        """
        self._journal.conclude(self._serial, outcome)


class PinJournal:
    """The journal of all tokens of one host, for any number of processes. Attempts at one token exclude each other."""

    def __init__(self, path: str, *, clock: Clock = system_clock) -> None:
        self._path = Path(path)
        self._clock = clock

    @contextlib.contextmanager
    def attempt(self, *, serial: str, pin: PinBuffer, pin_state: PinState) -> Iterator[PinAttempt]:
        """Journal an attempt if this PIN may be presented; C_Login is called inside the context.

        The token stays locked until the context ends, so that no other process takes a running attempt for one
        of unknown outcome, nor presents a PIN at the same time. Other tokens go on: this one may hang.

        Args:
            serial: The token's serial number.
            pin: What will be presented.
            pin_state: What the token says of its PIN, read just now.

        Raises:
            TokenError: `token.pin_locked`; `token.pin_blocked` if this PIN must not be presented;
                `token.pin_journal` if the attempt cannot be journalled. Then nothing may be presented.
        """
        if pin_state is PinState.LOCKED:
            raise TokenError(
                "token.pin_locked",
                f"the PIN of token {serial} is locked",
                hint="unlock it with the vendor's tool (SO PIN, PUK), then: privyseal token unlock; restart the agent",
            )
        with self._token_locked(serial):
            with self._locked() as descriptor:
                history = self._replay(descriptor).get(serial)
                salt = history.salt or secrets.token_hex(16)
                fingerprint = _fingerprint(pin, salt)
                if reason := _objection(history, fingerprint, pin_state):
                    raise TokenError(
                        "token.pin_blocked",
                        f"no PIN is presented to token {serial}: {reason}",
                        hint="make sure of the PIN, then clear this token in the PIN journal",
                    )
                self._append(descriptor, event="attempt", serial=serial, salt=salt, fingerprint=fingerprint)
            yield PinAttempt(self, serial)

    def clear(self, serial: str, *, forgive_refused: bool = False) -> None:
        """A person vouches for the PIN of this token: attempts may go on.

        Args:
            serial: The token's serial number.
            forgive_refused: Also allow a PIN that was refused before: it was set on the token meanwhile.

        Raises:
            TokenError: `token.pin_journal`.
        """
        with self._token_locked(serial), self._locked() as descriptor:
            self._append(descriptor, event="cleared", serial=serial, forgive_refused=forgive_refused)

    def history(self, serial: str) -> PinHistory:
        """What the journal says of a token.

        Raises:
            TokenError: `token.pin_journal`.
        """
        with self._locked() as descriptor:
            return self._replay(descriptor).get(serial)

    def block(self, serial: str) -> None:
        """Stop all further attempts until a person acts: the token said something of its PIN that nobody asked for.

        Raises:
            TokenError: `token.pin_journal` if that cannot be written.
        """
        with self._locked() as descriptor:
            self._append(descriptor, event="blocked", serial=serial)

    def conclude(self, serial: str, outcome: Outcome) -> None:
        """For `PinAttempt.conclude`, while the attempt's context lasts."""
        with self._locked() as descriptor:
            self._append(descriptor, event=outcome, serial=serial)

    def _append(
        self,
        descriptor: int,
        *,
        event: Literal["attempt", "accepted", "refused", "not-judged", "blocked", "cleared"],
        serial: str,
        salt: str = "",
        fingerprint: str = "",
        forgive_refused: bool = False,
    ) -> None:
        """Write one line and sync it, under the lock."""
        line = _Line(
            event=event,
            at_ms=self._clock(),
            serial=serial,
            salt=salt,
            fingerprint=fingerprint,
            forgive_refused=forgive_refused,
        )
        try:
            size = os.fstat(descriptor).st_size
            # A torn last line is closed first, such that it stays unreadable even if only its ending was missing.
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            _write_all(descriptor, (b" torn\n" if torn else b"") + msgspec.json.encode(line) + b"\n")
            os.fsync(descriptor)
        except OSError as error:
            raise self._failure(error) from error

    @contextlib.contextmanager
    def _token_locked(self, serial: str) -> Iterator[None]:
        name = hashlib.sha256(serial.encode()).hexdigest()[:16]
        with contextlib.ExitStack() as stack:
            try:
                stack.callback(os.close, self._lock(f".{name}.lock"))
            except OSError as error:
                raise self._failure(error) from error
            yield

    def _lock(self, suffix: str) -> int:
        """A locked descriptor of a file that is nothing but a lock: the journal itself may be replaced."""
        lock = os.open(self._path.with_name(self._path.name + suffix), _OPEN_FLAGS, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            os.close(lock)
            raise
        return lock

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """A descriptor of the journal, alone among all processes."""
        with contextlib.ExitStack() as stack:
            try:
                stack.callback(os.close, self._lock(".lock"))
                is_new = not self._path.exists()
                descriptor = os.open(self._path, _OPEN_FLAGS | os.O_APPEND, 0o600)
                stack.callback(os.close, descriptor)
                if is_new:
                    self._sync_directory()
                elif os.fstat(descriptor).st_size > _COMPACT_ABOVE_BYTES:
                    descriptor = self._compact(descriptor)
                    stack.callback(os.close, descriptor)
            except OSError as error:
                raise self._failure(error) from error
            yield descriptor

    def _replay(self, descriptor: int) -> "_Histories":
        histories = _Histories()
        try:
            with os.fdopen(os.dup(descriptor), "rb") as file:
                file.seek(0)
                while raw := file.readline(_MAX_LINE_BYTES):
                    histories.add(raw)
        except OSError as error:
            raise self._failure(error) from error
        return histories

    def _compact(self, descriptor: int) -> int:
        """Replace the journal by one line a token; the lines so far are kept as one older generation."""
        histories = self._replay(descriptor)
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.unlink(missing_ok=True)
        compact = os.open(fresh, _OPEN_FLAGS | os.O_APPEND | os.O_EXCL, 0o600)
        try:
            _write_all(compact, histories.lines(self._clock()))
            os.fsync(compact)
            older = self._path.with_name(self._path.name + ".old")
            older.unlink(missing_ok=True)
            older.hardlink_to(self._path)
            fresh.replace(self._path)
            self._sync_directory()
        except OSError:
            os.close(compact)
            raise
        return compact

    def _sync_directory(self) -> None:
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _failure(self, error: OSError) -> TokenError:
        return TokenError(
            "token.pin_journal",
            f"the PIN journal {self._path} cannot be used: {error.strerror}",
            hint="without it no PIN is presented; make its directory writable and give it space",
        )


class _Histories:
    """The histories of all tokens, as lines are added."""

    def __init__(self) -> None:
        self._by_serial: dict[str, PinHistory] = {}
        #: What holds for a token that no readable line names.
        self._others = PinHistory()

    def get(self, serial: str) -> PinHistory:
        return self._by_serial.get(serial, self._others)

    def add(self, raw: bytes) -> None:
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
            msgspec.json.encode(_Line(event="state", at_ms=at_ms, serial=serial, state=history))
            for serial, history in self._by_serial.items()
        )
        return head + b"".join(line + b"\n" for line in encoded)


def _unreadable(history: PinHistory) -> PinHistory:
    """An unreadable line may be the outcome of an attempt that is counted already: it makes no second one."""
    return replace(history, unknown=max(history.unknown, 1))


def _objection(history: PinHistory, fingerprint: str, pin_state: PinState) -> str:
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


def _fingerprint(pin: PinBuffer, salt: str) -> str:
    # 16 MiB and some 40 ms: felt by whoever searches, not by a login.
    value = hashlib.scrypt(pin.view, salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=2)
    return value.hex()[:3]


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
