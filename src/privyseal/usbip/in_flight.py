# SPDX-License-Identifier: Apache-2.0
"""URBs that a client has submitted and that are not answered, as both ends of the wire between must see them."""

from dataclasses import dataclass

from privyseal.usbip.urb import Answer, CmdUnlink, Command, Expected, RetSubmit
from privyseal.usbip.wire import malformed

__all__ = ["InFlight", "Unlinked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlinked:
    """What became of an unlinked URB: it is in flight no more.

    Attributes:
        seqnum: Of the URB.
        status: -ECONNRESET if it was cancelled; 0 if the exporter says that it was done, which its answer told before,
            unless the exporter gets this wrong, as some do.
        was_answered: Whether its answer came before.
    """

    seqnum: int
    status: int
    was_answered: bool


class InFlight:
    """The table; told of each command as it is sent, and of each answer as it comes."""

    def __init__(self) -> None:
        self._urbs: dict[int, Expected] = {}
        self._unlinks: dict[int, int] = {}

    def __contains__(self, seqnum: int) -> bool:
        return seqnum in self._urbs or seqnum in self._unlinks

    @property
    def seqnums(self) -> tuple[int, ...]:
        """Of the URBs that are not answered."""
        return tuple(self._urbs)

    @property
    def unlinked(self) -> frozenset[int]:
        """Of the URBs whose unlink is not answered, whether they are or not."""
        return frozenset(self._unlinks.values())

    @property
    def unanswered(self) -> int:
        """How many URBs and unlinks there are."""
        return len(self._urbs) + len(self._unlinks)

    def expected(self, seqnum: int) -> Expected | None:
        """What the answer to an URB may carry; None if it is not in flight."""
        return self._urbs.get(seqnum)

    def sent(self, command: Command) -> None:
        """A command goes out.

        Raises:
            MalformedInputError: `usbip.malformed` if its seqnum is in use.
        """
        if command.seqnum in self:
            raise malformed(f"the seqnum {command.seqnum} is in use twice")
        if isinstance(command, CmdUnlink):
            self._unlinks[command.seqnum] = command.target
        else:
            self._urbs[command.seqnum] = Expected(direction=command.direction, length=command.length)

    def answered(self, answer: Answer) -> RetSubmit | Unlinked:
        """An answer has come, which `answer_frames(self.expected)` has read.

        Raises:
            MalformedInputError: `usbip.malformed` if it answers nothing.
        """
        if isinstance(answer, RetSubmit):
            if self._urbs.pop(answer.seqnum, None) is None:
                raise malformed(f"an answer to URB {answer.seqnum}, which was not submitted")
            return answer
        target = self._unlinks.pop(answer.seqnum, None)
        if target is None:
            raise malformed(f"an answer to the unlink {answer.seqnum}, which was not sent")
        was_answered = self._urbs.pop(target, None) is None
        return Unlinked(seqnum=target, status=answer.status, was_answered=was_answered)
