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
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec

from privyseal.errors import TokenError
from privyseal.ports.clock import Clock, system_clock
from privyseal.ports.token import PinState
from privyseal.tokens.files import sync_directory
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_history import (
    Histories,
    JournalEvent,
    JournalLine,
    PinHistory,
    fingerprint_of,
    new_fingerprint,
    objection,
)

__all__ = ["Outcome", "PinAttempt", "PinJournal", "journal_name"]

_MAX_LINE_BYTES: Final = 8192
_COMPACT_ABOVE_BYTES: Final = 256 * 1024
_OPEN_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

Outcome = Literal["accepted", "refused", "not-judged", "changed", "unchanged"]


class _Named(Protocol):
    @property
    def label(self) -> str: ...
    @property
    def serial(self) -> str: ...


def journal_name(token: _Named) -> str:
    """By which the journal knows a token: its serial number, or its label where it has none."""
    return token.serial or token.label


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
    def attempt(
        self, *, serial: str, pin: PinBuffer, pin_state: PinState, new: PinBuffer | None = None
    ) -> Iterator[PinAttempt]:
        """Journal an attempt if this PIN may be presented; C_Login, or C_SetPIN, is called inside the context.

        The token stays locked until the context ends, so that no other process takes a running attempt for one
        of unknown outcome, nor presents a PIN at the same time. Other tokens go on: this one may hang.

        Args:
            serial: The token's serial number.
            pin: What will be presented.
            pin_state: What the token says of its PIN, read just now.
            new: The PIN that is to take its place.

        Raises:
            TokenError: `token.pin_locked`; `token.pin_blocked` if this PIN must not be presented; `token.pin_new` if
                the journal could not tell the new PIN from it; `token.pin_journal` if the attempt cannot be
                journalled. Then nothing may be presented.
        """
        if pin_state is PinState.LOCKED:
            raise TokenError(
                "token.pin_locked",
                f"the PIN of token {serial} is locked",
                hint="unlock it with the vendor's tool (SO PIN, PUK), then: privyseal token unlock NAME --dir DIR",
            )
        with self._token_locked(serial):
            with self._locked() as descriptor:
                history = self._replay(descriptor).get(serial)
                salt = history.salt or secrets.token_hex(16)
                fingerprint = fingerprint_of(pin, salt)
                if reason := objection(history, fingerprint, pin_state):
                    raise TokenError(
                        "token.pin_blocked",
                        f"no PIN is presented to token {serial}: {reason}",
                        hint="make sure of the PIN, then: privyseal token unlock NAME --dir DIR (--forgive-refused "
                        "if the very PIN that was refused is right meanwhile)",
                    )
                fresh = "" if new is None else new_fingerprint(new, salt, fingerprint)
                self._append(
                    descriptor,
                    event="attempt",
                    serial=serial,
                    salt=salt,
                    fingerprint=fingerprint,
                    new_fingerprint=fresh,
                )
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
        event: JournalEvent,
        serial: str,
        salt: str = "",
        fingerprint: str = "",
        new_fingerprint: str = "",
        forgive_refused: bool = False,
    ) -> None:
        """Write one line and sync it, under the lock."""
        line = JournalLine(
            event=event,
            at_ms=self._clock(),
            serial=serial,
            salt=salt,
            fingerprint=fingerprint,
            new_fingerprint=new_fingerprint,
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
                    sync_directory(self._path.parent)
                elif os.fstat(descriptor).st_size > _COMPACT_ABOVE_BYTES:
                    descriptor = self._compact(descriptor)
                    stack.callback(os.close, descriptor)
            except OSError as error:
                raise self._failure(error) from error
            yield descriptor

    def _replay(self, descriptor: int) -> "Histories":
        histories = Histories()
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
            sync_directory(self._path.parent)
        except OSError:
            os.close(compact)
            raise
        return compact

    def _failure(self, error: OSError) -> TokenError:
        return TokenError(
            "token.pin_journal",
            f"the PIN journal {self._path} cannot be used: {error.strerror}",
            hint="without it no PIN is presented; make its directory writable and give it space",
        )


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
