# SPDX-License-Identifier: Apache-2.0
"""The part of /metrics about the queue, and about what this process has at the tokens."""

from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from privyseal.hub.core import Hub
from privyseal.hub.services.queue_views import priority_name
from privyseal.policy.fair_queue import Priority
from privyseal.ports.queue import Queue

__all__ = ["queue_families"]

_OUTCOMES: Final = ("signed", "failed", "denied", "cancelled", "not-used", "unknown")
_TOKEN: Final = ("agent", "token")


def queue_families(hub: Hub, queues: tuple[Queue, ...]) -> Iterator[Metric]:
    """All families of the queue; `queues` is what the database says, of all hub processes."""
    names = tuple(served.name for served in hub.dispatch.profiles)
    yield _stored(queues, names)
    yield _ages(hub, names)
    yield _waiting(hub, names)
    yield _ended(hub, names)
    yield CounterMetricFamily(
        "privyseal_queue_refusals",
        "Requests that were refused because the queue was full, since the start.",
        value=hub.board.refusals,
    )
    yield from _lanes(hub)


def _stored(queues: tuple[Queue, ...], names: tuple[str, ...]) -> Metric:
    jobs = GaugeMetricFamily(
        "privyseal_queue_jobs", "Jobs that wait, or are under way at an agent.", labels=("profile", "state")
    )
    known = {queue.profile: queue for queue in queues}
    for name in sorted({*known, *names}):
        queue = known.get(name, Queue(profile=name, queued=0, under_way=0, oldest_ms=None))
        jobs.add_metric((name, "queued"), queue.queued)
        jobs.add_metric((name, "under-way"), queue.under_way)
    return jobs


def _ages(hub: Hub, names: tuple[str, ...]) -> Metric:
    family = GaugeMetricFamily(
        "privyseal_queue_oldest_age_seconds",
        "For how long the first queued request has waited, by the class that it was asked for; 0 if none is queued.",
        labels=("profile", "priority"),
    )
    now_ms = hub.clock()
    for name in sorted({*names, *hub.board.profiles}):
        oldest_ms = hub.board.oldest_ms(name)
        for priority in reversed(Priority):
            since_ms = oldest_ms.get(priority, now_ms)
            family.add_metric((name, priority_name(priority)), max(0, now_ms - since_ms) / 1000)
    return family


def _waiting(hub: Hub, names: tuple[str, ...]) -> Metric:
    family = GaugeMetricFamily(
        "privyseal_queue_waiting_items",
        "Items that wait, by the class that they count for now.",
        labels=("profile", "priority"),
    )
    for name in sorted({*names, *hub.board.profiles}):
        depth = hub.board.depth(name)
        for priority in reversed(Priority):
            family.add_metric((name, priority_name(priority)), depth.get(priority, 0))
    return family


def _ended(hub: Hub, names: tuple[str, ...]) -> Metric:
    family = CounterMetricFamily(
        "privyseal_jobs",
        "Jobs that ended since the start; those that are not-used or unknown may be tried again.",
        labels=("profile", "outcome"),
    )
    for name in names:
        for outcome in _OUTCOMES:
            family.add_metric((name, outcome), hub.observer.outcomes[name, outcome])
    return family


def _lanes(hub: Hub) -> Iterator[Metric]:
    held = GaugeMetricFamily(
        "privyseal_token_lease_held", "Whether this hub process holds a token's lease, and so uses it.", labels=_TOKEN
    )
    sent = GaugeMetricFamily(
        "privyseal_token_items_under_way", "Items that this process has at a token, or prepared for it.", labels=_TOKEN
    )
    recalls = CounterMetricFamily(
        "privyseal_token_recalls",
        "How often prepared items were asked back, for a higher class or a request that was cancelled.",
        labels=_TOKEN,
    )
    for lane in hub.dispatch.lanes:
        token = (lane.agent_name, lane.token_name)
        held.add_metric(token, lane.lease.held)
        sent.add_metric(token, sum(one.open_items for one in lane.under_way))
        recalls.add_metric(token, lane.recalls.count)
    yield from (held, sent, recalls)
