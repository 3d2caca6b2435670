# SPDX-License-Identifier: Apache-2.0
"""PINs on their way through the hub: passed on if authority keys signed, in bounded time and number."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lying_hub import HUB, make_trust
from privyseal.errors import PrivysealError, TokenError
from privyseal.hub.links import AgentLink
from privyseal.hub.services.unlocks import Unlocks
from privyseal.identity.authority import AuthorityStatement, Revocation, Unlock, UnlockQuestion, seal_authority
from privyseal.identity.trust import PinnedTrust
from privyseal.ports.store import Enrolment
from privyseal.wire.link import HubMessage, UnlockAnswer, UnlockOrder, UnlockQuery
from wire_samples import key

TRUST = make_trust()
NOW_MS = 1000
DATES: dict[str, Any] = {"hub": HUB, "issued": NOW_MS, "not_after": NOW_MS + 100}
QUESTION = UnlockQuestion(agent="lab", token="etoken", **DATES)
UNLOCK = Unlock(
    agent="lab", token="etoken", serial="S1", nonce="0a" * 16, forgive_refused=False, sealed=b"closed", **DATES
)
AGENT = Enrolment(
    role="agent",
    name="lab",
    certificate_sha256=bytes(32),
    request_key=bytes(32),
    profiles=(),
    salt=bytes(16),
    entry_index=1,
)


class Lab:
    """A hub with one agent, which answers as it is told to; what was sent to it."""

    def __init__(self, answer: Callable[[UnlockQuery | UnlockOrder], UnlockAnswer | None], seconds: float = 20) -> None:
        self.sent: list[HubMessage] = []
        self.arrived = asyncio.Event()
        self._answer = answer

        async def hang_up() -> None:
            """Nobody is there."""

        self.link = AgentLink(AGENT, self.send, held_size=0, hang_up=hang_up)
        self.links = {"lab": self.link}
        trust = PinnedTrust(Path("bundle.json"), TRUST.bundle)
        self.unlocks = Unlocks(trust=trust, links=lambda: self.links, clock=lambda: NOW_MS, answer_seconds=seconds)

    async def send(self, message: HubMessage) -> None:
        assert isinstance(message, UnlockQuery | UnlockOrder)
        self.sent.append(message)
        self.arrived.set()
        if (answer := self._answer(message)) is not None:
            self.link.told_unlock(answer)

    async def refused(self, statement: AuthorityStatement) -> PrivysealError:
        with pytest.raises(PrivysealError) as caught:
            await self.unlocks.take(seal_authority(statement, TRUST.authority))
        return caught.value


async def test_question_and_unlock_reach_the_agent_as_they_came() -> None:
    lab = Lab(lambda message: UnlockAnswer(ask=message.ask, serial="S1", nonce="0b", keys=3))

    asked = await lab.unlocks.take(seal_authority(QUESTION, TRUST.authority))
    envelope = seal_authority(UNLOCK, TRUST.authority)
    done = await lab.unlocks.take(envelope)

    assert lab.sent == [UnlockQuery(ask=1, token="etoken"), UnlockOrder(ask=2, envelope=envelope)]
    assert (asked.agent, asked.token, asked.serial, asked.nonce) == ("lab", "etoken", "S1", "0b")
    assert done.keys == 3


async def test_what_the_agent_refuses_is_raised_as_it_said() -> None:
    lab = Lab(
        lambda message: UnlockAnswer(
            ask=message.ask, branch="token", code="token.pin_incorrect", message="no", hint="next"
        )
    )

    error = await lab.refused(UNLOCK)

    assert isinstance(error, TokenError)
    assert (error.code, error.message, error.hint) == ("token.pin_incorrect", "no", "next")


async def test_without_authority_keys_no_agent_is_troubled() -> None:
    lab = Lab(lambda _message: None)
    for envelope in (seal_authority(QUESTION, (key(7),)), seal_authority(UNLOCK, (TRUST.log_key,)), b"{}", b""):
        with pytest.raises(PrivysealError):
            await lab.unlocks.take(envelope)
    expired = UnlockQuestion(agent="lab", token="etoken", hub=HUB, issued=0, not_after=NOW_MS - 1)
    assert (await lab.refused(expired)).code == "authority.expired"
    assert (await lab.refused(Revocation(role="agent", name="lab", **DATES))).code == "authority.misplaced"

    assert lab.sent == []


async def test_an_agent_that_is_not_linked_is_said() -> None:
    lab = Lab(lambda _message: None)
    lab.links.clear()

    assert (await lab.refused(QUESTION)).code == "unlock.agent_offline"


async def test_an_agent_that_does_not_answer_is_not_waited_for() -> None:
    lab = Lab(lambda _message: None, seconds=0.05)

    assert (await lab.refused(UNLOCK)).code == "unlock.no_answer"
    lab.link.told_unlock(UnlockAnswer(ask=1))  # too late for anybody


async def test_an_answer_to_another_question_is_none() -> None:
    lab = Lab(lambda message: UnlockAnswer(ask=message.ask + 1), seconds=0.05)

    assert (await lab.refused(UNLOCK)).code == "unlock.no_answer"


async def test_a_link_that_is_lost_is_told_at_once() -> None:
    lab = Lab(lambda _message: None)
    waiting = asyncio.create_task(lab.refused(UNLOCK))
    await lab.arrived.wait()
    lab.link.close()

    assert (await waiting).code == "agent.link_lost"


async def test_only_so_many_are_passed_on_at_once() -> None:
    lab = Lab(lambda _message: None)
    waiting = [asyncio.create_task(lab.refused(QUESTION)) for _ in range(8)]
    await lab.arrived.wait()
    while len(lab.sent) < 8:
        lab.arrived.clear()
        await lab.arrived.wait()

    assert (await lab.refused(QUESTION)).code == "unlock.busy"
    lab.link.close()
    assert {error.code for error in await asyncio.gather(*waiting)} == {"agent.link_lost"}
