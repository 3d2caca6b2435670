# SPDX-License-Identifier: Apache-2.0
"""`reader_state.py present|empty`: wait until pcscd says so of its first reader (PC/SC's winscard.h).

A process of its own, as libpcsclite looks at PCSCLITE_CSOCK_NAME once only.
"""

import ctypes
import sys
from typing import Final

_SCOPE_SYSTEM: Final = 2
_UNAWARE, _EMPTY, _PRESENT = 0x0000, 0x0010, 0x0020
_WAIT_MS: Final = 10_000
_MAX_NAMES_BYTES: Final = 2048


class _ReaderState(ctypes.Structure):
    _fields_ = (
        ("reader", ctypes.c_char_p),
        ("user_data", ctypes.c_void_p),
        ("current_state", ctypes.c_ulong),
        ("event_state", ctypes.c_ulong),
        ("atr_bytes", ctypes.c_ulong),
        ("atr", ctypes.c_ubyte * 33),
    )


def _check(function: str, rv: int) -> None:
    if rv:
        raise SystemExit(f"{function} returned {rv & 0xFFFF_FFFF:08X}")


def main() -> None:
    """End with status 0 as soon as the reader is so, with a message if it is not within 10 s."""
    wanted = {"present": _PRESENT, "empty": _EMPTY}[sys.argv[1]]
    pcsc = ctypes.CDLL("libpcsclite.so.1")
    context = ctypes.c_long()
    _check("SCardEstablishContext", pcsc.SCardEstablishContext(_SCOPE_SYSTEM, None, None, ctypes.byref(context)))
    names = ctypes.create_string_buffer(_MAX_NAMES_BYTES)
    length = ctypes.c_ulong(_MAX_NAMES_BYTES)
    _check("SCardListReaders", pcsc.SCardListReaders(context, None, names, ctypes.byref(length)))
    state = _ReaderState(reader=names.value, current_state=_UNAWARE)
    while not state.event_state & wanted:
        state.current_state = state.event_state
        rv = pcsc.SCardGetStatusChange(context, ctypes.c_ulong(_WAIT_MS), ctypes.byref(state), ctypes.c_ulong(1))
        _check("SCardGetStatusChange", rv)


main()
