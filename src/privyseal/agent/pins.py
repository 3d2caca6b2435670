# SPDX-License-Identifier: Apache-2.0
"""What people do with the PINs of an agent's tokens: allow attempts again, hand a PIN in, change one."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from privyseal.agent.config import AgentFiles
from privyseal.agent.control import ControlCall, ControlHandler, named
from privyseal.agent.token_record import TokenRecord
from privyseal.errors import ConfigError, DeniedError, MalformedInputError, PrivysealError, TokenError
from privyseal.identity.pin_recovery import RecoveryHeader, make_recovery
from privyseal.ports.clock import Clock, system_clock
from privyseal.ports.token import TokenInfo, UnlockableToken
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.files import sync_directory
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_history import PinHistory
from privyseal.tokens.pin_journal import PinJournal, journal_name
from privyseal.tokens.pin_making import make_pin

__all__ = [
    "ChangeArguments",
    "Changed",
    "CustodyArguments",
    "InCustody",
    "TokenPins",
    "TokenWithPin",
    "UnlockArguments",
    "Unlocked",
]


class UnlockArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Allow PIN attempts at a token again and make one: `unlock`, with the PIN behind the frame if a person typed it.

    Attributes:
        token: Name in agent.toml.
        forgive_refused: Also allow a PIN that the token refused before.
    """

    token: str
    forgive_refused: bool = False


class Unlocked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The token took its PIN and shows so many signing keys."""

    token: str
    serial: str
    keys: int


class ChangeArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give a token the PIN that comes behind the frame: `change-pin`."""

    token: str


class Changed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The token has a new PIN.

    Attributes:
        kept: The file that holds it now; empty if the PIN comes from elsewhere, where it must be put.
    """

    token: str
    serial: str
    kept: str


class CustodyArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give a token a PIN that no person knows: `pin-custody`.

    Attributes:
        authorities: Raw Ed25519 keys that the recovery copy is made for.
        threshold: How many of them open it.
        length: Of the PIN in bytes; 0 for what suits the token.
        digits: The PIN is of digits alone.
    """

    token: str
    authorities: tuple[bytes, ...]
    threshold: int
    length: int = 0
    digits: bool = False


class InCustody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The agent alone has the token's PIN, and `recovery` is the file that m of n authority keys open."""

    token: str
    serial: str
    kept: str
    recovery: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWithPin:
    """A token whose PIN people act on.

    Attributes:
        token: The token.
        glance: What it says of itself, without any step of recovery: whoever asks has not shown yet that he may.
        config: Where its PIN comes from.
        record: Puts on record what happens to the PIN.
        retry: Called after a person has acted; says why the token is not in use all the same, or None if it is.
    """

    token: UnlockableToken
    glance: Callable[[], Awaitable[TokenInfo]]
    config: TokenConfig
    record: TokenRecord
    retry: Callable[[], Awaitable[PrivysealError | None]]

    async def seen(self) -> TokenInfo:
        """What the token says of itself; from then on what is recorded has the name that the PIN journal has for it.

        Raises:
            TokenError: as `Token.info`.
        """
        info = await self.glance()
        self.record.serial = journal_name(info)
        return info


class TokenPins:
    """The PINs of the tokens of one agent. One thing at a time."""

    def __init__(self, tokens: Mapping[str, TokenWithPin], *, directory: Path, clock: Clock = system_clock) -> None:
        """Act for these tokens.

        Args:
            tokens: By their names in agent.toml.
            directory: The agent's.
            clock: For the date of recovery copies.
        """
        self._tokens = tokens
        self._directory = directory
        self._journal = PinJournal(str(AgentFiles(directory).pin_journal.resolve()))
        self._clock = clock
        self._turn = asyncio.Lock()

    @property
    def commands(self) -> Mapping[str, ControlHandler]:
        """For the control socket."""
        return {
            "unlock": self._unlock_command,
            "change-pin": self._change_command,
            "pin-custody": self._custody_command,
        }

    def named(self, name: str) -> TokenWithPin:
        """A token.

        Raises:
            ConfigError: `token.unknown`.
        """
        return named(self._tokens, name)

    async def unlock(
        self, name: str, *, forgive_refused: bool, pin: PinBuffer | None, authority: str = "", serial: str = ""
    ) -> Unlocked:
        """A person vouches for the PIN of a token: allow attempts again, and make one at once.

        Args:
            name: In agent.toml.
            forgive_refused: Also allow a PIN that the token refused before.
            pin: What the person typed; held until the agent stops. None to present what the configuration names.
            authority: SHA-256 of the authority key that signed for it; empty for somebody on this host.
            serial: Of the token that is meant; empty for whichever has the name.

        Raises:
            ConfigError: `token.unknown`. DeniedError: `unlock.serial` if another token is there.
            PrivysealError: why the token is not in use, although attempts are allowed again.
        """
        one = self.named(name)
        async with self._turn:
            present = journal_name(await one.seen())
            if serial not in ("", present):
                raise DeniedError(
                    "unlock.serial", f"the PIN was handed in for serial {serial!r}; the token there is {present!r}"
                )
            serial = present
            await asyncio.to_thread(self._journal.clear, serial, forgive_refused=forgive_refused)
            await one.record.pin("unlocked", authority=authority)
            if pin is not None:
                await one.token.unlock(pin.view)
            elif one.config.pin_prompt:
                await one.token.recycle()
            else:
                await one.token.forget_pin()
            problem = await one.retry()
            if problem is not None:
                if pin is not None and problem.code == "token.pin_incorrect":
                    await one.token.forget_pin()
                raise type(problem)(
                    problem.code,
                    f"PIN attempts at serial {serial} are allowed again, and it is not in use: {problem.message}",
                    hint=problem.hint,
                )
            keys = await one.token.keys()
        return Unlocked(token=name, serial=serial, keys=len(keys))

    async def change(self, name: str, new: PinBuffer, *, event: str = "changed") -> Changed:
        """Give a token another PIN, on record.

        Raises:
            ConfigError: `token.unknown`. TokenError: as `ManagedToken.change_pin`.
        """
        one = self.named(name)
        async with self._turn:
            serial = journal_name(await one.seen())
            before = await asyncio.to_thread(self._journal.history, serial)
            try:
                await one.token.change_pin(new)
            except TokenError as error:
                state = await asyncio.to_thread(self._after_failure, serial, new, before)
                if state:
                    await one.record.pin(event if state == "changed" else state, error.code)
                raise
            else:
                await one.record.pin(event)
            finally:
                await one.retry()
        return Changed(token=name, serial=serial, kept=one.config.pin_file)

    async def custody(self, asked: CustodyArguments) -> InCustody:
        """Give a token a PIN that no person knows, after a recovery copy of it is on disk.

        Raises:
            ConfigError: `token.unknown`; `custody.source` if the PIN does not come from a file that can be rewritten;
                `custody.recovery` if the copy cannot be written; as `make_recovery`.
            TokenError: as `ManagedToken.change_pin`. The recovery copy stays: the PIN may have been changed.
        """
        one = self.named(asked.token)
        if not one.config.pin_file:
            raise ConfigError(
                "custody.source",
                f"token {asked.token!r} does not take its PIN from a file, where the agent could keep one",
                hint='set `pin_file = "pin"` of the [[token]] in agent.toml, and restart the agent',
            )
        await one.token.forget_pin()  # what a person typed would be replaced instead of the file
        info = await one.seen()
        serial = journal_name(info)
        history = await asyncio.to_thread(self._journal.history, serial)
        pin = await asyncio.to_thread(_fresh_pin, info, asked, history)
        try:
            path = await asyncio.to_thread(self._write_recovery, asked, serial, pin)
            done = await self.change(asked.token, pin, event="custody")
        finally:
            pin.wipe()
        return InCustody(token=done.token, serial=done.serial, kept=done.kept, recovery=str(path))

    def _write_recovery(self, asked: CustodyArguments, serial: str, pin: PinBuffer) -> Path:
        created = self._clock()
        header = RecoveryHeader(
            token=asked.token,
            serial=serial,
            created=created,
            threshold=asked.threshold,
            authorities=asked.authorities,
        )
        data = make_recovery(header, pin.view)
        label = re.sub(r"[^A-Za-z0-9._-]+", "-", asked.token).lstrip(".")
        path = self._directory.resolve() / f"{label}.{created}.recovery"
        try:
            # Never in place of another: that may be the copy of the PIN that is in force.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            sync_directory(path.parent)
        except OSError as error:
            raise ConfigError(
                "custody.recovery",
                f"the recovery copy {path} cannot be written: {error.strerror}",
                hint="the PIN was not changed; make the agent's directory writable and give it space",
            ) from error
        return path

    def _after_failure(self, serial: str, new: PinBuffer, before: PinHistory) -> str:
        """`changed`, `unknown`, or empty if the old PIN is in force."""
        after = self._journal.history(serial)
        fingerprint = after.fingerprint(new)
        if not fingerprint or fingerprint == before.accepted:
            return ""
        if fingerprint == after.accepted:
            return "changed"
        return "unknown" if fingerprint == after.changing else ""

    async def _unlock_command(self, call: ControlCall) -> Unlocked:
        asked = call.given(UnlockArguments)
        return await self.unlock(asked.token, forgive_refused=asked.forgive_refused, pin=call.pin)

    async def _change_command(self, call: ControlCall) -> Changed:
        asked = call.given(ChangeArguments)
        if call.pin is None:
            raise MalformedInputError("control.malformed", "no new PIN came with the command")
        return await self.change(asked.token, call.pin)

    async def _custody_command(self, call: ControlCall) -> InCustody:
        return await self.custody(call.given(CustodyArguments))


def _fresh_pin(token: TokenInfo, asked: CustodyArguments, history: PinHistory) -> PinBuffer:
    """A new PIN that the journal can tell from the present one and from all that were refused."""
    while True:
        pin = make_pin(token, length=asked.length, digits=asked.digits)
        fingerprint = history.fingerprint(pin)
        if not fingerprint or fingerprint not in (history.accepted, *history.refused):
            return pin
        pin.wipe()
