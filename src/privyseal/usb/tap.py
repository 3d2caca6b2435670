# SPDX-License-Identifier: Apache-2.0
"""Who looks at the URBs of an export as they pass, and may answer or end it."""

from dataclasses import dataclass
from typing import Protocol

from privyseal.usbip.urb import Answer, CmdSubmit

__all__ = ["SessionEnd", "TapAnswer", "UrbTap"]


class SessionEnd(Exception):  # noqa: N818 - an order, not an error
    """Raised by a tap: the export ends here.

    Attributes:
        reason: For the report; a short text.
        with_answer: Whether the client still gets the answer that `after` was told of, as when it was the last that a
            lease allows.
    """

    def __init__(self, reason: str, *, with_answer: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.with_answer = with_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class TapAnswer:
    """What a tap answers in the device's place.

    Attributes:
        status: 0 or a negative errno; a transfer out with 0 counts as gone out whole.
        data: What comes in; at most as much as was asked for.
        read_next: What the client reads next from `read_next_address`, before anything that the device has to say
            there, as a reader's answer to a command that it never got; empty for nothing.
        read_next_address: A bulk or interrupt endpoint, 0x81 and more.
    """

    status: int
    data: bytes = b""
    read_next: bytes = b""
    read_next_address: int = 0


class UrbTap(Protocol):
    """Sees all that passes, in order, in the event loop: it must be quick, and hold nothing up.

    An error that it raises ends the export: nothing passes unseen.
    """

    def before(self, command: CmdSubmit) -> TapAnswer | None:
        """A command, before the device gets it.

        Returns:
            None to let it pass; an answer to keep it from the device.

        Raises:
            SessionEnd: The device does not get it, and the export ends.
        """

    def after(self, command: CmdSubmit, answer: Answer, *, is_own: bool) -> None:
        """An answer, before the client gets it: of the device, of this host (refusals), or of this tap.

        Args:
            command: What is answered.
            answer: RetUnlink if the client did not want it any more and the device gave it up; what came in before
                that is lost.
            is_own: Whether it is this tap's: `data` of its TapAnswer, or what it let be read next.

        Raises:
            SessionEnd: The export ends; the client gets -ESHUTDOWN instead, unless it is to have the answer still.
        """
