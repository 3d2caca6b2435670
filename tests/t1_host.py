# SPDX-License-Identifier: Apache-2.0
"""A host's side of T=1 over a reader that exchanges TPDUs, written from ISO/IEC 7816-3 §11 alone."""

from collections.abc import Callable, Iterator

from lab.piv.tpdu import frame, is_right

__all__ = ["BlockLostError", "T1Host"]


class BlockLostError(Exception):
    """Neither side heard the other for as long as the protocol allows."""


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
