# SPDX-License-Identifier: Apache-2.0
"""The data objects of a PIV card (SP 800-73-4 part 1, §4 and appendix A), as GET DATA answers them."""

from collections.abc import Mapping

from lab.piv.keys import CardKey
from lab.piv.tlv import encode

__all__ = ["AID", "SERIAL", "SIGNATURE_COUNTER", "application_template", "data_objects", "signature_counter"]

#: Application identifier of PIV, version 1.0.
AID = bytes.fromhex("A000000308000010000100")

_GUID = bytes.fromhex("9f3c5e0a1b2d4c6e8f70112233445566")
#: CKA serial number that OpenSC shows: the last eight bytes of the GUID in the CHUID.
SERIAL = _GUID[8:].hex()

#: Where an OpenPGP card (3.4.1, §4.3.3.6) counts its signatures, three bytes; no PIV card has it.
SIGNATURE_COUNTER = 0x93

_CERTIFICATE_OBJECTS = {0x9A: 0x5FC105, 0x9C: 0x5FC10A, 0x9D: 0x5FC10B, 0x9E: 0x5FC101}
_CHUID, _CCC, _DISCOVERY = 0x5FC102, 0x5FC107, 0x7E
_FASC_N = bytes.fromhex("D4E739DA739CED39CE739D836858210842108421C84210C3EB")
_NO_ERROR_DETECTION = encode(0xFE)


def application_template() -> bytes:
    """What SELECT answers."""
    return encode(0x61, encode(0x4F, AID[5:]), encode(0x79, encode(0x4F, AID[:5])))


def signature_counter(count: int) -> bytes:
    """The counter as a data object of its own."""
    return encode(SIGNATURE_COUNTER, (count & 0xFF_FFFF).to_bytes(3, "big"))


def data_objects(keys: Mapping[int, CardKey]) -> dict[int, bytes]:
    """What GET DATA answers, by tag, in its outer template already."""
    capabilities = (
        encode(0xF0, bytes(21)),
        encode(0xF1, b"\x21"),
        encode(0xF2, b"\x21"),
        encode(0xF3),
        encode(0xF4, b"\0"),
        encode(0xF5, b"\x10"),
        *(encode(tag) for tag in (0xF6, 0xF7, 0xFA, 0xFB, 0xFC, 0xFD)),
    )
    holder = (encode(0x30, _FASC_N), encode(0x34, _GUID), encode(0x35, b"20350101"), encode(0x3E))
    found = {
        _CCC: encode(0x53, *capabilities, _NO_ERROR_DETECTION),
        _CHUID: encode(0x53, *holder, _NO_ERROR_DETECTION),
        # PIN usage policy: the application's PIN alone.
        _DISCOVERY: encode(_DISCOVERY, encode(0x4F, AID), encode(0x5F2F, b"\x40\x00")),
    }
    for slot, key in keys.items():
        found[_CERTIFICATE_OBJECTS[slot]] = encode(
            0x53, encode(0x70, key.certificate), encode(0x71, b"\0"), _NO_ERROR_DETECTION
        )
    return found
