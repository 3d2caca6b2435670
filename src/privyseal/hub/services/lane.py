# SPDX-License-Identifier: Apache-2.0
"""One token's lane: from the queue to the token and back.

A lane uses its token while this hub holds the token's lease. It claims what is next in the lines of the key profiles
that the token serves, writes the INTENT entries in the claiming transaction, sends them with their proofs, and has a
RESULT (or UNKNOWN) written for each answer before anybody is told. At most `WINDOW` batches are under way: one at the
token, one prepared; one more where a higher class has come, for which the others are taken back.
"""

import asyncio
import math
from collections.abc import Mapping
from typing import Final

import structlog

from privyseal.errors import IdentityError, PrivysealError, UnavailableError
from privyseal.hub.jobs import is_requeued, never_sent, never_told
from privyseal.hub.links import AgentLink
from privyseal.hub.services.claiming import Batch, claim_picks
from privyseal.hub.services.expected import Expected
from privyseal.hub.services.job_message import job_message
from privyseal.hub.services.lane_parts import LaneRules, LaneServices, Member
from privyseal.hub.services.lane_rest import Rest
from privyseal.hub.services.queue_board import Line
from privyseal.hub.services.recalls import Recalls
from privyseal.hub.services.settling import Answered
from privyseal.hub.services.token_lease import TokenLease
from privyseal.hub.services.under_way import Pace, UnderWay
from privyseal.policy.fair_queue import Pick, Priority
from privyseal.ports.store import ProfileRow, Tx
from privyseal.wire.jobs import ItemDone

__all__ = ["WINDOW", "Lane"]

#: Batches under way for one token: one being signed, one prepared.
WINDOW: Final = 2
#: What is little, and how many batches there may be of it.
_LITTLE_SECONDS: Final = 0.2
_MOST_BATCHES: Final = 8
_LOG: Final = structlog.get_logger("privyseal.hub.lane")


class Lane:
    """Dispatch for one token, given as `AGENT/TOKEN`."""

    def __init__(self, place: str, services: LaneServices, rules: LaneRules) -> None:
        self.place: Final = place
        self.agent_name: Final = place.partition("/")[0]
        self.token_name: Final = place.partition("/")[2]
        self.members: Mapping[str, Member] = {}
        self.pace: Final = Pace()
        self.lease: Final = TokenLease(place, services)
        self.serves: Final = rules.serves
        #: When something was last given to the token, by the event loop's clock.
        self.used_s = 0.0
        #: Until then, by the event loop's clock, what other tokens can begin with is theirs: this one made no headway.
        self.ails_until_s = 0.0
        self._rules: Final = rules
        self.recalls: Final = Recalls(self.token_name, self.pace)
        self._services: Final = services
        self._link: AgentLink | None = None
        self._under_way: list[UnderWay] = []
        self._reserved = 0
        self._left_over = False
        self._rest: Final = Rest(self.wake)
        self._wake: Final = asyncio.Event()
        self._preparing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def linked(self) -> bool:
        """Whether the token's agent has a link to this hub."""
        return self._link is not None

    @property
    def under_way(self) -> tuple[UnderWay, ...]:
        """What is at the token, and prepared for it."""
        return tuple(self._under_way)

    @property
    def seconds_left(self) -> float:
        """How long the token will be busy with what is under way, as was measured before; infinite if nothing was."""
        return (self.pace.seconds_per_item or math.inf) * self.open_items if self.open_items else 0.0

    @property
    def is_idle(self) -> bool:
        """Whether the token has nothing to do, and could begin at once."""
        is_free = self._link is not None and self.lease.held and not self._rest.active
        return is_free and self.open_items + self._reserved == 0

    @property
    def is_lent(self) -> bool:
        """Whether the token's device is lent as a whole, or is about to be."""
        return any(one.batch.profile.is_device for one in self._under_way)

    def room(self, profile: str, priority: Priority) -> int:
        """How many items of a key profile are prepared at once; one of a device, or after some came back unused."""
        return 1 if self.members[profile].profile.is_device else self._rest.room(self.pace.room(priority))

    @property
    def open_items(self) -> int:
        """How many items are under way."""
        return sum(one.open_items for one in self._under_way)

    def problem(self, profile: str) -> PrivysealError | None:
        """Why nothing can be signed here for a key profile that the token serves; None if nothing is known."""
        member = self.members.get(profile)
        return None if member is None else member.problem or self._rules.unfit(member.profile)

    def takes(self, line: Line) -> bool:
        """Whether something of a line can be signed here now."""
        member = self.members.get(line.profile)
        return (
            self._link is not None
            and member is not None
            and self.serves(member.profile, line)
            and self.problem(line.profile) is None
        )

    # -- link and lease -----------------------------------------------------------------------------------------

    def attach(self, link: AgentLink, members: Mapping[str, Member]) -> None:
        """A link to the token's agent is live: take the lease, settle what was left open, go on."""
        self.members = members
        if self._link is not link:
            self._link = link
            self.lease.lose()
            self.prepare()
        self.wake()

    def detach(self, link: AgentLink) -> None:
        """The link is gone; what was under way is settled by whoever gets the lease."""
        if self._link is link:
            self._link = None
            self.lease.lose()
            if not self._services.alone:
                self._spawn(self.lease.give_back())
            self._rules.busy(self)

    def prepare(self) -> None:
        """Get the lease, if nobody else has it, and settle what is open, before anything new is claimed."""
        if self._link is not None and (self._preparing is None or self._preparing.done()):
            self._preparing = self._spawn(self._prepare())

    async def _prepare(self) -> None:
        while (link := self._link) is not None and not self.lease.held:
            try:
                renewal = await self.lease.told(self._services.settler.write, self.lease.take)
                if renewal is None:
                    return
                await link.send(renewal)
                await self._resolve_open(link)
            except UnavailableError as error:
                if error.code != "agent.link_lost":
                    raise
            else:
                self._services.board.load(await self._services.settler.read(lambda tx: tx.queued_requests()))
                if self._link is link:
                    self.lease.begin()
        self.wake()

    async def keep(self, *, orphaned: bool) -> None:
        """Called a few times in the lease's life: put its end off while there is work, or get it.

        Args:
            orphaned: Another process has left jobs of this token open, and has its lease no longer.
        """
        link = self._link
        if link is None:
            return
        if orphaned:
            self.lease.lose()
        if not self.lease.held:
            self.prepare()
        elif self._under_way or self._best() is not None:
            try:
                renewal = await self.lease.told(self._services.settler.write, self.lease.renew)
                if renewal is not None:
                    await link.send(renewal)
            except UnavailableError as error:
                if error.code != "agent.link_lost":
                    raise

    # -- claiming -----------------------------------------------------------------------------------------------

    def reserve(self, priority: Priority | None = None) -> bool:
        """Take a place in the window; whoever gets one must `start` a batch or `release` it.

        There is one place more for a class that is higher than all that is under way, and there are more while that is
        so little that the token could be idle before the next batch has come.
        """
        if self._link is None or not self.lease.held or self._rest.active:
            return False
        if self.is_lent:
            self._make_way(priority or Priority.NIGHTLY)
            return False
        urgent = priority is not None and all(one.priority < priority for one in self._under_way)
        is_little = 0.0 < self.seconds_left < _LITTLE_SECONDS
        if len(self._under_way) + self._reserved >= (_MOST_BATCHES if is_little else WINDOW) + urgent:
            return False
        self._reserved += 1
        if priority is not None:
            self._make_way(priority)
        return True

    def _make_way(self, priority: Priority) -> None:
        """Take back what the token has not begun of lower classes."""
        if self._link is not None and (lower := self.recalls.lower(self._under_way, priority)):
            self._spawn(self.recalls.for_higher(self._link, lower))

    def release(self) -> None:
        """Give a place back; whatever waits for it is looked at again."""
        self._reserved -= 1
        self._wake.set()

    def wake(self) -> None:
        """There may be something in the queue."""
        self._wake.set()

    def _best(self) -> tuple[Priority, Line] | None:
        board = self._services.board
        lines = (line for name in self.members for line in board.lines(name) if self._wants(line))
        return board.best(lines, self._services.clock())

    def _wants(self, line: Line) -> bool:
        """Prepare nothing behind the item at the token that another token could begin with."""
        return self.takes(line) and not ((self.open_items or self.ails) and self._rules.leaves(self, line))

    @property
    def ails(self) -> bool:
        """Whether the token makes no headway, or made none just now."""
        return asyncio.get_running_loop().time() < self.ails_until_s

    async def claim(self, tx: Tx, profile: ProfileRow, picks: tuple[Pick, ...], *, since_s: float) -> Batch | None:
        """Claim in the caller's transaction, which begins at `since_s` or later; None if the lease is another's.

        The lease is read in it, too: a fence that was raised in a transaction that failed was not raised.
        """
        hold = await self.lease.renew(tx)
        if hold is None:
            return None
        return await claim_picks(tx, profile, hold.lease, lease_ms=hold.left_ms, since_s=since_s, picks=picks)

    async def run(self) -> None:
        """Serve the queue until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while (best := self._best()) is not None and self.reserve(best[0]):
                    if not await self._claim_next(*best):
                        break
        finally:
            for task in tuple(self._tasks):
                task.cancel()

    async def _claim_next(self, priority: Priority, line: Line) -> bool:
        board = self._services.board
        profile = self.members[line.profile].profile
        picks = board.take(line, self._services.clock(), self.room(line.profile, priority))
        since_s = asyncio.get_running_loop().time()
        try:
            batch = await self._services.settler.write(lambda tx: self.claim(tx, profile, picks, since_s=since_s))
        except BaseException:
            board.put_back(picks)
            self._reserved -= 1
            raise
        if batch is None:
            board.put_back(picks)
            self.unclaimed()
            return False
        board.update(batch.left)
        self.start(batch, priority)
        return True

    def unclaimed(self) -> None:
        """Nothing could be claimed: the lease is another's. Gives the place in the window back."""
        self._reserved -= 1
        self.lease.lose()
        self.prepare()
        self._rules.busy(self)

    async def recall(self, *request_ids: str, reason: str = "") -> None:
        """Take back what the token has not begun of these requests; `reason` is for who has a USB lease of them."""
        if self._link is not None:
            await self.recalls.of_requests(self._link, self._under_way, request_ids, reason)

    def start(self, batch: Batch, priority: Priority) -> None:
        """Send a claimed batch; its place in the window is given back when every item is settled."""
        self._services.tell_claim(batch)
        if not batch.jobs:
            self.release()
        elif self._link is None or not self.lease.held:
            # Claimed while the link changed: its intents are open, and are settled as those of the lost link are.
            self._left_over = True
            self.release()
        else:
            self._reserved -= 1
            self.used_s = asyncio.get_running_loop().time()
            if not self._under_way:
                self.pace.begin()
            under_way = UnderWay(batch=batch, priority=priority, open_items=len(batch.jobs))
            self._under_way.append(under_way)
            self._spawn(self._serve(under_way, self._link))
            self._rules.busy(self)

    # -- one batch ----------------------------------------------------------------------------------------------

    async def _serve(self, under_way: UnderWay, link: AgentLink) -> None:
        batch = under_way.batch
        try:
            cosigned = await self._cosigned(batch)
            if cosigned is None:
                return
            expected = Expected(batch, link)
            async with link.sending:
                held_size = link.held_size
                message, size = await self._services.settler.insist(
                    lambda: job_message(self._services.audit, batch, held_size, cosigned)
                )
                await link.send(message)
                link.held_size = size
            while expected:
                ended = await expected.next()
                under_way.open_items -= len(ended)
                self.pace.measure(0 if batch.profile.is_device else sum(map(_is_done, ended)))
                await self._settle(batch.profile, ended, is_recalled=under_way.recalled)
        except UnavailableError as error:
            if error.code != "agent.link_lost":
                raise
        finally:
            self._under_way.remove(under_way)
            self._wake.set()

    async def _cosigned(self, batch: Batch) -> str | None:
        """The checkpoint that witnesses have cosigned over the intents of a batch, empty where none is wanted.

        None if there is none: then the token was not used, and the items have ended.
        """
        if batch.profile.witness != "before-use":
            return ""
        last = max(job.intent_index or 0 for job in batch.jobs)
        try:
            return await self._services.witnesses.cosigned(batch.profile, last)
        except UnavailableError as error:
            ended = [
                Answered(request=part.request, job=job, intent=intent, answer=never_sent(job, error))
                for part in batch.parts
                for job, intent in zip(part.jobs, part.intents, strict=True)
            ]
            await self._settle(batch.profile, ended)
            return None

    async def _settle(self, profile: ProfileRow, ended: list[Answered], *, is_recalled: bool = False) -> None:
        again = await self._services.settler.settle(profile, ended)
        self._rest.settled(one.answer for one in ended if not (is_recalled and is_requeued(one.answer)))
        if again:
            self.wake()
            self._rules.busy(self)

    # -- after a lost link, a restart, or another holder ---------------------------------------------------------

    async def _resolve_open(self, link: AgentLink) -> None:
        """Ask the agent for every open intent of this token."""
        opened = self._services.settler.open_jobs
        while (found := await opened(self.place)) or self._left_over:
            self._left_over = False
            for one in found:
                key = (one.job.request_id, one.job.item, one.job.fence)
                await self._settle(one.profile, [one.answered(await link.outcome_of(key))])

    async def give_up(self) -> None:
        """The token's agent will never be asked again: the outcome of what is open is unknown for good."""
        error = IdentityError(
            "identity.revoked", f"agent {self.agent_name!r} was revoked before it told what became of it"
        )
        for one in await self._services.settler.open_jobs(self.place):
            await self._settle(one.profile, [one.answered(never_told(one.job, error))])

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._services.failed(error)


def _is_done(ended: Answered) -> bool:
    return isinstance(ended.answer, ItemDone)
