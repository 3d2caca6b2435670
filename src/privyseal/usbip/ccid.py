# SPDX-License-Identifier: Apache-2.0
"""Messages of USB smart-card readers (USB CCID class, revision 1.1), read from their bulk transfers.

A message is a header of ten bytes and as many bytes of data as that says. Hosts send commands (PC_to_RDR, §6.1) and
readers answer (RDR_to_PC, §6.2), each answer with slot and sequence number of its command.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

__all__ = [
    "HEADER_BYTES",
    "MAX_MESSAGE_BYTES",
    "Answer",
    "AnswerKind",
    "ChainPart",
    "ClassDescriptor",
    "Command",
    "CommandKind",
    "CommandStatus",
    "ExchangeLevel",
    "Framed",
    "Framing",
    "FramingFault",
    "SlotError",
    "read_answer",
    "read_class_descriptor",
    "read_command",
]

_HEADER: Final = struct.Struct("<BIBB3s")
HEADER_BYTES: Final = _HEADER.size

#: An extended APDU of 64 KiB with its header and lengths, and the message's own header. No reader takes more.
MAX_MESSAGE_BYTES: Final = HEADER_BYTES + 65_536 + 10

#: In one payload. One is what there may be; each further one makes it unproven, and costs time.
_MAX_MESSAGES: Final = 16

_DESCRIPTOR_BYTES: Final = 54
_DESCRIPTOR_TYPE: Final = 0x21
_DESCRIPTOR: Final = struct.Struct("<BBHBBIIIBIIBIIIIIBBHBB")


class CommandKind(IntEnum):
    """bMessageType of the host's messages (table 6.1-1)."""

    SET_PARAMETERS = 0x61
    POWER_ON = 0x62
    POWER_OFF = 0x63
    SLOT_STATUS = 0x65
    SECURE = 0x69
    T0_APDU = 0x6A
    ESCAPE = 0x6B
    GET_PARAMETERS = 0x6C
    RESET_PARAMETERS = 0x6D
    CLOCK = 0x6E
    TRANSFER = 0x6F
    MECHANICAL = 0x71
    ABORT = 0x72
    SET_DATA_RATE = 0x73


class AnswerKind(IntEnum):
    """bMessageType of the reader's messages (table 6.2-1)."""

    DATA_BLOCK = 0x80
    SLOT_STATUS = 0x81
    PARAMETERS = 0x82
    ESCAPE = 0x83
    DATA_RATE = 0x84


class CommandStatus(IntEnum):
    """bmCommandStatus (table 6.2-3)."""

    OK = 0
    FAILED = 1
    TIME_EXTENSION = 2
    RESERVED = 3


class SlotError(IntEnum):
    """bError of a failed command (table 6.2-2), as far as it tells whether the card saw the command."""

    NOT_SUPPORTED = 0x00
    #: The highest one that names the byte of the header that the reader did not take.
    LAST_BAD_BYTE = 0x7F
    SLOT_BUSY = 0xE0


class ChainPart(IntEnum):
    """wLevelParameter and bChainParameter of readers that exchange extended APDUs (§6.1.4, §6.2.1)."""

    WHOLE = 0
    FIRST = 1
    LAST = 2
    MIDDLE = 3
    #: Without data: the other side is to send its next part.
    NEXT = 0x10


class ExchangeLevel(StrEnum):
    """What a TRANSFER carries, by dwFeatures (§5.1)."""

    CHARACTER = "character"
    TPDU = "tpdu"
    SHORT_APDU = "short-apdu"
    EXTENDED_APDU = "extended-apdu"


_LEVELS: Final = {
    0x1_0000: ExchangeLevel.TPDU,
    0x2_0000: ExchangeLevel.SHORT_APDU,
    0x4_0000: ExchangeLevel.EXTENDED_APDU,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDescriptor:
    """The functional descriptor of a reader (§5.1), as far as a listener needs it.

    Attributes:
        max_slot_index: Of its last slot; the first is 0.
        max_message_bytes: Longest message with its header (dwMaxCCIDMessageLength).
        features: dwFeatures.
    """

    max_slot_index: int
    max_message_bytes: int
    features: int

    @property
    def level(self) -> ExchangeLevel:
        """What its TRANSFER carries."""
        return _LEVELS.get(self.features & 0x7_0000, ExchangeLevel.CHARACTER)


def read_class_descriptor(descriptors: bytes) -> ClassDescriptor | None:
    """The first functional descriptor of a reader in a sequence of USB descriptors; None without one."""
    at = 0
    while at + 2 <= len(descriptors):
        length, kind = descriptors[at], descriptors[at + 1]
        if length < 2:
            return None
        # A HID interface has a descriptor of the same type, of another length.
        if kind == _DESCRIPTOR_TYPE and length == _DESCRIPTOR_BYTES and at + length <= len(descriptors):
            fields = _DESCRIPTOR.unpack_from(descriptors, at)
            return ClassDescriptor(max_slot_index=fields[3], features=fields[15], max_message_bytes=fields[16])
        at += length
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A message of the host.

    Attributes:
        kind: A `CommandKind`, or what this class does not define.
        specific: The three bytes that each kind has for itself.
    """

    kind: int
    slot: int
    sequence: int
    specific: bytes
    data: bytes = field(repr=False)

    @property
    def level_parameter(self) -> int:
        """Of TRANSFER and SECURE: wLevelParameter."""
        return int.from_bytes(self.specific[1:], "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A message of the reader.

    Attributes:
        kind: An `AnswerKind`, or what this class does not define.
        status: bmICCStatus and bmCommandStatus.
        error: bError; of a failed command alone.
        specific: The one byte that each kind has for itself: bChainParameter, bProtocolNum, bClockStatus.
    """

    kind: int
    slot: int
    sequence: int
    status: int = 0
    error: int = 0
    specific: int = 0
    data: bytes = field(default=b"", repr=False)

    @property
    def command_status(self) -> CommandStatus:
        """How far the command is."""
        return CommandStatus(self.status >> 6)

    @property
    def is_untried(self) -> bool:
        """Of a failed command: the reader did not take it up, and so its card never saw it."""
        return self.error <= SlotError.LAST_BAD_BYTE or self.error == SlotError.SLOT_BUSY

    def encode(self) -> bytes:
        """As it stands in a bulk transfer."""
        last = bytes((self.status, self.error, self.specific))
        return _HEADER.pack(self.kind, len(self.data), self.slot, self.sequence, last) + self.data


def read_command(message: bytes) -> Command:
    """A whole message that `Framing` found in what the host sent."""
    kind, _, slot, sequence, specific = _HEADER.unpack_from(message)
    return Command(kind=kind, slot=slot, sequence=sequence, specific=specific, data=message[HEADER_BYTES:])


def read_answer(message: bytes) -> Answer:
    """A whole message that `Framing` found in what the reader sent."""
    kind, _, slot, sequence, (status, error, specific) = _HEADER.unpack_from(message)
    return Answer(
        kind=kind,
        slot=slot,
        sequence=sequence,
        status=status,
        error=error,
        specific=specific,
        data=message[HEADER_BYTES:],
    )


class FramingFault(StrEnum):
    """Why the other end may see other messages than we do."""

    TOO_LONG = "too-long"
    #: A message that goes on after a transfer's end; some ends drop the part, others wait for the rest.
    SHORT_TRANSFER = "short-transfer"
    #: More in a transfer than one message; some ends drop it, others read on.
    TRAILING = "trailing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Framed:
    """What a payload completed.

    Attributes:
        is_split: Whether it held a part of a message only, at its begin or its end.
    """

    messages: tuple[bytes, ...] = field(repr=False)
    is_split: bool
    fault: FramingFault | None = None


class Framing:
    """Messages out of the bulk payloads of one direction.

    Args:
        max_message_bytes: Of the class descriptor; never more than `MAX_MESSAGE_BYTES` is held.
        packet_bytes: wMaxPacketSize of the endpoint: a payload that is no multiple of it ends a transfer.
    """

    def __init__(self, *, max_message_bytes: int, packet_bytes: int) -> None:
        self._max_bytes = max(HEADER_BYTES, min(max_message_bytes, MAX_MESSAGE_BYTES))
        self._packet_bytes = max(1, packet_bytes)
        self._held = bytearray()

    def feed(self, payload: bytes) -> Framed:
        """Take the next payload. After a message that is too long, the next payload is read as the begin of one."""
        was_open = bool(self._held)
        self._held += payload
        messages: list[bytes] = []
        while len(self._held) >= HEADER_BYTES:
            end = HEADER_BYTES + int.from_bytes(self._held[1:5], "little")
            if end > self._max_bytes:
                self._held.clear()
                return Framed(messages=tuple(messages), is_split=was_open, fault=FramingFault.TOO_LONG)
            if len(messages) == _MAX_MESSAGES:
                self._held.clear()
            if len(self._held) < end:
                break
            messages.append(bytes(self._held[:end]))
            del self._held[:end]
        return Framed(
            messages=tuple(messages),
            is_split=was_open or bool(self._held),
            fault=self._fault(len(messages), ends_transfer=not payload or len(payload) % self._packet_bytes != 0),
        )

    def forget(self) -> None:
        """Drop what is held of a message that is not whole."""
        self._held.clear()

    def _fault(self, messages: int, *, ends_transfer: bool) -> FramingFault | None:
        if messages > 1 or (messages and self._held):
            return FramingFault.TRAILING
        return FramingFault.SHORT_TRANSFER if self._held and ends_transfer else None
