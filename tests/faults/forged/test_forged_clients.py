# SPDX-License-Identifier: Apache-2.0
"""Promise 2: clients, grants, fences and restarts; each lie of the hub is refused for its own reason."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from forger import HOUR_MS, NOW_MS, Draft, LyingHub, Victim, make_victim, raw
from privyseal.ports.token import Token
from privyseal.wire.link import OutcomeQuery

pytestmark = pytest.mark.asyncio(loop_scope="module")

replace = msgspec.structs.replace
OTHER = "ab" * 32


# -- the client -----------------------------------------------------------------------------------------------------


async def test_a_client_that_is_in_no_entry(hub: LyingHub, agent: Victim) -> None:
    stranger = Ed25519PrivateKey.generate()
    await agent.refused(hub.job(hub.draft(client=stranger), client=stranger), "job.client")


@pytest.mark.parametrize(
    "changes", [{"role": "agent"}, {"action": "revoke"}, {"profiles": ("other",)}, {"profiles": ()}, {"key": OTHER}]
)
async def test_an_enrolment_that_allows_nothing(hub: LyingHub, agent: Victim, changes: dict[str, Any]) -> None:
    client = Ed25519PrivateKey.generate()
    hub.member = hub.enrol(client, **changes)
    await agent.refused(hub.job(hub.draft(client=client), client=client), "job.client")


async def test_an_enrolment_that_is_not_in_the_log(hub: LyingHub, agent: Victim) -> None:
    job = hub.job(hub.draft())
    member = replace(job.membership, entry=job.membership.entry.replace(b'"client"', b'"Client"'))
    await agent.refused(replace(job, membership=member), "proof.inclusion")


# -- fences, replays, shape -----------------------------------------------------------------------------------------


def fenced(draft: Draft, fence: int) -> Draft:
    draft.fence = fence
    draft.intents = [replace(intent, fence=fence) for intent in draft.intents]
    return draft


async def test_a_stale_fence(hub: LyingHub, agent: Victim) -> None:
    await agent.signed(hub.job(fenced(hub.draft(), 5)))
    await agent.refused(hub.job(fenced(hub.draft(b"late"), 4)), "job.stale_fence")
    await agent.signed(hub.job(fenced(hub.draft(b"next"), 5)))


async def test_the_same_item_under_the_same_fence_again(hub: LyingHub, agent: Victim) -> None:
    draft = hub.draft()
    await agent.signed(hub.job(draft))
    await agent.refused(hub.job(draft), "journal.used")
    assert len(await agent.journal.entries(0, 10)) == 1


async def test_one_item_twice_in_a_job(hub: LyingHub, agent: Victim) -> None:
    job = hub.job(hub.draft())
    await agent.refused(replace(job, items=job.items * 2), "job.items")


async def test_an_item_that_the_statement_does_not_have(hub: LyingHub, agent: Victim) -> None:
    job = hub.job(hub.draft())
    await agent.refused(replace(job, items=(replace(job.items[0], item=1),)), "job.items")


async def test_a_job_that_names_another_profile_than_its_statement(hub: LyingHub, agent: Victim) -> None:
    job = hub.job(hub.draft())
    await agent.refused(replace(job, profile="other"), "profile.not_served")


# -- pinned ---------------------------------------------------------------------------------------------------------


async def test_pinned_signs_for_a_granted_client(hub: LyingHub, pinned: Victim) -> None:
    draft = hub.draft()
    draft.grant = hub.grant()
    await pinned.signed(hub.job(draft))


async def test_pinned_refuses_without_a_grant(hub: LyingHub, pinned: Victim) -> None:
    await pinned.refused(hub.job(hub.draft()), "job.grant")


async def test_pinned_refuses_a_client_of_the_hubs_own_making(hub: LyingHub, pinned: Victim) -> None:
    puppet, forged = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    hub.member = hub.enrol(puppet)
    draft = hub.draft(client=puppet)
    draft.grant = hub.grant(by=forged, request_key=raw(puppet))
    await pinned.refused(hub.job(draft, client=puppet), "job.grant")
    draft.grant = hub.grant()  # that of the real client
    await pinned.refused(hub.job(draft, client=puppet), "job.grant")


async def test_traced_signs_for_such_a_client_and_can_prove_it(hub: LyingHub, agent: Victim) -> None:
    puppet = Ed25519PrivateKey.generate()
    hub.member = hub.enrol(puppet)
    await agent.signed(hub.job(hub.draft(client=puppet), client=puppet))
    (kept,) = await agent.journal.entries(0, 10)
    state = await agent.journal.state()
    assert kept.entry == hub.log.entries[-1]
    assert (state.size, state.root) == (agent.executor.held.size, agent.executor.held.root)


@pytest.mark.parametrize(
    "changes",
    [
        {"profile": "other"},
        {"formats": ("other",)},
        {"request_key": b"\1" * 32},
        {"not_after": NOW_MS - 1},
        {"hub": "hub.example/else"},
    ],
)
async def test_pinned_refuses_a_grant_for_something_else(
    hub: LyingHub, pinned: Victim, changes: dict[str, Any]
) -> None:
    draft = hub.draft()
    draft.grant = hub.grant(**changes)
    await pinned.refused(hub.job(draft), "job.grant")


# -- after a restart ------------------------------------------------------------------------------------------------


async def test_a_restarted_agent_remembers(hub: LyingHub, key: Token, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = await make_victim(hub, key, path)
    draft = fenced(hub.draft(), 3)
    signature = await first.signed(hub.job(draft))
    await first.journal.close()

    again = await make_victim(hub, key, path)
    assert again.executor.held == first.executor.held
    await again.refused(hub.job(draft), "journal.used")
    await again.refused(hub.job(fenced(hub.draft(b"late"), 2)), "job.stale_fence")
    request = draft.intents[0].request
    done = await again.executor.outcome(OutcomeQuery(request=request, item=0, fence=3))
    never = await again.executor.outcome(OutcomeQuery(request=request, item=0, fence=4))
    assert (done.state, done.signature) == ("done", signature)
    assert (never.state, never.signature) == ("never", b"")
    del hub.log.entries[2:]
    await again.refused(hub.job(hub.draft()), "log.rewound")
    await again.journal.close()


async def test_an_agent_that_stopped_while_the_token_worked_says_unknown(
    hub: LyingHub, key: Token, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    first = await make_victim(hub, key, path)
    draft = hub.draft()

    async def drop(_message: object) -> None:
        return

    rest = await first.executor.accept(hub.job(draft), drop)
    assert rest is not None
    rest.close()  # journalled, and then the process is gone
    await first.journal.close()

    again = await make_victim(hub, key, path)
    reply = await again.executor.outcome(OutcomeQuery(request=draft.intents[0].request, item=0, fence=1))
    assert reply.state == "unknown"
    await again.journal.close()


async def test_a_certificate_that_has_expired(hub: LyingHub, key: Token, tmp_path: Path) -> None:
    late = await make_victim(hub, key, tmp_path / "journal.db", clock=lambda: NOW_MS + 25 * HOUR_MS)
    await late.refused(hub.job(hub.draft(not_after=NOW_MS + 48 * HOUR_MS)), "certificate.expired")
    await late.journal.close()
