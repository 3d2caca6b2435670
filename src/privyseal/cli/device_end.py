# SPDX-License-Identifier: Apache-2.0
"""What became of a lease, for people and for programs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from privyseal.cli.moments import duration_text
from privyseal.cli.render import error_document
from privyseal.errors import PrivysealError, UnavailableError, UsbError

if TYPE_CHECKING:
    from privyseal.client.devices import LeaseEnd
    from privyseal.wire.leases import LeaseReport

__all__ = ["end_data", "end_error", "end_lines"]

#: Ends that who borrowed the device wanted, or agreed to.
_ORDERLY: Final = ("holder", "time")
_SAID: Final = {
    "holder": "given back",
    "time": "its time is over",
    "taken": "it was taken back",
    "lost": "its agent was not heard of any more",
    "rules": "a rule of its agent ended it",
    "gone": "it was unplugged",
    "holder-error": "what was sent to it from here was no USB/IP",
    "agent": "its agent ended it",
}


def end_data(device: str, end: "LeaseEnd") -> dict[str, Any]:
    """For programs."""
    recorded = end.recorded
    return {
        "event": "ended",
        "device": device,
        "ended_by": end.ended_by,
        "reason": end.reason,
        "report": None if end.report is None else msgspec.to_builtins(end.report),
        "log_index": None if recorded is None else recorded.log_index,
        "receipt": None if recorded is None else recorded.receipt,
        "problem": None if end.problem is None else error_document(end.problem),
    }


def end_lines(device: str, end: "LeaseEnd") -> Iterator[str]:
    """For people."""
    why = _SAID.get(end.ended_by, end.ended_by)
    detail = "" if end.ended_by in _ORDERLY or end.reason == why else f": {end.reason}"
    yield f"ended     {device}: {why}{detail}"
    if end.report is not None:
        yield from _report_lines(end.report)
    if end.recorded is not None:
        yield f"on record as log entry {end.recorded.log_index}"
    if end.problem is not None:
        yield f"warning   it is not known what is on record of it: {end.problem}"


def _report_lines(report: "LeaseReport") -> Iterator[str]:
    link = f", {report.link_round_trip_us / 1000:.1f} ms to the agent and back" if report.link_round_trip_us else ""
    yield f"held      {duration_text(report.held_ms / 1000)}, {report.urbs} URBs{link}"
    counted = ", ".join(
        f"{one.count} {one.what}{f' ({one.kind})' if one.kind else ''} {one.outcome}" for one in report.tallies
    )
    yield f"counted   {counted or 'no use of a card'}"
    if report.refused:
        yield f"refused   {report.refused} commands, by the agent's rules"
    if report.unproven:
        yield f"unproven  there may have been more: {', '.join(report.unproven)}"
    if not report.clean:
        yield "warning   the device was not reset behind this lease"


def end_error(device: str, end: "LeaseEnd") -> PrivysealError | None:
    """Why the command did not end well; None if it did."""
    if end.ended_by == "lost":
        return UnavailableError(
            "device.lost",
            f"the lease of device {device!r} ended: {_SAID['lost']} ({end.reason})",
            hint="its agent gives the device back by itself; look at the network, and ask again",
        )
    if end.ended_by not in _ORDERLY:
        return UsbError(
            "device.taken" if end.ended_by == "taken" else "device.ended",
            f"the lease of device {device!r} ended: {_SAID.get(end.ended_by, end.ended_by)} ({end.reason})",
            hint="privyseal device leases shows who has it now",
        )
    return end.problem
