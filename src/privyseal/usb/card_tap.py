# SPDX-License-Identifier: Apache-2.0
"""The audit of a reader under a lease, at the URBs of its export: what is counted, refused, and ends the lease.

What does not pass the reader's two bulk endpoints is not read: vendor requests on the control pipe and endpoints of
other interfaces make the lease unproven.
"""

from collections.abc import Callable
from typing import Final

from privyseal.usb.devices import CCID_CLASS
from privyseal.usb.tap import SessionEnd, TapAnswer
from privyseal.usbip.card_events import (
    AnswerInstead,
    Blind,
    CardEvent,
    EndLease,
    EndReason,
    LeaseCounts,
    LeaseEnds,
    LeaseRules,
)
from privyseal.usbip.card_watch import CardWatch
from privyseal.usbip.ccid import read_class_descriptor
from privyseal.usbip.descriptors import ConfigurationDescriptor, EndpointKind, InterfaceDescriptor
from privyseal.usbip.urb import Answer, CmdSubmit, RetSubmit

__all__ = ["CardTap"]

_TYPE_MASK: Final = 0x60
_STANDARD: Final = 0x00
#: Requests that USB CCID defines for the control pipe (§5.3): ABORT, GET_CLOCK_FREQUENCIES, GET_DATA_RATES.
_READER_REQUESTS: Final = frozenset({(0x21, 0x01), (0xA1, 0x02), (0xA1, 0x03)})
_WORDS: Final = {
    EndReason.OPERATIONS: "the private-key operations that the lease allows are used up",
    EndReason.PIN_REFUSED: "the card refused a PIN",
    EndReason.REFUSED: "the lease does not allow this command",
    EndReason.UNREADABLE: "the lease's rules could not be held against what was sent",
}


class CardTap:
    """A `UrbTap` of one export.

    Args:
        configuration: Of the device, as it is set.
        rules: What the lease does not allow.
        told: Called with what was seen, as it is seen.
    """

    def __init__(
        self,
        configuration: ConfigurationDescriptor | None,
        rules: LeaseRules,
        *,
        told: Callable[[tuple[CardEvent, ...]], None],
    ) -> None:
        reader = _reader(configuration)
        bulk = {} if reader is None else {one.address: one for one in reader.endpoints if one.kind is EndpointKind.BULK}
        self._out: Final = next((address for address in bulk if not address & 0x80), None)
        self._in: Final = next((address for address in bulk if address & 0x80), None)
        #: Beside the commands: answers, and what an interrupt endpoint tells of cards that come and go.
        self._known: Final = frozenset(
            {self._in, *(one.address for one in reader.endpoints if one.kind is EndpointKind.INTERRUPT)}
            if reader is not None
            else ()
        )
        described = None if reader is None else read_class_descriptor(b"".join(reader.others))
        packet_bytes = 64 if self._out is None else bulk[self._out].max_packet_bytes
        self._watch: Final = CardWatch(described, packet_bytes=max(packet_bytes, 1), rules=rules)
        self._told: Final = told

    @property
    def counts(self) -> LeaseCounts:
        """All that was seen so far."""
        return self._watch.counts

    def finish(self) -> LeaseCounts:
        """The export has ended: all of the lease."""
        self._told(self._watch.finish())
        return self._watch.counts

    def before(self, command: CmdSubmit) -> TapAnswer | None:
        """See `UrbTap.before`."""
        if command.endpoint == 0:
            self._control(command)
        elif command.address == self._out:
            return self._sent(command)
        elif command.address not in self._known:
            self._told(self._watch.unseen(Blind.OTHER_TRAFFIC))
        return None

    def after(self, command: CmdSubmit, answer: Answer, *, is_own: bool) -> None:
        """See `UrbTap.after`."""
        if command.address != self._in or is_own:  # what is the tap's own the watch has made
            return
        if not isinstance(answer, RetSubmit):
            self._told(self._watch.unseen(Blind.FRAMING))  # what came in is lost, and may have been an answer
        elif answer.data:
            self._take(self._watch.answer(answer.data))

    def _sent(self, command: CmdSubmit) -> TapAnswer | None:
        verdict = self._watch.command(command.data)
        self._take(verdict.events)
        if isinstance(verdict, EndLease):
            raise SessionEnd(_WORDS[verdict.reason])
        if isinstance(verdict, AnswerInstead) and self._in is not None:
            return TapAnswer(status=0, read_next=verdict.payload, read_next_address=self._in)
        return None

    def _control(self, command: CmdSubmit) -> None:
        kind, request = command.setup[0], command.setup[1]
        if kind & _TYPE_MASK != _STANDARD and (kind, request) not in _READER_REQUESTS:
            self._told(self._watch.unseen(Blind.OTHER_TRAFFIC))

    def _take(self, events: tuple[CardEvent, ...]) -> None:
        self._told(events)
        for event in events:
            if isinstance(event, LeaseEnds):
                raise SessionEnd(_WORDS[event.reason], with_answer=True)


def _reader(configuration: ConfigurationDescriptor | None) -> InterfaceDescriptor | None:
    if configuration is None:
        return None
    return next(
        (one for one in configuration.interfaces if one.interface_class == CCID_CLASS and one.alternate == 0), None
    )
