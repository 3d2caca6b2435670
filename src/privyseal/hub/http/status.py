# SPDX-License-Identifier: Apache-2.0
"""/v1/status: the hub as a person or a program wants to see it at a glance."""

from dataclasses import dataclass
from typing import Final

import msgspec

import privyseal
from privyseal.hub.core import Hub
from privyseal.hub.entries import key_sha256
from privyseal.hub.http.routes import Call, Listener, Permission, Route
from privyseal.hub.links import AgentLink
from privyseal.hub.readiness import served_refusal
from privyseal.hub.services.certificates import own_certificate, warning
from privyseal.hub.services.lane import Lane
from privyseal.hub.services.queue_views import priority_name
from privyseal.hub.services.served import ServedProfile
from privyseal.hub.sign_times import quantile_seconds
from privyseal.ports.queue import Lease, Queue, RequestUse
from privyseal.ports.store import Enrolment, ProfileRow, ReadTx
from privyseal.wire.api import AgentStatus, CertificateWarning, HubStatus, ProfileStatus, TokenStatus, WitnessStatus
from privyseal.wire.link import TokenHealth
from privyseal.wire.members import MemberStatus
from privyseal.wire.queue import QueueDepth, TokenUse

__all__ = ["ROUTES"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What only the database knows: of all hub processes, at one moment.

    Attributes:
        queues: By key profile.
        leases: By token, as `AGENT/TOKEN`.
    """

    enrolments: tuple[Enrolment, ...]
    queues: dict[str, Queue]
    uses: tuple[RequestUse, ...]
    leases: dict[str, Lease]
    now_ms: int


async def _status(call: Call) -> msgspec.Struct:
    hub = call.hub
    # As they are now: an agent may announce another while the database is read.
    profiles = tuple(one for one in hub.dispatch.profiles if not one.profile.is_device)

    async def read(tx: ReadTx) -> _Stored:
        return _Stored(
            enrolments=await tx.enrolments(),
            queues={queue.profile: queue for queue in await tx.queues()},
            uses=await tx.requests_under_way(),
            leases={lease.token: lease for lease in await tx.leases()},
            now_ms=await tx.database_ms(),
        )

    stored = await hub.store.read(read)
    links = hub.dispatch.links
    return HubStatus(
        hub=hub.bundle.hub,
        version=privyseal.__version__,
        client=call.caller.name,
        log_size=hub.store.head.size,
        log_root=hub.store.head.root.hex(),
        profiles=tuple(_profile_status(hub, one, stored.queues.get(one.name)) for one in profiles),
        agents=tuple(
            _agent_status(one.name, links.get(one.name))
            for one in stored.enrolments
            if one.role == "agent" and one.revoked_ms is None
        ),
        tsas=hub.timestamps.status(),
        witnesses=tuple(
            WitnessStatus(name=one.witness.name, size=one.size, problem=one.problem) for one in hub.witnesses.status()
        ),
        tokens=_tokens(hub, stored),
        certificates=_warnings(hub, profiles),
        signatures=hub.observer.recent.signatures,
        devices=await hub.devices.listing(),
    )


def _agent_status(name: str, link: AgentLink | None) -> AgentStatus:
    if link is None:
        return AgentStatus(name=name, linked=False)
    return AgentStatus(name=name, linked=True, witness=link.witness, here=link.here)


def _profile_status(hub: Hub, served: ServedProfile, queue: Queue | None) -> ProfileStatus:
    certificate, refusal = own_certificate(served.profile), served_refusal(hub, served)
    return ProfileStatus(
        name=served.profile.name,
        level=served.profile.level,
        hardware=served.profile.hardware,
        witness=served.profile.witness,
        test=served.profile.test,
        token_label=served.profile.token_label,
        agent=served.agent_name,
        online=served.online,
        code="" if refusal is None else refusal.code,
        problem="" if refusal is None else str(refusal),
        hint="" if refusal is None else refusal.hint,
        queued=0 if queue is None else queue.queued + queue.under_way,
        queue=_depth(hub, served, queue),
        subject="" if certificate is None else certificate.subject,
        not_after="" if certificate is None else certificate.not_after.isoformat(),
        members=tuple(_member(served, row, lane) for row, lane in served.members),
    )


def _member(served: ServedProfile, row: ProfileRow, lane: Lane) -> MemberStatus:
    certificate = own_certificate(row)
    problem = lane.problem(row.name) if lane.linked else None
    return MemberStatus(
        token=row.place,
        key=key_sha256(row.chain) if row.chain else "",
        token_label=row.token_label,
        hardware=row.hardware,
        is_asked=lane.serves(row, served.line),
        online=lane.linked and row.name in lane.members and problem is None,
        subject="" if certificate is None else certificate.subject,
        not_after="" if certificate is None else certificate.not_after.isoformat(),
        code="" if problem is None else problem.code,
        problem="" if problem is None else problem.message,
        hint="" if problem is None else problem.hint,
    )


def _depth(hub: Hub, served: ServedProfile, queue: Queue | None) -> QueueDepth:
    waiting = hub.board.depth(served.name)
    under_way = 0 if queue is None else queue.under_way
    items = sum(waiting.values())
    return QueueDepth(
        waiting={priority_name(priority): items for priority, items in waiting.items()},
        under_way=under_way,
        oldest_ms=None if queue is None else queue.oldest_ms,
        eta_seconds=served.seconds_if_known(served.items_under_way + items) if items or under_way else None,
    )


def _tokens(hub: Hub, stored: _Stored) -> tuple[TokenStatus, ...]:
    return tuple(
        _token_status(hub, agent, token, stored)
        for agent, tokens in sorted(hub.token_board.tokens.items())
        for token in tokens
    )


def _token_status(hub: Hub, agent: str, token: TokenHealth, stored: _Stored) -> TokenStatus:
    place = f"{agent}/{token.name}"
    return TokenStatus(
        agent=agent,
        linked=agent in hub.dispatch.links,
        lease=_lease(hub, place, stored),
        users=tuple(_use(hub, use, stored) for use in stored.uses if use.token == place),
        token=token.name,
        label=token.label,
        serial=token.serial,
        model=token.model,
        hardware=token.hardware,
        state=token.state,
        pin_state=token.pin_state,
        signatures=token.signatures,
        failures=token.failures,
        restarts=max(0, token.restarts - 1),
        recoveries=token.recoveries,
        p50_seconds=quantile_seconds(token.sign_counts, 0.5),
        p99_seconds=quantile_seconds(token.sign_counts, 0.99),
        code=token.code,
        problem=token.problem,
        hint=token.hint,
        relocation=token.relocation,
    )


def _lease(hub: Hub, place: str, stored: _Stored) -> str:
    """Which process uses a token."""
    lane = next((lane for lane in hub.dispatch.lanes if lane.place == place), None)
    if lane is not None and lane.lease.held:
        return "here"
    lease = stored.leases.get(place)
    if not hub.config.database or lease is None or lease.expires_ms <= stored.now_ms:
        return "free"
    return "here" if lane is not None and lane.lease.is_mine(lease) else "elsewhere"


def _use(hub: Hub, use: RequestUse, stored: _Stored) -> TokenUse:
    request = use.request
    sent = sum(one.items for one in stored.uses if one.request.id == request.id)
    return TokenUse(
        client=request.client,
        profile=request.profile,
        priority=priority_name(request.priority),
        request=request.id,
        under_way=use.items,
        left=sent + hub.board.items_of(request.id),
        since_ms=hub.observer.recent.since_ms(request.id),
    )


def _warnings(hub: Hub, profiles: tuple[ServedProfile, ...]) -> tuple[CertificateWarning, ...]:
    """The most urgent first."""
    found = [one for served in profiles for row in served.rows if (one := warning(row, hub.clock())) is not None]
    return tuple(sorted(found, key=lambda one: one.days))


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/status",
        listener=Listener.MTLS,
        permission=Permission.MEMBER,
        audit="none",
        summary="Key profiles, devices, tokens, agents, queues, certificates that end soon, and the log's head",
        handler=_status,
        answer=HubStatus,
    ),
)
