# SPDX-License-Identifier: Apache-2.0
"""Card readers of each exchange level with a host that drives them, and an audit on the wire between the two."""

import struct
from collections.abc import Callable, Iterator
from itertools import count

from lab.piv.tpdu import ATR_T0, T0Card, T1Card
from lab.piv.vpcd import ATR as ATR_T1
from privyseal.usbip.card_events import AnswerInstead, CardEvent, EndLease, EndReason, LeaseRules
from privyseal.usbip.card_watch import CardWatch
from privyseal.usbip.ccid import read_class_descriptor
from t1_host import T1Host

__all__ = [
    "CHARACTER",
    "EXTENDED",
    "LEVELS",
    "SHORT",
    "TPDU",
    "ApduDriver",
    "LeaseOverError",
    "Reader",
    "T0Driver",
    "T1Driver",
    "Wire",
    "class_descriptor",
    "data_block",
    "message",
    "started",
]

CHARACTER, TPDU, SHORT, EXTENDED = 0, 0x1_0000, 0x2_0000, 0x4_0000
PACKET_BYTES = 64

#: Of a card that offers T=0 and T=1.
ATR_BOTH = bytes.fromhex("3BD596028071FE65014F734549445E")


#: Readers for `started`: what they exchange, and of T=1 how long a block's data is.
LEVELS = ("short", "extended", "parts", "t0", "t1 254", "t1 32", "t1 5 slow", "t1 1", "t1 32 crc")

Transmit = Callable[[bytes], bytes]


class LeaseOverError(Exception):
    """The audit ended the lease."""

    def __init__(self, reason: EndReason) -> None:
        super().__init__(reason)
        self.reason = reason


def class_descriptor(level: int, *, max_message_bytes: int = 3072, max_slot_index: int = 0) -> bytes:
    fields = (54, 0x21, 0x0110, max_slot_index, 7, 3, 4000, 4000, 0, 10752, 344_064, 0, 254, 0, 0, level | 0x4BE)
    return struct.pack("<BBHBBIIIBIIBIIIIIBBHBB", *fields, max_message_bytes, 0xFF, 0xFF, 0, 0, 1)


def message(kind: int, sequence: int, data: bytes = b"", *, own: int = 0, level: int = 0, slot: int = 0) -> bytes:
    """What a host sends; `own` is the byte that each kind has for itself, as the protocol of parameters."""
    return struct.pack("<BIBBBH", kind, len(data), slot, sequence, own, level) + data


def data_block(sequence: int, data: bytes = b"", *, chain: int = 0, status: int = 0, error: int = 0) -> bytes:
    """What a reader answers."""
    return struct.pack("<BIBBBBB", 0x80, len(data), 0, sequence, status, error, chain) + data


class Reader:
    """The device: a message for a message.

    Args:
        level: What it exchanges.
        card: A block for the block that answers it; None if the card says nothing.
        part_bytes: How much it gives at once, where it exchanges extended APDUs.
    """

    def __init__(
        self, level: int, card: Callable[[bytes], bytes | None], *, atr: bytes = ATR_T1, part_bytes: int = 2000
    ) -> None:
        self._level = level
        self._card = card
        self._atr = atr
        self._part_bytes = part_bytes
        self._command = b""
        self._answer = b""
        self.blocks = 0

    def __call__(self, raw: bytes) -> bytes:
        kind, length, _, sequence, _, level = struct.unpack_from("<BIBBBH", raw)
        data = raw[10:]
        assert len(data) == length
        if kind == 0x62:
            return data_block(sequence, self._atr)
        if kind in (0x61, 0x6C, 0x6D):
            return struct.pack("<BIBBBBB", 0x82, 0, 0, sequence, 0, 0, raw[7])
        if kind in (0x63, 0x65, 0x72):
            return struct.pack("<BIBBBBB", 0x81, 0, 0, sequence, 0, 0, 0)
        if kind != 0x6F:
            return struct.pack("<BIBBBBB", 0x81, 0, 0, sequence, 0x40, 0, 0)
        return self._transfer(sequence, data, level)

    def _transfer(self, sequence: int, data: bytes, level: int) -> bytes:
        self.blocks += 1
        if self._level == EXTENDED and level == 0x10:
            return self._part(sequence, 2 if len(self._answer) <= self._part_bytes else 3)
        self._command += data
        if self._level == EXTENDED and level in (1, 3):
            return data_block(sequence, chain=0x10)
        command, self._command = self._command, b""
        answer = self._card(command)
        if answer is None:
            return data_block(sequence, status=0x40, error=0xFE)
        if self._level != EXTENDED or len(answer) <= self._part_bytes:
            return data_block(sequence, answer)
        self._answer = answer
        return self._part(sequence, 1)

    def _part(self, sequence: int, chain: int) -> bytes:
        part, self._answer = self._answer[: self._part_bytes], self._answer[self._part_bytes :]
        return data_block(sequence, part, chain=chain)


class Wire:
    """Between a host and a reader, through an audit.

    Args:
        pieces: How payloads are cut, both ways; whole if None.
    """

    def __init__(
        self,
        reader: Callable[[bytes], bytes],
        *,
        level: int,
        rules: LeaseRules | None = None,
        pieces: Callable[[bytes], list[bytes]] | None = None,
    ) -> None:
        self._reader = reader
        self._pieces = pieces or (lambda payload: [payload])
        self._sequence = count()
        self.watch = CardWatch(
            read_class_descriptor(class_descriptor(level)), packet_bytes=PACKET_BYTES, rules=rules or LeaseRules()
        )
        self.events: list[CardEvent] = []
        #: What of the watch can be shown, all of it, after each step.
        self.inspect: Callable[[object], None] = lambda _: None

    def ask(self, kind: int, data: bytes = b"", *, own: int = 0, level: int = 0) -> tuple[int, int, bytes]:
        """Status, chain parameter and data of the answer.

        Raises:
            LeaseOverError: If the audit ends the lease.
        """
        raw = message(kind, next(self._sequence) % 256, data, own=own, level=level)
        for piece in self._pieces(raw):
            verdict = self.watch.command(piece)
            self.events += verdict.events
            self.inspect(verdict)
            if isinstance(verdict, EndLease):
                raise LeaseOverError(verdict.reason)
            if isinstance(verdict, AnswerInstead):
                return self._read(verdict.payload)
        answer = self._reader(raw)
        for piece in self._pieces(answer):
            events = self.watch.answer(piece)
            self.events += events
            self.inspect(events)
        return self._read(answer)

    def _read(self, raw: bytes) -> tuple[int, int, bytes]:
        assert len(raw) == 10 + int.from_bytes(raw[1:5], "little")
        return raw[7], raw[9], raw[10:]

    def power_on(self) -> bytes:
        return self.ask(0x62)[2]

    def transfer(self, block: bytes) -> bytes | None:
        """A block for a block; None if the reader says that it failed."""
        status, _, data = self.ask(0x6F, block)
        return None if status & 0xC0 else data


class ApduDriver:
    """Of readers that exchange APDUs, in parts of so many bytes where they are extended."""

    def __init__(self, wire: Wire, *, part_bytes: int = 2000) -> None:
        self._wire = wire
        self._part_bytes = part_bytes
        wire.power_on()

    def transmit(self, apdu: bytes) -> bytes:
        parts = [apdu[at : at + self._part_bytes] for at in range(0, len(apdu), self._part_bytes)]
        status, chain, data = 0, 0, b""
        for part, level in zip(parts, _levels(len(parts)), strict=True):
            status, chain, data = self._wire.ask(0x6F, part, level=level)
            if status & 0xC0:
                return b""
            if chain != 0x10:
                break
        answer = data
        while chain in (1, 3):
            status, chain, data = self._wire.ask(0x6F, level=0x10)
            answer += data
        return answer


def _levels(parts: int) -> Iterator[int]:
    if parts == 1:
        yield 0
        return
    yield 1
    yield from (3 for _ in range(parts - 2))
    yield 2


class T0Driver:
    """Of readers that exchange TPDUs, for a card that speaks T=0: a command with data gets its answer's data later."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        wire.power_on()

    def transmit(self, apdu: bytes) -> bytes:
        has_both = len(apdu) > 5 and len(apdu) == 6 + apdu[4]
        answer = self._wire.transfer(apdu + b"\0" if len(apdu) == 4 else apdu[:-1] if has_both else apdu) or b""
        if has_both and len(answer) == 2 and answer[0] == 0x61:
            answer = self._wire.transfer(bytes((0x00, 0xC0, 0x00, 0x00, answer[1]))) or b""
        return answer


class T1Driver:
    """Of readers that exchange TPDUs, for a card that speaks T=1.

    Args:
        to_card, to_host: Whether the next block is damaged on its way between reader and card.
        deaf: Whether the host does not understand the next block, though all others did.
    """

    def __init__(
        self,
        transmit: Callable[[bytes], bytes],
        *,
        rules: LeaseRules | None = None,
        ifs: int = 32,
        crc: bool = False,
        slow: bool = False,
        to_card: Callable[[], bool] = lambda: False,
        to_host: Callable[[], bool] = lambda: False,
        deaf: Callable[[], bool] = lambda: False,
    ) -> None:
        self.card = T1Card(transmit, ifsd=ifs, crc=crc, slow=slow)

        def line(block: bytes) -> bytes:
            answer = self.card.block(_damaged(block) if to_card() else block)
            return _damaged(answer) if to_host() else answer

        self.wire = Wire(Reader(TPDU, line, atr=ATR_T1), level=TPDU, rules=rules)
        self.wire.power_on()

        def heard(block: bytes) -> bytes | None:
            answer = self.wire.transfer(block)
            return None if deaf() else answer

        self.host = T1Host(heard, ifsc=ifs, crc=crc)

    def transmit(self, apdu: bytes) -> bytes:
        return self.host.transmit(apdu)


def _damaged(block: bytes) -> bytes:
    """With another byte at the end of its data, or another check byte where it has none."""
    at = len(block) - (2 if block[2] else 1)
    return block[:at] + bytes((block[at] ^ 0x5A,)) + block[at + 1 :]


def started(level: str, transmit: Transmit) -> tuple[Transmit, CardWatch]:
    """A host's hand on a card in a reader, and the audit between them."""
    if level == "t0":
        wire = Wire(Reader(TPDU, T0Card(transmit).block, atr=ATR_T0), level=TPDU)
        return T0Driver(wire).transmit, wire.watch
    if level.startswith("t1"):
        options = level.split()
        driver = T1Driver(transmit, ifs=int(options[1]), crc="crc" in options, slow="slow" in options)
        return driver.transmit, driver.wire.watch
    number = SHORT if level == "short" else EXTENDED
    part_bytes = 60 if level == "parts" else 2000
    wire = Wire(Reader(number, transmit, part_bytes=part_bytes), level=number)
    return ApduDriver(wire, part_bytes=part_bytes).transmit, wire.watch
