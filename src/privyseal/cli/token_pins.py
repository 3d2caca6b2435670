# SPDX-License-Identifier: Apache-2.0
"""What the commands about PINs share: through the agent that runs, or on the token itself while none does.

Everything here needs the extra `agent`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from privyseal.agent.config import AgentFiles, token_config
from privyseal.agent.outbox import EntryMaker, Outbox
from privyseal.agent.pins import (
    ChangeArguments,
    Changed,
    CustodyArguments,
    InCustody,
    TokenPins,
    TokenWithPin,
    UnlockArguments,
    Unlocked,
)
from privyseal.agent.token_record import TokenRecord
from privyseal.cli.agent_control import agent_runs, ask_agent
from privyseal.cli.processes import keep_to_errors
from privyseal.cli.prompts import read_new_pin, read_pin
from privyseal.cli.token_host import named_token, opened, typed_pin
from privyseal.errors import UnavailableError
from privyseal.identity.bundle import load_bundle
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import system_clock
from privyseal.storage.journal import SqliteJournal
from privyseal.tokens.pin import PinBuffer, read_pin_file
from privyseal.tokens.pin_journal import PinJournal, journal_name

__all__ = ["UnlockedHere", "change_here", "custody_here", "unlock_here", "unlock_serial"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockedHere:
    """Attempts are allowed again; `tried` says that the agent made one, and the token took the PIN."""

    serial: str
    tried: bool
    keys: int = 0


def unlock_here(directory: Path, name: str, *, prompt: bool, forgive_refused: bool) -> UnlockedHere:
    """Allow attempts again, and have the agent make one if it runs.

    Raises:
        ConfigError: `token.unknown`, `pin.no_terminal`, `pin.empty`. UnavailableError: `agent.not_running` if a PIN was
            to be handed in. TokenError: as `TokenPins.unlock`.
    """
    table = named_token(directory, name)
    if not agent_runs(directory):
        if prompt:
            raise UnavailableError(
                "agent.not_running",
                f"no agent runs in {directory} that a PIN could be handed to",
                hint=f"privyseal agent run --dir {directory}; then once more",
            )
        return asyncio.run(_unlock_without_agent(directory, name, forgive_refused=forgive_refused))
    asked = UnlockArguments(token=name, forgive_refused=forgive_refused)
    if not (prompt or table.pin_prompt):
        done = ask_agent(directory, "unlock", asked, Unlocked)
    else:
        with _wiped(typed_pin(read_pin(name, option=""))) as pin:
            done = ask_agent(directory, "unlock", asked, Unlocked, pin=pin)
    return UnlockedHere(serial=done.serial, tried=True, keys=done.keys)


def unlock_serial(directory: Path, serial: str, *, forgive_refused: bool) -> None:
    """Allow attempts again at a token that has no name in agent.toml yet."""
    asyncio.run(_allow(directory, "", serial, forgive_refused=forgive_refused))


async def _unlock_without_agent(directory: Path, name: str, *, forgive_refused: bool) -> UnlockedHere:
    async with opened(directory, name, login=False) as token:
        serial = journal_name(await token.info())
    await _allow(directory, name, serial, forgive_refused=forgive_refused)
    return UnlockedHere(serial=serial, tried=False)


async def _allow(directory: Path, name: str, serial: str, *, forgive_refused: bool) -> None:
    await asyncio.to_thread(_journal(directory).clear, serial, forgive_refused=forgive_refused)
    record = _record(directory, name)
    record.serial = serial
    await record.pin("unlocked")


def change_here(directory: Path, name: str, new_pin_file: Path | None) -> Changed:
    """Give a token another PIN: from a file, or typed twice.

    Raises:
        ConfigError: `token.unknown`, `pin.no_terminal`, `pin.empty`, `pin.differs`. TokenError: as `TokenPins.change`.
    """
    named_token(directory, name)
    runs = agent_runs(directory)
    new = typed_pin(read_new_pin(name)) if new_pin_file is None else read_pin_file(str(new_pin_file))
    with _wiped(new) as pin:
        if runs:
            return ask_agent(directory, "change-pin", ChangeArguments(token=name), Changed, pin=pin)
        return asyncio.run(_change_without_agent(directory, name, pin))


async def _change_without_agent(directory: Path, name: str, pin: PinBuffer) -> Changed:
    async with _pins_without_agent(directory, name) as pins:
        return await pins.change(name, pin)


def custody_here(directory: Path, asked: CustodyArguments) -> InCustody:
    """Give a token a PIN that no person knows.

    Raises:
        ConfigError: `token.unknown`. And what `TokenPins.custody` raises.
    """
    named_token(directory, asked.token)
    if agent_runs(directory):
        return ask_agent(directory, "pin-custody", asked, InCustody)
    return asyncio.run(_custody_without_agent(directory, asked))


async def _custody_without_agent(directory: Path, asked: CustodyArguments) -> InCustody:
    async with _pins_without_agent(directory, asked.token) as pins:
        return await pins.custody(asked)


@contextlib.asynccontextmanager
async def _pins_without_agent(directory: Path, name: str) -> AsyncIterator[TokenPins]:
    """The PIN of one token, while no agent runs."""

    async def retry() -> None:
        """Nobody keeps the token here."""

    config = token_config(named_token(directory, name), directory)
    async with opened(directory, name) as token:
        one = TokenWithPin(token=token, glance=token.info, config=config, record=_record(directory, name), retry=retry)
        yield TokenPins({name: one}, directory=directory)


@contextlib.contextmanager
def _wiped(pin: PinBuffer) -> Iterator[PinBuffer]:
    try:
        yield pin
    finally:
        pin.wipe()


def _journal(directory: Path) -> PinJournal:
    return PinJournal(str(AgentFiles(directory).pin_journal.resolve()))


def _record(directory: Path, name: str) -> TokenRecord:
    keep_to_errors()
    return TokenRecord(name, _Later(directory))


class _Later:
    """Has the agent tell it when it runs the next time; one that has not joined a hub yet has nobody to tell."""

    def __init__(self, directory: Path) -> None:
        self._files = AgentFiles(directory)

    async def tell(self, make: EntryMaker) -> None:
        """See `Outbox.tell`."""
        files = self._files
        if not files.bundle.exists():
            return
        journal = await SqliteJournal.open(files.journal, origin=load_bundle(files.bundle).origin)
        try:
            key = load_ed25519(files.request_key).public_key().public_bytes_raw()
            await Outbox(journal=journal, clock=system_clock, request_key=key).tell(make)
        finally:
            await journal.close()
