# SPDX-License-Identifier: Apache-2.0
"""Both ends of T=1, written from ISO/IEC 7816-3 §11 for tests: a card's side, and a host's over a reader of TPDUs.

Nothing of it is ours: the audit that it judges reads blocks by code of its own.
"""

from collections.abc import Callable, Iterator

__all__ = ["BlockLostError", "T1Card", "T1Host"]

Damage = Callable[[], bool]


class BlockLostError(Exception):
    """Neither side heard the other for as long as the protocol allows."""


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


class T1Host:
    """A host's driver.

    Args:
        exchange: A block for the block that answers it; None where the reader got none.
        ifsc: Most bytes in a block to the card.
    """

    def __init__(self, exchange: Callable[[bytes], bytes | None], *, ifsc: int = 32, crc: bool = False) -> None:
        self._exchange = exchange
        self._ifsc = ifsc
        self._crc = crc
        self._own = 0
        self._expected = 0

    def supervise(self, pcb: int, inf: bytes = b"") -> bytes:
        """Send an S-block request; its answer's INF."""
        for _ in range(8):
            answer = self._exchange(frame(pcb, inf, crc=self._crc))
            if answer is not None and is_right(answer, crc=self._crc) and answer[1] == pcb | 0x20:
                if pcb == 0xC0:
                    self._own = self._expected = 0
                return answer[3 : 3 + answer[2]]
        raise BlockLostError

    def transmit(self, apdu: bytes) -> bytes:
        parts = [apdu[at : at + self._ifsc] for at in range(0, len(apdu), self._ifsc)]
        answer = b""
        for pcb, inf in self._command(parts):
            answer += inf
            if not pcb & 0x20:
                return answer
        raise BlockLostError

    def _command(self, parts: list[bytes]) -> Iterator[tuple[int, bytes]]:
        """Send the parts, then take those of the answer."""
        left = list(parts)
        received = None
        while left:
            own = frame(self._own << 6 | (0x20 if len(left) > 1 else 0), left[0], crc=self._crc)
            received = self._settled(own, acknowledged=self._own ^ 1 if len(left) > 1 else None)
            if received[1] >= 0x80 and (received[1] >> 4 & 1) == self._own:
                continue  # the card asks for it again
            self._own ^= 1
            left.pop(0)
        while received is not None:
            self._expected ^= 1
            yield received[1], received[3 : 3 + received[2]]
            received = self._settled(frame(0x80 | self._expected << 4, crc=self._crc))

    def _settled(self, raw: bytes, *, acknowledged: int | None = None) -> bytes:
        """The card's next I-block or R-block to a block: damaged ones are asked for again, more time is given.

        Of R-blocks those that ask for an own block again, and the one that acknowledges it.
        """
        is_sending = raw[1] < 0x80
        receipt = frame(0x80 | self._expected << 4, crc=self._crc)
        for _ in range(40):
            answer = self._exchange(raw)
            if answer is None or not is_right(answer, crc=self._crc):
                raw = receipt
            elif answer[1] == 0xC3:
                raw = frame(0xE3, answer[3:4], crc=self._crc)
            elif answer[1] < 0x80:
                if (answer[1] >> 6 & 1) == self._expected:
                    return answer
                raw = receipt
            elif not is_sending or (answer[1] >> 4 & 1) not in (self._own, acknowledged):
                raw = receipt
            else:
                return answer
        raise BlockLostError
