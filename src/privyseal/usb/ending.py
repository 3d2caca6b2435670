# SPDX-License-Identifier: Apache-2.0
"""The last transfers of an export: the reader is asked to switch its cards off."""

import asyncio
import itertools
from collections.abc import Iterable
from typing import Final

from privyseal.usb.card_power import Reader, power_off, slot_said_off
from privyseal.usb.ports import Done, Transfer
from privyseal.usb.submitter import Submitter
from privyseal.usbip.descriptors import EndpointKind

__all__ = ["switch_cards_off"]

#: Above every seqnum, so that none of them is meant.
_FIRST_TAG: Final = 1 << 32
#: As libccid asks for; a reader's largest message.
_ANSWER_BYTES: Final = 65_536
#: A reader may have answers left that nobody took.
_ANSWERS: Final = 16


async def switch_cards_off(submitter: Submitter, found: Iterable[Reader], *, seconds: float) -> bool:
    """Switch off all cards of these readers; whether all said that they are off, or not there.

    A reader that is in the midst of a command may say nothing; the reset that follows switches its card off, too.
    """
    tags = itertools.count(_FIRST_TAG)
    try:
        async with asyncio.timeout(seconds):
            answers = [
                await _switch_off(submitter, reader, slot, tags) for reader in found for slot in range(reader.slots)
            ]
    except (TimeoutError, OSError):
        return False
    return all(answers)


async def _switch_off(submitter: Submitter, reader: Reader, slot: int, tags: "itertools.count[int]") -> bool:
    message = power_off(slot)
    sent = await submitter.transfer(
        Transfer(tag=next(tags), address=reader.bulk_out, kind=EndpointKind.BULK, length=len(message), data=message)
    )
    for _ in range(_ANSWERS if sent.status == 0 else 0):
        answer: Done = await submitter.transfer(
            Transfer(tag=next(tags), address=reader.bulk_in, kind=EndpointKind.BULK, length=_ANSWER_BYTES)
        )
        if answer.status or slot_said_off(answer.data) == slot:
            return answer.status == 0
    return False
