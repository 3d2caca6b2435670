# SPDX-License-Identifier: Apache-2.0
"""The PKCS#11 functions that Privyseal calls, over ctypes (PKCS#11 v3.1 §5; function list v2.40).

Every call returns or raises `Ckr(function, rv)`. Nothing here knows of tokens' policies, PIN files or
deadlines. A foreign call releases the GIL and may hang or crash: this module belongs into a worker process.
"""

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from privyseal.errors import TokenError
from privyseal.tokens.ckr import Ckr, Rv

__all__ = ["Attribute", "Module", "SlotFlags", "TokenDescription", "TokenFlags", "UserType", "ulong"]

_ULONG = ctypes.c_ulong
_ULONG_P = ctypes.POINTER(_ULONG)
_BYTES = ctypes.c_void_p
#: CK_UNAVAILABLE_INFORMATION: "this attribute cannot be shown" in ulValueLen.
_UNAVAILABLE: Final = _ULONG(-1).value

_MAX_SLOTS: Final = 1024
_MAX_OBJECTS: Final = 1024
_MAX_ATTRIBUTE_BYTES: Final = 64 * 1024
_MAX_SIGNATURE_BYTES: Final = 64 * 1024
_FIRST_SIGNATURE_BYTES: Final = 2048  #: holds RSA-16384

_CKF_OS_LOCKING_OK: Final = 0x2
_CKF_SERIAL_SESSION: Final = 0x4


class SlotFlags:
    """Flags of CK_SLOT_INFO (§3.2)."""

    HW_SLOT: ClassVar[int] = 0x4


class TokenFlags:
    """Flags of CK_TOKEN_INFO (§3.2)."""

    LOGIN_REQUIRED: ClassVar[int] = 0x4
    TOKEN_INITIALIZED: ClassVar[int] = 0x400
    USER_PIN_COUNT_LOW: ClassVar[int] = 0x10000
    USER_PIN_FINAL_TRY: ClassVar[int] = 0x20000
    USER_PIN_LOCKED: ClassVar[int] = 0x40000


class UserType:
    """CK_USER_TYPE (§3.5)."""

    USER: ClassVar[int] = 1
    CONTEXT_SPECIFIC: ClassVar[int] = 2


class Attribute:
    """CK_ATTRIBUTE_TYPE (§4)."""

    CLASS: ClassVar[int] = 0x0
    LABEL: ClassVar[int] = 0x3
    VALUE: ClassVar[int] = 0x11
    KEY_TYPE: ClassVar[int] = 0x100
    ID: ClassVar[int] = 0x102
    SIGN: ClassVar[int] = 0x108
    MODULUS: ClassVar[int] = 0x120
    PUBLIC_EXPONENT: ClassVar[int] = 0x122
    EC_PARAMS: ClassVar[int] = 0x180
    EC_POINT: ClassVar[int] = 0x181
    ALWAYS_AUTHENTICATE: ClassVar[int] = 0x202


class _Structure(ctypes.Structure):
    # pkcs11.h packs to one byte on Windows and not at all elsewhere (§2.1 of the header's own notes).
    if sys.platform == "win32":
        _pack_ = 1


class _Version(_Structure):
    _fields_: ClassVar = [("major", ctypes.c_ubyte), ("minor", ctypes.c_ubyte)]


class _SlotInfo(_Structure):
    _fields_: ClassVar = [
        ("slotDescription", ctypes.c_ubyte * 64),
        ("manufacturerID", ctypes.c_ubyte * 32),
        ("flags", _ULONG),
        ("hardwareVersion", _Version),
        ("firmwareVersion", _Version),
    ]


class _TokenInfo(_Structure):
    _fields_: ClassVar = [
        ("label", ctypes.c_ubyte * 32),
        ("manufacturerID", ctypes.c_ubyte * 32),
        ("model", ctypes.c_ubyte * 16),
        ("serialNumber", ctypes.c_ubyte * 16),
        ("flags", _ULONG),
        ("counts", _ULONG * 10),  # session counts, PIN lengths, memory sizes: not used
        ("hardwareVersion", _Version),
        ("firmwareVersion", _Version),
        ("utcTime", ctypes.c_ubyte * 16),
    ]


class _Attribute(_Structure):
    _fields_: ClassVar = [("type", _ULONG), ("pValue", ctypes.c_void_p), ("ulValueLen", _ULONG)]


class _Mechanism(_Structure):
    _fields_: ClassVar = [("mechanism", _ULONG), ("pParameter", ctypes.c_void_p), ("ulParameterLen", _ULONG)]


class _InitializeArgs(_Structure):
    _fields_: ClassVar = [
        ("CreateMutex", ctypes.c_void_p),
        ("DestroyMutex", ctypes.c_void_p),
        ("LockMutex", ctypes.c_void_p),
        ("UnlockMutex", ctypes.c_void_p),
        ("flags", _ULONG),
        ("pReserved", ctypes.c_void_p),
    ]


class _FunctionList(_Structure):
    # Only the 44 pointers up to C_Sign are named; every v2.x list is longer.
    _fields_: ClassVar = [("version", _Version), ("functions", ctypes.c_void_p * 44)]


#: Function name -> its place in CK_FUNCTION_LIST and its argument types.
_PROTOTYPES: Final[dict[str, tuple[int, tuple[Any, ...]]]] = {
    "C_Initialize": (0, (ctypes.c_void_p,)),
    "C_Finalize": (1, (ctypes.c_void_p,)),
    "C_GetSlotList": (4, (ctypes.c_ubyte, _ULONG_P, _ULONG_P)),
    "C_GetSlotInfo": (5, (_ULONG, ctypes.POINTER(_SlotInfo))),
    "C_GetTokenInfo": (6, (_ULONG, ctypes.POINTER(_TokenInfo))),
    "C_OpenSession": (12, (_ULONG, _ULONG, ctypes.c_void_p, ctypes.c_void_p, _ULONG_P)),
    "C_CloseSession": (13, (_ULONG,)),
    "C_Login": (18, (_ULONG, _ULONG, _BYTES, _ULONG)),
    "C_GetAttributeValue": (24, (_ULONG, _ULONG, ctypes.POINTER(_Attribute), _ULONG)),
    "C_FindObjectsInit": (26, (_ULONG, ctypes.POINTER(_Attribute), _ULONG)),
    "C_FindObjects": (27, (_ULONG, _ULONG_P, _ULONG, _ULONG_P)),
    "C_FindObjectsFinal": (28, (_ULONG,)),
    "C_SignInit": (42, (_ULONG, ctypes.POINTER(_Mechanism), _ULONG)),
    "C_Sign": (43, (_ULONG, _BYTES, _ULONG, _BYTES, _ULONG_P)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDescription:
    """CK_TOKEN_INFO, read fresh, with its padding removed."""

    label: str
    manufacturer: str
    model: str
    serial: str
    flags: int


def _text(field: Sequence[int]) -> str:
    """A padded CK_UTF8CHAR array (blanks, or NUL from some); what could drive a terminal is replaced."""
    text = bytes(field).rstrip(b" \x00").decode("utf-8", errors="replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def ulong(value: int) -> bytes:
    """A CK_ULONG as an attribute's value."""
    return bytes(_ULONG(value))


class Module:
    """A loaded PKCS#11 module.

    Args:
        path: Path of the shared library, or a name that the dynamic loader finds.

    Raises:
        TokenError: `token.module` if it does not load or is not a PKCS#11 module; `Ckr` from
        C_GetFunctionList.
    """

    def __init__(self, path: str) -> None:
        try:
            self._library = ctypes.CDLL(path)
            get_function_list = self._library.C_GetFunctionList
        except (OSError, AttributeError) as error:
            raise TokenError(
                "token.module",
                f"{path} does not load as a PKCS#11 module: {error}",
                hint="name the vendor's PKCS#11 library, built for this machine's processor",
            ) from error
        get_function_list.restype = _ULONG
        get_function_list.argtypes = (ctypes.c_void_p,)
        table = ctypes.POINTER(_FunctionList)()
        rv: int = get_function_list(ctypes.byref(table))
        if rv != Rv.OK:
            raise Ckr("C_GetFunctionList", rv)
        if ctypes.cast(table, ctypes.c_void_p).value is None:
            raise TokenError("token.module", f"{path}: C_GetFunctionList gave no function list")
        self._functions = {
            name: ctypes.CFUNCTYPE(_ULONG, *argtypes)(address)
            for name, (index, argtypes) in _PROTOTYPES.items()
            if (address := table.contents.functions[index])
        }

    def _raw(self, function: str, *arguments: Any) -> int:
        entry = self._functions.get(function)
        return int(Rv.FUNCTION_NOT_SUPPORTED) if entry is None else int(entry(*arguments))

    def _call(self, function: str, *arguments: Any) -> None:
        rv = self._raw(function, *arguments)
        if rv != Rv.OK:
            raise Ckr(function, rv)

    def initialize(self) -> None:
        """C_Initialize with CKF_OS_LOCKING_OK; a module that cannot lock hears of one thread (§5.4)."""
        arguments = _InitializeArgs(flags=_CKF_OS_LOCKING_OK)
        rv = self._raw("C_Initialize", ctypes.byref(arguments))
        if rv == Rv.CANT_LOCK:
            rv = self._raw("C_Initialize", None)
        if rv not in (Rv.OK, Rv.CRYPTOKI_ALREADY_INITIALIZED):
            raise Ckr("C_Initialize", rv)

    def finalize(self) -> None:
        """C_Finalize: ends every session of this process."""
        self._call("C_Finalize", None)

    def slots(self) -> tuple[int, ...]:
        """Slots with a token in them, by C_GetSlotList's two calls; one may arrive in between."""
        count = _ULONG(0)
        for _ in range(3):
            self._call("C_GetSlotList", 1, None, ctypes.byref(count))
            room = min(count.value, _MAX_SLOTS) + 4
            handles = (_ULONG * room)()
            count.value = room
            rv = self._raw("C_GetSlotList", 1, handles, ctypes.byref(count))
            if rv == Rv.OK:
                return tuple(handles[: min(count.value, room)])
            if rv != Rv.BUFFER_TOO_SMALL:
                break
        raise Ckr("C_GetSlotList", rv)

    def slot_flags(self, slot: int) -> int:
        """Flags of C_GetSlotInfo."""
        info = _SlotInfo()
        self._call("C_GetSlotInfo", slot, ctypes.byref(info))
        return int(info.flags)

    def token(self, slot: int) -> TokenDescription:
        """C_GetTokenInfo, never from a cache of ours: its PIN flags change with every attempt."""
        info = _TokenInfo()
        self._call("C_GetTokenInfo", slot, ctypes.byref(info))
        return TokenDescription(
            label=_text(info.label),
            manufacturer=_text(info.manufacturerID),
            model=_text(info.model),
            serial=_text(info.serialNumber),
            flags=int(info.flags),
        )

    def open_session(self, slot: int) -> int:
        """C_OpenSession, read-only."""
        session = _ULONG(0)
        self._call("C_OpenSession", slot, _CKF_SERIAL_SESSION, None, None, ctypes.byref(session))
        return session.value

    def close_session(self, session: int) -> None:
        """C_CloseSession; closing a process's last session with a token also logs it out (§5.6)."""
        self._call("C_CloseSession", session)

    def login(self, session: int, user_type: int, pin_address: int, pin_bytes: int) -> None:
        """C_Login with a PIN that stays where it is: only its address is handed over."""
        self._call("C_Login", session, user_type, pin_address, pin_bytes)

    def find(self, session: int, *template: tuple[int, bytes]) -> tuple[int, ...]:
        """Handles of the objects that have these attributes; at most 1024."""
        values = [ctypes.create_string_buffer(value, len(value)) for _, value in template]
        attributes = (_Attribute * len(template))(
            *(
                _Attribute(kind, ctypes.addressof(value), len(raw))
                for (kind, raw), value in zip(template, values, strict=True)
            )
        )
        self._call("C_FindObjectsInit", session, attributes, len(template))
        found: list[int] = []
        handles = (_ULONG * 64)()
        count = _ULONG(0)
        try:
            while len(found) < _MAX_OBJECTS:
                self._call("C_FindObjects", session, handles, len(handles), ctypes.byref(count))
                if count.value == 0:
                    break
                found += handles[: min(count.value, len(handles))]
        finally:
            # Its own failure must not hide the first one; a search left open shows at the next
            # C_FindObjectsInit.
            self._raw("C_FindObjectsFinal", session)
        return tuple(found[:_MAX_OBJECTS])

    def attribute(self, session: int, handle: int, kind: int) -> bytes | None:
        """One attribute by C_GetAttributeValue's two calls; some modules fail a template as a whole.

        Returns:
            Its value, or None if the object has none, does not show it, or it is longer than 64 KiB.
        """
        query = _Attribute(kind, None, 0)
        absent = (Rv.ATTRIBUTE_SENSITIVE, Rv.ATTRIBUTE_TYPE_INVALID)
        rv = self._raw("C_GetAttributeValue", session, handle, ctypes.byref(query), 1)
        if rv in absent:
            return None
        if rv != Rv.OK:
            raise Ckr("C_GetAttributeValue", rv)
        length = query.ulValueLen
        if length == _UNAVAILABLE or length > _MAX_ATTRIBUTE_BYTES:
            return None
        value = (ctypes.c_ubyte * max(length, 1))()
        query = _Attribute(kind, ctypes.addressof(value), length)
        rv = self._raw("C_GetAttributeValue", session, handle, ctypes.byref(query), 1)
        if rv in absent:
            return None
        if rv != Rv.OK:
            raise Ckr("C_GetAttributeValue", rv)
        return bytes(value[: min(query.ulValueLen, length)])

    def sign_init(self, session: int, mechanism: int, key: int) -> None:
        """C_SignInit with a mechanism that has no parameter."""
        self._call("C_SignInit", session, ctypes.byref(_Mechanism(mechanism, None, 0)), key)

    def sign(self, session: int, data: bytes) -> bytes:
        """C_Sign in one part (§5.2 knows two conventions for the length; this one never asks with NULL).

        A buffer that is large enough is given at once, as some modules perform the operation already when
        asked for the length; CKR_BUFFER_TOO_SMALL leaves the operation active and is answered with what the
        module wants.

        Raises:
            Ckr: with `begun` set.
        """
        room = _FIRST_SIGNATURE_BYTES
        for _ in range(2):
            signature = (ctypes.c_ubyte * room)()
            length = _ULONG(room)
            rv = self._raw("C_Sign", session, data, len(data), signature, ctypes.byref(length))
            if rv == Rv.OK:
                return bytes(signature[: min(length.value, room)])
            if rv != Rv.BUFFER_TOO_SMALL or not room < length.value <= _MAX_SIGNATURE_BYTES:
                break
            room = length.value
        raise Ckr("C_Sign", rv, begun=True)
