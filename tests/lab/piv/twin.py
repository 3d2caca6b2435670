# SPDX-License-Identifier: Apache-2.0
"""Wire C: the card in a serial reader, a GemPC Twin, for libccid's own driver (pcscd's `libccidtwin.so`).

The reader exchanges TPDUs, and so it is the driver that speaks T=1 with the card, or T=0. Its messages are those of
CCID, each in a frame of SYNC, ACK and a check byte; the reader first echoes what it heard.
"""

import os
import pty
import struct
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lab.piv.station import Station
from lab.piv.tpdu import ATR_T0, T0Card, T1Card
from lab.piv.vpcd import ATR
from privyseal.usbip.card_events import AnswerInstead, EndLease, Forward, LeaseRules
from privyseal.usbip.card_watch import CardWatch
from privyseal.usbip.ccid import ClassDescriptor

__all__ = ["Twin", "run_twin_wire"]

_SYNC_ACK: Final = b"\x03\x06"
_HEADER: Final = struct.Struct("<BIBBBBB")
_DESCRIPTOR: Final = ClassDescriptor(max_slot_index=0, max_message_bytes=271, features=0x1_0230)
_FIRMWARE: Final = b"GemTwin-V2.00-GT02"
_PPS: Final = 0xFF

_SET_PARAMETERS, _POWER_ON, _ESCAPE, _GET_PARAMETERS, _TRANSFER = 0x61, 0x62, 0x6B, 0x6C, 0x6F
_DATA_ANSWER, _STATUS_ANSWER, _PARAMETERS_ANSWER, _ESCAPE_ANSWER = 0x80, 0x81, 0x82, 0x83


def run_twin_wire(reader: "Twin", *, device: Path, record: Path, rules: LeaseRules) -> None:
    """Serve the driver for ever.

    Args:
        reader: With the card in it.
        device: Where to put a link to the terminal that the driver opens.
        record: Where to write down all messages of the host (`>`) and of the reader (`<`).
        rules: What they refuse the reader never has; the audit answers in its place.
    """
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    device.symlink_to(os.ttyname(theirs))
    audit = CardWatch(_DESCRIPTOR, packet_bytes=64, rules=rules)
    received = b""
    while True:
        received += os.read(ours, 1024)
        while len(received) >= len(_SYNC_ACK) + _HEADER.size:
            end = len(_SYNC_ACK) + _HEADER.size + _HEADER.unpack_from(received, len(_SYNC_ACK))[1]
            if len(received) <= end:
                break
            frame, received = received[: end + 1], received[end + 1 :]
            message = frame[len(_SYNC_ACK) : -1]
            verdict = audit.command(message)
            assert not isinstance(verdict, EndLease), verdict
            answer = verdict.payload if isinstance(verdict, AnswerInstead) else reader.answer(message)
            if isinstance(verdict, Forward):
                audit.answer(answer)
            with record.open("a") as lines:
                lines.write(f"> {message.hex()}\n< {answer.hex()}\n")
            _write(ours, frame + _framed(answer))


def _framed(message: bytes) -> bytes:
    data = _SYNC_ACK + message
    check = 0
    for byte in data:
        check ^= byte
    return data + bytes((check,))


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class Twin:
    """The reader.

    Args:
        station: The card; it cannot leave this reader.
        protocol: 0 or 1, the only one that the card speaks.
        damage: Of so many T=1 blocks between reader and card one is damaged; none with 0.
    """

    def __init__(self, station: Station, *, protocol: int, damage: int = 0) -> None:
        self._station = station
        self._protocol = protocol
        self._damage = damage
        self._blocks = 0
        self._block: Callable[[bytes], bytes] = self._switched_on()

    def answer(self, message: bytes) -> bytes:
        """A message of CCID for a message."""
        kind, _, slot, sequence, own, _, _ = _HEADER.unpack_from(message)
        answer, last, data = self._effect(kind, own, message[_HEADER.size :])
        return _HEADER.pack(answer, len(data), slot, sequence, 0, 0, last) + data

    def _switched_on(self) -> Callable[[bytes], bytes]:
        self._station.power_on()
        transmit = self._station.transmit
        return T1Card(transmit).block if self._protocol else T0Card(transmit).block

    def _line(self, block: bytes) -> bytes:
        """What arrives of a block."""
        self._blocks += 1
        if not self._damage or self._blocks % self._damage:
            return block
        return block[:-1] + bytes((block[-1] ^ 0x5A,))

    def _effect(self, kind: int, own: int, data: bytes) -> tuple[int, int, bytes]:
        """Kind, what the kind has as its own byte, and data of the answer."""
        if kind == _POWER_ON:
            self._block = self._switched_on()
            return _DATA_ANSWER, 0, ATR if self._protocol else ATR_T0
        if kind == _TRANSFER:
            # A card agrees to what its host selects.
            return _DATA_ANSWER, 0, data if data[0] == _PPS else self._line(self._block(self._line(data)))
        if kind == _ESCAPE:
            return _ESCAPE_ANSWER, 0, _FIRMWARE
        if kind in (_SET_PARAMETERS, _GET_PARAMETERS):
            return _PARAMETERS_ANSWER, own, data
        return _STATUS_ANSWER, 0, b""
