# SPDX-License-Identifier: Apache-2.0
"""The signing protocol as an explicit-state model: breadth-first search over every state of a small scope (ADR 0020).

What hub, agent and journal decide is decided by their own functions (`hub.jobs`, `agent.operations`,
`storage.journal_rules`); the model adds what moves between them: a link that can be lost at any time with all that is
on its way, processes that can be killed between any two steps, a token that fails or hangs, a journal whose last
`finish` can be lost with the power. With `orderly=False` the network drops, repeats and reorders single messages too,
which TLS over TCP does not do.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from privyseal.agent import operations
from privyseal.errors import PrivysealError, TokenError
from privyseal.hub import jobs
from privyseal.ports.queue import Job, JobState, Lease
from privyseal.storage import journal_rules
from privyseal.wire.jobs import ItemDone, ItemRefused, OutcomeReply

__all__ = ["Rules", "Scope", "State", "explore"]

_PROFILE = "release"
_TOKEN = "agent/token"
_NAMES = ("r0", "r1")
_UNKNOWN = TokenError("token.timeout", "no answer in time", begun=True)
_FAILED = TokenError("token.not_found", "pulled out")
#: Request id, fence.
Attempt = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides; a mutant replaces one."""

    settle: Callable[..., jobs.Settled | None] = jobs.settle
    answer_told: Callable[[OutcomeReply], ItemDone | ItemRefused | None] = jobs.answer_told
    lease_taken: Callable[..., Lease | None] = jobs.lease_taken
    check_begin: Callable[[journal_rules.Key, journal_rules.Begun], None] = journal_rules.check_begin
    check_fence: Callable[[str, int, int], bool] = journal_rules.check_fence
    check_at_rest: Callable[..., None] = operations.check_at_rest
    refusal: Callable[..., ItemRefused] = operations.refusal
    intent_first: bool = True
    log_before_release: bool = True
    journal: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How much is tried out."""

    requests: int = 2
    fences: int = 2
    crashes: int = 2
    messages: int = 2
    orderly: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything at one moment.

    Attributes:
        log: What is on record, without its order: (what, request, fence).
        begun: The journal: request, fence, and the signature's number (0: an error, -1: no end).
        unsynced: Those of `begun` whose end the power can still take.
        running: What the agent is at: begun, or (with the signature's number) signed.
        uses: What the token was used for, in order of request and fence.
        released: Request, and the number of the use whose signature its client was given.
    """

    jobs: tuple[Job, ...]
    lease: Lease | None = None
    holder: int = 1
    linked: bool = False
    resolving: bool = False
    asked: frozenset[Attempt] = frozenset()
    log: frozenset[tuple[str, str, int]] = frozenset()
    to_agent: tuple[Any, ...] = ()
    to_hub: tuple[Any, ...] = ()
    begun: frozenset[tuple[str, int, int]] = frozenset()
    unsynced: frozenset[tuple[str, int, int]] = frozenset()
    highest: int = 0
    running: frozenset[tuple[str, int, int]] = frozenset()
    uses: tuple[Attempt, ...] = ()
    unlogged: frozenset[str] = frozenset()
    released: frozenset[tuple[str, bytes]] = frozenset()
    crashes: int = 0
    broken: frozenset[str] = frozenset()

    @property
    def quiet(self) -> bool:
        """All requests have ended, and nobody is at anything."""
        return all(jobs.has_ended(job) for job in self.jobs) and not self.running and not self.unlogged


@dataclass(kw_only=True)
class Found:
    """What a search came to."""

    states: int = 0
    quiet: int = 0
    violated: set[str] = field(default_factory=set)


def explore(rules: Rules, scope: Scope) -> Found:
    """Visit every state that can be reached."""
    names = _NAMES[: scope.requests]
    first = State(jobs=tuple(Job(request_id=name, item=0, profile=_PROFILE, signed=b"", detail=b"") for name in names))
    model, found = _Model(rules, scope), Found()
    seen, waiting = {first}, deque([first])
    while waiting:
        state = waiting.popleft()
        found.states += 1
        found.quiet += state.quiet
        violated = set(_violations(state))
        found.violated |= state.broken | violated
        if "I3" in violated:  # nothing bounds the uses of the token any more
            continue
        for following in map(model.plain, model.steps(state)):
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return found


def _violations(state: State) -> Iterator[str]:
    """I1 to I5 and promise 4 of one state; I2 is judged when the token is used."""
    by_kind = Counter((kind, request) for kind, request, _ in state.log)
    uses = Counter(request for request, _ in state.uses)
    if any(count > 1 for count in Counter(state.uses).values()):
        yield "I3"
    if any(count > 1 for count in Counter(request for request, _ in state.released).values()):
        yield "P4"
    for job in state.jobs:
        request = job.request_id
        results, unknown = by_kind["ok", request], by_kind["unknown", request]
        intents = by_kind["intent", request]
        if any(name == request for name, _ in state.released) and not results:
            yield "I1"
        if not results <= uses[request] <= max(intents, len({fence for name, fence in state.uses if name == request})):
            yield "I4"
        if uses[request] > intents:
            yield "I4"
        if state.quiet and not results <= uses[request] <= results + unknown:
            yield "I5"
        if unknown > 2 or uses[request] > 2:
            yield "P4"


class _Model:
    def __init__(self, rules: Rules, scope: Scope) -> None:
        self._rules = rules
        self._scope = scope

    def plain(self, state: State) -> State:
        """The state without what can make no difference any more, its requests in the one order that counts."""
        if state.unsynced and state.crashes == self._scope.crashes:
            state = replace(state, unsynced=frozenset())
        if len(state.jobs) == 2 and _view(state, "r1") < _view(state, "r0"):
            return _swapped(state)
        return state

    def steps(self, state: State) -> Iterator[State]:
        """Every state that may follow."""
        room = len(state.to_agent) + len(state.to_hub) < self._scope.messages
        yield from self._hub_steps(state, room=room)
        yield from self._agent_steps(state, room=room)
        yield from self._network_steps(state)
        if state.crashes < self._scope.crashes:
            yield from self._crashes(state)

    # -- hub ------------------------------------------------------------------------------------------------------

    def _hub_steps(self, state: State, *, room: bool) -> Iterator[State]:
        for place, job in enumerate(state.jobs):
            if job.request_id in state.unlogged:
                yield _record(
                    replace(state, unlogged=state.unlogged - {job.request_id}), "ok", job.request_id, job.fence
                )
            if not state.linked or not room or state.lease is None:
                continue
            attempt = (job.request_id, job.fence)
            if state.resolving and job.state is JobState.INTENT and attempt not in state.asked:
                query = ("outcome?", *attempt)
                yield replace(state, to_agent=(*state.to_agent, query), asked=state.asked | {attempt})
            if not state.resolving and job.state is JobState.QUEUED and state.lease.fence <= self._scope.fences:
                yield self._claim(state, place, job, state.lease.fence)
        if state.resolving and all(job.state is not JobState.INTENT for job in state.jobs):
            yield replace(state, resolving=False, asked=frozenset())

    def _claim(self, state: State, place: int, job: Job, fence: int) -> State:
        taken = jobs.claimed(job, token=_TOKEN, fence=fence, intent_index=0)
        state = replace(
            state,
            jobs=(*state.jobs[:place], taken, *state.jobs[place + 1 :]),
            to_agent=(*state.to_agent, ("job", job.request_id, fence)),
        )
        return _record(state, "intent", job.request_id, fence) if self._rules.intent_first else state

    def _settle(self, state: State, answer: ItemDone | ItemRefused) -> State:
        place = next(n for n, job in enumerate(state.jobs) if job.request_id == answer.request)
        job = state.jobs[place]
        settled = self._rules.settle(job, asked=replace(job, fence=answer.fence), answer=answer)
        if settled is None or state.lease is None:
            return state
        became = settled.recorded(0)
        following = replace(
            state,
            jobs=(*state.jobs[:place], became, *state.jobs[place + 1 :]),
            lease=jobs.lease_raised(state.lease, highest=0) if settled.raises_fence else state.lease,
        )
        if became.state is JobState.SIGNED and jobs.has_ended(became):  # its client may be given it from now on
            following = replace(following, released=following.released | {(job.request_id, became.signature)})
        if settled.record is jobs.Record.OK and not self._rules.log_before_release:
            return replace(following, unlogged=following.unlogged | {job.request_id})
        if not self._rules.intent_first:
            following = _record(following, "intent", job.request_id, job.fence)
        return _record(following, settled.record.value, job.request_id, job.fence)

    # -- agent ----------------------------------------------------------------------------------------------------

    def _agent_steps(self, state: State, *, room: bool) -> Iterator[State]:
        for request, fence, number in state.running:
            rest = replace(state, running=state.running - {(request, fence, number)})
            if not room and state.linked:
                continue
            if number >= 0:  # after C_Sign
                done = ItemDone(request=request, item=0, fence=fence, signature=_signature(fence, number))
                yield self._answer(self._finish(rest, request, fence, number + 1), done)
                continue
            used = self._use(rest, request, fence)
            yield replace(used, running=used.running | {(request, fence, state.uses.count((request, fence)))})
            unknown = self._rules.refusal((request, 0, fence), _UNKNOWN)
            yield self._answer(rest, unknown)
            yield self._answer(used, unknown)
            failed = self._rules.refusal((request, 0, fence), _FAILED)
            yield self._answer(self._finish(rest, request, fence, 0), failed)

    def _use(self, state: State, request: str, fence: int) -> State:
        broken = state.broken if ("intent", request, fence) in state.log else state.broken | {"I2"}
        return replace(state, uses=tuple(sorted((*state.uses, (request, fence)))), broken=broken)

    def _finish(self, state: State, request: str, fence: int, end: int) -> State:
        if not self._rules.journal:
            return state
        ended = (request, fence, end)
        return replace(state, begun=state.begun - {(request, fence, -1)} | {ended}, unsynced=state.unsynced | {ended})

    def _answer(self, state: State, answer: Any) -> State:
        """Sent if there is a link, dropped if not: the hub asks."""
        return replace(state, to_hub=(*state.to_hub, answer)) if state.linked else state

    def _take_job(self, state: State, request: str, fence: int) -> State:
        running = {(name, 0): at for name, at, _ in state.running}
        here = [(at, end) for name, at, end in state.begun if name == request]
        same = any(at == fence for at, _ in here)
        signed = next((at for at, end in here if end > 0), None)
        try:
            self._rules.check_at_rest(running, request, (0,), fence)
            self._rules.check_fence(_PROFILE, fence, state.highest)
            self._rules.check_begin((request, 0, fence), journal_rules.Begun(same=same, signed_fence=signed))
        except PrivysealError as error:
            return self._answer(state, self._rules.refusal((request, 0, fence), error))
        if self._rules.journal:
            state = replace(
                state,
                begun=state.begun | {(request, fence, -1)},
                highest=max(fence, state.highest),
                unsynced=frozenset(),
            )
        return replace(state, running=state.running | {(request, fence, -1)})

    def _outcome(self, state: State, request: str, fence: int) -> State:
        ends = [end for name, at, end in state.begun if (name, at) == (request, fence)]
        outcome = None
        if ends:
            failed = (b"", "token", "token.not_found", "pulled out")
            end = None if ends[0] < 0 else failed if ends[0] == 0 else (_signature(fence, ends[0] - 1), "", "", "")
            outcome = journal_rules.outcome_of(end)
        at_it = any((name, at) == (request, fence) for name, at, _ in state.running)
        return self._answer(state, operations.outcome_reply((request, 0, fence), running=at_it, outcome=outcome))

    # -- network and crashes --------------------------------------------------------------------------------------

    def _network_steps(self, state: State) -> Iterator[State]:
        if not state.linked:
            wanted = Lease(token=_TOKEN, holder=f"hub {state.holder}", fence=0, expires_ms=0)
            lease = self._rules.lease_taken(state.lease, wanted, now_ms=0, highest=0, alone=True)
            yield replace(state, linked=True, resolving=True, lease=lease)
            return
        yield _unlinked(state)
        orderly = self._scope.orderly
        for place in range(len(state.to_agent[:1] if orderly else state.to_agent)):
            kind, request, fence = state.to_agent[place]
            taken = replace(state, to_agent=_without(state.to_agent, place))
            take = self._take_job if kind == "job" else self._outcome
            yield take(taken, request, fence)
            if not orderly:
                yield taken
                if len(state.to_agent) + len(state.to_hub) < self._scope.messages:
                    yield take(state, request, fence)
        for place in range(len(state.to_hub[:1] if orderly else state.to_hub)):
            message = state.to_hub[place]
            taken = replace(state, to_hub=_without(state.to_hub, place))
            answer = self._rules.answer_told(message) if isinstance(message, OutcomeReply) else message
            yield taken if answer is None else self._settle(taken, answer)
            if not orderly and answer is not None:
                yield taken
                yield self._settle(state, answer)

    def _crashes(self, state: State) -> Iterator[State]:
        crashed = replace(_unlinked(state), crashes=state.crashes + 1)
        yield replace(crashed, holder=state.holder + 1, unlogged=frozenset())  # the hub
        agent = replace(crashed, running=frozenset())
        yield agent
        if state.unsynced:  # its power, and with it the ends that no fsync had followed
            lost = {(request, fence, -1) for request, fence, _ in state.unsynced}
            yield replace(agent, begun=state.begun - state.unsynced | lost, unsynced=frozenset())


def _signature(fence: int, number: int) -> bytes:
    """Each use gives another one."""
    return b"%d %d" % (fence, number)


def _unlinked(state: State) -> State:
    return replace(state, linked=False, resolving=False, asked=frozenset(), to_agent=(), to_hub=())


def _without(messages: tuple[Any, ...], place: int) -> tuple[Any, ...]:
    return messages[:place] + messages[place + 1 :]


def _record(state: State, kind: str, request: str, fence: int) -> State:
    return replace(state, log=state.log | {(kind, request, fence)})


def _view(state: State, request: str) -> tuple[Any, ...]:
    """Something of a request by which the two of them can be told apart."""
    job = next(job for job in state.jobs if job.request_id == request)
    return (
        job.state.value,
        job.fence,
        job.attempts,
        job.code,
        sorted((kind, fence) for kind, name, fence in state.log if name == request),
        sorted((fence, end) for name, fence, end in state.begun if name == request),
        sorted((fence, at) for name, fence, at in state.running if name == request),
        [fence for name, fence in state.uses if name == request],
        [(place, message[0], message[2]) for place, message in enumerate(state.to_agent) if message[1] == request],
        [(place, str(message)[:20]) for place, message in enumerate(state.to_hub) if message.request == request],
    )


def _swapped(state: State) -> State:
    """The same state with the two requests' names exchanged."""
    other = {"r0": "r1", "r1": "r0"}
    swap: dict[str, Any] = {
        name: frozenset((other[one[0]], *one[1:]) for one in getattr(state, name)) for name in _BY_REQUEST
    }
    return replace(
        state,
        **swap,
        jobs=tuple(replace(job, request_id=other[job.request_id]) for job in reversed(state.jobs)),
        log=frozenset((kind, other[name], fence) for kind, name, fence in state.log),
        to_agent=tuple((kind, other[name], fence) for kind, name, fence in state.to_agent),
        to_hub=tuple(msgspec.structs.replace(message, request=other[message.request]) for message in state.to_hub),
        uses=tuple(sorted((other[name], fence) for name, fence in state.uses)),
        unlogged=frozenset(other[name] for name in state.unlogged),
    )


_BY_REQUEST = ("asked", "begun", "unsynced", "running", "released")
