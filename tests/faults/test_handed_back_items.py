# SPDX-License-Identifier: Apache-2.0
"""Whatever jobs, recalls, renewals and the clock do: items are answered once, never both handed back and signed."""

import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gated_token import GatedToken
from lied_to_agent import OTHER_PROFILE, Begun, Bench, Served, open_bench
from lying_hub import PROFILE, TOKEN, Ask, make_trust, pe_preimage
from privyseal.wire.jobs import OutcomeQuery, Recall

TRUST = make_trust()
leases_ms = st.sampled_from((0, 5_000, 60_000))
#: Fences are those of the newest job, or near it.
near = st.sampled_from((-1, 0, 0, 0, 1))


@dataclass(frozen=True, slots=True)
class NewJob:
    parts: tuple[int, ...]
    profile: str
    near: int
    lease_ms: int


@dataclass(frozen=True, slots=True)
class TakeBack:
    which: frozenset[int]  # requests by their number; none for all


@dataclass(frozen=True, slots=True)
class Renew:
    near: int
    lease_ms: int


@dataclass(frozen=True, slots=True)
class Pass:
    seconds: float
    turns: int
    signatures: int


steps = st.lists(
    st.one_of(
        st.builds(
            NewJob,
            st.lists(st.integers(1, 2), min_size=1, max_size=3).map(tuple),
            st.sampled_from((PROFILE, OTHER_PROFILE)),
            near,
            leases_ms,
        ),
        st.builds(TakeBack, st.frozensets(st.integers(0, 12), max_size=2)),
        st.builds(Renew, near, leases_ms),
        st.builds(Pass, st.sampled_from((0.0, 3.0, 20.0)), st.integers(0, 8), st.integers(0, 2)),
    ),
    max_size=14,
)


@dataclass(kw_only=True)
class Schedule:
    bench: Bench
    token: GatedToken
    fence: int = 1
    asked: list[tuple[Ask, int]] = field(default_factory=list)
    begun: list[Begun] = field(default_factory=list)

    async def take(self, step: NewJob | TakeBack | Renew | Pass) -> None:
        match step:
            case NewJob():
                await self.send(step)
            case TakeBack():
                named = tuple(ask.request_id for number, (ask, _) in enumerate(self.asked) if number in step.which)
                if named or not step.which:
                    await self.bench.executor.recall(Recall(token=TOKEN, requests=named))
            case Renew():
                fence = self.fence + step.near
                await self.bench.renew(fence=fence, lease_ms=step.lease_ms)
            case Pass():
                self.bench.now_s[0] += step.seconds
                for _ in range(step.signatures):
                    self.token.gate.release()
                for _ in range(step.turns):
                    await asyncio.sleep(0)

    async def send(self, step: NewJob) -> None:
        hub, first = self.bench.hub, sum(len(ask.statement.items) for ask, _ in self.asked)
        fence = self.fence + step.near
        self.fence = max(fence, self.fence)
        asks = []
        for count in step.parts:
            preimages = [pe_preimage(first + place) for place in range(count)]
            asks.append(hub.ask(hub.enrol(profiles=("*",)), *preimages, profile=step.profile))
            first += count
        self.asked += [(ask, fence) for ask in asks]
        self.begun.append(await self.bench.begin(hub.job(*asks, fence=fence, lease_ms=step.lease_ms)))

    async def check(self) -> None:
        for _ in range(200):
            self.token.gate.release()
        said: Counter[tuple[tuple[str, int], str]] = Counter()
        for begun in self.begun:
            said.update((await begun.end()).items())
        signed = Counter(self.bench.token.signed)
        for ask, fence in self.asked:
            for item in range(len(ask.statement.items)):
                codes = [
                    code for (key, code), count in said.items() for _ in range(count) if key == (ask.request_id, item)
                ]
                digest = bytes.fromhex(self.bench.hub.intent(ask, item, fence).digest)
                assert len(codes) == 1
                assert codes[0] in {"", "job.not_used", "job.stale_fence"}
                assert signed[digest] == (codes[0] == "")
                query = OutcomeQuery(request=ask.request_id, item=item, fence=fence)
                state = {"": "done", "job.not_used": "failed", "job.stale_fence": "never"}[codes[0]]
                assert (await self.bench.executor.outcome(query)).state == state


async def run(schedule: list[NewJob | TakeBack | Renew | Pass], workers: int) -> None:
    token = GatedToken()
    with tempfile.TemporaryDirectory() as folder:
        bench = await open_bench(Path(folder), Served(token=token, spki=token.spki), TRUST, workers=workers)
        running = Schedule(bench=bench, token=token)
        for step in schedule:
            await running.take(step)
        await running.check()
        await bench.journal.close()


@settings(max_examples=80)
@given(steps, st.sampled_from((1, 1, 3)))
def test_an_item_that_was_handed_back_was_never_signed(
    schedule: list[NewJob | TakeBack | Renew | Pass], workers: int
) -> None:
    asyncio.run(run(schedule, workers))
