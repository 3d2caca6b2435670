# SPDX-License-Identifier: Apache-2.0
"""A token that cannot begin, for a reason of its own: all that waits for it comes back unused, and nothing fails."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gated_token import GatedToken
from lied_to_agent import Bench, Served, open_bench
from lying_hub import TOKEN, Ask, make_trust, pe_preimage
from privyseal.agent.ladder import is_unable, is_unknown
from privyseal.errors import PrivysealError, TokenError
from privyseal.hub.jobs import answer_told, settle
from privyseal.pki.mechanism import Mechanism
from privyseal.ports.queue import Job, JobState
from privyseal.tokens.ckr import Ckr, Rv
from privyseal.wire.jobs import OutcomeQuery

TRUST = make_trust()
UNABLE = "job.token_unable"
GONE = Ckr("C_OpenSession", Rv.TOKEN_NOT_PRESENT)


class FailingToken(GatedToken):
    """Signs until it has a reason not to."""

    failure: TokenError | None = None

    async def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        if self.failure is not None:
            raise self.failure
        return await super().sign(key_id=key_id, mechanism=mechanism, digest=digest)


@pytest.fixture
def token() -> FailingToken:
    return FailingToken()


@pytest.fixture
def workers() -> int:
    return 1


@pytest.fixture
async def bench(tmp_path: Path, token: FailingToken, workers: int) -> AsyncIterator[Bench]:
    bench = await open_bench(tmp_path, Served(token=token, spki=token.spki), TRUST, workers=workers)
    yield bench
    await bench.journal.close()


@pytest.fixture
def failures(bench: Bench) -> list[tuple[str, str]]:
    """Which tokens were said to have failed, and with what."""
    told: list[tuple[str, str]] = []
    bench.executor.watch_tokens(lambda name, error: told.append((name, error.code)))
    return told


def some(bench: Bench, first: int = 0) -> Ask:
    return bench.hub.ask(bench.hub.enrol(), *(pe_preimage(first + place) for place in range(3)))


async def test_all_that_waits_comes_back_with_the_first_that_cannot_begin(
    bench: Bench, token: FailingToken, failures: list[tuple[str, str]]
) -> None:
    """What was prepared behind it, in a job of its own, too; the token is tried once."""
    one, two = some(bench), some(bench, 10)
    begun = await bench.begin(bench.hub.job(one))
    prepared = await bench.begin(bench.hub.job(two))
    await token.begun.get()
    token.failure = GONE
    token.gate.release()

    said = await begun.end()

    assert said == {(one.request_id, 0): "", (one.request_id, 1): UNABLE, (one.request_id, 2): UNABLE}
    assert await prepared.end() == {(two.request_id, item): UNABLE for item in range(3)}
    assert len(bench.token.signed) == 2
    assert failures == [(TOKEN, "token.not_found")]


@pytest.mark.parametrize("workers", [2])
async def test_of_several_workers_the_others_go_on(
    bench: Bench, token: FailingToken, workers: int, failures: list[tuple[str, str]]
) -> None:
    ask = some(bench)
    begun = await bench.begin(bench.hub.job(ask))
    for _ in range(workers):
        await token.begun.get()
    token.failure = Ckr("C_OpenSession", Rv.SESSION_COUNT)
    for _ in range(workers):
        token.gate.release()

    assert await begun.end() == {(ask.request_id, 0): "", (ask.request_id, 1): "", (ask.request_id, 2): UNABLE}
    assert failures == [(TOKEN, "token.failed")]


async def test_the_journal_says_the_same_to_a_hub_that_asks_later(bench: Bench, token: FailingToken) -> None:
    token.failure = GONE
    ask = some(bench)
    await bench.take(bench.hub.job(ask, fence=3))

    reply = await bench.executor.outcome(OutcomeQuery(request=ask.request_id, item=1, fence=3))

    answer = answer_told(reply)
    assert answer is not None
    job = Job(
        request_id=ask.request_id,
        item=1,
        profile="p",
        signed=b"",
        detail=b"",
        state=JobState.INTENT,
        fence=3,
        intent_index=7,
    )
    settled = settle(job, asked=job, answer=answer)
    assert settled is not None
    assert (settled.job.state, settled.record.value, settled.raises_fence) == (JobState.QUEUED, "not-used", True)
    assert "[token.not_found]" in reply.message


@pytest.mark.parametrize(
    ("error", "unable"),
    [
        (GONE, True),
        (Ckr("C_SignInit", Rv.DEVICE_ERROR), True),
        (TokenError("token.timeout", "C_Login did not answer"), True),
        (TokenError("token.pin_blocked", "no PIN is presented"), True),
        (Ckr("C_Sign", Rv.PIN_EXPIRED, begun=True), True),
        (Ckr("C_SignInit", Rv.MECHANISM_INVALID), False),
        (Ckr("C_Sign", Rv.DATA_LEN_RANGE, begun=True), False),
        (Ckr("C_Sign", Rv.DEVICE_REMOVED, begun=True), False),
        (TokenError("token.timeout", "C_Sign did not answer", begun=True), False),
        (TokenError("token.failed", "of its own making"), False),
    ],
    ids=lambda value: str(value) if isinstance(value, PrivysealError) else None,
)
async def test_only_the_token_s_own_reasons_before_c_sign_bring_an_item_back(
    bench: Bench, token: FailingToken, *, error: TokenError, unable: bool
) -> None:
    token.failure = error

    answers = await bench.take(bench.hub.job(some(bench)))

    assert is_unable(error) is unable
    assert {getattr(one, "code", "") for one in answers} == {UNABLE if unable else error.code}
    assert {getattr(one, "unknown", False) for one in answers} == {is_unknown(error)}
