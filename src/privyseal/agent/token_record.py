# SPDX-License-Identifier: Apache-2.0
"""What happens to one token, as entries on their way to the log."""

import asyncio
from functools import partial
from typing import Final, Protocol

import structlog

from privyseal.agent.ladder import Rung
from privyseal.agent.outbox import EntryMaker
from privyseal.agent.step_window import Step, StepWindow
from privyseal.errors import PrivysealError, TokenError
from privyseal.tlog.entry import PinEvent, Recover, TokenEvent

__all__ = ["Teller", "TokenRecord"]

_LOG: Final = structlog.get_logger("privyseal.agent.token")


class Teller(Protocol):
    """Takes entries for the log: the agent's `Outbox`."""

    async def tell(self, make: EntryMaker) -> None:
        """See `Outbox.tell`."""
        ...


class TokenRecord:
    """Tells of one token.

    Attributes:
        serial: Its serial number; empty while it was never seen, then its name in agent.toml stands for it.
    """

    def __init__(self, name: str, outbox: Teller) -> None:
        """`name` is that of agent.toml."""
        self._name: Final = name
        self._outbox: Final = outbox
        self._window: Final = StepWindow()
        self.serial = ""

    @property
    def _token(self) -> str:
        return self.serial or self._name

    async def token(self, event: str, code: str = "") -> None:
        """It came, went, or was taken out of use or back into it; see `TokenEvent`.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
        """
        _LOG.info("token", token=self._name, serial=self.serial, happened=event, code=code)
        await self._outbox.tell(
            lambda at, agent: TokenEvent(ts=at, agent=agent, seq=0, at=at, token=self._token, event=event, code=code)
        )

    async def pin(self, event: str, code: str = "", authority: str = "") -> None:
        """Something that concerns its PIN; see `PinEvent`.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
        """
        _LOG.info("PIN", token=self._name, serial=self.serial, happened=event, code=code)
        await self._outbox.tell(
            lambda at, agent: PinEvent(
                ts=at, agent=agent, seq=0, at=at, token=self._token, event=event, code=code, authority=authority
            )
        )

    async def stepped(self, rung: Rung, error: PrivysealError, outcome: str) -> None:
        """A step of the recovery ladder was taken, or could not be.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
        """
        ckr = error.ckr if isinstance(error, TokenError) else None
        step = Step(
            step=rung.value,
            code=error.code,
            function=error.function if isinstance(error, TokenError) else "",
            ckr=-1 if ckr is None else ckr,
            outcome=outcome,
        )
        await self._tell_steps(self._window.took(step, asyncio.get_running_loop().time()))

    async def settle(self) -> None:
        """Tell of the steps that were only counted, once their minute is over.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
        """
        await self._tell_steps(self._window.due(asyncio.get_running_loop().time()))

    async def _tell_steps(self, steps: tuple[tuple[Step, int], ...]) -> None:
        for step, count in steps:
            await self._outbox.tell(partial(self._recover, step, count))

    def _recover(self, step: Step, count: int, at: int, agent: str) -> Recover:
        return Recover(
            ts=at,
            agent=agent,
            seq=0,
            at=at,
            token=self._token,
            step=step.step,
            code=step.code,
            function=step.function,
            ckr=step.ckr,
            outcome=step.outcome,
            count=count,
        )
