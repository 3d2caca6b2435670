# SPDX-License-Identifier: Apache-2.0
"""All lanes of this hub: agents announce key profiles, each profile gets its lane."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from privyseal.errors import ConfigError, IdentityError, PrivysealError, TokenError
from privyseal.hub.entries import key_entry
from privyseal.hub.links import AgentLink
from privyseal.hub.services.lane import Lane, LaneServices
from privyseal.ports.store import ProfileRow, ReadTx, Tx
from privyseal.tlog.entry import encode_entry
from privyseal.wire.link import ProfileAnnouncement

__all__ = ["Dispatch"]


class Dispatch:
    """Owner of the lanes and of their tasks."""

    def __init__(self, services: LaneServices) -> None:
        self._services = services
        self._lanes: dict[str, Lane] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._links: dict[str, AgentLink] = {}
        self._hanging_up: set[asyncio.Future[object]] = set()
        #: Set, and called, whenever an agent has announced something.
        self.changed = asyncio.Event()
        self.announced: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Make a lane for each key profile that is known from before; they wait for their agents."""

        async def read(tx: ReadTx) -> tuple[ProfileRow, ...]:
            return await tx.profiles()

        for profile in await self._services.store.read(read):
            self._open(profile)

    async def stop(self) -> None:
        """End all lanes. What is under way is settled after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """All lanes by name of their profile."""
        return tuple(lane for _, lane in sorted(self._lanes.items()))

    @property
    def links(self) -> Mapping[str, AgentLink]:
        """Live links by name of the agent."""
        return self._links

    def lane(self, profile: str) -> Lane | None:
        """The lane of a key profile."""
        return self._lanes.get(profile)

    def _open(self, profile: ProfileRow) -> Lane:
        lane = Lane(profile, self._services)
        self._lanes[profile.name] = lane
        self._tasks.append(asyncio.create_task(lane.run(), name=f"lane {profile.name}"))
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
        """Take what an agent serves now.

        Raises:
            IdentityError: `identity.revoked` if the link is not the agent's any more.
            ConfigError: `profile.taken` if another agent with a live link serves a profile of that name.
        """
        for announcement in announcements:
            self._check_stands(link)
            self._check_free(link, announcement.name)
            problem: PrivysealError | None = None
            if announcement.problem_code:
                problem = TokenError(announcement.problem_code, announcement.problem, hint=announcement.problem_hint)
            profile = await self._record(link, announcement)
            # While that was written the agent may have come back, and announced the same over another link.
            self._check_stands(link)
            self._check_free(link, announcement.name)
            lane = self._lanes.get(announcement.name) or self._open(profile)
            await lane.attach(link, profile, problem)
        self.changed.set()
        self.announced()

    def _check_stands(self, link: AgentLink) -> None:
        if self._links.get(link.agent.name) is not link:
            raise IdentityError("identity.revoked", f"this link does not stand for agent {link.agent.name!r} any more")

    def _check_free(self, link: AgentLink, name: str) -> None:
        lane = self._lanes.get(name)
        if lane is not None and lane.agent_name != link.agent.name and lane.agent_name in self._links:
            raise ConfigError(
                "profile.taken",
                f"key profile {name!r} is served by agent {lane.agent_name!r} already",
                hint="give the profile another name in this agent's agent.toml",
            )

    async def _record(self, link: AgentLink, announcement: ProfileAnnouncement) -> ProfileRow:
        """Write a `key` entry if the profile is new or differs from what is known."""

        async def write(tx: Tx) -> ProfileRow:
            known = await tx.profile(announcement.name)
            profile = ProfileRow(
                name=announcement.name,
                agent=link.agent.name,
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
            if known == profile or not announcement.chain:
                return known or profile
            entry = key_entry(profile, link.agent.request_key, await tx.now_ms())
            recorded = replace(profile, entry_index=await tx.append(encode_entry(entry)))
            await tx.put_profile(recorded)
            return recorded

        return await self._services.store.write(write)
