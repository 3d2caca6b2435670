# SPDX-License-Identifier: Apache-2.0
"""One card's commands and answers in their order: command chaining, GET RESPONSE, and what each came to."""

from dataclasses import dataclass

from privyseal.usbip.apdu import MAX_TEMPLATE_BYTES, Gathering
from privyseal.usbip.card_commands import Act, Meaning, meaning, outcome, pin_verification
from privyseal.usbip.card_events import (
    Blind,
    CardEvent,
    Initialisation,
    KeyGeneration,
    Outcome,
    PinChange,
    PinOutcome,
    PinVerification,
    PrivateKeyOperation,
    Unproven,
)

__all__ = ["Dialogue"]

_OK = 0x9000
_WRONG_LENGTH = 0x6700
#: INS or CLA that the card does not have: it did nothing.
_NOT_THERE = (0x6D00, 0x6E00)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    """A chained command, as far as it came. `template` is None once it is longer than any that is read."""

    start: tuple[int, int, int]
    template: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """A command that the card has and has not answered."""

    means: Meaning
    channel: int
    is_link: bool
    is_secured: bool
    has_data: bool
    is_malformed: bool


class Dialogue:
    """What is said to one card. Total: takes any order of calls."""

    def __init__(self) -> None:
        self._open: _Open | None = None
        self._chains: dict[int, _Chain] = {}
        #: Logical channels with an answer of which the card has more.
        self._more: set[int] = set()
        self.apdus = 0

    @property
    def is_idle(self) -> bool:
        """Whether the card owes no answer."""
        return self._open is None

    @property
    def has_more(self) -> bool:
        """Whether a part of an answer waits for GET RESPONSE."""
        return bool(self._more)

    def meaning(self, command: Gathering, *, is_whole: bool) -> Meaning:
        """What a command does that is, or would be, the next; `is_whole` unless more of its bytes follow."""
        head = command.head
        if head is None or not is_whole or head.is_chained:
            return meaning(head, None)
        chain = self._chains.get(head.channel)
        if chain is None:
            return meaning(head, command.template)
        # Which header counts where they differ is the card's affair.
        is_same = chain.start == (head.ins, head.p1, head.p2)
        return meaning(head, self._joined(chain, command) if is_same else None)

    def open(self, command: Gathering) -> list[CardEvent]:
        """The card has this whole command now."""
        events = self.lose()
        head = command.head
        self._open = _Open(
            means=self.meaning(command, is_whole=True),
            channel=head.channel if head else 0,
            is_link=head is not None and head.is_chained,
            is_secured=head is not None and head.is_secured,
            has_data=command.has_data,
            is_malformed=command.shape is None,
        )
        if head is not None and head.is_chained:
            start = (head.ins, head.p1, head.p2)
            chain = self._chains.get(head.channel)
            if chain is None or chain.start != start:
                chain = _Chain(start=start, template=b"")
            self._chains[head.channel] = _Chain(start=start, template=self._joined(chain, command))
        return events

    def close(self, status: int, data_bytes: int) -> list[CardEvent]:
        """The card has answered."""
        command, self._open = self._open, None
        if command is None:
            return [Unproven(reason=Blind.UNMATCHED_ANSWER)]
        if status >> 8 == 0x6C:
            # Not done: it is to be given again, with the Le that the status says.
            return []
        has_more = status >> 8 == 0x61
        if command.means.act is Act.GET_RESPONSE and command.channel in self._more:
            if not has_more:
                self._more.discard(command.channel)
            return []
        self._more.discard(command.channel)
        if has_more:
            self._more.add(command.channel)
        if command.is_link and status == _OK and not data_bytes:
            return []
        self._chains.pop(command.channel, None)
        self.apdus += 1
        return self._told(command, status)

    def lose(self, *, is_untried: bool = False) -> list[CardEvent]:
        """No answer will come to the command that is open, if one is; `is_untried` if its card never had it."""
        command, self._open = self._open, None
        if command is None or (is_untried and command.means.act is Act.BLIND):
            return []
        self.apdus += 1
        return _events(command, Outcome.REFUSED if is_untried else Outcome.UNKNOWN)

    def reset(self) -> list[CardEvent]:
        """The card was switched off or on."""
        events = self.lose()
        self._chains.clear()
        self._more.clear()
        return events

    @staticmethod
    def _joined(chain: _Chain, command: Gathering) -> bytes | None:
        part = command.template
        if chain.template is None or part is None or len(chain.template) + len(part) > MAX_TEMPLATE_BYTES:
            return None
        return chain.template + part

    @staticmethod
    def _told(command: _Open, status: int) -> list[CardEvent]:
        if command.means.act is Act.BLIND and status in _NOT_THERE:
            return []
        if command.means.act is Act.VERIFY and command.has_data and not command.is_secured:
            events: list[CardEvent] = [pin_verification(status)]
        else:
            events = _events(command, outcome(status))
        if command.is_malformed and status not in (_WRONG_LENGTH, *_NOT_THERE):
            events.append(Unproven(reason=Blind.MALFORMED_COMMAND))
        return events


def _events(command: _Open, ended: Outcome) -> list[CardEvent]:
    """What a command came to. Under secure messaging the outer status says nothing of the inner one."""
    means = command.means
    if command.is_secured:
        ended = Outcome.UNKNOWN
    if means.act is Act.KEY_OPERATION and means.use is not None:
        return [PrivateKeyOperation(use=means.use, outcome=ended)]
    if means.act is Act.INITIALISATION and means.write is not None:
        return [Initialisation(write=means.write, outcome=ended)]
    if means.act is Act.BLIND and means.blind is not None:
        return [Unproven(reason=means.blind)]
    if means.act is Act.VERIFY:
        return [PinVerification(outcome=_verify_outcome(command, ended))]
    if means.act is Act.PIN_CHANGE:
        return [PinChange(outcome=ended)]
    return [KeyGeneration(outcome=ended)] if means.act is Act.KEY_GENERATION else []


def _verify_outcome(command: _Open, ended: Outcome) -> PinOutcome:
    if not command.has_data:
        return PinOutcome.QUESTION
    return PinOutcome.DECLINED if ended is Outcome.REFUSED else PinOutcome.UNKNOWN
