# SPDX-License-Identifier: Apache-2.0
"""Wire B: the card as a USB token, a CCID reader that holds one card (USB CCID class, revision 1.1), over USB/IP.

The reader exchanges whole APDUs, short and extended. It notifies of its card by interrupt transfers.
"""

import struct
import threading
from typing import Any, Final

from usbip import In, Out, USBDevice

from lab.piv.orders import Insert, Remove
from lab.piv.station import CardGoneError, Station
from lab.piv.vpcd import ATR

__all__ = ["BULK_IN", "BULK_OUT", "INTERRUPT_IN", "PRODUCT", "VENDOR", "CcidToken"]

#: As a SafeNet eToken 5100 shows itself, which libccid knows.
VENDOR, PRODUCT = 0x0529, 0x0620
BULK_OUT, BULK_IN, INTERRUPT_IN = 0x02, 0x81, 0x83

_HEADER: Final = struct.Struct("<BIBBBBB")
#: Waits for a command end this often, to see whether the token was unplugged.
_LOOK_SECONDS: Final = 0.05

# Messages (§6.1, §6.2, §6.3).
_SET_PARAMETERS, _POWER_ON, _POWER_OFF, _SLOT_STATUS = 0x61, 0x62, 0x63, 0x65
_GET_PARAMETERS, _RESET_PARAMETERS, _TRANSFER, _ABORT = 0x6C, 0x6D, 0x6F, 0x72
_DATA_ANSWER, _STATUS_ANSWER, _PARAMETERS_ANSWER, _SLOT_CHANGED = 0x80, 0x81, 0x82, 0x50

# bStatus and bError (§6.2.6).
_ACTIVE, _INACTIVE, _ABSENT, _FAILED = 0, 1, 2, 0x40
_MUTE, _NOT_SUPPORTED = 0xFE, 0x00

_PROTOCOL_T1: Final = 1
_T1_PARAMETERS: Final = bytes((0x11, 0x10, 0x00, 0x4D, 0x00, 0xFE, 0x00))

#: Voltage, clock, protocol parameters and buffer size are the reader's own business; short and extended APDUs.
_FEATURES: Final = 0x0004_04BE
_MAX_MESSAGE_BYTES: Final = 3072


def _class_descriptor() -> bytes:
    """The functional descriptor (§5.1)."""
    return struct.pack(
        "<BBHBBIIIBIIBIIIIIBBHBB",
        *(54, 0x21, 0x0110),
        *(0, 0x07),  # one slot; 5, 3 and 1.8 V
        _PROTOCOL_T1 << 1,
        *(4000, 4000, 0),  # kHz; one clock
        *(10752, 344_064, 0),  # bit/s; one rate
        254,  # largest T=1 information field
        *(0, 0),  # no synchronous cards, no mechanical parts
        _FEATURES,
        _MAX_MESSAGE_BYTES,
        *(0xFF, 0xFF),  # classes of GET RESPONSE and ENVELOPE: as the command's
        *(0, 0),  # no display, no keypad
        1,  # one command at a time
    )


class CcidToken:
    """One token for one host at a time.

    Args:
        station: The card in it.
        transport: Of the `usbip` package: where hosts attach. Given up by `unplug`.
    """

    def __init__(self, station: Station, transport: Any) -> None:
        self.station = station
        self._transport = transport
        self._is_on = False
        self._is_plugged = True
        self._stalls = 0
        self._device = USBDevice(VENDOR, PRODUCT, manufacturer="Privyseal", product="Lab token", serial="LAB0001")
        group = self._device.add_group()
        number = group.claim_interface()
        # The interface descriptor: three endpoints, class 0B.
        group.add(struct.pack("<BBBBBBBBB", 9, 4, number, 0, 3, 0x0B, 0, 0, 0) + _class_descriptor())
        self._bulk_out = group.add_endpoint(Out(BULK_OUT, "bulk", mps=64))
        self._bulk_in = group.add_endpoint(In(BULK_IN, "bulk", mps=64))
        self._interrupt = group.add_endpoint(In(INTERRUPT_IN, "interrupt", mps=8, interval=16))
        self._device.on_control(number, lambda setup, data=b"": b"")
        self._transport.serve(self._device)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stall_next(self) -> None:
        """Have the next answer end as a STALL of its endpoint; it comes once the host has cleared the halt."""
        self._stalls += 1

    def remove(self) -> None:
        """Take the card out of the token, and tell the host."""
        self.station.obey(Remove())
        self.station.report_absence()
        self._is_on = False
        self._interrupt.write(bytes((_SLOT_CHANGED, 0b10)))

    def insert(self) -> None:
        """Put the card back, and tell the host."""
        self.station.obey(Insert())
        self._interrupt.write(bytes((_SLOT_CHANGED, 0b11)))

    def unplug(self) -> None:
        """End the token: hosts lose it."""
        self._is_plugged = False
        self._transport.stop(self._device)
        self._thread.join()

    def _run(self) -> None:
        received = b""
        while self._is_plugged:
            received += bytes(self._bulk_out.read(timeout=_LOOK_SECONDS))
            while len(received) >= _HEADER.size:
                end = _HEADER.size + _HEADER.unpack_from(received)[1]
                if len(received) < end:
                    break
                message, received = received[:end], received[end:]
                self._answer(message)

    def _answer(self, message: bytes) -> None:
        kind, _, slot, sequence, *_ = _HEADER.unpack_from(message)
        answer, status, specific, data = self._effect(kind, message[_HEADER.size :])
        error, chain = (specific, 0) if status & _FAILED else (0, specific)
        answered = _HEADER.pack(answer, len(data), slot, sequence, status, error, chain) + data
        if self._stalls:
            self._stalls -= 1
            self._bulk_in.stall()
        self._bulk_in.write(answered)

    def _effect(self, kind: int, data: bytes) -> tuple[int, int, int, bytes]:
        """Kind, bStatus, what the kind or the error has as its own byte, and data of the answer."""
        if kind == _POWER_ON and self.station.is_present:
            self._is_on = True
            self.station.power_on()
            return _DATA_ANSWER, _ACTIVE, 0, ATR
        if kind == _POWER_ON:
            return _DATA_ANSWER, _FAILED | _ABSENT, _MUTE, b""
        if kind == _TRANSFER:
            return self._transfer(data)
        if kind == _POWER_OFF:
            self._is_on = False
        if kind in (_POWER_OFF, _SLOT_STATUS, _ABORT):
            return _STATUS_ANSWER, self._status, 0, b""
        if kind in (_SET_PARAMETERS, _GET_PARAMETERS, _RESET_PARAMETERS):
            return _PARAMETERS_ANSWER, self._status, _PROTOCOL_T1, _T1_PARAMETERS
        return _STATUS_ANSWER, _FAILED | self._status, _NOT_SUPPORTED, b""

    def _transfer(self, apdu: bytes) -> tuple[int, int, int, bytes]:
        try:
            if self._is_on:
                return _DATA_ANSWER, _ACTIVE, 0, self.station.transmit(apdu)
        except CardGoneError:
            self.remove()
        return _DATA_ANSWER, _FAILED | self._status, _MUTE, b""

    @property
    def _status(self) -> int:
        if not self.station.is_present:
            return _ABSENT
        return _ACTIVE if self._is_on else _INACTIVE
