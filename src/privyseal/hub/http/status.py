# SPDX-License-Identifier: Apache-2.0
"""/v1/status: the hub as a person or a program wants to see it at a glance."""

from typing import Final

import msgspec

import privyseal
from privyseal.hub.core import Hub
from privyseal.hub.http.routes import Call, Listener, Permission, Route
from privyseal.hub.links import AgentLink
from privyseal.hub.readiness import lane_refusal
from privyseal.hub.services.certificates import own_certificate, warning
from privyseal.hub.services.lane import Lane
from privyseal.hub.sign_times import quantile_seconds
from privyseal.ports.queue import Queue
from privyseal.ports.store import Enrolment, ReadTx
from privyseal.wire.api import AgentStatus, CertificateWarning, HubStatus, ProfileStatus, TokenStatus, WitnessStatus
from privyseal.wire.link import TokenHealth

__all__ = ["ROUTES"]


async def _status(call: Call) -> msgspec.Struct:
    hub = call.hub
    lanes = hub.dispatch.lanes  # as they are now: an agent may announce another while the database is read

    async def read(tx: ReadTx) -> tuple[tuple[Enrolment, ...], tuple[Queue, ...]]:
        return await tx.enrolments(), await tx.queues()

    enrolments, queues = await hub.store.read(read)
    waiting = {queue.profile: queue.queued + queue.under_way for queue in queues}
    links = hub.dispatch.links
    return HubStatus(
        hub=hub.bundle.hub,
        version=privyseal.__version__,
        client=call.caller.name,
        log_size=hub.store.head.size,
        log_root=hub.store.head.root.hex(),
        profiles=tuple(_profile_status(hub, lane, waiting.get(lane.profile.name, 0)) for lane in lanes),
        agents=tuple(
            _agent_status(one.name, links.get(one.name))
            for one in enrolments
            if one.role == "agent" and one.revoked_ms is None
        ),
        tsas=hub.timestamps.status(),
        witnesses=tuple(
            WitnessStatus(name=one.witness.name, size=one.size, problem=one.problem) for one in hub.witnesses.status()
        ),
        tokens=_tokens(hub),
        certificates=_warnings(hub, lanes),
    )


def _agent_status(name: str, link: AgentLink | None) -> AgentStatus:
    if link is None:
        return AgentStatus(name=name, linked=False)
    return AgentStatus(name=name, linked=True, witness=link.witness, here=link.here)


def _profile_status(hub: Hub, lane: Lane, queued: int) -> ProfileStatus:
    certificate, refusal = own_certificate(lane.profile), lane_refusal(hub, lane)
    return ProfileStatus(
        name=lane.profile.name,
        level=lane.profile.level,
        hardware=lane.profile.hardware,
        witness=lane.profile.witness,
        test=lane.profile.test,
        token_label=lane.profile.token_label,
        agent=lane.agent_name,
        online=lane.online,
        code="" if refusal is None else refusal.code,
        problem="" if refusal is None else str(refusal),
        hint="" if refusal is None else refusal.hint,
        queued=queued,
        subject="" if certificate is None else certificate.subject,
        not_after="" if certificate is None else certificate.not_after.isoformat(),
    )


def _tokens(hub: Hub) -> tuple[TokenStatus, ...]:
    links = hub.dispatch.links
    return tuple(
        _token_status(agent, token, linked=agent in links)
        for agent, tokens in sorted(hub.token_board.tokens.items())
        for token in tokens
    )


def _token_status(agent: str, token: TokenHealth, *, linked: bool) -> TokenStatus:
    return TokenStatus(
        agent=agent,
        linked=linked,
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
    )


def _warnings(hub: Hub, lanes: tuple[Lane, ...]) -> tuple[CertificateWarning, ...]:
    """The most urgent first."""
    found = [one for lane in lanes if (one := warning(lane.profile, hub.clock())) is not None]
    return tuple(sorted(found, key=lambda one: one.days))


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/status",
        listener=Listener.MTLS,
        permission=Permission.MEMBER,
        audit="none",
        summary="Key profiles, tokens, agents, queues, certificates that end soon, and the log's head",
        handler=_status,
        answer=HubStatus,
    ),
)
