# SPDX-License-Identifier: Apache-2.0
"""The audit of a smart-card reader under a lease: what its card's keys and PINs were used for, from the bulk transfers.

It reads along and keeps nothing of what it reads but counts. Hosts, readers and cards may send anything: what cannot
be read makes the lease unproven, and under rules ends it before the reader has it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from privyseal.usbip.card_commands import Act, Meaning, outcome, pin_verification
from privyseal.usbip.card_counts import Counting
from privyseal.usbip.card_events import (
    Blind,
    CardEvent,
    EndLease,
    EndReason,
    Forward,
    LeaseCounts,
    LeaseEnds,
    LeaseRules,
    Outcome,
    PinChange,
    PinOutcome,
    PinVerification,
    Unproven,
    Verdict,
)
from privyseal.usbip.card_rules import Enforcement, Refusal
from privyseal.usbip.card_slot import Slot
from privyseal.usbip.ccid import (
    Answer,
    AnswerKind,
    ClassDescriptor,
    Command,
    CommandKind,
    CommandStatus,
    Framing,
    read_answer,
    read_command,
)
from privyseal.usbip.pin_pad import pin_pad_meaning

__all__ = ["CardWatch"]

#: Readers have one slot, some two.
_MAX_SLOTS: Final = 16
#: Commands whose answers are the card's, and those that end what it was doing.
_TO_CARD: Final = (CommandKind.TRANSFER, CommandKind.SECURE)
_ENDING: Final = (CommandKind.POWER_ON, CommandKind.POWER_OFF, CommandKind.ABORT)
_PARAMETERS: Final = (CommandKind.SET_PARAMETERS, CommandKind.GET_PARAMETERS, CommandKind.RESET_PARAMETERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A command that the reader has not answered. `means` is there for SECURE."""

    kind: int
    means: Meaning | None = None


class CardWatch:
    """One lease of one reader. Total: no payload makes it raise, and none makes it hold more than a few messages.

    Args:
        descriptor: Of the reader (`read_class_descriptor`); None for a device that is none.
        packet_bytes: wMaxPacketSize of the bulk endpoints.
        rules: What the lease does not allow.
    """

    def __init__(self, descriptor: ClassDescriptor | None, *, packet_bytes: int, rules: LeaseRules) -> None:
        self._descriptor = descriptor
        self._rules = Enforcement(rules)
        self._counting = Counting()
        max_bytes = 0 if descriptor is None else descriptor.max_message_bytes
        self._commands = Framing(max_message_bytes=max_bytes, packet_bytes=packet_bytes)
        self._answers = Framing(max_message_bytes=max_bytes, packet_bytes=packet_bytes)
        self._slots: dict[int, Slot] = {}
        #: By slot and sequence number: no more than there are of both.
        self._pending: dict[tuple[int, int], _Pending] = {}
        self._has_ended = False

    @property
    def counts(self) -> LeaseCounts:
        """All so far; after `finish`, all of the lease."""
        return LeaseCounts(
            tallies=self._counting.tallies,
            unproven=self._counting.unproven,
            refused=self._counting.refused,
            apdus=sum(slot.dialogue.apdus for slot in self._slots.values()),
            command_bytes=self._counting.command_bytes,
            answer_bytes=self._counting.answer_bytes,
        )

    def command(self, payload: bytes) -> Verdict:
        """The next payload of the bulk-out endpoint, before the reader has it."""
        self._counting.command_bytes += len(payload)
        if self._descriptor is None:
            return self._verdict([Unproven(reason=Blind.NOT_CCID)], self._unreadable())
        framed = self._commands.feed(payload)
        is_odd = framed.fault is not None
        events: list[CardEvent] = [Unproven(reason=Blind.FRAMING)] if is_odd else []
        if self._rules.is_strict and (is_odd or framed.is_split):
            return self._verdict(events, self._unreadable())
        for message in framed.messages:
            refusal = self._sent(read_command(message), events)
            if refusal is not None:
                return self._verdict(events, refusal)
        return self._verdict(events, None)

    def answer(self, payload: bytes) -> tuple[CardEvent, ...]:
        """The next payload of the bulk-in endpoint; the host may have it in any case."""
        self._counting.answer_bytes += len(payload)
        if self._descriptor is None:
            return self._told([Unproven(reason=Blind.NOT_CCID)])
        framed = self._answers.feed(payload)
        events: list[CardEvent] = [Unproven(reason=Blind.FRAMING)] if framed.fault is not None else []
        for message in framed.messages:
            events += self._received(read_answer(message))
        return self._told(events) + self._end()

    def unseen(self, reason: Blind) -> tuple[CardEvent, ...]:
        """The device had traffic that does not come by here, such as vendor requests on its control pipe."""
        return self._told([Unproven(reason=reason)])

    def finish(self) -> tuple[CardEvent, ...]:
        """The lease has ended: what is unanswered stays of unknown outcome."""
        self._commands.forget()
        self._answers.forget()
        events = [event for key in tuple(self._pending) for event in self._drop(key)]
        for slot in self._slots.values():
            events += slot.reset()
        return self._told(events)

    # What the host sends

    def _sent(self, command: Command, events: list[CardEvent]) -> Refusal | None:
        """Read a command; events of it are added. None if the reader may have it."""
        slot = self._slot(command.slot)
        if slot is None:
            events.append(Unproven(reason=Blind.SLOT))
            return self._unreadable()
        refusal = None
        means = None
        if command.kind in _TO_CARD and (waiting := self._waiting(command.slot)):
            if self._rules.is_strict:
                return self._rules.busy(command)
            # Which command a later answer belongs to would be a guess.
            if any(self._pending[key].kind in _TO_CARD for key in waiting):
                events += [*self._give_up(waiting), Unproven(reason=Blind.OVERLAP)]
        if command.kind == CommandKind.TRANSFER:
            refusal = self._transferred(command, slot, events)
        elif command.kind == CommandKind.SECURE:
            means = pin_pad_meaning(command.data, is_whole=command.level_parameter == 0)
            refusal = self._rules.pin_pad(command, means, slot) if self._rules.is_strict else None
        elif _is_vendors(command.kind):
            refusal = self._rules.reader_command(command)
        if refusal is None:
            self._await(command, _Pending(kind=command.kind, means=means), events)
        return refusal

    def _transferred(self, command: Command, slot: Slot, events: list[CardEvent]) -> Refusal | None:
        if (swallowed := self._rules.continued(command)) is not None:
            return swallowed
        sent = slot.sent(command.data, command.level_parameter)
        events += sent.events
        if sent.blind is not None:
            events.append(Unproven(reason=sent.blind))
        if not self._rules.is_strict:
            return None
        others = sum(other.holds_key_operation for other in self._slots.values() if other is not slot)
        refusal = self._rules.transfer(command, sent, slot, others_hold=others)
        if isinstance(refusal, EndLease):
            slot.withdraw()  # it never reached the card
        return refusal

    def _await(self, command: Command, pending: _Pending, events: list[CardEvent]) -> None:
        key = (command.slot, command.sequence)
        events += self._drop(key)
        self._pending[key] = pending

    def _waiting(self, number: int) -> list[tuple[int, int]]:
        """A slot's commands that are unanswered, the oldest first."""
        return [key for key in self._pending if key[0] == number]

    def _give_up(self, keys: list[tuple[int, int]]) -> list[CardEvent]:
        return [event for key in keys for event in self._drop(key)]

    def _drop(self, key: tuple[int, int]) -> list[CardEvent]:
        """No answer to this command is waited for any more. What a TRANSFER carried, its slot knows."""
        pending = self._pending.pop(key, None)
        if pending is None:
            return []
        if pending.means is not None:
            return _pin_pad_events(pending.means, None)
        return [Unproven(reason=Blind.READER_COMMAND)] if _is_vendors(pending.kind) else []

    # What the reader answers

    def _received(self, answer: Answer) -> list[CardEvent]:
        slot = self._slots.get(answer.slot)
        pending = self._pending.get((answer.slot, answer.sequence))
        if slot is None or pending is None:
            return [Unproven(reason=Blind.UNMATCHED_ANSWER)]
        if answer.command_status is CommandStatus.TIME_EXTENSION:
            return []
        waiting = self._waiting(answer.slot)
        older = waiting[: waiting.index((answer.slot, answer.sequence))]
        del self._pending[answer.slot, answer.sequence]
        if pending.kind == CommandKind.TRANSFER:
            return self._card_answered(answer, slot)
        if pending.means is not None:
            return self._pin_pad_answered(answer, pending.means, slot)
        return self._reader_answered(answer, pending.kind, slot, older)

    def _card_answered(self, answer: Answer, slot: Slot) -> list[CardEvent]:
        if answer.command_status is CommandStatus.OK and answer.kind == AnswerKind.DATA_BLOCK:
            events = slot.received(answer.data, answer.specific)
        elif answer.command_status is CommandStatus.OK:
            events = [*slot.failed(is_untried=False), Unproven(reason=Blind.UNMATCHED_ANSWER)]
        else:
            events = slot.failed(is_untried=answer.is_untried)
        return events

    def _pin_pad_answered(self, answer: Answer, means: Meaning, slot: Slot) -> list[CardEvent]:
        is_ok = answer.command_status is CommandStatus.OK
        return _pin_pad_events(means, slot.completed(answer.data) if is_ok else None)

    def _reader_answered(self, answer: Answer, kind: int, slot: Slot, older: list[tuple[int, int]]) -> list[CardEvent]:
        is_ok = answer.command_status is CommandStatus.OK
        if kind in _ENDING:
            return self._ended(answer, kind, slot, older)
        if kind in _PARAMETERS and is_ok and answer.kind == AnswerKind.PARAMETERS:
            return slot.parameters(answer.specific)
        is_done = is_ok or not answer.is_untried
        return [Unproven(reason=Blind.READER_COMMAND)] if _is_vendors(kind) and is_done else []

    def _ended(self, answer: Answer, kind: int, slot: Slot, older: list[tuple[int, int]]) -> list[CardEvent]:
        """The commands before it get no answer any more."""
        events = self._give_up(older)
        if kind == CommandKind.ABORT:
            return events + slot.failed(is_untried=False)
        is_on = kind == CommandKind.POWER_ON and answer.command_status is CommandStatus.OK
        return events + (slot.powered(answer.data) if is_on else slot.reset())

    def _end(self) -> tuple[CardEvent, ...]:
        """The lease ends once the host has the whole answer."""
        reason = self._rules.ending
        if reason is None or self._has_ended or any(slot.dialogue.has_more for slot in self._slots.values()):
            return ()
        self._has_ended = True
        return (LeaseEnds(reason=reason),)

    # Both

    def _slot(self, number: int) -> Slot | None:
        if self._descriptor is None or number > min(self._descriptor.max_slot_index, _MAX_SLOTS - 1):
            return None
        if number not in self._slots:
            self._slots[number] = Slot(self._descriptor.level)
        return self._slots[number]

    def _unreadable(self) -> EndLease | None:
        return EndLease(reason=EndReason.UNREADABLE) if self._rules.is_strict else None

    def _verdict(self, events: Iterable[CardEvent], refusal: Refusal | None) -> Verdict:
        if refusal is None:
            return Forward(events=self._told(events))
        self._counting.refused += not isinstance(refusal, EndLease)
        return replace(refusal, events=self._told(events))

    def _told(self, events: Iterable[CardEvent]) -> tuple[CardEvent, ...]:
        told = self._counting.take(events)
        for event in told:
            self._rules.note(event)
        return told


def _is_vendors(kind: int) -> bool:
    """Whether a command is for the reader alone, and what it does is its vendor's affair."""
    return kind == CommandKind.ESCAPE or kind not in tuple(CommandKind)


def _pin_pad_events(means: Meaning, status: int | None) -> list[CardEvent]:
    """What became of a command that the reader completed; `status` of None is not known."""
    if means.act is Act.VERIFY:
        return [PinVerification(outcome=PinOutcome.UNKNOWN) if status is None else pin_verification(status)]
    if means.act is Act.PIN_CHANGE:
        return [PinChange(outcome=Outcome.UNKNOWN if status is None else outcome(status))]
    return [Unproven(reason=Blind.PIN_PAD)]
