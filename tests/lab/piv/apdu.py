# SPDX-License-Identifier: Apache-2.0
"""Commands and answers of a card (ISO/IEC 7816-4 §5.1), and the names of what a PIV card knows of both."""

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Answer", "Command", "Ins", "MalformedCommandError", "Sw"]

_CLA_CHAINED = 0x10
#: First interindustry class: bits 4 and 3 tell of secure messaging (§5.1.1).
_CLA_SECURE = 0x0C


class Ins(IntEnum):
    VERIFY = 0x20
    GENERAL_AUTHENTICATE = 0x87
    SELECT = 0xA4
    GET_RESPONSE = 0xC0
    GET_DATA_BY_P1P2 = 0xCA
    GET_DATA = 0xCB


class Sw(IntEnum):
    OK = 0x9000
    #: The low byte says how many bytes are left, 00 for 256 or more.
    MORE = 0x6100
    #: The low digit says how many tries are left.
    TRIES = 0x63C0
    UNSPECIFIED = 0x6F00
    WRONG_LENGTH = 0x6700
    NO_SECURE_MESSAGING = 0x6882
    SECURITY_STATUS = 0x6982
    BLOCKED = 0x6983
    WRONG_DATA = 0x6A80
    NOT_FOUND = 0x6A82
    WRONG_P1P2 = 0x6A86
    NO_SUCH_REFERENCE = 0x6A88
    NO_SUCH_INS = 0x6D00


class MalformedCommandError(ValueError):
    """Bytes that are no command; a card answers 6700."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    data: bytes = b""
    sw: int = Sw.OK

    def encode(self) -> bytes:
        return self.data + self.sw.to_bytes(2, "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command APDU.

    Attributes:
        expected_bytes: Most bytes of an answer at once (Le); 256 where a short command does not say.
    """

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes = b""
    expected_bytes: int = 256

    @property
    def is_chained(self) -> bool:
        return bool(self.cla & _CLA_CHAINED)

    @property
    def has_pin(self) -> bool:
        """Whether it is a VERIFY that carries a PIN: without one VERIFY asks for the tries left, or logs out."""
        return self.ins == Ins.VERIFY and self.p1 == 0 and bool(self.data)

    @property
    def is_secure(self) -> bool:
        return bool(self.cla & _CLA_SECURE)

    @classmethod
    def decode(cls, raw: bytes) -> "Command":
        """Read a short or an extended APDU.

        Raises:
            MalformedCommandError: If its lengths do not fit.
        """
        if len(raw) < 4:
            raise MalformedCommandError("a command has at least four bytes")
        data, expected_bytes = _body(raw[4:])
        return cls(cla=raw[0], ins=raw[1], p1=raw[2], p2=raw[3], data=data, expected_bytes=expected_bytes)


def _body(body: bytes) -> tuple[bytes, int]:
    """Data and Le of all seven cases of §5.1."""
    is_extended = len(body) >= 3 and body[0] == 0
    size, most = (2, 65536) if is_extended else (1, 256)
    body = body[1:] if is_extended else body
    if len(body) <= size:
        return b"", int.from_bytes(body, "big") or most
    length = int.from_bytes(body[:size], "big")
    data, le = body[size : size + length], body[size + length :]
    if len(data) != length or len(le) not in (0, size):
        raise MalformedCommandError(f"{len(body)} bytes do not hold {length} bytes of data")
    return data, int.from_bytes(le, "big") or most
