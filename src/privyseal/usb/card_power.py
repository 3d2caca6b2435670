# SPDX-License-Identifier: Apache-2.0
"""The cards of a CCID reader, switched off before the reader is given on (USB CCID, sections 5.1, 6.1.2 and 6.2.2)."""

import struct
from dataclasses import dataclass
from typing import Final

from privyseal.usb.devices import CCID_CLASS
from privyseal.usbip.descriptors import ConfigurationDescriptor, EndpointKind

__all__ = ["Reader", "power_off", "readers", "slot_said_off"]

_CLASS_DESCRIPTOR: Final = 0x21
_POWER_OFF, _SLOT_STATUS = 0x63, 0x81
_HEADER: Final = struct.Struct("<BIBBBBB")
_ACTIVE: Final = 0
_MAX_SLOTS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A CCID interface.

    Attributes:
        bulk_out, bulk_in: Addresses of its endpoints.
        slots: How many cards it holds, 1 to 16.
    """

    bulk_out: int
    bulk_in: int
    slots: int


def readers(configuration: ConfigurationDescriptor) -> tuple[Reader, ...]:
    """The readers of a device: of each CCID interface as it is without alternates."""
    found = []
    for interface in configuration.interfaces:
        bulk = [one.address for one in interface.endpoints if one.kind is EndpointKind.BULK]
        out = [address for address in bulk if not address & 0x80]
        into = [address for address in bulk if address & 0x80]
        if interface.interface_class == CCID_CLASS and interface.alternate == 0 and out and into:
            described = next((one for one in interface.others if one[1] == _CLASS_DESCRIPTOR and len(one) > 4), None)
            slots = min(described[4] + 1, _MAX_SLOTS) if described else 1
            found.append(Reader(bulk_out=out[0], bulk_in=into[0], slots=slots))
    return tuple(found)


def power_off(slot: int) -> bytes:
    """PC_to_RDR_IccPowerOff; the slot is its sequence number, too."""
    return _HEADER.pack(_POWER_OFF, 0, slot, slot, 0, 0, 0)


def slot_said_off(message: bytes) -> int | None:
    """The slot whose card a reader's answer to `power_off` says to be off, or not there; None for anything else."""
    if len(message) < _HEADER.size:
        return None
    kind, _, slot, sequence, status, _, _ = _HEADER.unpack_from(message)
    is_off = kind == _SLOT_STATUS and slot == sequence and not status & 0xC0 and status & 3 != _ACTIVE
    return slot if is_off else None
