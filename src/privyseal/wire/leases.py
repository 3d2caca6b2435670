# SPDX-License-Identifier: Apache-2.0
"""What a USB lease was used for, in the agent's words: the result of its request."""

import msgspec

from privyseal.errors import MalformedInputError
from privyseal.tlog.entry import canonical_json

__all__ = ["LeaseReport", "LeaseTally", "encode_report", "read_report"]

_MAX_BYTES = 16_384


class LeaseTally(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often one thing ended in one way; the words are those of `privyseal.usbip.card_events.Tally`."""

    what: str
    kind: str
    outcome: str
    count: int


class LeaseReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The end of a lease.

    Attributes:
        device: Name under which the device was lent.
        usb: Its vendor and product id and serial number, `0529:0620:SERIAL`.
        held_ms: How long the holder had it.
        ended_by: `holder`, `time`, `taken` (it was asked back), `lost` (the holder was not heard of any more), `rules`,
            `gone` (it was unplugged), `holder-error` or `agent`.
        reason: The same in words.
        clean: Whether it was reset, and the cards in it switched off, before anybody else had it.
        tallies: What a reader's card was used for.
        unproven: Why that may not be all; empty if it is.
        refused: Commands that the agent answered in the card's place.
        apdus: Commands to the card.
        urbs, bytes_in, bytes_out, errors: What passed, as USB counts it.
        round_trip_us: Of half of the transfers, from the agent to the device and back.
        link_round_trip_us: Of half of the heartbeats, between agent and holder.
    """

    device: str
    usb: str
    held_ms: int
    ended_by: str
    reason: str
    clean: bool
    tallies: tuple[LeaseTally, ...]
    unproven: tuple[str, ...]
    refused: int
    apdus: int
    urbs: int
    bytes_in: int
    bytes_out: int
    errors: int
    round_trip_us: int
    link_round_trip_us: int

    def total(self, what: str, *outcomes: str) -> int:
        """How many of a thing, of these outcomes or of all."""
        return sum(one.count for one in self.tallies if one.what == what and (not outcomes or one.outcome in outcomes))


def encode_report(report: LeaseReport) -> bytes:
    """Its bytes, whose SHA-256 stands in the RESULT entry."""
    return canonical_json(report)


def read_report(data: bytes) -> LeaseReport:
    """The report in a request's result.

    Raises:
        MalformedInputError: `lease.report`.
    """
    try:
        if len(data) > _MAX_BYTES:
            raise msgspec.ValidationError("it is too long")
        return msgspec.json.decode(data, type=LeaseReport)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedInputError("lease.report", f"what came back is no report of a USB lease: {error}") from error
