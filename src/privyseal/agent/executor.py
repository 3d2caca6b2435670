# SPDX-License-Identifier: Apache-2.0
"""From a job to a signature: check all of it, journal it with one fsync, sign, answer.

Checks and journal run in the order in which jobs arrive, whatever the token is doing: so one job is at the token while
the next one stands prepared. Each token signs one item at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from privyseal.agent.check import CheckedItem, Held, KeyProfile, check_checkpoint, check_job
from privyseal.agent.cosigned import BEFORE_USE, check_cosigned
from privyseal.agent.operations import Operation, check_at_rest, journal_is_lost, outcome_reply, refusal
from privyseal.errors import LogIntegrityError, MalformedInputError, PrivysealError, TokenError, UnavailableError
from privyseal.formats.model import Format
from privyseal.formats.registry import FORMATS
from privyseal.identity.bundle import TrustBundle
from privyseal.ports.clock import Clock
from privyseal.ports.journal import AgentJournal
from privyseal.ports.token import Token
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.tree import EMPTY_ROOT
from privyseal.wire.dsse import parse_envelope
from privyseal.wire.job_names import item_ranges, short_request
from privyseal.wire.jobs import Answers, ItemDone, ItemRefused, Job, OutcomeQuery, OutcomeReply
from privyseal.wire.link import AgentMessage
from privyseal.wire.statement import REQUEST_TYPE, statement_id

__all__ = ["Executor", "ServedKey"]

_LOG: Final = structlog.get_logger("privyseal.agent")
#: An answer waits this long for those behind it; the last of a job never waits.
_GATHER_SECONDS: Final = 0.1
#: Sends a message to the hub, or drops it if the link is down: the hub asks again when it is back.
Answer = Callable[[AgentMessage], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedKey:
    """A key profile with the token that signs for it.

    Attributes:
        turn: Held while the token signs for this profile; profiles of one token share it. It lets in as many as the
            token has workers.
    """

    profile: KeyProfile
    token: Token
    key_id: bytes
    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    workers: int = 1


class Executor:
    """Carries out jobs of one hub."""

    def __init__(
        self,
        *,
        bundle: TrustBundle,
        request_key: bytes,
        journal: AgentJournal,
        clock: Clock,
        own_witness: bytes = b"",
        formats: tuple[Format, ...] = FORMATS,
    ) -> None:
        """`own_witness` is the agent's public key as a witness: it does not count for the agent's own tokens."""
        self._bundle = bundle
        self._own_witness = own_witness
        self._request_key = request_key
        self._journal = journal
        self._clock = clock
        self._formats = formats
        self._keys: dict[str, ServedKey] = {}
        self._held = Held(size=0, root=EMPTY_ROOT)
        self._running: set[Operation] = set()

    @property
    def held(self) -> Held:
        """The newest checkpoint that was seen."""
        return self._held

    async def load(self) -> Held:
        """Read the newest checkpoint from the journal."""
        state = await self._journal.state()
        # What a full disk kept out of the journal stays seen.
        if state.checkpoint_note is not None and state.size > self._held.size:
            self._held = Held(size=state.size, root=state.root)
        return self._held

    async def go_by(self, bundle: TrustBundle) -> None:
        """Take another trust bundle in the place of the former one, between two links.

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
            self._held = Held(size=0, root=EMPTY_ROOT)
        self._bundle = bundle

    async def see(self, note: str, size: int, root: bytes) -> None:
        """Hold a checkpoint that was shown to extend the one held; durable when this returns.

        Raises:
            PrivysealError: what the journal raises; it counts as seen all the same.
        """
        self._held = Held(size=size, root=root)
        await self._journal.see_checkpoint(note, size, root)

    def serve(self, keys: tuple[ServedKey, ...]) -> None:
        """Replace the key profiles that are served."""
        self._keys = {key.profile.name: key for key in keys}

    async def accept(self, job: Job, answer: Answer) -> Coroutine[Any, Any, None] | None:
        """Check and journal a job; what is left, the signing itself, is returned to be run beside other things.

        Called for one job after the other: each one's consistency proof starts where the one before ended. Refusals
        are answered at once.

        Raises:
            LogIntegrityError: `journal.commit_unknown`; there is no answer before the agent is started again.
        """
        try:
            key = self._keys.get(job.profile)
            if key is None:
                raise TokenError("profile.not_served", f"this agent serves no key profile {job.profile!r}")
            checkpoint = check_checkpoint(job, self._held, self._bundle)
            # From here on it counts as seen, whatever else is wrong with the job.
            self._held = Held(size=checkpoint.size, root=checkpoint.root)
            try:
                items = await self._begin(job, checkpoint, key.profile)
            except PrivysealError:
                await self._journal.see_checkpoint(job.checkpoint, checkpoint.size, checkpoint.root)
                raise
        except PrivysealError as error:
            if journal_is_lost(error):
                raise
            level = _LOG.critical if isinstance(error, LogIntegrityError) else _LOG.warning
            level("job refused", **_named(job), code=error.code, reason=error.message)
            refusals = (refusal((_request_id(job), item.item, job.fence), error) for item in job.items)
            await answer(Answers(items=tuple(refusals)))
            return None
        _LOG.info("job journalled", **_named(job), fence=job.fence)
        request_id = _request_id(job)
        keys = [(request_id, item.item, job.fence) for item in items]
        self._running.update(keys)
        return self._sign_all(key, items, keys, answer)

    async def _begin(self, job: Job, checkpoint: Checkpoint, profile: KeyProfile) -> tuple[CheckedItem, ...]:
        """Check all of a job, and write down that its items are about to be signed."""
        if profile.witness == BEFORE_USE:
            check_cosigned(job, checkpoint, self._bundle, own_witness=self._own_witness)
        items = check_job(
            job,
            checkpoint,
            profile=profile,
            bundle=self._bundle,
            agent_key=self._request_key,
            now_ms=self._clock(),
            formats=self._formats,
        )
        request_id = _request_id(job)
        check_at_rest(self._running, request_id, (item.item for item in items), job.fence)
        await self._journal.begin(
            checkpoint_note=job.checkpoint,
            size=checkpoint.size,
            root=checkpoint.root,
            profile=job.profile,
            request_id=request_id,
            fence=job.fence,
            items=tuple((item.item, item.entry) for item in items),
        )
        return items

    async def _sign_all(
        self, key: ServedKey, items: tuple[CheckedItem, ...], keys: list[Operation], answer: Answer
    ) -> None:
        """Sign the items, one after the other by each of the token's workers.

        What ended within a moment goes to the hub together (one commit there); the last answer never waits.
        """
        loop = asyncio.get_running_loop()
        ended: list[ItemDone | ItemRefused] = []
        since_s, open_items = loop.time(), len(items)
        orders = iter(zip(items, keys, strict=True))

        async def work() -> None:
            nonlocal since_s, open_items
            for item, item_key in orders:
                ended.append(await self._sign(key, item, item_key))
                self._running.discard(item_key)
                open_items -= 1
                if open_items == 0 or loop.time() - since_s >= _GATHER_SECONDS:
                    told, since_s = tuple(ended), loop.time()
                    _log_signed(key.profile.name, ended)
                    ended.clear()
                    await answer(Answers(items=told))

        try:
            await _all_of(work, min(key.workers, len(items)))
        finally:
            self._running.difference_update(keys)

    async def _sign(self, key: ServedKey, item: CheckedItem, item_key: Operation) -> ItemDone | ItemRefused:
        """Use the token when it is its turn; what came of it is written down while it signs the next one already."""
        request_id, _, fence = item_key
        try:
            async with key.turn:
                self._check_still_served(key)
                signature = await key.token.sign(key_id=key.key_id, mechanism=item.mechanism, digest=item.digest)
        except PrivysealError as error:
            return await self._refused(key, item_key, error)
        await self._finish(item_key, signature=signature)
        return ItemDone(request=request_id, item=item.item, fence=fence, signature=signature)

    def _check_still_served(self, key: ServedKey) -> None:
        """A prepared item may have waited until its key was frozen, or its token drained.

        Raises:
            TokenError: `job.not_used`.
        """
        if self._keys.get(key.profile.name) != key:
            raise TokenError(
                "job.not_used",
                f"key profile {key.profile.name!r} was taken out of use before the item's turn came",
                hint="the hub queues it again; the agent's log says why the token is out of use",
            )

    async def _refused(self, key: ServedKey, item_key: Operation, error: PrivysealError) -> ItemRefused:
        request_id, item, _ = item_key
        refused = refusal(item_key, error)
        _LOG.warning(
            "not signed",
            request=short_request(request_id),
            item=str(item),
            profile=key.profile.name,
            code=error.code,
            reason=error.message,
        )
        if not refused.unknown:  # an operation whose outcome nobody knows stays open in the journal
            await self._finish(item_key, error=error)
        return refused

    async def _finish(
        self, item_key: Operation, *, signature: bytes = b"", error: PrivysealError | None = None
    ) -> None:
        """Write down how an item ended. On a full disk it stays open here, and the hub is told all the same.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
        """
        request_id, item, fence = item_key
        branch, code, message = (error.branch, error.code, error.message) if error is not None else ("", "", "")
        try:
            await self._journal.finish(
                request_id, item, fence, signature=signature, branch=branch, code=code, message=message
            )
        except UnavailableError as failure:
            _LOG.error(
                "end not written down", request=short_request(request_id), item=str(item), reason=failure.message
            )

    async def outcome(self, query: OutcomeQuery) -> OutcomeReply:
        """What became of a (request, item, fence).

        Raises:
            LogIntegrityError: `journal.commit_unknown`, as `accept`.
        """
        key = (query.request, query.item, query.fence)
        running = key in self._running
        outcome = None if running else await self._journal.outcome(*key)
        return outcome_reply(key, running=running, outcome=outcome)


async def _all_of(work: Callable[[], Coroutine[Any, Any, None]], times: int) -> None:
    """Run the same work several times at once; the first failure ends the others, and is raised as it is."""
    if times == 1:
        await work()
        return
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(times):
                group.create_task(work())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures


def _named(job: Job) -> dict[str, str]:
    """How the agent's own log names a job; the hub's names it the same way."""
    items = item_ranges(item.item for item in job.items)
    return {"request": short_request(_request_id(job)), "item": items, "profile": job.profile}


def _log_signed(profile: str, ended: list[ItemDone | ItemRefused]) -> None:
    done = [one for one in ended if isinstance(one, ItemDone)]
    if done:
        items = item_ranges(one.item for one in done)
        _LOG.info("signed", request=short_request(done[0].request), item=items, profile=profile)


def _request_id(job: Job) -> str:
    """Name of the request that the job carries, even if nothing else of it holds."""
    try:
        return statement_id(job.membership.request_key, parse_envelope(job.envelope, REQUEST_TYPE).payload)
    except MalformedInputError:
        return ""
