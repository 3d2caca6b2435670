# SPDX-License-Identifier: Apache-2.0
"""/v1/status: the hub as a person or a program wants to see it at a glance."""

from typing import Final

import msgspec

import privyseal
from privyseal.hub.core import Hub
from privyseal.hub.http.routes import Call, Listener, Permission, Route
from privyseal.hub.links import AgentLink
from privyseal.hub.readiness import served_refusal
from privyseal.hub.services.certificates import own_certificate, warning
from privyseal.hub.services.served import ServedProfile
from privyseal.hub.sign_times import quantile_seconds
from privyseal.ports.queue import Queue
from privyseal.ports.store import Enrolment, ReadTx
from privyseal.wire.api import AgentStatus, CertificateWarning, HubStatus, ProfileStatus, TokenStatus, WitnessStatus
from privyseal.wire.link import TokenHealth

__all__ = ["ROUTES"]


async def _status(call: Call) -> msgspec.Struct:
    hub = call.hub
    profiles = hub.dispatch.profiles  # as they are now: an agent may announce another while the database is read

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
        profiles=tuple(_profile_status(hub, one, waiting.get(one.name, 0)) for one in profiles),
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
        certificates=_warnings(hub, profiles),
    )


def _agent_status(name: str, link: AgentLink | None) -> AgentStatus:
    if link is None:
        return AgentStatus(name=name, linked=False)
    return AgentStatus(name=name, linked=True, witness=link.witness, here=link.here)


def _profile_status(hub: Hub, served: ServedProfile, queued: int) -> ProfileStatus:
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
        summary="Key profiles, tokens, agents, queues, certificates that end soon, and the log's head",
        handler=_status,
        answer=HubStatus,
    ),
)
