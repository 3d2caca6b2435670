# SPDX-License-Identifier: Apache-2.0
"""From a job to a signature: check all of it, journal it with one fsync, sign, answer.

Checks and journal run in the order in which jobs arrive, whatever the token is doing: so one job is at the token while
the next one stands prepared. Each token signs one item at a time.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog

from privyseal.agent.at_work import AtWork
from privyseal.agent.check import CheckedPart, Held, check_checkpoint, check_job
from privyseal.agent.cosigned import BEFORE_USE, check_cosigned
from privyseal.agent.job_run import Answer, JobRun
from privyseal.agent.leases import TokenLeases
from privyseal.agent.operations import journal_is_lost, refusal, unable
from privyseal.agent.served import Served
from privyseal.errors import LogIntegrityError, MalformedInputError, PrivysealError, TokenError
from privyseal.formats.model import Format
from privyseal.formats.registry import FORMATS
from privyseal.identity.bundle import TrustBundle
from privyseal.ports.clock import Clock, Monotonic
from privyseal.ports.journal import AgentJournal, JournalPart
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.tree import EMPTY_ROOT
from privyseal.wire.dsse import parse_envelope
from privyseal.wire.job_names import item_ranges, short_request
from privyseal.wire.jobs import Answers, ItemRefused, Job, JobPart, LeaseRenewed, OutcomeQuery, OutcomeReply, Recall
from privyseal.wire.link import Held as HeldMessage
from privyseal.wire.statement import REQUEST_TYPE, statement_id

__all__ = ["Executor", "Shown"]

_LOG: Final = structlog.get_logger("privyseal.agent")
T = TypeVar("T")


#: The refusal of a job that crossed what another hub has shown.
_BEHIND: Final = "job.checkpoint_behind"


@dataclass(slots=True, kw_only=True)
class Shown:
    """The newest checkpoint of which the hub at the other end of one link knows for sure that this agent knows it.

    Attributes:
        link: That link; None where there is one.
        size: It was greeted with it, or has shown it itself; so an older one from it has no innocent explanation.
    """

    link: object = None
    size: int = 0


class Executor:
    """Carries out jobs of one hub, or of several that share one log.

    Attributes:
        checks: Held while what a hub shows is compared with what is held: each consistency proof starts where the one
            before ended, over whichever link.
        several_hubs: Whether there are several.
    """

    def __init__(
        self,
        *,
        bundle: TrustBundle,
        request_key: bytes,
        journal: AgentJournal,
        clock: Clock,
        monotonic: Monotonic,
        own_witness: bytes = b"",
        formats: tuple[Format, ...] = FORMATS,
        several_hubs: bool = False,
    ) -> None:
        """Carry out jobs.

        Args:
            bundle: The trust bundle in force.
            request_key: The agent's raw public key.
            journal: What it must know after a crash.
            clock: Judges the dates of requests and certificates.
            monotonic: Judges the hub's leases.
            own_witness: The agent's public key as a witness: it does not count for the agent's own tokens.
            formats: What it reads.
            several_hubs: Whether jobs come over several links.
        """
        self.checks: Final = asyncio.Lock()
        self.several_hubs: Final = several_hubs
        self._watchers: list[Callable[[], None]] = []
        self._bundle = bundle
        self._own_witness = own_witness
        self._request_key = request_key
        self._journal = journal
        self._clock = clock
        self._formats = formats
        self._keys: dict[tuple[str, str], Served] = {}
        self._held = Held(size=0, root=EMPTY_ROOT)
        self._failed: Callable[[str, PrivysealError], None] = lambda _token, _error: None
        self._monotonic: Final = monotonic
        self._leases: Final = TokenLeases(monotonic)
        self._at_work: Final = AtWork(journal)

    @property
    def held(self) -> Held:
        """The newest checkpoint that was seen."""
        return self._held

    def watch(self, grown: Callable[[], None]) -> None:
        """Have `grown` called whenever a newer checkpoint is held."""
        self._watchers.append(grown)

    def watch_tokens(self, failed: Callable[[str, PrivysealError], None]) -> None:
        """Have `failed` called when a token (its name) could not begin an item, for a reason of its own."""
        self._failed = failed

    async def load(self) -> Held:
        """Read the newest checkpoint from the journal."""
        async with self.checks:
            state = await self._journal.state()
            # What a full disk kept out of the journal stays seen.
            if state.checkpoint_note is not None and state.size > self._held.size:
                self._held = Held(size=state.size, root=state.root)
            return self._held

    async def go_by(self, bundle: TrustBundle) -> None:
        """Take another trust bundle in the place of the former one; the caller holds `checks`, and dials anew.

        Raises:
            UnavailableError: `journal.closed`.
        """
        if bundle.origin != self._bundle.origin:
            _LOG.critical(
                "the log was given up, and another one begun",
                former=self._bundle.origin,
                size=self._held.size,
                log=bundle.origin,
            )
            await self._journal.follow(bundle.origin)
            self._leases.forget()
            self._held = Held(size=0, root=EMPTY_ROOT)
        self._bundle = bundle

    async def see(self, note: str, held: Held, shown: Shown) -> None:
        """Hold a checkpoint that was shown to extend the one held; durable when this returns.

        The caller holds `checks`.

        Raises:
            PrivysealError: what the journal raises; it counts as seen all the same.
        """
        self._hold(held, shown)
        await self._journal.see_checkpoint(note, held.size, held.root)

    def _hold(self, held: Held, shown: Shown) -> None:
        self._held = held
        shown.size = max(shown.size, held.size)
        for grown in self._watchers:
            grown()

    def serve(self, keys: tuple[Served, ...]) -> None:
        """Replace the key profiles that are served."""
        self._keys = {_place(key): key for key in keys}

    async def accept(self, job: Job, answer: Answer, shown: Shown | None = None) -> Coroutine[Any, Any, None] | None:
        """Check and journal a job; what is left, the signing itself, is returned to be run beside other things.

        Refusals are answered at once.

        Args:
            job: The job.
            answer: Sends answers over the link that it came over.
            shown: What the hub at the other end has shown before.

        Raises:
            LogIntegrityError: `journal.commit_unknown`; there is no answer before the agent is started again.
        """
        since_s = self._monotonic()
        try:
            async with self.checks:
                parts, run = await self._take(job, answer, shown or Shown(), since_s)
        except PrivysealError as error:
            if journal_is_lost(error):
                raise
            if error.code == _BEHIND:
                await answer(HeldMessage(size=self._held.size))
            await _refuse(job, [(part, error) for part in job.parts], answer)
            return None
        refused = [
            (sent, part) for sent, part in zip(job.parts, parts, strict=True) if isinstance(part, PrivysealError)
        ]
        if refused:
            await _refuse(job, refused, answer)
        return None if run is None else self._carry_out(run)

    async def _take(
        self, job: Job, answer: Answer, shown: Shown, since_s: float
    ) -> tuple[tuple[CheckedPart | PrivysealError, ...], JobRun | None]:
        """What became of each part, and the items that wait for the token now."""
        shown_size = shown.size if self.several_hubs else None
        checkpoint = check_checkpoint(job, self._held, self._bundle, shown_size=shown_size)
        # From here on it counts as seen, whatever else is wrong with the job.
        self._hold(Held(size=checkpoint.size, root=checkpoint.root), shown)
        try:
            key = self._served(job)
            parts = await self._begin(job, checkpoint, key, shown.link)
        except PrivysealError:
            await self._journal.see_checkpoint(job.checkpoint, checkpoint.size, checkpoint.root)
            raise
        begun = tuple(part for part in parts if isinstance(part, CheckedPart))
        if not begun:
            return parts, None
        for part in begun:
            items = item_ranges(item.item for item in part.items)
            request = short_request(part.request_id)
            _LOG.info("job journalled", request=request, item=items, profile=job.profile, fence=job.fence)
        lease = self._leases.taken(job.token, job.fence, answer, since_s=since_s, lease_ms=job.lease_ms)
        run = JobRun(
            key,
            begun,
            fence=job.fence,
            lease=lease or self._leases.over(job.token, answer),
            at_work=self._at_work,
            is_served=lambda key: self._keys.get(_place(key)) == key,
            failed=self._token_failed,
            answer=answer,
        )
        self._leases.add(run)
        return parts, run

    def _served(self, job: Job) -> Served:
        key = self._keys.get((job.profile, job.token))
        if key is None:
            what = f"key profile {job.profile!r} with a token {job.token!r}"
            raise TokenError("profile.not_served", f"this agent serves no {what} now")
        return key

    def _token_failed(self, key: Served, error: PrivysealError) -> None:
        """What waits for a token that can begin nothing is handed back; of several workers the others may go on."""
        token = key.profile.token
        if key.turns.workers == 1:
            self._leases.hand_back(token, unable(error))
        self._failed(token, error)

    async def _carry_out(self, run: JobRun) -> None:
        try:
            await run.run()
        finally:
            self._leases.remove(run)

    async def renew(self, renewed: LeaseRenewed, answer: Answer) -> None:
        """A hub has a lease for so much longer. A fence that is new here is durable before anything else is heard.

        So a hub that takes a token over can ask what became of the former one's jobs: what comes later is stale.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
        """
        since_s = self._monotonic()
        async with self.checks:
            try:
                await self._journal.raise_fence(renewed.token, renewed.fence)
            except PrivysealError as error:
                if journal_is_lost(error):
                    raise
                _LOG.warning("lease not taken", token=renewed.token, fence=renewed.fence, code=error.code)
                return
            self._leases.taken(renewed.token, renewed.fence, answer, since_s=since_s, lease_ms=renewed.lease_ms)

    async def recall(self, recall: Recall) -> None:
        """What a token has not begun is handed back, and answered over the link that it came over; a lease shall end.

        A job that is being accepted over another link is among it.
        """
        async with self.checks:
            self._leases.recall(recall)
            for served in self._keys.values():
                if served.profile.token == recall.token:
                    served.recall(recall.requests, asks=recall.asks, reason=recall.reason)

    def end_leases(self, reason: str) -> None:
        """Whoever has a device gives it back now."""
        for served in self._keys.values():
            served.recall((), asks=False, reason=reason)

    async def _begin(
        self, job: Job, checkpoint: Checkpoint, key: Served, sender: object
    ) -> tuple[CheckedPart | PrivysealError, ...]:
        """Check all of a job, and write down which of its parts are about to be signed, with one fsync."""
        if key.profile.witness == BEFORE_USE:
            check_cosigned(job, checkpoint, self._bundle, own_witness=self._own_witness)
        checked = await _in_steps(
            check_job(
                job,
                checkpoint,
                profile=key.profile,
                bundle=self._bundle,
                agent_key=self._request_key,
                now_ms=self._clock(),
                formats=self._formats,
            )
        )
        parts = tuple(
            self._at_rest(part, job.fence, sender) if isinstance(part, CheckedPart) else part for part in checked
        )
        sound = tuple(part for part in parts if isinstance(part, CheckedPart))
        if not sound:
            await self._journal.see_checkpoint(job.checkpoint, checkpoint.size, checkpoint.root)
            return parts
        conflicts = iter(
            await self._journal.begin(
                checkpoint_note=job.checkpoint,
                size=checkpoint.size,
                root=checkpoint.root,
                token=job.token,
                profile=job.profile,
                fence=job.fence,
                parts=tuple(
                    JournalPart(request_id=part.request_id, items=tuple((item.item, item.entry) for item in part.items))
                    for part in sound
                ),
            )
        )
        return tuple(next(conflicts) or part if isinstance(part, CheckedPart) else part for part in parts)

    def _at_rest(self, part: CheckedPart, fence: int, sender: object) -> CheckedPart | PrivysealError:
        try:
            self._at_work.check(part.request_id, (item.item for item in part.items), fence, sender)
        except PrivysealError as error:
            return error
        return part

    async def outcome(self, query: OutcomeQuery, asker: object = None) -> OutcomeReply:
        """What became of a (request, item, fence), for the hub at the other end of a link (`asker`).

        A job that is being accepted over another link is in the journal, and running, or never begun.

        Raises:
            LogIntegrityError: `journal.commit_unknown`, as `accept`.
        """
        async with self.checks:
            return await self._at_work.outcome(query, asker)


def _place(key: Served) -> tuple[str, str]:
    """Key profile and token, as a job names them."""
    return key.profile.name, key.profile.token


async def _refuse(job: Job, refused: list[tuple[JobPart, PrivysealError]], answer: Answer) -> None:
    """Answer for parts of which nothing is signed, in one message."""
    answers: list[ItemRefused] = []
    for part, error in refused:
        request_id = _request_id(part)
        level = _LOG.critical if isinstance(error, LogIntegrityError) else _LOG.warning
        items = item_ranges(item.item for item in part.items)
        request = short_request(request_id)
        level("job refused", request=request, item=items, profile=job.profile, code=error.code, reason=error.message)
        answers += (refusal((request_id, item.item, job.fence), error) for item in part.items)
    await answer(Answers(items=tuple(answers)))


def _request_id(part: JobPart) -> str:
    """Name of the request that a part carries, even if nothing else of it holds."""
    try:
        return statement_id(part.membership.request_key, parse_envelope(part.envelope, REQUEST_TYPE).payload)
    except MalformedInputError:
        return ""


async def _in_steps(work: Generator[None, None, T]) -> T:
    """Run a long computation, and let others go on between its steps: above all those who use the token."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            value: T = end.value
            return value
        await asyncio.sleep(0)
