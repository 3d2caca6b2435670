# SPDX-License-Identifier: Apache-2.0
"""/metrics: the hub's state as Prometheus reads it, taken when it is asked for. No registry, nothing kept for it.

Names and units follow Prometheus' rules (seconds, `_total`, moments as `_timestamp_seconds`). No label names a client.
"""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

import privyseal
from privyseal.hub.core import Hub
from privyseal.hub.metrics_queue import queue_families
from privyseal.hub.metrics_relays import relay_families
from privyseal.hub.metrics_tokens import token_families
from privyseal.hub.readiness import profile_refusal
from privyseal.hub.services.certificates import own_certificate
from privyseal.ports.queue import Queue
from privyseal.ports.store import Enrolment, ReadTx

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_TSA_STATES: Final = ("ready", "resting", "open")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What only the database knows; empty while it cannot be read."""

    enrolments: tuple[Enrolment, ...] = ()
    queues: tuple[Queue, ...] = ()


async def exposition(hub: Hub) -> bytes:
    """The metrics in Prometheus' text format 0.0.4, UTF-8.

    Raises:
        UnavailableError, LogIntegrityError: as `Store.read`.
    """

    async def read(tx: ReadTx) -> _Stored:
        return _Stored(enrolments=await tx.enrolments(), queues=await tx.queues())

    families = tuple(_families(hub, await hub.store.read(read)))
    return await asyncio.to_thread(generate_latest, _Taken(families))


class _Taken(Collector):
    """Families that were put together already, and those of the process."""

    def __init__(self, families: tuple[Metric, ...]) -> None:
        self._families: Final = families

    def collect(self) -> Iterable[Metric]:
        return (*self._families, *ProcessCollector(registry=None).collect())


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return GaugeMetricFamily(f"privyseal_{name}", text, value=value)


def _families(hub: Hub, stored: _Stored) -> Iterator[Metric]:
    yield from _hub_families(hub)
    yield from queue_families(hub, stored.queues)
    yield from _profile_families(hub)
    yield from _outside_families(hub)
    yield _agents(hub, stored.enrolments)
    yield from relay_families(hub.relays)
    yield from token_families(hub.token_board.tokens, frozenset(hub.dispatch.links))


def _hub_families(hub: Hub) -> Iterator[Metric]:
    build = GaugeMetricFamily("privyseal_build_info", "The hub's version; always 1.", labels=("version",))
    build.add_metric((privyseal.__version__,), 1)
    yield build
    yield gauge("ready", "Whether the hub can sign: its log is confirmed and can be written.", hub.refusal is None)
    yield gauge(
        "log_confirmed", "Whether somebody has confirmed since the start that this log is the newest.", hub.store.agreed
    )
    yield gauge("signing_stopped", "Whether this process gave up to sign: its log says why.", hub.broken is not None)
    yield gauge("log_entries", "Entries of the log.", hub.store.head.size)
    if hub.store.committed_ms is not None:
        yield gauge(
            "last_commit_timestamp_seconds",
            "When this process last committed to its database.",
            hub.store.committed_ms / 1000,
        )
    stream = hub.observer.stream
    watchers = hub.queue_views.watchers
    yield gauge("event_subscribers", "Open streams of events.", stream.subscribers + watchers)
    yield CounterMetricFamily(
        "privyseal_event_subscribers_dropped", "Streams of events that were ended as too slow.", value=stream.dropped
    )


def _profile_families(hub: Hub) -> Iterator[Metric]:
    ready = GaugeMetricFamily("privyseal_profile_ready", "Whether a key profile can sign now.", labels=("profile",))
    ends = GaugeMetricFamily(
        "privyseal_certificate_expiry_timestamp_seconds",
        "When the certificate of a key profile ends (notAfter).",
        labels=("profile", "token"),
    )
    members = GaugeMetricFamily(
        "privyseal_profile_token_ready",
        "Whether a token can sign now for a key profile that it serves.",
        labels=("profile", "token"),
    )
    for served in hub.dispatch.profiles:
        name = served.profile.name
        if served.profile.is_device:
            continue
        ready.add_metric((name,), profile_refusal(hub, name) is None)
        for row, lane in served.members:
            is_ready = lane.linked and name in lane.members and lane.problem(name) is None
            members.add_metric((name, row.place), is_ready)
            if (certificate := own_certificate(row)) is not None:
                ends.add_metric((name, row.place), certificate.not_after.timestamp())
    yield from (ready, members, ends)


def _agents(hub: Hub, enrolments: tuple[Enrolment, ...]) -> Metric:
    linked = GaugeMetricFamily("privyseal_agent_linked", "Whether an agent has a link to this hub.", labels=("agent",))
    for one in enrolments:
        if one.role == "agent" and one.revoked_ms is None:
            linked.add_metric((one.name,), one.name in hub.dispatch.links)
    return linked


def _outside_families(hub: Hub) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "privyseal_tsa_state", "1 for the state that a TSA is in, 0 for the others.", labels=("tsa", "state")
    )
    for tsa in hub.timestamps.status():
        for state in _TSA_STATES:
            states.add_metric((tsa.url, state), tsa.state == state)
    cosigned = GaugeMetricFamily(
        "privyseal_witness_cosigned_entries",
        "Size of the newest checkpoint that a witness cosigned since the start; 0 if none.",
        labels=("witness",),
    )
    failing = GaugeMetricFamily(
        "privyseal_witness_failing", "Whether a witness did not cosign what it was asked last.", labels=("witness",)
    )
    for witness in hub.witnesses.status():
        cosigned.add_metric((witness.witness.name,), witness.size)
        failing.add_metric((witness.witness.name,), bool(witness.problem))
    yield from (states, cosigned, failing)
