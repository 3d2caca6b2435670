# SPDX-License-Identifier: Apache-2.0
"""T=1 (ISO/IEC 7816-3 §11), read along by a third party: the commands and answers in the blocks of both directions.

Whether a block arrived is known by what the other side sends next, and so each command waits for the card's word: it
counts when the card answers it with an I-block or acknowledges it, and once, however often it was sent.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import reduce
from operator import xor

from privyseal.usbip.apdu import AnswerTail, Gathering
from privyseal.usbip.card_dialogue import Dialogue
from privyseal.usbip.card_events import Blind, CardEvent, Unproven
from privyseal.usbip.card_exchange import Sent

__all__ = ["Block", "Supervisory", "T1Exchange", "read_block"]

_PROLOGUE_BYTES = 3
_MAX_INF_BYTES = 254
_MORE, _I_SEQUENCE, _R_SEQUENCE = 0x20, 0x40, 0x10
_S_RESPONSE = 0x20


class Supervisory(IntEnum):
    """The low five bits of an S-block's PCB (§11.3.2.2)."""

    RESYNCH = 0
    IFS = 1
    ABORT = 2
    WTX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block as it stands on the wire. `epilogue` is its error detection code: LRC of one byte, CRC of two."""

    nad: int
    pcb: int
    inf: bytes = field(repr=False)
    epilogue: bytes = field(repr=False)

    @property
    def is_information(self) -> bool:
        """An I-block: a part of a command or answer."""
        return self.pcb < 0x80

    @property
    def is_receipt(self) -> bool:
        """An R-block: acknowledges the block before N(R), or asks for N(R)."""
        return self.pcb & 0xC0 == 0x80

    @property
    def sequence(self) -> int:
        """N(S) of an I-block, N(R) of an R-block."""
        return int(bool(self.pcb & (_I_SEQUENCE if self.is_information else _R_SEQUENCE)))

    @property
    def has_more(self) -> bool:
        """Of an I-block: whether the chain goes on."""
        return bool(self.pcb & _MORE)

    @property
    def supervisory(self) -> int | None:
        """A `Supervisory` of an S-block, request or response."""
        return self.pcb & 0x1F if self.pcb >= 0xC0 else None

    @property
    def is_response(self) -> bool:
        """Of an S-block: whether it answers one."""
        return bool(self.pcb & _S_RESPONSE)

    @property
    def is_intact(self) -> bool:
        """Whether its error detection code is right."""
        covered = bytes((self.nad, self.pcb, len(self.inf))) + self.inf
        if len(self.epilogue) == 1:
            return reduce(xor, covered) == self.epilogue[0]
        return int.from_bytes(self.epilogue, "big") in _checksums(covered)


def _checksums(data: bytes) -> Iterator[int]:
    """ISO/IEC 7816-3 leaves open which CRC of ISO/IEC 13239 it means: Linux's and Windows' drivers take two."""
    for polynomial, start in ((0x8408, 0xFFFF), (0xA001, 0x0000)):
        value = start
        for byte in data:
            value ^= byte
            for _ in range(8):
                value = value >> 1 ^ polynomial if value & 1 else value >> 1
        yield value


def read_block(raw: bytes) -> Block | None:
    """One block; None if its length does not fit (§11.3)."""
    if len(raw) < _PROLOGUE_BYTES:
        return None
    nad, pcb, length = raw[:_PROLOGUE_BYTES]
    epilogue = raw[_PROLOGUE_BYTES + length :]
    if length > _MAX_INF_BYTES or len(epilogue) not in (1, 2):
        return None
    return Block(nad=nad, pcb=pcb, inf=raw[_PROLOGUE_BYTES : _PROLOGUE_BYTES + length], epilogue=epilogue)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offered:
    """The host's last I-block, of which the card has not said yet whether it has it.

    Attributes:
        mark: See `_mark`.
        command: The chain with this block's part.
    """

    sequence: int
    has_more: bool
    mark: "_Mark"
    command: Gathering


_Mark = tuple[int, int, bytes]


def _mark(block: Block) -> _Mark:
    """The same for the same block sent again; it does not hold what is in it."""
    return block.pcb, len(block.inf), block.epilogue


class T1Exchange:
    """See `Exchange`."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._begin()

    def _begin(self) -> None:
        #: N(S) of each side's next I-block.
        self._host_next = self._card_next = 0
        self._chain = Gathering()
        self._offered: _Offered | None = None
        self._tail = AnswerTail()
        #: Whether the card's last block gave up the chain.
        self._is_aborting = False
        #: The card's last I-block, and whether the host's last block may have asked for it once more.
        self._card_mark: _Mark | None = None
        self._may_repeat = False

    def sent(self, block: bytes, level: int) -> Sent:
        """See `Exchange`."""
        del level  # readers that exchange TPDUs do not use it
        read = read_block(block)
        if read is None:
            return Sent(blind=Blind.T1_BLOCK)
        self._may_repeat = not read.is_information
        if not read.is_information:
            return self._supervised(read) if read.supervisory is not None else Sent()
        mark = _mark(read)
        events = []
        if self._offered is not None and self._offered.mark != mark:
            # The card may have taken the one before, and its answer never came.
            events = self._lose_offered()
            if events:
                events.append(Unproven(reason=Blind.T1_SEQUENCE))
        self._offered = _Offered(
            sequence=read.sequence, has_more=read.has_more, mark=mark, command=self._chain.with_part(read.inf)
        )
        return Sent(
            command=self._offered.command,
            is_whole=not read.has_more,
            # No host has reason to send a block again that its card has taken.
            blind=None if read.sequence == self._host_next else Blind.T1_SEQUENCE,
            events=tuple(events),
        )

    def received(self, block: bytes, chain: int) -> list[CardEvent]:
        """See `Exchange`."""
        del chain
        read = read_block(block)
        if read is None or not read.is_intact:
            return []  # the host asks for it again, or its next command shows that this was lost
        self._is_aborting = read.supervisory == Supervisory.ABORT
        if read.is_information:
            return self._answered(read)
        if read.is_receipt:
            self._acknowledged(read)
            return []
        if read.supervisory == Supervisory.RESYNCH and read.is_response:
            events = self._lose_offered() + self._dialogue.lose()
            self._begin()
            return events
        return self._aborted() if self._is_aborting else []

    def failed(self, *, is_untried: bool) -> list[CardEvent]:
        """See `Exchange`."""
        if is_untried:
            self._offered = None
        return []  # the host sends its block again, or begins anew

    def reset(self) -> list[CardEvent]:
        """See `Exchange`."""
        events = self._lose_offered() + self._dialogue.reset()
        self._begin()
        return events

    def withdraw(self) -> bool:
        """See `Exchange`."""
        # Host and card count the blocks: after one that the card never had, neither takes the other's.
        self._offered = None
        return False

    @property
    def is_waiting(self) -> bool:
        """Whether the card has not said yet if it has the host's last block."""
        return self._offered is not None

    def completed(self, block: bytes) -> int | None:
        """The card answered a block that the reader made in the host's place; its status, if it says one."""
        read = read_block(block)
        if read is None or not read.is_intact or not read.is_information:
            return None
        self._host_next ^= 1
        self._card_next, self._card_mark = read.sequence ^ 1, _mark(read)
        tail = AnswerTail()
        tail.add(read.inf)
        return None if read.has_more else tail.status

    def _supervised(self, block: Block) -> Sent:
        """A host that gives up a chain: it goes on in a card that does not hear that."""
        is_agreed = block.is_response and self._is_aborting
        return Sent(blind=Blind.CHAINING) if block.supervisory == Supervisory.ABORT and not is_agreed else Sent()

    def _answered(self, block: Block) -> list[CardEvent]:
        is_next = block.sequence == self._card_next
        if not is_next and self._may_repeat and _mark(block) == self._card_mark:
            return []
        self._card_next, self._card_mark = block.sequence ^ 1, _mark(block)
        events = self._taken()
        if not is_next:
            events.append(Unproven(reason=Blind.T1_SEQUENCE))
        if self._dialogue.is_idle:
            events.append(Unproven(reason=Blind.T1_SEQUENCE))
        self._tail.add(block.inf)
        if block.has_more:
            return events
        tail, self._tail = self._tail, AnswerTail()
        status = tail.status
        if status is None or self._dialogue.is_idle:
            return events + self._dialogue.lose()
        return events + self._dialogue.close(status, tail.data_bytes)

    def _taken(self) -> list[CardEvent]:
        """The card answers: it has what was offered."""
        offered, self._offered = self._offered, None
        if offered is None:
            return []
        is_expected = offered.sequence == self._host_next and not offered.has_more
        self._host_next = offered.sequence ^ 1
        self._chain, self._tail = Gathering(), AnswerTail()
        events = self._dialogue.open(offered.command)
        return events if is_expected else [*events, Unproven(reason=Blind.T1_SEQUENCE)]

    def _acknowledged(self, block: Block) -> None:
        offered = self._offered
        if offered is None:
            return
        if block.sequence == offered.sequence:
            self._offered = None  # the card asks for it again
        elif offered.has_more:
            self._offered = None
            if offered.sequence == self._host_next:
                self._chain = offered.command
                self._host_next ^= 1

    def _aborted(self) -> list[CardEvent]:
        events = self._lose_offered() + self._dialogue.lose()
        self._chain, self._tail = Gathering(), AnswerTail()
        return events

    def _lose_offered(self) -> list[CardEvent]:
        offered, self._offered = self._offered, None
        if offered is None or offered.has_more:
            return []
        return self._dialogue.open(offered.command) + self._dialogue.lose()
