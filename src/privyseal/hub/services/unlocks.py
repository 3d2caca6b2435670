# SPDX-License-Identifier: Apache-2.0
"""PINs from a desk pass through here, sealed: the hub sees who signed for which token, and passes it on."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Final

from privyseal.errors import MalformedInputError, UnavailableError, branch_named
from privyseal.hub.links import AgentLink
from privyseal.identity.authority import Unlock, UnlockQuestion, open_authority
from privyseal.identity.trust import PinnedTrust
from privyseal.ports.clock import Clock
from privyseal.wire.link import UnlockAnswer, UnlockOrder, UnlockQuery
from privyseal.wire.membership import UnlockView

__all__ = ["Unlocks"]

#: Less than a client waits for an answer; a token that is busy signing has time to end that.
_ANSWER_SECONDS: Final = 80.0
_AT_ONCE: Final = 8


class Unlocks:
    """Asks agents for nonces and hands them signed unlocks. What comes of it an agent puts on record itself."""

    def __init__(
        self,
        *,
        trust: PinnedTrust,
        links: Callable[[], Mapping[str, AgentLink]],
        clock: Clock,
        answer_seconds: float = _ANSWER_SECONDS,
    ) -> None:
        self._trust = trust
        self._links = links
        self._clock = clock
        self._answer_seconds = answer_seconds
        self._numbers = itertools.count(1)
        self._open = 0

    async def take(self, envelope: bytes) -> UnlockView:
        """Pass a signed statement on to the agent that it names; what the agent says.

        Raises:
            MalformedInputError, VerificationError: as `open_authority`; nobody else may trouble an agent.
            UnavailableError: `unlock.agent_offline`, `unlock.busy`, `unlock.no_answer`, `agent.link_lost`.
            PrivysealError: what the agent answered.
        """
        statement = open_authority(envelope, self._trust.bundle, self._clock()).statement
        ask = next(self._numbers)
        message: UnlockQuery | UnlockOrder
        match statement:
            case UnlockQuestion():
                message = UnlockQuery(ask=ask, token=statement.token)
            case Unlock():
                message = UnlockOrder(ask=ask, envelope=envelope)
            case _:
                raise MalformedInputError("authority.misplaced", "that statement is not about the PIN of a token")
        answer = await self._answer(self._link(statement.agent), message)
        if answer.code:
            raise branch_named(answer.branch)(answer.code, answer.message, hint=answer.hint)
        return UnlockView(
            agent=statement.agent, token=statement.token, serial=answer.serial, nonce=answer.nonce, keys=answer.keys
        )

    def _link(self, agent: str) -> AgentLink:
        link = self._links().get(agent)
        if link is None:
            raise UnavailableError(
                "unlock.agent_offline",
                f"no agent {agent!r} is linked to the hub",
                hint="privyseal status shows the agents; one that is linked can be given a PIN",
            )
        return link

    async def _answer(self, link: AgentLink, message: UnlockQuery | UnlockOrder) -> UnlockAnswer:
        if self._open >= _AT_ONCE:
            raise UnavailableError("unlock.busy", f"{_AT_ONCE} PINs are being handed in already", hint="try again")
        self._open += 1
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await link.unlock(message)
        except TimeoutError as error:
            raise UnavailableError(
                "unlock.no_answer",
                f"agent {link.agent.name!r} did not answer within {self._answer_seconds:g} s",
                hint="the log says whether the token was unlocked: privyseal log show",
            ) from error
        finally:
            self._open -= 1
