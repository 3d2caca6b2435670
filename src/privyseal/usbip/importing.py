# SPDX-License-Identifier: Apache-2.0
"""The client's side of one USB/IP connection, without input or output."""

from typing import Final

from privyseal.usbip.framing import Frames
from privyseal.usbip.in_flight import InFlight, Unlinked
from privyseal.usbip.urb import (
    NO_SETUP,
    Answer,
    CmdSubmit,
    CmdUnlink,
    Direction,
    RetSubmit,
    answer_frames,
)
from privyseal.usbip.wire import (
    DeviceRecord,
    DevlistAnswer,
    DevlistRequest,
    ImportAnswer,
    ImportRequest,
    read_devlist_answer,
    read_import_answer,
)

__all__ = ["Arrived", "Importing"]

_SEQNUMS: Final = 1 << 32


Arrived = DevlistAnswer | ImportAnswer | RetSubmit | Unlinked


class Importing:
    """Ask, send what `output` gives, feed it what arrives, take that until there is none."""

    def __init__(self) -> None:
        self._lists = Frames(read_devlist_answer)
        self._imports = Frames(read_import_answer)
        self._in_flight = InFlight()
        self._answers: Frames[Answer] = answer_frames(self._in_flight.expected)
        self._reading: Frames[DevlistAnswer] | Frames[ImportAnswer] | Frames[Answer] | None = None
        self._device: DeviceRecord | None = None
        self._last_seqnum = 0
        self._output = bytearray()

    @property
    def device(self) -> DeviceRecord | None:
        """What was imported."""
        return self._device

    @property
    def in_flight(self) -> tuple[int, ...]:
        """Seqnums of the URBs that are not answered."""
        return self._in_flight.seqnums

    @property
    def is_between(self) -> bool:
        """Whether the stream could end here without cutting an answer off."""
        return self._reading is None or (self._reading.is_between and self._reading is self._answers)

    def list(self) -> None:
        """Ask which devices are exported."""
        self._ask(DevlistRequest(), self._lists)

    def import_device(self, bus_id: str) -> None:
        """Ask for a device.

        Raises:
            ValueError: It is no bus id, or something was asked before.
        """
        self._ask(ImportRequest(bus_id=bus_id), self._imports)

    def submit(
        self, direction: Direction, endpoint: int, data: bytes | int, *, setup: bytes = NO_SETUP, interval: int = 0
    ) -> int:
        """Submit an URB; its seqnum.

        Args:
            direction: Way of the data.
            endpoint: 0 to 15.
            data: What goes out; how much may come in.
            setup: Of a control transfer.
            interval: Of an interrupt transfer.

        Raises:
            ValueError: No device is imported, or the data goes the other way.
        """
        if self._device is None or isinstance(data, int) is (direction is Direction.OUT):
            raise ValueError("URBs go to an imported device; OUT has data, IN has a length")
        length = data if isinstance(data, int) else len(data)
        command = CmdSubmit(
            seqnum=self._next_seqnum(),
            device_id=self._device.device_id,
            direction=direction,
            endpoint=endpoint,
            length=length,
            data=b"" if isinstance(data, int) else data,
            setup=setup,
            interval=interval,
        )
        self._output += command.encode()
        self._in_flight.sent(command)
        return command.seqnum

    def unlink(self, seqnum: int) -> None:
        """Do not want an URB any more; `Unlinked` follows.

        Raises:
            ValueError: It is not in flight, or is unlinked already.
        """
        if self._device is None or seqnum not in self.in_flight or seqnum in self._in_flight.unlinked:
            raise ValueError(f"URB {seqnum} is not in flight")
        command = CmdUnlink(seqnum=self._next_seqnum(), device_id=self._device.device_id, target=seqnum)
        self._in_flight.sent(command)
        self._output += command.encode()

    def feed(self, data: bytes) -> None:
        """Add what arrived.

        Raises:
            ValueError: Nothing was asked.
        """
        if self._reading is None:
            raise ValueError("nothing was asked")
        self._reading.feed(data)

    def take(self) -> Arrived | None:
        """What arrived next; None until more is fed.

        Raises:
            MalformedInputError: `usbip.malformed`.
            UnsupportedInputError: `usbip.version`.
        """
        arrived = self._reading.take() if self._reading is not None else None
        if isinstance(arrived, ImportAnswer) and arrived.device is not None:
            self._device = arrived.device
            self._reading = self._answers
            self._answers.feed(self._imports.rest())
        if arrived is None or isinstance(arrived, (DevlistAnswer, ImportAnswer)):
            return arrived
        return self._in_flight.answered(arrived)

    def output(self) -> bytes:
        """What is to be sent, in order; each byte is given once."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def rest(self) -> bytes:
        """What arrived behind an ImportAnswer, for who takes the connection over from here."""
        return self._answers.rest()

    def _ask(
        self, request: DevlistRequest | ImportRequest, reading: Frames[DevlistAnswer] | Frames[ImportAnswer]
    ) -> None:
        if self._reading is not None:
            raise ValueError("a connection has one request")
        self._output += request.encode()
        self._reading = reading

    def _next_seqnum(self) -> int:
        while True:
            self._last_seqnum = (self._last_seqnum + 1) % _SEQNUMS
            if self._last_seqnum and self._last_seqnum not in self._in_flight:
                return self._last_seqnum
