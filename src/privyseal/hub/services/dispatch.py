# SPDX-License-Identifier: Apache-2.0
"""All lanes of this hub: agents announce key profiles for their tokens, each token gets its lane."""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import structlog

from privyseal.errors import ConfigError, IdentityError, PrivysealError, TokenError, UnavailableError
from privyseal.hub.entries import key_entry
from privyseal.hub.links import AgentLink
from privyseal.hub.services.lane import Lane
from privyseal.hub.services.lane_parts import LaneRules, LaneServices, Member
from privyseal.hub.services.pools import Pools
from privyseal.hub.services.queue_board import Line
from privyseal.hub.services.served import ServedProfile
from privyseal.ports.store import ProfileRow, ReadTx, Tx
from privyseal.tlog.entry import encode_entry
from privyseal.wire.link import ProfileAnnouncement, TokenHealth

__all__ = ["Dispatch"]

_LOG: Final = structlog.get_logger("privyseal.hub.lane")
#: So long after a token made no headway others go first: what it may have begun is repeated by one that is well.
_CONVALESCENT_SECONDS: Final = 5.0
#: A timer may go off a moment early.
_TICK_SECONDS: Final = 0.05


class Dispatch:
    """Owner of the lanes and of their tasks."""

    def __init__(self, services: LaneServices, pools: Pools) -> None:
        self._services: Final = services
        self._pools: Final = pools
        rules = LaneRules(serves=pools.serves, unfit=self._unfit)
        if pools:
            rules = replace(rules, leaves=self._has_idle, busy=self._wake_others)
        self._rules: Final = rules
        self._lanes: dict[str, Lane] = {}
        #: Key profiles by name, as they were announced last for each token that stands for them, in their order.
        self._rows: dict[str, tuple[ProfileRow, ...]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._links: dict[str, AgentLink] = {}
        self._hanging_up: set[asyncio.Future[object]] = set()
        #: Set, and called, whenever an agent has announced something.
        self.changed = asyncio.Event()
        self.announced: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Make a lane for each token that is known from before; they wait for their agents."""
        found = await self._services.store.read(lambda tx: tx.profiles())
        for row in found:  # also for former tokens: one may have signed something of which nobody was told
            self._lane(row.place)
        for name in {row.name for row in found}:
            self._rows[name] = self._pools.current(row for row in found if row.name == name)
        self._services.board.load(await self._services.store.read(lambda tx: tx.queued_requests()))
        self._spawn(self._keep(), "leases")

    async def stop(self) -> None:
        """End all lanes, and give the tokens to other hubs. What is under way is settled after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._services.alone:
            await asyncio.gather(*(lane.lease.give_back() for lane in self._lanes.values() if lane.lease.held))

    async def _keep(self) -> None:
        looked = False
        while True:
            if not looked:  # an agent may have been revoked by a hub that ended at that moment
                with suppress(UnavailableError):
                    await self.give_up_lost()
                    looked = True
            await asyncio.sleep(self._services.lease_ms / 4000)
            orphaned = await self._orphaned()
            for lane in self.lanes:
                await lane.keep(orphaned=lane.place in orphaned)

    async def _orphaned(self) -> frozenset[str]:
        """Tokens with jobs that another process has left open with a lease that is over.

        A lane that had such a token once may believe that it has it still: only a claim would tell it otherwise.
        """
        if self._services.alone:
            return frozenset()

        async def read(tx: ReadTx) -> frozenset[str]:
            now_ms, holder = await tx.database_ms(), self._services.holder
            over = {one.token for one in await tx.leases() if one.holder != holder and one.expires_ms <= now_ms}
            return frozenset(job.token for job in await tx.open_jobs() if job.token in over) if over else frozenset()

        try:
            return await self._services.store.read(read)
        except UnavailableError as error:
            _LOG.warning("leases were not read", code=error.code, reason=error.message)
            return frozenset()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._services.failed(error)

    async def give_up_lost(self) -> None:
        """Settle what is open at tokens whose agent was revoked: nobody will ever say what became of it."""
        enrolments = await self._services.store.read(lambda tx: tx.enrolments())
        standing = {one.name for one in enrolments if one.role == "agent" and one.revoked_ms is None}
        for lane in self.lanes:
            if lane.agent_name not in standing:
                await lane.give_up()

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """All lanes by place of their token."""
        return tuple(lane for _, lane in sorted(self._lanes.items()))

    @property
    def links(self) -> Mapping[str, AgentLink]:
        """Live links by name of the agent."""
        return self._links

    @property
    def profiles(self) -> tuple[ServedProfile, ...]:
        """All key profiles by name."""
        return tuple(one for name in sorted(self._rows) if (one := self.profile(name)))

    def rows(self) -> tuple[ProfileRow, ...]:
        """How each of them was announced, for each of its tokens."""
        return tuple(row for served in self.profiles for row in served.rows)

    def profile(self, name: str) -> ServedProfile | None:
        """A key profile; None if none of that name is known."""
        line = self._line_now(name)
        rows = sorted(self._rows.get(name, ()), key=lambda row: not self._pools.serves(row, line))
        if not rows:
            return None
        lanes = tuple(self._lane(row.place) for row in rows)
        return ServedProfile(name=name, rows=tuple(rows), lanes=lanes, line=line)

    async def may_serve(self, line: Line) -> bool:
        """Whether a token that is on record may sign for a line; another hub's agents may have announced it there."""
        served = self.profile(line.profile)
        if served is not None and served.for_line(line).has_token:
            return True
        found = await self._services.store.read(lambda tx: tx.profiles())
        rows = self._pools.current(row for row in found if row.name == line.profile)
        return any(self._pools.serves(row, line) for row in rows)

    def _line_now(self, name: str) -> Line:
        since_ms = self._pools.rollovers.get(name)
        return Line(profile=name, successor=since_ms is not None and self._services.clock() >= since_ms)

    def _unfit(self, row: ProfileRow) -> PrivysealError | None:
        return self._pools.unfit(row, self._rows.get(row.name, ()), self._services.clock())

    def _has_idle(self, lane: Lane, line: Line) -> bool:
        if lane.ails and self._has_well(lane, line):
            return True
        return any(one is not lane and one.is_idle and one.takes(line) for one in self._lanes.values())

    def _has_well(self, lane: Lane, line: Line) -> bool:
        """Whether another token can take from a line, by this hub or by another one, and makes headway."""
        return any(one is not lane and not one.ails and one.takes(line) for one in self._lanes.values())

    async def take_health(self, agent: str, tokens: tuple[TokenHealth, ...]) -> None:
        """An agent says how its tokens are: what one that makes no headway has not begun is taken back for others."""
        loop = asyncio.get_running_loop()
        for token in tokens:
            lane = self._lanes.get(f"{agent}/{token.name}")
            if lane is None or (lane.ails_until_s == math.inf) == bool(token.trouble):
                continue
            if token.trouble:
                _LOG.warning("token makes no headway", token=lane.place, reason=token.trouble)
                lane.ails_until_s = math.inf
                await lane.recall(*self._others_could(lane))
            else:
                lane.ails_until_s = loop.time() + _CONVALESCENT_SECONDS
                loop.call_later(_CONVALESCENT_SECONDS + _TICK_SECONDS, lane.wake)

    def _others_could(self, lane: Lane) -> tuple[str, ...]:
        """Requests under way in a lane that another token could take."""
        requests = {part.request.id: part.request for one in lane.under_way for part in one.batch.parts}
        line_of = self._services.board.line
        return tuple(name for name, request in requests.items() if self._has_well(lane, line_of(request)))

    def _wake_others(self, lane: Lane) -> None:
        for one in self._lanes.values():
            if one is not lane:
                one.wake()

    def wake(self, profile: str) -> None:
        """Something of a key profile waits."""
        for lane in self._lanes.values():
            if profile in lane.members:
                lane.wake()

    def _lane(self, place: str) -> Lane:
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = Lane(place, self._services, self._rules)
            self._spawn(lane.run(), f"lane {place}")
        return lane

    def linked(self, link: AgentLink) -> None:
        """An agent dialled in. A second link of the same agent replaces the first, which may be half dead.

        It may also be the other way round: what a dead process sent is read after its successor has linked. So the
        first is hung up, and an agent at its other end comes back.
        """
        self.drop(link.agent.name)
        self._links[link.agent.name] = link
        self._services.observer.agent(link.agent.name, linked=True)

    def unlinked(self, link: AgentLink) -> None:
        """A link ended."""
        for lane in self._lanes.values():
            lane.detach(link)
        if self._links.get(link.agent.name) is link:
            del self._links[link.agent.name]
            self._services.observer.agent(link.agent.name, linked=False)

    def drop(self, agent: str) -> None:
        """End an agent's link: its profiles go offline at once, whatever its socket does."""
        link = self._links.get(agent)
        if link is not None:
            self.unlinked(link)
            link.close()
            hanging_up = asyncio.ensure_future(link.hang_up())
            self._hanging_up.add(hanging_up)
            hanging_up.add_done_callback(self._hanging_up.discard)

    async def announce(self, link: AgentLink, announcements: tuple[ProfileAnnouncement, ...]) -> None:
        """Take what an agent serves now; it replaces what it announced before.

        Raises:
            IdentityError: `identity.revoked` if the link is not the agent's any more.
            ConfigError: `profile.taken` if another token serves a profile of that name, and no pool names both.
        """
        members: dict[str, dict[str, Member]] = defaultdict(dict)
        for announcement in announcements:
            self._check_stands(link)
            self._check_free(link, announcement, announcements)
            profile = await self._record(link, announcement)
            # While that was written the agent may have come back, and announced the same over another link.
            self._check_stands(link)
            self._check_free(link, announcement, announcements)
            self._take(profile)
            members[profile.place][profile.name] = Member(profile=profile, problem=_problem(announcement))
        for place, lane in tuple(self._lanes.items()):
            if lane.agent_name == link.agent.name and place not in members:
                lane.attach(link, {})
        for place, served in members.items():
            self._lane(place).attach(link, served)
        for lane in self._lanes.values():  # what one token is like decides about others of its pool
            lane.wake()
        self.changed.set()
        self.announced()

    def _take(self, profile: ProfileRow) -> None:
        """Go by what was announced for a token from now on."""
        if self._pools.has(profile.name):
            others = (row for row in self._rows.get(profile.name, ()) if row.place != profile.place)
            self._rows[profile.name] = self._pools.current((*others, profile))
        else:
            self._rows[profile.name] = (profile,)

    def _check_stands(self, link: AgentLink) -> None:
        if self._links.get(link.agent.name) is not link:
            raise IdentityError("identity.revoked", f"this link does not stand for agent {link.agent.name!r} any more")

    def _check_free(
        self, link: AgentLink, announcement: ProfileAnnouncement, announcements: tuple[ProfileAnnouncement, ...]
    ) -> None:
        name, place = announcement.name, f"{link.agent.name}/{announcement.token}"
        if self._pools.has(name):
            if place not in self._pools.places(name):
                raise ConfigError(
                    "profile.taken",
                    f"token {place} is not in the pool of key profile {name!r}",
                    hint="name it under [[pool]] in hub.toml, and start the hub again",
                )
            return
        own = {f"{link.agent.name}/{one.token}" for one in announcements if one.name == name}
        elsewhere = {
            lane.place
            for lane in self._lanes.values()
            if name in lane.members and lane.linked and lane.agent_name != link.agent.name
        }
        if others := (own | elsewhere) - {place}:
            raise ConfigError(
                "profile.taken",
                f"key profile {name!r} is served by token {min(others)} already",
                hint="give the profile of one of them another name in agent.toml, or name both tokens under [[pool]] in"
                " hub.toml",
            )

    async def _record(self, link: AgentLink, announcement: ProfileAnnouncement) -> ProfileRow:
        """Write a `key` entry if the profile is new, differs from what is known, or stood for another token."""
        name, token = announcement.name, announcement.token

        async def write(tx: Tx) -> ProfileRow:
            rows = [row for row in await tx.profiles() if row.name == name]
            known = next((row for row in rows if (row.agent, row.token) == (link.agent.name, token)), None)
            profile = ProfileRow(
                name=name,
                agent=link.agent.name,
                token=token,
                chain=announcement.chain,
                level=announcement.level,
                opaque=announcement.opaque,
                token_label=announcement.token_label,
                token_serial=announcement.token_serial,
                hardware=announcement.hardware,
                witness=announcement.witness,
                test=announcement.test,
                entry_index=0 if known is None else known.entry_index,
            )
            is_known = known == profile and known in self._pools.current(rows)
            if is_known or not (announcement.chain or profile.is_device):
                return known or profile
            entry = key_entry(profile, link.agent.request_key, await tx.now_ms())
            recorded = replace(profile, entry_index=await tx.append(encode_entry(entry)))
            await tx.put_profile(recorded)
            return recorded

        return await self._services.store.write(write)


def _problem(announcement: ProfileAnnouncement) -> TokenError | None:
    if not announcement.problem_code:
        return None
    return TokenError(announcement.problem_code, announcement.problem, hint=announcement.problem_hint)
