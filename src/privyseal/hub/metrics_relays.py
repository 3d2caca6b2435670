# SPDX-License-Identifier: Apache-2.0
"""Metrics of the streams of USB leases that go through this hub process."""

from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from privyseal.hub.services.relays import Relays, Side

__all__ = ["relay_families"]

_OUTCOMES: Final = ("paired", "unpaired", "refused")


def relay_families(relays: Relays) -> Iterator[Metric]:
    """Of all members together."""
    now = GaugeMetricFamily("privyseal_relays", "Streams of USB leases at this process.", labels=("state",))
    now.add_metric(("paired",), len(relays.relays))
    now.add_metric(("waiting",), relays.waiting)
    yield now
    carried = CounterMetricFamily(
        "privyseal_relay_bytes", "Bytes that were carried, to agents or from them.", labels=("direction",)
    )
    carried.add_metric(("to-agent",), relays.bytes_from[Side.CLIENT])
    carried.add_metric(("from-agent",), relays.bytes_from[Side.AGENT])
    yield carried
    ends = CounterMetricFamily(
        "privyseal_relay_ends", "Streams that began, and ends that found no other or no place.", labels=("outcome",)
    )
    for outcome in _OUTCOMES:
        ends.add_metric((outcome,), relays.outcomes[outcome])
    yield ends
