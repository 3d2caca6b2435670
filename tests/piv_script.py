# SPDX-License-Identifier: Apache-2.0
"""Commands for the lab's PIV card, and a host that sends them and fetches answers with GET RESPONSE."""

from collections.abc import Callable, Iterable

from lab.piv.tlv import encode

__all__ = [
    "EC_SLOT",
    "PIN",
    "QUESTION",
    "RSA_SLOT",
    "SELECT",
    "WRONG_PIN",
    "Transmit",
    "run",
    "script",
    "sign_ec",
    "sign_rsa",
    "verify",
]

Transmit = Callable[[bytes], bytes]

PIN, WRONG_PIN = b"731946", b"000000"
#: The PIN is good for any number of operations with the first key, and for one with the second.
RSA_SLOT, EC_SLOT = 0x9A, 0x9C
SELECT = bytes.fromhex("00A4040009A0000003080000100000")
QUESTION = bytes.fromhex("00200080")


def verify(pin: bytes, *, cla: int = 0) -> bytes:
    return bytes((cla, 0x20, 0x00, 0x80, 0x08)) + pin.ljust(8, b"\xff")


def sign_rsa(*, chained: bool) -> list[bytes]:
    """One operation: an extended command, or two short ones that are chained."""
    data = encode(0x7C, encode(0x82), encode(0x81, b"\0\1" + b"\xff" * 254))
    if not chained:
        return [bytes((0x00, 0x87, 0x07, RSA_SLOT, 0x00)) + len(data).to_bytes(2, "big") + data + b"\0\0"]
    first, last = data[:200], data[200:]
    return [
        bytes((0x10, 0x87, 0x07, RSA_SLOT, len(first))) + first,
        bytes((0x00, 0x87, 0x07, RSA_SLOT, len(last))) + last + b"\0",
    ]


def sign_ec() -> bytes:
    data = encode(0x7C, encode(0x82), encode(0x81, bytes(32)))
    return bytes((0x00, 0x87, 0x11, EC_SLOT, len(data))) + data + b"\0"


def script(*, chained: bool) -> list[bytes]:
    """Two RSA and two EC operations and one that is refused; three PINs of which one is wrong; one question."""
    rsa = sign_rsa(chained=chained)
    return [SELECT, QUESTION, *rsa, verify(WRONG_PIN), verify(PIN), *rsa, *rsa, sign_ec(), verify(PIN), sign_ec()]


def run(transmit: Transmit, apdus: Iterable[bytes]) -> list[int]:
    """The last status of each."""
    ended = []
    for apdu in apdus:
        answer = transmit(apdu)
        while answer[-2:-1] == b"\x61":
            answer = transmit(bytes((0x00, 0xC0, 0x00, 0x00, answer[-1])))
        ended.append(int.from_bytes(answer[-2:], "big"))
    return ended
