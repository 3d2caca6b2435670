# SPDX-License-Identifier: Apache-2.0
"""The PC/SC functions that Privyseal calls beside a PKCS#11 module (pcsc-lite, Linux), over ctypes.

For what no PKCS#11 function shows: a card's own counters, and how often its reader saw a card come or go. A foreign
call may hang: this module belongs into a worker process.
"""

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from privyseal.errors import TokenError

__all__ = ["Answer", "Card", "Pcsc", "ReaderState"]

_LIBRARY: Final = "libpcsclite.so.1"
_DWORD: Final = ctypes.c_ulong
_LONG: Final = ctypes.c_long

_SCOPE_SYSTEM: Final = 2
_SHARE_SHARED: Final = 2
_T0_OR_T1: Final = 3
_LEAVE_CARD: Final = 0
_STATE_PRESENT: Final = 0x20
_MAX_ATR: Final = 33
_MAX_READER_NAMES: Final = 16 * 1024
_MAX_PARTS: Final = 256

#: SCARD_W_UNRESPONSIVE_CARD, _UNPOWERED_CARD, _REMOVED_CARD; SCARD_E_NO_SMARTCARD, _UNKNOWN_READER,
#: _READER_UNAVAILABLE, _NO_READERS_AVAILABLE.
_NO_CARD: Final = frozenset({0x80100066, 0x80100067, 0x80100069, 0x8010000C, 0x80100009, 0x80100017, 0x8010002E})
#: SCARD_E_NO_SERVICE, SCARD_E_SERVICE_STOPPED.
_NO_SERVICE: Final = frozenset({0x8010001D, 0x8010001E})
_NO_READERS: Final = 0x8010002E

_SW_OK: Final = 0x9000
_GET_RESPONSE: Final = bytes.fromhex("00c00000")


class _ReaderRecord(ctypes.Structure):
    """SCARD_READERSTATE."""

    _fields_: ClassVar = [
        ("reader", ctypes.c_char_p),
        ("user_data", ctypes.c_void_p),
        ("current_state", _DWORD),
        ("event_state", _DWORD),
        ("atr_bytes", _DWORD),
        ("atr", ctypes.c_ubyte * _MAX_ATR),
    ]


class _ProtocolRecord(ctypes.Structure):
    """SCARD_IO_REQUEST."""

    _fields_: ClassVar = [("protocol", ctypes.c_ulong), ("own_bytes", ctypes.c_ulong)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderState:
    """What pcscd says of a reader.

    Attributes:
        present: Whether a card is in it.
        events: How often a card came or went since pcscd saw this reader first, modulo 2^16.
    """

    present: bool
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A card's answer to a command: its data, and its status word."""

    data: bytes
    sw: int

    @property
    def is_ok(self) -> bool:
        """Whether the card did what it was asked."""
        return self.sw == _SW_OK


def _check(function: str, rv: int) -> None:
    value = rv & 0xFFFF_FFFF
    if not value:
        return
    what = f"{function} returned 0x{value:08X}"
    if value in _NO_CARD:
        raise TokenError("token.not_found", f"no card: {what}", hint="check that the token is plugged in")
    if value in _NO_SERVICE:
        raise TokenError("token.pcscd", f"pcscd cannot be reached: {what}", hint="systemctl enable --now pcscd.socket")
    raise TokenError("token.pcsc", what, hint="look the value (SCARD_…) up in pcsc-lite's pcsclite.h")


class Card:
    """A card while nobody else may speak to it."""

    def __init__(self, library: Any, handle: int, protocol: int) -> None:
        self._library: Final = library
        self._handle: Final = handle
        self._protocol: Final = _ProtocolRecord(protocol, ctypes.sizeof(_ProtocolRecord))

    def ask(self, command: bytes) -> Answer:
        """Send a command APDU; what a T=0 card gives in parts comes as one answer.

        Raises:
            TokenError: `token.pcsc`, `token.not_found`.
        """
        answer = self._transmit(command)
        if answer.sw >> 8 == 0x6C:
            answer = self._transmit(command[:4] + bytes((answer.sw & 0xFF,)))
        data = answer.data
        for _ in range(_MAX_PARTS):
            if answer.sw >> 8 != 0x61:
                return Answer(data=data, sw=answer.sw)
            answer = self._transmit(_GET_RESPONSE + bytes((answer.sw & 0xFF,)))
            data += answer.data
        raise TokenError("token.pcsc", f"the card's answer has more than {_MAX_PARTS} parts")

    def _transmit(self, command: bytes) -> Answer:
        room = (ctypes.c_ubyte * 4096)()
        length = _DWORD(len(room))
        rv = self._library.SCardTransmit(
            _LONG(self._handle),
            ctypes.byref(self._protocol),
            command,
            _DWORD(len(command)),
            None,
            room,
            ctypes.byref(length),
        )
        _check("SCardTransmit", rv)
        answer = bytes(room[: min(length.value, len(room))])
        if len(answer) < 2:
            raise TokenError("token.pcsc", f"the card answered with {len(answer)} bytes, which holds no status word")
        return Answer(data=answer[:-2], sw=int.from_bytes(answer[-2:], "big"))


class Pcsc:
    """One connection to pcscd.

    Raises:
        TokenError: `token.pcsc` if the library is not there; `token.pcscd`.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise TokenError("token.pcsc", f"{_LIBRARY} does not load: {error}", hint="install libpcsclite1") from error
        context = _LONG(0)
        _check(
            "SCardEstablishContext",
            self._library.SCardEstablishContext(_DWORD(_SCOPE_SYSTEM), None, None, ctypes.byref(context)),
        )
        self._context = context.value

    def close(self) -> None:
        """End the connection."""
        self._library.SCardReleaseContext(_LONG(self._context))

    def readers(self) -> tuple[str, ...]:
        """The readers' names.

        Raises:
            TokenError: `token.pcsc`, `token.pcscd`.
        """
        names = ctypes.create_string_buffer(_MAX_READER_NAMES)
        length = _DWORD(len(names))
        rv = self._library.SCardListReaders(_LONG(self._context), None, names, ctypes.byref(length))
        if rv & 0xFFFF_FFFF == _NO_READERS:
            return ()
        _check("SCardListReaders", rv)
        return tuple(name.decode("utf-8", "replace") for name in names.raw[: length.value].split(b"\0") if name)

    def state(self, reader: str) -> ReaderState:
        """What pcscd says of a reader now; the card is not touched.

        Raises:
            TokenError: `token.pcsc`, `token.pcscd`, `token.not_found`.
        """
        record = _ReaderRecord(reader=reader.encode())
        rv = self._library.SCardGetStatusChange(_LONG(self._context), _DWORD(0), ctypes.byref(record), _DWORD(1))
        _check("SCardGetStatusChange", rv)
        return ReaderState(present=bool(record.event_state & _STATE_PRESENT), events=record.event_state >> 16 & 0xFFFF)

    @contextlib.contextmanager
    def card(self, reader: str) -> Iterator[Card]:
        """The card in a reader, shared with the module but for this moment; it is left as it is.

        Raises:
            TokenError: `token.pcsc`, `token.pcscd`, `token.not_found`.
        """
        handle, protocol = _LONG(0), _DWORD(0)
        rv = self._library.SCardConnect(
            _LONG(self._context),
            reader.encode(),
            _DWORD(_SHARE_SHARED),
            _DWORD(_T0_OR_T1),
            ctypes.byref(handle),
            ctypes.byref(protocol),
        )
        _check("SCardConnect", rv)
        try:
            _check("SCardBeginTransaction", self._library.SCardBeginTransaction(handle))
            try:
                yield Card(self._library, handle.value, protocol.value)
            finally:
                self._library.SCardEndTransaction(handle, _DWORD(_LEAVE_CARD))
        finally:
            self._library.SCardDisconnect(handle, _DWORD(_LEAVE_CARD))
