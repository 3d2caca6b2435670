# SPDX-License-Identifier: Apache-2.0
"""What an agent remembers (fences, used requests, its checkpoint), and what only authority keys may allow."""

import dataclasses
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from lied_to_agent import Bench, Served, make_format, open_bench, resent, with_part
from lying_hub import HOUR_MS, NOW_MS, PROFILE, Ask, Trust, make_trust, pe_preimage, sha256
from privyseal.agent.check import _JobCheck
from privyseal.agent.served import ServedKey
from privyseal.errors import DeniedError, MalformedInputError
from privyseal.formats.model import Artifact, Binding, Preimage
from privyseal.formats.opaque.digest import digest_preimage
from privyseal.formats.registry import FORMATS
from privyseal.identity.authority import Invitation, seal_authority
from privyseal.tlog.checkpoint import open_checkpoint
from privyseal.tlog.tree import EMPTY_ROOT
from privyseal.wire.dsse import seal
from privyseal.wire.jobs import Answers, ItemDone, ItemRefused, OutcomeQuery, OutcomeReply
from privyseal.wire.link import AgentMessage

pytest_plugins = ["lying_hub_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def restarted(bench: Bench, directory: Path, served: Served) -> Bench:
    """The same agent after a restart; the hub stays."""
    await bench.journal.close()
    return await open_bench(directory, served, bench.trust, hub=bench.hub)


def query(ask: Ask, *, item: int = 0, fence: int = 1) -> OutcomeQuery:
    return OutcomeQuery(request=ask.request_id, item=item, fence=fence)


async def test_a_stale_fence_is_refused(bench: Bench, ask: Ask) -> None:
    await bench.signs(bench.hub.job(ask, fence=7))
    second = bench.hub.ask(ask.member, idempotency_key="second")

    await bench.refuses(bench.hub.job(second, fence=6), "job.stale_fence")
    await bench.signs(bench.hub.job(second, fence=7))
    await bench.signs(bench.hub.job(bench.hub.ask(ask.member, idempotency_key="third"), fence=8))


async def test_a_fence_below_zero_is_refused(bench: Bench, ask: Ask) -> None:
    await bench.refuses(bench.hub.job(ask, fence=-1), "journal.range")


async def test_a_replayed_job_uses_the_token_no_second_time(bench: Bench, ask: Ask) -> None:
    job = bench.hub.job(ask)
    (signature,) = await bench.signs(job)

    await bench.refuses(resent(job, bench), "journal.used")
    assert await bench.executor.outcome(query(ask)) == OutcomeReply(
        request=ask.request_id, item=0, fence=1, state="done", signature=signature
    )


async def test_a_second_intent_under_the_same_fence_uses_the_token_no_second_time(bench: Bench, ask: Ask) -> None:
    await bench.signs(bench.hub.job(ask))

    await bench.refuses(bench.hub.job(ask), "journal.used")


async def test_what_was_signed_is_not_signed_again_under_a_higher_fence(
    bench: Bench, ask: Ask, tmp_path: Path, served: Served
) -> None:
    (signature,) = await bench.signs(bench.hub.job(ask))

    await bench.refuses(bench.hub.job(ask, fence=2), "journal.signed")
    again = await restarted(bench, tmp_path, served)
    await again.executor.load()
    await again.refuses(again.hub.job(ask, fence=3), "journal.signed")

    told = await again.executor.outcome(query(ask))
    assert (told.state, told.signature) == ("done", signature)
    assert (await again.executor.outcome(query(ask, fence=2))).state == "never"
    await again.journal.close()


async def test_what_is_at_work_is_not_begun_again_under_a_higher_fence(bench: Bench, ask: Ask) -> None:
    rest = await bench.executor.accept(bench.hub.job(ask), bench_answer)
    assert rest is not None

    await bench.refuses(bench.hub.job(ask, fence=2), "job.running")
    assert (await bench.executor.outcome(query(ask))).state == "running"
    rest.close()


async def test_a_checkpoint_seen_with_a_refused_job_outlives_a_restart(
    bench: Bench, ask: Ask, tmp_path: Path, served: Served
) -> None:
    await bench.signs(bench.hub.job(ask))
    fork = bench.hub.fork(bench.hub.log.size)
    bench.now_ms[0] = NOW_MS + HOUR_MS + 1
    await bench.take(bench.hub.job(bench.hub.ask(ask.member, idempotency_key="late")))

    again = await restarted(bench, tmp_path, served)

    assert (await again.executor.load()).size == bench.hub.log.size
    await again.refuses(fork.job(fork.ask(ask.member, idempotency_key="other")), "log.fork")
    await again.journal.close()


async def test_a_job_in_which_one_item_was_used_before_is_refused_whole(bench: Bench) -> None:
    ask = bench.hub.ask(bench.hub.enrol(), pe_preimage(1), pe_preimage(2))
    job = bench.hub.job(ask)
    await bench.signs(with_part(job, items=job.parts[0].items[:1]))

    await bench.refuses(resent(job, bench), "journal.used")
    await bench.signs(with_part(resent(job, bench), items=job.parts[0].items[1:]))


async def test_a_checkpoint_seen_with_a_refused_job_stays_held(bench: Bench, ask: Ask) -> None:
    await bench.signs(bench.hub.job(ask))
    fork = bench.hub.fork(bench.hub.log.size)
    bench.now_ms[0] = NOW_MS + HOUR_MS + 1
    await bench.refuses(bench.hub.job(bench.hub.ask(ask.member, idempotency_key="late")), "job.expired")
    bench.now_ms[0] = NOW_MS

    lie = fork.job(fork.ask(ask.member, idempotency_key="other"))

    await bench.refuses(lie, "log.fork")


async def test_a_checkpoint_seen_with_a_refused_job_stays_held_over_a_new_link(bench: Bench, ask: Ask) -> None:
    await bench.signs(bench.hub.job(ask))
    fork = bench.hub.fork(bench.hub.log.size)
    bench.now_ms[0] = NOW_MS + HOUR_MS + 1
    await bench.refuses(bench.hub.job(bench.hub.ask(ask.member, idempotency_key="late")), "job.expired")
    bench.now_ms[0] = NOW_MS
    seen = bench.hub.log.size

    held = await bench.executor.load()  # the link asks for it whenever it dials

    assert (held.size, held.root) == (seen, bench.hub.log.root())
    await bench.refuses(fork.job(fork.ask(ask.member, idempotency_key="other")), "log.fork")


async def test_a_new_agent_holds_the_empty_tree(bench: Bench) -> None:
    held = await bench.executor.load()

    assert (held.size, held.root) == (0, EMPTY_ROOT)


async def test_after_a_restart_nothing_is_forgotten(bench: Bench, ask: Ask, tmp_path: Path, served: Served) -> None:
    old = bench.hub.fork(bench.hub.log.size)
    job = bench.hub.job(ask, fence=5)
    (signature,) = await bench.signs(job)
    fork = bench.hub.fork(bench.hub.log.size - 1)

    again = await restarted(bench, tmp_path, served)

    assert (await again.executor.load()).size == bench.hub.log.size
    await again.refuses(resent(job, again), "journal.used")
    await again.refuses(fork.job(fork.ask(ask.member, idempotency_key="fork"), fence=5), "log.fork")
    old.held_size = 0
    old.log.entries.pop()
    await again.refuses(replace(job, checkpoint=old.checkpoint()), "log.rewound")
    second = again.hub.ask(ask.member, idempotency_key="second")
    await again.refuses(again.hub.job(second, fence=4), "job.stale_fence")
    assert (await again.executor.outcome(query(ask, fence=5))).signature == signature
    await again.still_signs(second, fence=5)
    await again.journal.close()


async def test_outcomes_before_and_after_a_restart(bench: Bench, ask: Ask, tmp_path: Path, served: Served) -> None:
    await bench.signs(bench.hub.job(ask))
    cut_off = bench.hub.ask(ask.member, idempotency_key="cut off")
    rest = await bench.executor.accept(bench.hub.job(cut_off), bench_answer)
    assert rest is not None
    assert (await bench.executor.outcome(query(cut_off))).state == "running"
    rest.close()  # as if the process had died between journal and token

    again = await restarted(bench, tmp_path, served)

    states = {
        "done": query(ask),
        "unknown": query(cut_off),
        "never": query(ask, fence=2),
    }
    for state, question in states.items():
        assert (await again.executor.outcome(question)).state == state
    assert (await again.executor.outcome(query(ask, item=1))).state == "never"
    await again.refuses(again.hub.job(cut_off), "journal.used")
    await again.still_signs(cut_off, fence=2)
    await again.journal.close()


async def bench_answer(message: object) -> None:
    raise AssertionError(message)


async def test_an_operation_that_the_token_could_not_begin_is_failed(
    bench: Bench, ask: Ask, tmp_path: Path, served: Served
) -> None:
    """It has ended here; that the reason is the token's own has the hub queue it again."""
    bench.executor.serve((ServedKey(profile=bench.profile, token=bench.token, key_id=b"\x09"),))

    (said,) = await bench.take(bench.hub.job(ask))

    assert isinstance(said, ItemRefused)
    assert (said.branch, said.code, said.unknown) == ("token", "job.token_unable", False)
    again = await restarted(bench, tmp_path, served)
    outcome = await again.executor.outcome(query(ask))
    assert (outcome.state, outcome.branch, outcome.code) == ("failed", "token", "job.token_unable")
    assert outcome.signature == b""
    await again.journal.close()


async def test_an_outcome_that_no_journal_can_hold_is_refused(bench: Bench, ask: Ask) -> None:
    with pytest.raises(MalformedInputError) as caught:
        await bench.executor.outcome(query(ask, item=-1))

    assert caught.value.code == "journal.range"


@pytest_asyncio.fixture(loop_scope="module")
async def pinned(tmp_path: Path, served: Served) -> AsyncIterator[Bench]:
    """An agent whose key profile is pinned; two of three authority keys must sign a grant."""
    bench = await open_bench(tmp_path, served, make_trust(authorities=3, quorum=2), level="pinned")
    yield bench
    await bench.journal.close()


async def test_a_granted_client_is_signed_for(pinned: Bench) -> None:
    first, second = pinned.hub.enrol(), pinned.hub.enrol(profiles=("*",))
    later = pinned.hub.ask(second, idempotency_key="build 2")
    two = pinned.trust.authority[1:]

    await pinned.signs(pinned.hub.job(pinned.hub.ask(first), grant=pinned.trust.grant(first)))
    everything = pinned.trust.grant(second, by=two, formats=("*",))
    await pinned.signs(pinned.hub.job(later, grant=everything))


async def test_a_client_of_the_hubs_own_making_gets_nothing_from_a_pinned_profile(pinned: Bench) -> None:
    granted, invented = pinned.hub.enrol(), pinned.hub.enrol()
    ask = pinned.hub.ask(invented)

    await pinned.refuses(pinned.hub.job(ask), "job.grant")
    await pinned.refuses(pinned.hub.job(ask, grant=pinned.trust.grant(granted)), "job.grant")


@pytest.mark.parametrize(
    "changes",
    [
        {"request_key": bytes(32)},
        {"profile": "demo"},
        {"profile": "*"},
        {"formats": ("authenticode-msi",)},
        {"formats": ()},
        {"not_after": NOW_MS - 1},
        {"hub": "other.example/log"},
        {"v": 2},
    ],
    ids=["client", "profile", "any-profile", "format", "no-format", "expired", "hub", "version"],
)
async def test_a_grant_for_something_else_is_refused(pinned: Bench, changes: dict[str, Any]) -> None:
    member = pinned.hub.enrol()
    job = pinned.hub.job(pinned.hub.ask(member), grant=pinned.trust.grant(member, **changes))

    await pinned.refuses(job, "job.grant")


@pytest.mark.parametrize("who", ["one", "one-twice", "log-key", "request-key", "strangers", "nobody"])
async def test_a_grant_that_the_quorum_did_not_sign_is_refused(pinned: Bench, who: str) -> None:
    member, trust = pinned.hub.enrol(), pinned.trust
    signers = {
        "one": trust.authority[:1],
        "one-twice": trust.authority[:1] * 2,
        "log-key": (trust.log_key, trust.authority[0]),
        "request-key": (member.key, trust.authority[0]),
        "strangers": (Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()),
        "nobody": (),
    }
    job = pinned.hub.job(pinned.hub.ask(member), grant=trust.grant(member, by=signers[who]))

    await pinned.refuses(job, "job.grant")


async def test_an_invitation_is_no_grant(pinned: Bench) -> None:
    member = pinned.hub.enrol()
    invitation = Invitation(
        hub=pinned.trust.bundle.hub,
        issued=NOW_MS,
        not_after=NOW_MS + HOUR_MS,
        role="client",
        name="build",
        profiles=("*",),
        secret_sha256=sha256(b"secret"),
    )
    other_type = seal("application/vnd.privyseal.request+json", b"{}", pinned.trust.authority)
    for grant in (seal_authority(invitation, pinned.trust.authority), other_type, b"{}", b"\xff", b"[" * 100_000):
        await pinned.refuses(pinned.hub.job(pinned.hub.ask(member), grant=grant), "job.grant")


async def test_a_grant_does_not_replace_the_enrolment(pinned: Bench) -> None:
    member = pinned.hub.enrol(profiles=("demo",))

    job = pinned.hub.job(pinned.hub.ask(member), grant=pinned.trust.grant(member))

    await pinned.refuses(job, "job.client")


DIGEST = digest_preimage(Artifact(algorithm="sha256", digest=hashlib.sha256(b"a kernel module").digest()))


@pytest.mark.parametrize(
    ("allowed", "signs"),
    [((), False), (("authenticode-pe", "digest2"), False), (("digest",), True), (("*",), True)],
    ids=["none", "others", "listed", "all"],
)
async def test_an_opaque_format_is_signed_only_where_the_agent_lists_it(
    tmp_path: Path, served: Served, trust: Trust, allowed: tuple[str, ...], *, signs: bool
) -> None:
    bench = await open_bench(tmp_path, served, trust, opaque=allowed)
    ask = bench.hub.ask(bench.hub.enrol(), DIGEST, format="digest")

    if signs:
        await bench.signs(bench.hub.job(ask))
    else:
        await bench.refuses(bench.hub.job(ask), "job.opaque")
    await bench.journal.close()


async def test_a_preimage_that_two_formats_read_is_refused(tmp_path: Path, served: Served, trust: Trust) -> None:
    twin = make_format("twin", Binding.WHOLE)
    bench = await open_bench(tmp_path, served, trust, formats=(*FORMATS, twin))
    member = bench.hub.enrol()

    await bench.refuses(bench.hub.job(bench.hub.ask(member)), "preimage.ambiguous")
    await bench.refuses(bench.hub.job(bench.hub.ask(member, format="twin")), "preimage.ambiguous")
    await bench.signs(bench.hub.job(bench.hub.ask(member, Preimage(signed=b"of no other"), format="twin")))
    await bench.journal.close()


async def test_jobs_that_come_together_are_each_signed_once(bench: Bench) -> None:
    member = bench.hub.enrol()
    asks = [bench.hub.ask(member, idempotency_key=f"build {build}") for build in range(3)]
    jobs = [bench.hub.job(ask) for ask in asks]
    said: list[Answers] = []

    async def answer(message: AgentMessage) -> None:
        assert isinstance(message, Answers)
        said.append(message)

    rests = [await bench.executor.accept(job, answer) for job in jobs]  # all prepared before the first is signed
    for rest in rests:
        assert rest is not None
        await rest

    assert [type(one) for message in said for one in message.items] == [ItemDone] * 3
    assert len(bench.token.signed) == 3


@pytest.mark.parametrize(
    ("profiles", "code"), [((PROFILE,), ""), (("*", PROFILE), ""), (("*",), "job.client"), (("other",), "job.client")]
)
async def test_a_device_goes_only_to_who_is_enrolled_for_it_by_name(
    bench: Bench, profiles: tuple[str, ...], code: str
) -> None:
    """`*` in an enrolment stands for key profiles: a hub cannot make a lease of it."""
    ask = bench.hub.ask(bench.hub.enrol(profiles=profiles))
    job = bench.hub.job(ask)
    bundle = bench.trust.bundle
    checkpoint = open_checkpoint(job.checkpoint, origin=bundle.origin, verifiers=(bundle.log_key,))
    check = _JobCheck(
        checkpoint,
        profile=dataclasses.replace(bench.profile, spki=b""),
        bundle=bench.trust.bundle,
        agent="",
        now_ms=NOW_MS,
        fence=1,
        formats=FORMATS,
    )
    (part,) = job.parts
    if not code:
        assert check._client(part.membership, ask.statement) == part.membership.index
        return
    with pytest.raises(DeniedError) as caught:
        check._client(part.membership, ask.statement)
    assert caught.value.code == code
