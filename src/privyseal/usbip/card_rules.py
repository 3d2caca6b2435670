# SPDX-License-Identifier: Apache-2.0
"""A lease's rules against what its host sends, before the reader has it."""

from typing import Final

from privyseal.usbip.card_commands import Act, Meaning
from privyseal.usbip.card_events import (
    AnswerInstead,
    CardEvent,
    EndLease,
    EndReason,
    LeaseRules,
    Outcome,
    PinOutcome,
    PinVerification,
    PrivateKeyOperation,
)
from privyseal.usbip.card_exchange import Sent
from privyseal.usbip.card_slot import Slot
from privyseal.usbip.ccid import Answer, AnswerKind, ChainPart, Command, CommandKind, SlotError

__all__ = ["Enforcement", "Refusal"]

_SECURITY_STATUS: Final = bytes.fromhex("6982")
_FAILED: Final = 0x40

Refusal = AnswerInstead | EndLease


class Enforcement:
    """Says what the reader is not to have, and when the lease has to end."""

    def __init__(self, rules: LeaseRules) -> None:
        self._rules = rules
        self.is_strict: Final = rules.is_strict
        self._operations = 0
        #: Slots whose host goes on with the parts of a command that was refused.
        self._swallowing: set[int] = set()
        #: Why the lease has to end, once it has.
        self.ending: EndReason | None = None

    def note(self, event: CardEvent) -> None:
        """Hold an event against the rules."""
        most = self._rules.max_private_key_operations
        match event:
            case PrivateKeyOperation(outcome=Outcome.OK | Outcome.UNKNOWN):
                self._operations += 1
                if most is not None and self._operations >= most:
                    self.ending = self.ending or EndReason.OPERATIONS
            case PinVerification(outcome=PinOutcome.REFUSED | PinOutcome.UNKNOWN) if self._rules.end_at_refused_pin:
                self.ending = self.ending or EndReason.PIN_REFUSED

    def busy(self, command: Command) -> AnswerInstead:
        """One command after the other: what the reader itself says to a second one (§6.2.6, CMD_SLOT_BUSY)."""
        return _failure(command, SlotError.SLOT_BUSY)

    def continued(self, command: Command) -> AnswerInstead | None:
        """The answer to a further part of a command that was refused."""
        if command.level_parameter in (ChainPart.MIDDLE, ChainPart.LAST) and command.slot in self._swallowing:
            return _security_status(command)
        self._swallowing.discard(command.slot)
        return None

    def transfer(self, command: Command, sent: Sent, slot: Slot, *, others_hold: int) -> Refusal | None:
        """Of a block that was read: None if the reader may have it.

        Args:
            command: The message that carries it.
            sent: How it was read.
            slot: Whose it is.
            others_hold: How many private-key operations are under way in other slots.
        """
        if sent.blind is None and sent.command is None:
            return None
        if sent.blind is not None or sent.command is None or sent.command.head is None:
            return EndLease(reason=EndReason.UNREADABLE)
        means = slot.dialogue.meaning(sent.command, is_whole=sent.is_whole)
        if self.ending is not None and means.act is not Act.GET_RESPONSE:
            return EndLease(reason=self.ending)
        if not self._refuses(means, others_hold):
            return None
        if not slot.withdraw():
            return EndLease(reason=EndReason.REFUSED)
        if not sent.is_whole:
            self._swallowing.add(command.slot)
        return _security_status(command)

    def pin_pad(self, command: Command, means: Meaning, slot: Slot) -> Refusal | None:
        """Of a command that the reader completes."""
        if self.ending is not None:
            return EndLease(reason=self.ending)
        if means.act is Act.BLIND:
            return EndLease(reason=EndReason.UNREADABLE)
        if not self._refuses(means, 0):
            return None
        return EndLease(reason=EndReason.REFUSED) if slot.has_blocks else _security_status(command)

    def reader_command(self, command: Command) -> AnswerInstead | None:
        """Of a command to the reader that this class does not define."""
        return _failure(command, SlotError.NOT_SUPPORTED) if self._rules.refuse_unreadable else None

    def _refuses(self, means: Meaning, others_hold: int) -> bool:
        rules = self._rules
        most = rules.max_private_key_operations
        if means.act is Act.KEY_OPERATION:
            return most is not None and self._operations + others_hold >= most
        return {
            Act.KEY_GENERATION: rules.refuse_key_generation,
            Act.PIN_CHANGE: rules.refuse_pin_change,
            Act.INITIALISATION: rules.refuse_initialisation,
            Act.BLIND: rules.refuse_unreadable,
        }.get(means.act, False)


def _security_status(command: Command) -> AnswerInstead:
    """The card's own refusal, in a data block of the reader: 6982."""
    return AnswerInstead(
        payload=Answer(
            kind=AnswerKind.DATA_BLOCK, slot=command.slot, sequence=command.sequence, data=_SECURITY_STATUS
        ).encode()
    )


def _failure(command: Command, error: SlotError) -> AnswerInstead:
    kinds = {
        CommandKind.TRANSFER: AnswerKind.DATA_BLOCK,
        CommandKind.SECURE: AnswerKind.DATA_BLOCK,
        CommandKind.ESCAPE: AnswerKind.ESCAPE,
    }
    kind = next((answer for asked, answer in kinds.items() if asked == command.kind), AnswerKind.SLOT_STATUS)
    answer = Answer(kind=kind, slot=command.slot, sequence=command.sequence, status=_FAILED, error=error)
    return AnswerInstead(payload=answer.encode())
