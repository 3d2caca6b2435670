# SPDX-License-Identifier: Apache-2.0
"""One token over time: it comes and goes, is recycled, drained and quarantined; what it serves follows from that."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final

import msgspec
import structlog

from privyseal.agent.climb_pauses import ClimbPauses
from privyseal.agent.config import TokenTable
from privyseal.agent.keys import OpenedProfile, ProfileOpener, SeenToken
from privyseal.agent.ladder import Rung, is_about_pin
from privyseal.agent.pool import KeptToken
from privyseal.agent.token_custody import TokenCustody
from privyseal.agent.token_health import token_health
from privyseal.agent.token_identity import Identity, Memory, away, drained, quarantined
from privyseal.agent.token_record import TokenRecord
from privyseal.agent.token_state import TokenNow, TokenState
from privyseal.agent.turns import Turns
from privyseal.errors import ConflictError, PrivysealError, UnavailableError
from privyseal.ports.journal import AgentJournal
from privyseal.ports.token import TokenInfo
from privyseal.wire.link import TokenHealth

__all__ = ["TokenKeeper"]

_LOG: Final = structlog.get_logger("privyseal.agent.token")
_PIN_EVENTS: Final = {
    "token.pin_incorrect": "refused",
    "token.pin_expired": "refused",
    "token.pin_locked": "locked",
}


class TokenKeeper:
    """Keeps one token of agent.toml.

    Attributes:
        token: The token.
        record: Puts on record what happens to it.
        profiles: Its key profiles as they are announced now.
        custody: Watches over who could use it.
    """

    def __init__(
        self,
        table: TokenTable,
        opener: ProfileOpener,
        *,
        token: KeptToken,
        record: TokenRecord,
        journal: AgentJournal,
        custody: TokenCustody,
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        """Keep a token.

        Args:
            table: What agent.toml says of it.
            opener: Opens its key profiles.
            token: The token.
            record: Puts on record what happens to it.
            journal: Where it is known again after a restart.
            custody: Watches over who could use it.
            changed: Called after each change of state or profiles.
        """
        self._table: Final = table
        self._opener: Final = opener
        self.token: Final = token
        self.record: Final = record
        self._journal: Final = journal
        self.custody: Final = custody
        self._changed: Final = changed
        self._looking: Final = asyncio.Lock()
        self._memory = Memory()
        self._now = TokenNow(state=TokenState.ABSENT)
        self._is_first_look = True
        self._was_here = False
        self._pauses: Final = ClimbPauses()
        self._recycled_s = 0.0
        self._recycled_at = 0
        self._frozen: frozenset[str] = frozenset()
        self._failure: PrivysealError | None = None
        self._look_now: Final = asyncio.Event()
        self.profiles: tuple[OpenedProfile, ...] = ()

    @property
    def state(self) -> TokenState:
        """Whether it signs."""
        return self._now.state

    @property
    def turns(self) -> Turns:
        """Of those who use it."""
        return self._opener.turns

    @property
    def problem(self) -> PrivysealError | None:
        """Why it does not sign; None if it does."""
        return self._now.problem

    # -- looking ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Look for the first time.

        Raises:
            PrivysealError: what the journal raises.
        """
        async with self._looking:  # a person's command waits until it is known what the token was
            kept = await self._journal.recall(self._memory_name)
            if kept is not None:
                self._memory = msgspec.json.decode(kept, type=Memory)
            self._recycled_s = _now_s()
            if self._memory.drained:
                await self._out_of_use(TokenState.DRAINED, drained(self._table.name))
        await self.look()

    async def run(self) -> None:
        """Look at the token again and again until cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), self._table.watch_seconds)
            self._look_now.clear()
            await self.look()

    def failed(self, error: PrivysealError) -> None:
        """The token could not begin a signature, whatever was done for it: look at it at once.

        It is out of use until a look finds it well; one of several workers says nothing of the others.
        """
        if self._table.workers == 1:
            self._failure = error
        self._look_now.set()

    async def look(self) -> None:
        """Find out how the token is now, and act on it.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
        """
        async with self._looking:
            await self.record.settle()
            if self._now.state is TokenState.DRAINED:
                return
            try:
                await self._look()
            except UnavailableError as error:  # the journal's: nothing can be signed now, and the token is as it was
                _LOG.error("token not watched", token=self._table.name, code=error.code, reason=error.message)
            except PrivysealError as error:
                await self._failed(error)
            self._is_first_look = False
            if self._now.state is TokenState.READY:
                await self._recycle_if_due()

    async def _look(self) -> None:
        if self._now.state is TokenState.READY and self.token.pin_error is not None:
            raise self.token.pin_error
        failure, self._failure = self._failure, None
        if self._now.state is TokenState.READY and failure is not None:
            raise failure
        climbs = self._climbs()
        info = await (self.token.info() if climbs else self.token.glance())
        seen = self._now.seen
        known = seen is not None and seen.info.serial == info.serial
        if seen is not None and known and self._now.state is not TokenState.FAILED:
            self._now = replace(self._now, seen=replace(seen, info=info))
            if self._now.state is TokenState.READY:
                await self._watch(seen)
            return
        if self._now.state is TokenState.BLOCKED and (info.serial or info.label) == self.record.serial:
            return  # to log in again would be to present a PIN
        self.record.serial = info.serial or info.label
        # One that has come back gets every help, once; if that was in vain it waits like one that does not answer.
        with self.token.resting(when=not climbs and self._now.state is not TokenState.ABSENT):
            await self._came(info)

    def _climbs(self) -> bool:
        """Whether a look may take the steps of the ladder: a token that is simply not there needs none each time."""
        if self._now.state is TokenState.READY or self._is_first_look:
            return True
        return self._now.state is not TokenState.BLOCKED and self._pauses.is_over(_now_s())

    async def _failed(self, error: PrivysealError) -> None:
        if error.code == "journal.commit_unknown":
            raise error
        if is_about_pin(error):
            state = TokenState.BLOCKED
        else:
            state = TokenState.ABSENT if error.code == "token.not_found" else TokenState.FAILED
        before = self._now
        if (state, error.code) == (before.state, before.problem.code if before.problem else ""):
            return
        if before.state is TokenState.READY or self._is_first_look:
            self._pauses.begin(_now_s())
        with suppress(UnavailableError):  # what a full disk keeps out of the journal now is told when it is free
            await (self.custody.gone() if state is TokenState.ABSENT else self.custody.ill())
        if state is TokenState.BLOCKED:
            await self.record.pin(_PIN_EVENTS.get(error.code, "blocked"), error.code)
        else:
            await self.record.token("detached" if state is TokenState.ABSENT else "failed", error.code)
        await self._out_of_use(state, error)

    async def _out_of_use(self, state: TokenState, problem: PrivysealError) -> None:
        self._now = TokenNow(state=state, problem=problem)
        _LOG.error(
            "token not in use",
            token=self._table.name,
            state=state.value,
            code=problem.code,
            reason=problem.message,
            next=problem.hint,
        )
        self.profiles = self._opener.unserved(problem)
        await self._changed()

    async def _came(self, info: TokenInfo) -> None:
        """A token answers: it is used if it is the one that was here before."""
        before = self._memory.identity
        if before is not None and info.serial not in (before.serial, self._table.serial):
            # Before its keys are asked for: the PIN of the former one is not for it.
            other = SeenToken(info=info, keys=())
            await self._quarantine(quarantined(self._table.name, "token.other_serial", other), other)
            return
        seen = SeenToken(info=info, keys=await self.token.keys())
        identity = Identity.of(seen)
        code = "token.other_certificates" if before is not None and before.keys != identity.keys else ""
        if code and self._was_here:
            await self._quarantine(quarantined(self._table.name, code, seen), seen)
        else:
            await self._use(seen, identity, "attached", code)

    async def _quarantine(self, problem: PrivysealError, seen: SeenToken) -> None:
        await self.record.token("quarantined", problem.code)
        await self._out_of_use(TokenState.QUARANTINED, problem)
        self._now = replace(self._now, seen=seen)

    async def _use(self, seen: SeenToken, identity: Identity, event: str, code: str = "") -> None:
        self._was_here = True
        if self._memory.identity != identity:
            await self._remember(Memory(identity=identity))
        await self.custody.came(seen)
        if (problem := self.custody.place.problem) is not None:
            await self._quarantine(problem, seen)
            return
        await self.record.token(event, code)  # last: what fails above is tried again with each look
        self._now = TokenNow(state=TokenState.READY, seen=seen)
        self._frozen = self.custody.frozen
        self.profiles = self._opener.served(seen, self._frozen)
        await self._changed()

    async def _watch(self, seen: SeenToken) -> None:
        """Who could have used it since the last look; and whether it is one that was taken out and put back quickly."""
        before = self.custody.use
        await self.custody.looked()
        now = self.custody.use
        if (problem := self.custody.place.problem) is not None:
            await self._quarantine(problem, seen)
        elif before is not None and now is not None and before.card_events != now.card_events:
            await self.record.token("detached")
            await self._out_of_use(TokenState.ABSENT, away(self._table.name))  # until its counters were read
            await self.token.recycle()  # what it holds is of the card that was there
            await self._came(await self.token.info())
        elif self.custody.frozen != self._frozen:
            # One whose counter does not match is out of use from now on; one that a person has accepted is back.
            self._frozen = self.custody.frozen
            self.profiles = self._opener.served(seen, self._frozen)
            await self._changed()

    # -- what persons and plans do to it ------------------------------------------------------------------------

    async def drain(self) -> None:
        """Take the token out of use once what it is signing has ended; it stays so until `resume`."""
        async with self._looking:
            if self._now.state is not TokenState.DRAINED:
                await self._remember(msgspec.structs.replace(self._memory, drained=True))
                await self.record.token("drained")
                await self._out_of_use(TokenState.DRAINED, drained(self._table.name))
            async with self._opener.turns.rest():  # new jobs do not come any more
                await self.token.recycle()  # nobody looks any more at who else is connected to its card
                self.custody.use = None

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """Within this the token's device is another's; it must be at rest. What it comes back as is looked at anew.

        What it is announced for stays: requests wait for it.
        """
        async with self._looking:
            await self.custody.gone()
            await self.token.recycle()  # its module, and with that pcscd, let go of the device
            self._now = TokenNow(state=TokenState.LENT)
            try:
                yield
            finally:
                self._now = TokenNow(state=TokenState.ABSENT)
                self._look_now.set()

    async def resume(self) -> None:
        """Take the token back into use, as the one that it is now."""
        async with self._looking:
            await self._remember(Memory())
            self._now = TokenNow(state=TokenState.ABSENT)
            self._was_here = False
            self._is_first_look = True
            await self.token.recycle()  # a worker keeps to the token that it has known
            await self.record.token("resumed", "token.relocated" if await self.custody.place.accept() else "")
        await self.look()

    async def recycle(self) -> None:
        """Replace its workers between two jobs."""
        async with self._looking:
            await self._recycle()
        await self.look()

    async def reset(self) -> Rung:
        """Take the step of the ladder that helps most without a person's hands: reset the USB device, or the worker.

        Returns:
            The step that was taken.

        Raises:
            PrivysealError: it could not be taken.
        """
        rung = Rung.USB_RESET if Rung.USB_RESET in self.token.possible else Rung.WORKER
        await self.token.step(rung, ConflictError("token.reset", "a person asked for it"))
        async with self._looking:
            await self._log_in()
        await self.look()
        return rung

    async def retry(self) -> PrivysealError | None:
        """A person has acted on its PIN: it is presented again if a login is wanted and the PIN journal allows it.

        Returns:
            Why the token is not in use all the same; None if it is.
        """
        async with self._looking:
            if self._now.state is TokenState.BLOCKED:
                self._now = TokenNow(state=TokenState.ABSENT)
                self._is_first_look = True
            await self._log_in()
        await self.look()
        return self.problem

    async def _recycle_if_due(self) -> None:
        table, signatures = self._table, self.token.signing.signatures
        by_count = 0 < table.recycle_signatures <= signatures - self._recycled_at
        by_time = 0 < table.recycle_hours * 3600 <= _now_s() - self._recycled_s
        if by_count or by_time:
            await self._recycle()

    async def _recycle(self) -> None:
        self._recycled_at, self._recycled_s = self.token.signing.signatures, _now_s()
        await self.token.recycle()
        await self.record.token("recycled")
        await self._log_in()

    async def _log_in(self) -> None:
        """Now rather than with the next job, which then need not wait for module and login, nor find out."""
        if self._now.state is TokenState.READY:
            try:
                await self.token.keys()
            except PrivysealError as error:
                await self._failed(error)

    @property
    def _memory_name(self) -> str:
        return f"token {self._table.name}"

    async def _remember(self, memory: Memory) -> None:
        await self._journal.remember(self._memory_name, msgspec.json.encode(memory))
        self._memory = memory

    async def close(self) -> None:
        """Let what it is signing end, then end its workers."""
        await self.token.close()
        with suppress(PrivysealError):  # what cannot be written is unproven after the next start
            await self.custody.stop()

    def health(self) -> TokenHealth:
        """How it is, for the hub."""
        return token_health(
            self._table.name,
            self._now.state.value,
            self._now.problem,
            seen=self._now.seen,
            serial=self.record.serial,
            token=self.token,
            custody=self.custody,
        )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
