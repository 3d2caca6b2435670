# SPDX-License-Identifier: Apache-2.0
"""Metrics of tokens, out of what their agents last said of them."""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from privyseal.hub.sign_times import cumulated
from privyseal.wire.link import SIGN_BOUNDS_SECONDS, TokenHealth

__all__ = ["token_families"]

_STATES: Final = ("ready", "absent", "blocked", "quarantined", "frozen", "drained", "lent", "failed")
_PIN_STATES: Final = ("ok", "count-low", "final-try", "locked")
_STEPS: Final = ("session", "module", "worker", "usb-reset", "port-power", "pcscd", "reboot")
#: For what an agent says that stands in none of these lists: an agent chooses no labels.
_OTHER: Final = "other"
_TOKEN: Final = ("agent", "token")


def token_families(tokens: Mapping[str, tuple[TokenHealth, ...]], linked: frozenset[str]) -> Iterator[Metric]:
    """All families of tokens.

    Args:
        tokens: By name of the agent.
        linked: Agents with a link; what another one said is old, and its tokens are not ready.
    """
    found = [(agent, token) for agent, all_of_it in sorted(tokens.items()) for token in all_of_it]
    yield from _states(found, linked)
    yield from _counts(found)
    yield _times(found)


def _states(found: list[tuple[str, TokenHealth]], linked: frozenset[str]) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "privyseal_token_info",
        "What a token says of itself; always 1.",
        labels=(*_TOKEN, "label", "serial", "model", "hardware"),
    )
    ready = GaugeMetricFamily("privyseal_token_ready", "Whether a token can be used now.", labels=_TOKEN)
    states = GaugeMetricFamily(
        "privyseal_token_state", "1 for the state that a token is in, 0 for the others.", labels=(*_TOKEN, "state")
    )
    pins = GaugeMetricFamily(
        "privyseal_token_pin_state",
        "1 for what a token says of its PIN, 0 for all else; all 0 if it said nothing yet.",
        labels=(*_TOKEN, "state"),
    )
    for agent, token in found:
        name = (agent, token.name)
        hardware = "true" if token.hardware else "false"
        info.add_metric((*name, token.label, token.serial, token.model, hardware), 1)
        ready.add_metric(name, agent in linked and token.state == "ready")
        for state in _STATES:
            states.add_metric((*name, state), token.state == state)
        for state in _PIN_STATES:
            pins.add_metric((*name, state), token.pin_state == state)
    yield from (info, ready, states, pins)


def _counts(found: list[tuple[str, TokenHealth]]) -> Iterator[Metric]:
    signed = CounterMetricFamily("privyseal_token_signatures", "Signatures since its agent was started.", labels=_TOKEN)
    failed = CounterMetricFamily(
        "privyseal_token_failures", "Signatures that a token did not give, since its agent was started.", labels=_TOKEN
    )
    starts = CounterMetricFamily(
        "privyseal_token_worker_starts", "Starts of a token's worker process, the first included.", labels=_TOKEN
    )
    recoveries = CounterMetricFamily(
        "privyseal_token_recoveries", "Steps of the recovery ladder that were taken.", labels=(*_TOKEN, "step")
    )
    for agent, token in found:
        name = (agent, token.name)
        signed.add_metric(name, max(0, token.signatures))
        failed.add_metric(name, max(0, token.failures))
        starts.add_metric(name, max(0, token.restarts))
        for step in _STEPS:
            recoveries.add_metric((*name, step), max(0, token.recoveries.get(step, 0)))
        others = sum(max(0, times) for step, times in token.recoveries.items() if step not in _STEPS)
        recoveries.add_metric((*name, _OTHER), others)
    yield from (signed, failed, starts, recoveries)


def _times(found: list[tuple[str, TokenHealth]]) -> Metric:
    times = HistogramMetricFamily(
        "privyseal_token_sign_duration_seconds", "How long a token took for a signature.", labels=_TOKEN
    )
    bounds = (*(str(bound) for bound in SIGN_BOUNDS_SECONDS), "+Inf")
    for agent, token in found:
        buckets = list(zip(bounds, cumulated(token.sign_counts), strict=True))
        times.add_metric((agent, token.name), buckets, sum_value=max(0.0, token.sign_seconds))
    return times
