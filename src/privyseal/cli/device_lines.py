# SPDX-License-Identifier: Apache-2.0
"""USB devices and their leases, as lines."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from privyseal.cli.moments import clock_text, duration_text
from privyseal.cli.render import table
from privyseal.wire.devices import DeviceView, LeaseView

__all__ = ["cost_text", "device_data", "device_lines", "lease_lines"]

#: USB/IP sends a command, waits, and sends the next one: so often a stock program waits for one signature (measured
#: with OpenSC, which starts, finds its card, logs in and signs once).
ROUND_TRIPS = 100


def device_lines(devices: tuple[DeviceView, ...], now_ms: int) -> Iterator[str]:
    """A row for each device, and below them why one cannot be lent."""
    if not devices:
        return
    rows: list[tuple[str, ...]] = [("DEVICE", "AGENT", "STATE", "IN USE BY", "SINCE", "UNTIL", "WAIT", "WHAT")]
    rows += [_row(one, now_ms) for one in devices]
    yield from table(rows)
    for one in devices:
        if not one.online:
            yield f"  {one.name}: {one.problem} [{one.code}]"
            if one.hint:
                yield f"    next: {one.hint}"


def _row(one: DeviceView, now_ms: int) -> tuple[str, ...]:
    lent = one.lent
    state = "not there" if not one.online else "lent" if lent else "its token signs" if one.signing else "free"
    what = " ".join(filter(None, (one.label, one.serial))) or "-"
    by = "-" if lent is None else lent.client + (f" ({lent.reason})" if lent.reason else "")
    since, until = ("-", "-") if lent is None else _times(lent, now_ms)
    return one.name, one.agent, state, by, since, until, str(one.waiting), what


def _times(lease: LeaseView, now_ms: int) -> tuple[str, str]:
    if lease.since_ms is None or lease.until_ms is None:
        return "?", f"for {duration_text(lease.seconds)}"
    return clock_text(lease.since_ms, now_ms), clock_text(lease.until_ms, now_ms)


def lease_lines(devices: Iterable[DeviceView], now_ms: int) -> Iterator[str]:
    """A row for each lease that runs or is waited for."""
    rows = [("DEVICE", "CLIENT", "STATE", "SINCE", "UNTIL", "PRIORITY", "REASON", "REQUEST")]
    more = 0
    for device in devices:
        for one in device.leases:
            if one.state == "lent":
                since, until = _times(one, now_ms)
            else:
                since, until = clock_text(one.queued_ms, now_ms), f"for {duration_text(one.seconds)}"
            rows.append(
                (device.name, one.client, one.state, since, until, one.priority, one.reason or "-", one.request[:16])
            )
        more += device.waiting - sum(one.state == "waiting" for one in device.leases)
    yield from table(rows) if len(rows) > 1 else ("nobody has a device, and nobody waits for one",)
    if more > 0:
        yield f"and {more} more wait"


def device_data(device: DeviceView) -> dict[str, Any]:
    """A device for programs."""
    found: dict[str, Any] = msgspec.to_builtins(device)
    return found


def cost_text(round_trip_seconds: float | None) -> str:
    """What a signature costs over a lent device at least, beside one by remote signing."""
    if round_trip_seconds is None:
        return "the hub's round trip was not measured"
    here_ms = round_trip_seconds * 1000
    there = duration_text(round_trip_seconds * ROUND_TRIPS) if here_ms >= 10 else f"{here_ms * ROUND_TRIPS:.0f} ms"
    return (
        f"one signature over a device that is lent: about {ROUND_TRIPS} round trips to its agent, {there} or more from "
        f"here; by `privyseal sign`: one, {here_ms:.1f} ms"
    )
