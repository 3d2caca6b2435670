# SPDX-License-Identifier: Apache-2.0
"""The links of one agent to the hubs that share one log: each is told how it is, and hears of its own jobs."""

import asyncio
from collections.abc import Mapping
from typing import Final

from privyseal.agent.link import Dial, HubLink, LinkServices
from privyseal.wire.link import ProfileAnnouncement, TokenHealth

__all__ = ["HubLinks"]


class HubLinks:
    """Keeps a link to each hub.

    Attributes:
        trust: The pinned trust bundle.
        all: One for each hub.
    """

    def __init__(self, dials: Mapping[str, Dial], services: LinkServices) -> None:
        """`dials` opens a connection to each hub, by its URL."""
        self.trust: Final = services.trust
        self.all: Final = tuple(
            HubLink(url=url, dial=dial, services=services, trust_changed=self._dial_anew) for url, dial in dials.items()
        )

    async def announce(self, announcements: tuple[ProfileAnnouncement, ...]) -> None:
        """Say what is served, now and after each new link."""
        await asyncio.gather(*(link.announce(announcements) for link in self.all))

    async def report(self, tokens: tuple[TokenHealth, ...]) -> None:
        """Say how the tokens are, now and after each new link."""
        await asyncio.gather(*(link.report(tokens) for link in self.all))

    async def run(self) -> None:
        """Stay linked to all of them until cancelled.

        Raises:
            LogIntegrityError: `journal.commit_unknown`: only a new start learns what the journal holds.
        """
        first, *others = self.all
        try:
            async with asyncio.TaskGroup() as group:
                for link in others:
                    group.create_task(link.run(), name=f"agent link {link.url}")
                await first.run()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures

    async def stop(self) -> None:
        """Let jobs that the tokens are at work on end; their outcome is in the journal."""
        await asyncio.gather(*(link.stop() for link in self.all))

    def _dial_anew(self, changed: HubLink) -> None:
        """One link has taken another trust bundle, and dials anew by itself; so do the others."""
        for link in self.all:
            if link is not changed:
                link.dial_anew()
