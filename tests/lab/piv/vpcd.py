# SPDX-License-Identifier: Apache-2.0
"""Wire A: the card in vpcd, the virtual reader of pcscd (vsmartcard's protocol).

Each message is a big-endian length of two bytes and as many bytes. One byte is an order (off, on, reset, or a
question for the ATR), anything longer a command APDU. pcscd looks for the card some three times a second by asking
for its ATR; a connection that ends instead of an answer tells that it is gone, and one that is reset instead of
answering a command is a transmission that failed.
"""

import contextlib
import socket
import struct
import time

from lab.piv.station import CardGoneError, Station

__all__ = ["ATR", "VPCD_PORT", "run_vpcd_wire"]

#: A T=1 card without historical bytes that anybody knows: OpenSC then asks for the PIV application.
ATR = bytes.fromhex("3BD518FF8191FE1FC38073C8211008")
VPCD_PORT = 0x8C7B

_OFF, _ON, _RESET, _ASK_ATR = 0, 1, 2, 4
#: pcscd may not be there yet, or be started again; a port gives no event for that.
_RECONNECT_SECONDS = 0.02


class _LinkClosedError(Exception):
    """The reader has gone, or was told so that the card has."""


def run_vpcd_wire(station: Station, *, host: str = "127.0.0.1", port: int = VPCD_PORT) -> None:
    """Serve the reader for ever, also while it has no card."""
    while True:
        try:
            link = socket.create_connection((host, port))
        except ConnectionRefusedError:
            time.sleep(_RECONNECT_SECONDS)
            continue
        with link, contextlib.suppress(_LinkClosedError, ConnectionError):
            # Small messages both ways: without this each waits 40 ms for an acknowledgement.
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            station.card.reset()
            while True:
                _serve(link, station, _receive(link, struct.unpack(">H", _receive(link, 2))[0]))


def _serve(link: socket.socket, station: Station, message: bytes) -> None:
    if len(message) > 1:
        try:
            _send(link, station.transmit(message))
        except CardGoneError:
            # Closed in order it would be an answer of no bytes, which a reader never gives.
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise _LinkClosedError from None
    elif message[0] == _ASK_ATR and station.is_present:
        _send(link, ATR)
    elif message[0] == _ASK_ATR:
        station.report_absence()
        raise _LinkClosedError
    elif message[0] in (_ON, _RESET):
        station.power_on()
    elif message[0] == _OFF:
        station.card.reset()


def _send(link: socket.socket, data: bytes) -> None:
    link.sendall(struct.pack(">H", len(data)) + data)


def _receive(link: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # the kernel forgets it
        part = link.recv(length - len(data))
        if not part:
            raise _LinkClosedError
        data += part
    return bytes(data)
