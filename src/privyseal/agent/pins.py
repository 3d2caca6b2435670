# SPDX-License-Identifier: Apache-2.0
"""What people do with the PINs of an agent's tokens: allow attempts again, hand a PIN in, change one."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from privyseal.agent.control import ControlCall, ControlHandler
from privyseal.agent.token_record import TokenRecord
from privyseal.errors import ConfigError, MalformedInputError, PrivysealError, TokenError
from privyseal.ports.token import UnlockableToken
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_history import PinHistory
from privyseal.tokens.pin_journal import PinJournal, journal_name

__all__ = ["ChangeArguments", "Changed", "TokenPins", "TokenWithPin", "UnlockArguments", "Unlocked"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWithPin:
    """A token whose PIN people act on.

    Attributes:
        token: The token.
        config: Where its PIN comes from.
        record: Puts on record what happens to the PIN.
        retry: Called after a person has acted; says why the token is not in use all the same, or None if it is.
    """

    token: UnlockableToken
    config: TokenConfig
    record: TokenRecord
    retry: Callable[[], Awaitable[PrivysealError | None]]

    async def serial(self) -> str:
        """By which PIN journal and record know it.

        Raises:
            TokenError: as `Token.info`.
        """
        self.record.serial = journal_name(await self.token.info())
        return self.record.serial


class TokenPins:
    """The PINs of the tokens of one agent. One thing at a time."""

    def __init__(self, tokens: Mapping[str, TokenWithPin], *, journal: Path) -> None:
        """Act for these tokens.

        Args:
            tokens: By their names in agent.toml.
            journal: The PIN journal.
        """
        self._tokens = tokens
        self._journal = PinJournal(str(journal))
        self._turn = asyncio.Lock()

    @property
    def commands(self) -> Mapping[str, ControlHandler]:
        """For the control socket."""
        return {"unlock": self._unlock_command, "change-pin": self._change_command}

    def named(self, name: str) -> TokenWithPin:
        """A token.

        Raises:
            ConfigError: `token.unknown`.
        """
        token = self._tokens.get(name)
        if token is None:
            known = ", ".join(self._tokens) or "none"
            raise ConfigError(
                "token.unknown",
                f"the agent that runs knows no token {name!r}; it knows {known}",
                hint="after a change of agent.toml the agent must be restarted",
            )
        return token

    async def unlock(self, name: str, *, forgive_refused: bool, pin: PinBuffer | None, authority: str = "") -> Unlocked:
        """A person vouches for the PIN of a token: allow attempts again, and make one at once.

        Args:
            name: In agent.toml.
            forgive_refused: Also allow a PIN that the token refused before.
            pin: What the person typed; held until the agent stops. None to present what the configuration names.
            authority: SHA-256 of the authority key that signed for it; empty for somebody on this host.

        Raises:
            ConfigError: `token.unknown`.
            PrivysealError: why the token is not in use, although attempts are allowed again.
        """
        one = self.named(name)
        async with self._turn:
            serial = await one.serial()
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
            serial = await one.serial()
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
