# SPDX-License-Identifier: Apache-2.0
"""How commands travel in the blocks between host and reader, and the simple way: a block a command, or parts of it.

It serves readers that exchange APDUs, short or extended, and T=0: a T=0 TPDU looks as a short command of the cases
1 to 3, its answer comes with GET RESPONSE, and 6Cxx has it given again (ISO/IEC 7816-3 §12.2).
"""

from dataclasses import dataclass
from typing import Protocol

from privyseal.usbip.apdu import AnswerTail, Gathering
from privyseal.usbip.card_dialogue import Dialogue
from privyseal.usbip.card_events import Blind, CardEvent, Unproven
from privyseal.usbip.ccid import ChainPart

__all__ = ["ApduExchange", "Exchange", "Sent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What the host's block is.

    Attributes:
        command: The command that it is a part of, up to and with this part; None if it carries none.
        is_whole: Whether the command ends with it.
        blind: What cannot be told of it.
        events: What became of commands before it.
    """

    command: Gathering | None = None
    is_whole: bool = False
    blind: Blind | None = None
    events: tuple[CardEvent, ...] = ()


class Exchange(Protocol):
    """Reads one slot's blocks of both directions, and tells the dialogue what they carry. Total."""

    def sent(self, block: bytes, level: int) -> Sent:
        """The host's next block; `level` is its wLevelParameter."""

    def received(self, block: bytes, chain: int) -> list[CardEvent]:
        """The reader's answer to it; `chain` is its bChainParameter."""

    def failed(self, *, is_untried: bool) -> list[CardEvent]:
        """The reader's answer was an error; `is_untried` if the card never had the block."""

    def reset(self) -> list[CardEvent]:
        """The card was switched off or on: all begins anew."""

    def withdraw(self) -> bool:
        """What `sent` told last is not given to the reader; False if the host then cannot go on."""


class ApduExchange:
    """See `Exchange`.

    Args:
        has_chaining: Whether the reader takes commands in parts, which those for extended APDUs do.
    """

    def __init__(self, dialogue: Dialogue, *, has_chaining: bool) -> None:
        self._dialogue = dialogue
        self._has_chaining = has_chaining
        #: A command that has begun and not ended.
        self._begun: Gathering | None = None
        self._tail = AnswerTail()

    def sent(self, block: bytes, level: int) -> Sent:
        """See `Exchange`."""
        part = level if self._has_chaining else ChainPart.WHOLE
        if not block and part in (ChainPart.NEXT, ChainPart.WHOLE):
            return Sent()
        if part in (ChainPart.WHOLE, ChainPart.FIRST):
            events = self.failed(is_untried=False) if self._begun is not None else []
            self._begun = Gathering(block)
            return Sent(command=self._begun, is_whole=part == ChainPart.WHOLE, events=tuple(events))
        if self._begun is None or part not in (ChainPart.MIDDLE, ChainPart.LAST):
            return Sent(blind=Blind.CHAINING)
        self._begun.add(block)
        return Sent(command=self._begun, is_whole=part == ChainPart.LAST)

    def received(self, block: bytes, chain: int) -> list[CardEvent]:
        """See `Exchange`."""
        part = chain if self._has_chaining else ChainPart.WHOLE
        if part == ChainPart.NEXT and not block:
            return []
        # Answered, and so it was whole to the reader, whatever its parameter said.
        events = self._end_command()
        self._tail.add(block)
        if part in (ChainPart.FIRST, ChainPart.MIDDLE):
            return events
        tail, self._tail = self._tail, AnswerTail()
        if part not in (ChainPart.WHOLE, ChainPart.LAST):
            events.append(Unproven(reason=Blind.CHAINING))
        status = tail.status
        if status is None:
            return events + self._dialogue.lose()
        return events + self._dialogue.close(status, tail.data_bytes)

    def failed(self, *, is_untried: bool) -> list[CardEvent]:
        """See `Exchange`."""
        events = self._end_command()
        self._tail = AnswerTail()
        return events + self._dialogue.lose(is_untried=is_untried)

    def reset(self) -> list[CardEvent]:
        """See `Exchange`."""
        return self.failed(is_untried=False) + self._dialogue.reset()

    def withdraw(self) -> bool:
        """See `Exchange`."""
        self._begun = None
        return True

    def _end_command(self) -> list[CardEvent]:
        command, self._begun = self._begun, None
        return [] if command is None else self._dialogue.open(command)
