# SPDX-License-Identifier: Apache-2.0
"""Commands that a reader completes itself, with a PIN from its own keys (USB CCID §6.1.11, §6.1.12)."""

from typing import Final

from privyseal.usbip.apdu import Gathering
from privyseal.usbip.card_commands import Act, Meaning, meaning
from privyseal.usbip.card_events import Blind

__all__ = ["pin_pad_meaning"]

_VERIFICATION, _MODIFICATION = 0, 1
#: Where abPINApdu begins; in a modification by how many messages it shows, which readers count differently.
_COMMAND_AT: Final = {_VERIFICATION: (15,), _MODIFICATION: (18, 19, 20)}
_ACTS: Final = {_VERIFICATION: Act.VERIFY, _MODIFICATION: Act.PIN_CHANGE}
_UNKNOWN: Final = Meaning(act=Act.BLIND, blind=Blind.PIN_PAD)


def pin_pad_meaning(data: bytes, *, is_whole: bool) -> Meaning:
    """What the command of a SECURE message does: the verification or the change of a PIN, or nobody can say."""
    operation = data[0] if data and is_whole else None
    for at in _COMMAND_AT.get(operation, ()) if operation is not None else ():
        means = meaning(Gathering(data[at : at + 4]).head, None)
        if means.act is _ACTS[data[0]]:
            return means
    return _UNKNOWN
