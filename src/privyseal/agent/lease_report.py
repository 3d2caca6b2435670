# SPDX-License-Identifier: Apache-2.0
"""What is told of a USB lease that has ended: its report, and its entry in the log."""

from privyseal.agent.outbox import EntryMaker
from privyseal.tlog.entry import AgentEntry, Lease
from privyseal.usb.exporter import EndedBy, SessionReport
from privyseal.usbip.card_events import LeaseCounts, Outcome, PinOutcome
from privyseal.wire.leases import LeaseReport, LeaseTally

__all__ = ["ended_by", "lease_entry", "lease_report"]

_ENDED = {
    EndedBy.CLIENT: "holder",
    EndedBy.CLIENT_ERROR: "holder-error",
    EndedBy.CLIENT_STALLED: "lost",
    EndedBy.NOT_HELD: "agent",
    EndedBy.DEVICE_GONE: "gone",
    EndedBy.TAP: "rules",
    EndedBy.US: "agent",
    EndedBy.FAILURE: "agent",
}


def ended_by(session: SessionReport, *, lost: bool) -> str:
    """Whose doing the end of a lease was that was not ended by the agent's own order; `lost` if the holder is gone."""
    return "lost" if lost and session.ended_by is EndedBy.CLIENT else _ENDED[session.ended_by]


def lease_report(
    *,
    device: str,
    usb: str,
    held_ms: int,
    ended: tuple[str, str],
    session: SessionReport,
    counts: LeaseCounts,
    link_seconds: float | None,
) -> LeaseReport:
    """The report.

    Args:
        device: Name under which it was lent.
        usb: What it is.
        held_ms: How long it was.
        ended: By whom, and in words.
        session: How the export went.
        counts: What the card was used for.
        link_seconds: Round trip to the holder; None if none was measured.
    """
    statistics = session.statistics
    return LeaseReport(
        device=device,
        usb=usb,
        held_ms=held_ms,
        ended_by=ended[0],
        reason=ended[1][:1000],
        clean=session.was_reset and session.was_powered_off is not False,
        tallies=tuple(
            LeaseTally(what=one.what, kind=one.kind, outcome=one.outcome, count=one.count) for one in counts.tallies
        ),
        unproven=tuple(one.value for one in counts.unproven),
        refused=counts.refused,
        apdus=counts.apdus,
        urbs=statistics.urbs,
        bytes_in=statistics.bytes_in,
        bytes_out=statistics.bytes_out,
        errors=statistics.errors,
        round_trip_us=statistics.round_trips.percentile_us(50),
        link_round_trip_us=int((link_seconds or 0) * 1e6),
    )


def lease_entry(request: str, report: LeaseReport) -> EntryMaker:
    """Its entry: counts, and never what was counted."""

    def total(what: str, *outcomes: str) -> int:
        return report.total(what, *outcomes)

    key, pin, done = "private-key-operation", "pin-verification", (Outcome.OK, Outcome.UNKNOWN)

    def make(at: int, agent: str) -> AgentEntry:
        return Lease(
            ts=at,
            agent=agent,
            seq=0,
            at=at,
            token=report.usb,
            request=request,
            device=report.device,
            held=report.held_ms,
            ended=report.ended_by,
            clean=report.clean,
            operations=total(key, Outcome.OK),
            operations_refused=total(key, Outcome.REFUSED),
            operations_unknown=total(key, Outcome.UNKNOWN),
            pins=total(pin, PinOutcome.ACCEPTED),
            pins_refused=total(pin, PinOutcome.REFUSED),
            pins_unknown=total(pin, PinOutcome.UNKNOWN),
            keys_made=total("key-generation", *done),
            pins_changed=total("pin-change", *done),
            writes=total("initialisation", *done),
            unproven=report.unproven,
        )

    return make
