# SPDX-License-Identifier: Apache-2.0
"""What happens at a hub, told three ways: a line of its own log, a count for /metrics, an event for who listens."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from privyseal.hub.services.event_stream import EventStream
from privyseal.hub.services.recent import Recent
from privyseal.ports.clock import Clock
from privyseal.ports.queue import Request
from privyseal.ports.store import Enrolment
from privyseal.tlog.entry import AgentEntry
from privyseal.wire.events import AgentLinkEvent, CertificateEvent, JobEvent, RecordedEvent, TokenStateEvent
from privyseal.wire.job_names import item_ranges, short_request
from privyseal.wire.link import TokenHealth

__all__ = ["JobStep", "Observer"]

_LOG: Final = structlog.get_logger("privyseal.hub.jobs")
_TOKENS: Final = structlog.get_logger("privyseal.hub.tokens")
#: What the log says of a step, by the state that it leads to.
_SAID: Final = {
    "queued": "jobs queued",
    "intent": "jobs under way",
    "signed": "jobs signed",
    "failed": "jobs failed",
}
#: Of an entry's fields, those that `RecordedEvent` names by itself, and what concerns the log alone.
_NAMED_FIELDS: Final = frozenset({"v", "t", "ts", "at", "seq", "agent", "token"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStep:
    """What became of jobs.

    Attributes:
        state: As the store has it from now on.
        outcome: How the operation ended, for the count: `signed`, `failed`, `not-used`, `unknown`, or `denied` for jobs
            that were refused in the queue; empty if none ended.
        code: Why, as in docs/errors.
    """

    state: str
    outcome: str = ""
    code: str = ""


class Observer:
    """Is told what happens, after it is durable.

    Attributes:
        stream: Events for who listens.
        recent: What was signed last.
        outcomes: How many jobs ended in which way since the hub was started, by key profile and outcome.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self.stream: Final = EventStream()
        self.recent: Final = Recent()
        self.outcomes: Final[Counter[tuple[str, str]]] = Counter()

    def jobs(self, request: Request, items: Iterable[int], step: JobStep) -> None:
        """Jobs of one request have taken the same step."""
        numbers = tuple(items)
        ranges = item_ranges(numbers)
        if step.outcome:
            self.outcomes[request.profile, step.outcome] += len(numbers)
        if step.state == "intent":
            self.recent.begun(request.id, self._clock())
        elif step.state != "queued":
            outcome, code = step.outcome, step.code
            self.recent.ended(request, len(numbers), outcome=outcome, code=code, at_ms=self._clock())
        _LOG.info(
            _SAID[step.state],
            request=short_request(request.id),
            item=ranges,
            profile=request.profile,
            **{name: value for name, value in (("outcome", step.outcome), ("code", step.code)) if value},
        )
        event = JobEvent(
            at=self._clock(),
            request=request.id,
            profile=request.profile,
            items=ranges,
            state=step.state,
            code=step.code,
        )
        self.stream.publish(event, request.client)

    def agent(self, name: str, *, linked: bool) -> None:
        """An agent dialled in, or its link is gone."""
        self.stream.publish(AgentLinkEvent(at=self._clock(), agent=name, linked=linked))

    def token(self, agent: str, before: TokenHealth | None, now: TokenHealth) -> None:
        """An agent said how a token is; told on only if that is something new."""
        if before is not None and _condition(before) == _condition(now):
            return
        if before is not None or now.state != "ready":
            say = _TOKENS.info if now.state == "ready" else _TOKENS.warning
            say("token", agent=agent, token=now.name, state=now.state, pin_state=now.pin_state, code=now.code)
        event = TokenStateEvent(
            at=self._clock(),
            agent=agent,
            token=now.name,
            state=now.state,
            pin_state=now.pin_state,
            code=now.code,
            problem=now.problem,
            hint=now.hint,
        )
        self.stream.publish(event)

    def recorded(self, agent: Enrolment, index: int, entry: AgentEntry) -> None:
        """What an agent told stands in the log."""
        fields = msgspec.to_builtins(entry)
        event = RecordedEvent(
            at=entry.ts,
            agent=agent.name,
            index=index,
            kind=fields["t"],
            token=entry.token,
            detail={name: value for name, value in fields.items() if name not in _NAMED_FIELDS},
        )
        self.stream.publish(event)

    def certificate(self, event: CertificateEvent) -> None:
        """The certificate of a key profile ends soon, or has ended."""
        self.stream.publish(event)


def _condition(token: TokenHealth) -> tuple[str, str, str]:
    return token.state, token.code, token.pin_state
