# SPDX-License-Identifier: Apache-2.0
"""A keeper over a token that can be broken, without a hub."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.fault_shim import FaultyToken
from privyseal.agent.config import KeyConfig, TokenTable
from privyseal.agent.custody import Custodian, system_moment
from privyseal.agent.keeper import TokenKeeper
from privyseal.agent.keys import ProfileOpener
from privyseal.agent.ladder import Rung
from privyseal.agent.outbox import Outbox
from privyseal.agent.recovery import RecoveringToken, Step
from privyseal.agent.token_custody import TokenCustody
from privyseal.agent.token_record import TokenRecord
from privyseal.agent.turns import Turns
from privyseal.pki.mechanism import Mechanism
from privyseal.storage.connection import Connect
from privyseal.storage.connection import connect as sqlite_connect
from privyseal.storage.journal import SqliteJournal
from privyseal.tlog.entry import Custody, PinEvent, Recover, TokenEvent, parse_entry
from privyseal.tokens.factory import open_token
from privyseal.usb.host import UsbHost
from relocating import place_watch
from softhsm import EC_ID

__all__ = ["Site", "kept"]


@dataclass(kw_only=True)
class Site:
    """A keeper without a hub."""

    faulty: FaultyToken
    journal: SqliteJournal
    token: RecoveringToken
    keeper: TokenKeeper
    changes: list[str] = field(default_factory=list)

    async def events(self) -> list[str]:
        """What is on its way to the log, in short."""
        told = [_short(parse_entry(event.entry)) for event in await self.journal.events(100)]
        return [event for event in told if not event.startswith("custody")]

    async def sign(self) -> bytes:
        return await self.token.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=bytes(32))

    @property
    def served(self) -> bool:
        return all(profile.served is not None for profile in self.keeper.profiles) and bool(self.keeper.profiles)

    @property
    def problem(self) -> str:
        (profile,) = self.keeper.profiles
        return profile.announcement.problem_code


def _short(entry: object) -> str:
    match entry:
        case TokenEvent():
            return f"{entry.event} {entry.code}".strip()
        case PinEvent():
            return f"pin {entry.event} {entry.code}"
        case Recover():
            return f"recover {entry.step} {entry.outcome}"
        case Custody():
            return f"custody {entry.state}"
    raise AssertionError(entry)


@asynccontextmanager
async def kept(
    faulty: FaultyToken,
    journal: Path | str = ":memory:",
    *,
    steps: dict[Rung, Step] | None = None,
    connect: Connect = sqlite_connect,
    usb: UsbHost | None = None,
    usb_name: str = "",
    **table: Any,
) -> AsyncIterator[Site]:
    """A started keeper."""
    opened = await SqliteJournal.open(journal, origin="hub.example", connect=connect)
    outbox = Outbox(journal=opened, clock=lambda: 5, request_key=b"a" * 32)
    record = TokenRecord("lab", outbox)
    token = RecoveringToken(
        open_token(faulty.config(call_seconds=5.0, close_seconds=0.5, counter=table.get("counter", "none"))),
        told=record.stepped,
        steps=steps,
        pause_seconds=0.001,
    )
    wanted = (KeyConfig(profile="release", token="lab", id=EC_ID.hex()),)
    turns = Turns(table.get("workers", 1))
    opener = ProfileOpener(wanted=wanted, token=token, turns=turns, directory=faulty.hsm.directory)
    changes: list[str] = []
    settings: dict[str, Any] = {"name": "lab", "kind": "pkcs11", "watch_seconds": 0.02, "usb": usb_name} | table

    async def changed() -> None:
        changes.append(keeper.state.value)

    custodian = await Custodian.open(name="lab", journal=opened, outbox=outbox, clocks=system_moment)
    custody = TokenCustody(
        custodian,
        token,
        turns=turns,
        count_seconds=3600.0 if table.get("counter") else 0.0,
        beside=lambda: (),
        place=place_watch(TokenTable(**settings), token, turns=turns, journal=opened, usb=usb),
    )
    keeper = TokenKeeper(
        TokenTable(**settings), opener, token=token, record=record, journal=opened, custody=custody, changed=changed
    )
    await keeper.start()
    try:
        yield Site(faulty=faulty, journal=opened, token=token, keeper=keeper, changes=changes)
    finally:
        faulty.heal()
        await keeper.close()
        await opened.close()
