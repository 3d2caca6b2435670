# SPDX-License-Identifier: Apache-2.0
"""One slot of a reader: which protocol its card speaks, and so how its blocks are read."""

from typing import Final

from privyseal.usbip.card_commands import Act
from privyseal.usbip.card_dialogue import Dialogue
from privyseal.usbip.card_events import Blind, CardEvent, Unproven
from privyseal.usbip.card_exchange import ApduExchange, Exchange, Sent
from privyseal.usbip.ccid import ExchangeLevel
from privyseal.usbip.t1 import T1Exchange

__all__ = ["Slot", "offered_protocols"]

_PPS: Final = 0xFF


def offered_protocols(atr: bytes) -> tuple[int, ...]:
    """The transmission protocols of an answer to reset, the default first (ISO/IEC 7816-3 §8.2.3); 15 is none."""
    protocols: list[int] = []
    # T0 and each TDi have in their high half which of TA, TB, TC, TD follow.
    at = 1
    while at < len(atr):
        present = atr[at] >> 4
        if at > 1:
            protocols.append(atr[at] & 0x0F)
        if not present & 0x08:
            break
        at += present.bit_count()
    return tuple(dict.fromkeys(one for one in protocols if one != 0x0F)) or (0,)


class Slot:
    """What goes to and from one card. Total.

    Args:
        level: Of the reader.
    """

    def __init__(self, level: ExchangeLevel) -> None:
        self.dialogue: Final = Dialogue()
        self._level = level
        self._exchange: Exchange | None = None
        self._offered: tuple[int, ...] = ()
        self._protocol: int | None = None
        #: Since its card was switched on, nothing was sent to it yet.
        self._is_fresh = False
        self._asks_protocol = False
        self.holds_key_operation = False
        if level in (ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU):
            self._exchange = ApduExchange(self.dialogue, has_chaining=level is ExchangeLevel.EXTENDED_APDU)

    def sent(self, block: bytes, level: int) -> Sent:
        """A TRANSFER's block, before the reader has it."""
        self._asks_protocol = self._is_fresh and self._level is ExchangeLevel.TPDU and block[:1] == bytes((_PPS,))
        if self._asks_protocol or (self._exchange is None and not block):
            return Sent()
        if self._exchange is None:
            is_tpdu = self._level is ExchangeLevel.TPDU
            return Sent(blind=Blind.PROTOCOL if is_tpdu else Blind.CHARACTER_LEVEL)
        self._is_fresh = False
        sent = self._exchange.sent(block, level)
        if sent.command is not None and sent.is_whole:
            means = self.dialogue.meaning(sent.command, is_whole=True)
            self.holds_key_operation |= means.act is Act.KEY_OPERATION
        return sent

    def withdraw(self) -> bool:
        """See `Exchange.withdraw`."""
        self.holds_key_operation = False
        return self._exchange is not None and self._exchange.withdraw()

    def received(self, block: bytes, chain: int) -> list[CardEvent]:
        """The answer to a TRANSFER."""
        if self._asks_protocol:
            return self._told_protocol(block)
        if self._exchange is None:
            return []  # unproven since `sent`
        events = self._exchange.received(block, chain)
        self._let_go()
        return events

    def failed(self, *, is_untried: bool) -> list[CardEvent]:
        """A TRANSFER that the reader answered with an error."""
        if self._exchange is None or self._asks_protocol:
            return []
        events = self._exchange.failed(is_untried=is_untried)
        self._let_go()
        return events

    def powered(self, atr: bytes) -> list[CardEvent]:
        """The card was switched on, and gave this answer to reset."""
        events = self.reset()
        self._offered = offered_protocols(atr)
        self._is_fresh = True
        return events + self._speak(self._offered[0])

    def reset(self) -> list[CardEvent]:
        """The card was switched off, or the reader failed to switch it on."""
        events = self.dialogue.reset() if self._exchange is None else self._exchange.reset()
        self._is_fresh = self._asks_protocol = self.holds_key_operation = False
        return events

    def parameters(self, protocol: int) -> list[CardEvent]:
        """The reader said which protocol it speaks with the card."""
        if self._level is not ExchangeLevel.TPDU:
            return []
        events = self._speak(protocol)
        if protocol not in self._offered:
            events.append(Unproven(reason=Blind.PROTOCOL))
        return events

    def completed(self, block: bytes) -> int | None:
        """The card's status in the answer to a command that the reader made itself; None if it says none."""
        if isinstance(self._exchange, T1Exchange):
            return self._exchange.completed(block)
        return int.from_bytes(block[-2:], "big") if len(block) >= 2 else None

    @property
    def has_blocks(self) -> bool:
        """Whether answers are T=1 blocks rather than answers of the card as they are."""
        return isinstance(self._exchange, T1Exchange)

    def _told_protocol(self, block: bytes) -> list[CardEvent]:
        """The card's answer to a protocol and parameters selection (ISO/IEC 7816-3 §9)."""
        self._asks_protocol = False
        if len(block) < 3 or block[0] != _PPS:
            return []  # not agreed: the default stays
        return self._speak(block[1] & 0x0F)

    def _speak(self, protocol: int) -> list[CardEvent]:
        if self._level is not ExchangeLevel.TPDU or protocol == self._protocol:
            return []
        events = [] if self._exchange is None else self._exchange.reset()
        self._protocol = protocol
        exchanges: dict[int, Exchange] = {
            0: ApduExchange(self.dialogue, has_chaining=False),
            1: T1Exchange(self.dialogue),
        }
        self._exchange = exchanges.get(protocol)
        return events

    def _let_go(self) -> None:
        if self.dialogue.is_idle and not (isinstance(self._exchange, T1Exchange) and self._exchange.is_waiting):
            self.holds_key_operation = False
