# SPDX-License-Identifier: Apache-2.0
"""A card's side of its transmission protocols: T=0 (ISO/IEC 7816-3 §10, §12) and T=1 (§11).

Written from the standard alone: it judges code that reads the same blocks.
"""

from collections.abc import Callable

__all__ = ["ATR_T0", "T0Card", "T1Card", "frame", "is_right"]

#: Of a card that speaks T=0 alone, with historical bytes that nobody knows.
ATR_T0 = bytes.fromhex("3B6500005049563030")


def epilogue(data: bytes, *, crc: bool) -> bytes:
    if not crc:
        value = 0
        for byte in data:
            value ^= byte
        return bytes([value])
    value = 0xFFFF
    for byte in data:
        for bit in range(8):
            mixed = (value ^ (byte >> bit)) & 1
            value = (value >> 1) ^ (0x8408 if mixed else 0)
    return value.to_bytes(2, "big")


def frame(pcb: int, inf: bytes = b"", *, crc: bool) -> bytes:
    head = bytes([0x00, pcb, len(inf)]) + inf
    return head + epilogue(head, crc=crc)


def is_right(raw: bytes, *, crc: bool) -> bool:
    size = 2 if crc else 1
    return len(raw) >= 3 + size and raw[2] == len(raw) - 3 - size and epilogue(raw[:-size], crc=crc) == raw[-size:]


class T1Card:
    """A card behind T=1.

    Args:
        transmit: A command for its answer.
        ifsd: Most bytes in a block to the host, until that says otherwise.
        crc: Which error detection code it has.
        slow: Whether it asks for more time before each answer.
    """

    def __init__(
        self, transmit: Callable[[bytes], bytes], *, ifsd: int = 32, crc: bool = False, slow: bool = False
    ) -> None:
        self._transmit = transmit
        self._ifsd = ifsd
        self._crc = crc
        self._slow = slow
        self.reset()

    def reset(self) -> None:
        self._expected = 0
        self._own = 0
        self._command = b""
        self._parts: list[bytes] = []
        self._is_deferred = False
        self._last = frame(0x80, crc=self._crc)
        self._last_part = b""

    def block(self, raw: bytes) -> bytes:
        """The block that answers a block; a damaged one is asked for again (§11.6.3, rule 7.1)."""
        if not is_right(raw, crc=self._crc):
            if not self._is_deferred:
                self._last = frame(0x81 | self._expected << 4, crc=self._crc)
            return self._last
        pcb, inf = raw[1], raw[3 : 3 + raw[2]]
        answer = self._supervised(pcb, inf) if pcb >= 0xC0 else self._receipt(pcb) if pcb >= 0x80 else None
        if answer is None:
            answer = self._information(pcb, inf)
        self._last = answer
        return answer

    def _information(self, pcb: int, inf: bytes) -> bytes:
        if (pcb >> 6 & 1) != self._expected:
            return self._last
        self._expected ^= 1
        self._command += inf
        if pcb & 0x20:
            return frame(0x80 | self._expected << 4, crc=self._crc)
        if self._slow:
            self._is_deferred = True
            return frame(0xC3, b"\x01", crc=self._crc)
        return self._answer()

    def _answer(self) -> bytes:
        command, self._command = self._command, b""
        answer = self._transmit(command)
        self._parts = [answer[at : at + self._ifsd] for at in range(0, len(answer), self._ifsd)]
        return self._next_part()

    def _next_part(self) -> bytes:
        part = self._parts.pop(0)
        pcb = self._own << 6 | (0x20 if self._parts else 0)
        self._own ^= 1
        self._last_part = frame(pcb, part, crc=self._crc)
        return self._last_part

    def _receipt(self, pcb: int) -> bytes:
        # N(R) names the block that the host waits for: the next of a chain, or the last one again.
        if (pcb >> 4 & 1) != self._own:
            return self._last_part or self._last
        return self._next_part() if self._parts else self._last

    def _supervised(self, pcb: int, inf: bytes) -> bytes:
        if pcb == 0xC0:
            self.reset()
            return frame(0xE0, crc=self._crc)
        if pcb == 0xC1:
            self._ifsd = inf[0]
            return frame(0xE1, inf, crc=self._crc)
        if pcb == 0xC2:
            self._command, self._parts = b"", []
            return frame(0xE2, crc=self._crc)
        if pcb == 0xE3 and self._is_deferred:
            self._is_deferred = False
            return self._answer()
        return frame(0x82 | self._expected << 4, crc=self._crc)


class T0Card:
    """A card behind T=0: what answers a command with data waits for GET RESPONSE."""

    def __init__(self, transmit: Callable[[bytes], bytes]) -> None:
        self._transmit = transmit
        self._waiting = b""

    def block(self, command: bytes) -> bytes:
        """Data and status for a TPDU: a header, its last byte the length of data that follows or is asked for."""
        if command[1] == 0xC0 and self._waiting:
            answer, self._waiting = self._waiting, b""
            return answer
        # Nothing is asked for with a VERIFY that brings no PIN.
        is_bare = command[1] == 0x20 and command[4:] == b"\0"
        answer = self._transmit(command[:4] if is_bare else command)
        if len(command) > 5 and len(answer) > 2:
            self._waiting = answer
            return bytes((0x61, (len(answer) - 2) % 256))
        return answer
