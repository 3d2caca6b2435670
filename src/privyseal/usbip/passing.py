# SPDX-License-Identifier: Apache-2.0
"""An imported device's stream on its way between an exporter and a kernel: nothing passes that does not belong there.

The kernel's client trusts what it reads more than an exporter on another host deserves, and the other way round.
"""

from typing import Final

from privyseal.usbip.framing import Frames
from privyseal.usbip.in_flight import InFlight
from privyseal.usbip.urb import MAX_TRANSFER_BYTES, Answer, Command, answer_frames, command_frames
from privyseal.usbip.wire import malformed

__all__ = ["Passing"]

#: A kernel's driver has some URBs in flight; this many answers that never come are no driver's.
_MOST_UNANSWERED: Final = 4096
#: MAX_ERRNO of Linux.
_LARGEST_ERRNO: Final = 4095


class Passing:
    """The two directions of one imported device.

    Args:
        device_id: Of the device, as the import was answered.
        max_transfer_bytes: Largest buffer of one URB.
    """

    def __init__(self, device_id: int, *, max_transfer_bytes: int = MAX_TRANSFER_BYTES) -> None:
        self._device_id = device_id
        self._in_flight = InFlight()
        self._commands: Frames[Command] = command_frames(max_transfer_bytes=max_transfer_bytes)
        self._answers: Frames[Answer] = answer_frames(self._in_flight.expected)

    def commands(self, data: bytes) -> bytes:
        """What may go to the exporter of what the importing kernel sent: whole commands, written anew.

        Raises:
            MalformedInputError: `usbip.malformed`, `usbip.too_large`.
            UnsupportedInputError: `usbip.isochronous`.
        """
        self._commands.feed(data)
        passed = bytearray()
        while (command := self._commands.take()) is not None:
            if command.device_id != self._device_id:
                raise malformed(f"URB {command.seqnum} is for device {command.device_id:#x}, which is not imported")
            if self._in_flight.unanswered >= _MOST_UNANSWERED:
                raise malformed(f"{_MOST_UNANSWERED} URBs are not answered")
            self._in_flight.sent(command)
            passed += command.encode()
        return bytes(passed)

    def answers(self, data: bytes) -> bytes:
        """What may go to the importing kernel of what the exporter sent: whole answers to its URBs, written anew.

        Raises:
            MalformedInputError: `usbip.malformed`.
        """
        self._answers.feed(data)
        passed = bytearray()
        while (answer := self._answers.take()) is not None:
            if not -_LARGEST_ERRNO <= answer.status <= 0:
                raise malformed(f"an answer with the status {answer.status}, which is no errno")
            self._in_flight.answered(answer)
            passed += answer.encode()
        return bytes(passed)
