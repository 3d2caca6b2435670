# SPDX-License-Identifier: Apache-2.0
"""The PKCS#11 functions that Privyseal calls, over ctypes (PKCS#11 v3.1 §5; function list v2.40).

Every call returns or raises `Ckr(function, rv)`. Nothing here knows of tokens' policies, PIN files or
deadlines. A foreign call releases the GIL and may hang or crash: this module belongs into a worker process.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from privyseal.errors import TokenError
from privyseal.tokens.ckr import Ckr, Rv
from privyseal.tokens.cryptoki_types import (
    PROTOTYPES,
    ULONG,
    AttributeRecord,
    FunctionList,
    InitializeArgs,
    LibraryInfo,
    MechanismRecord,
    SessionFlags,
    SlotInfo,
    TokenInfo,
)
from privyseal.tokens.pin import MAX_PIN_BYTES, PinBuffer

__all__ = ["Module", "Template", "TokenDescription"]

#: Attributes by type, with their values as bytes.
Template = tuple[tuple[int, bytes], ...]

#: CK_UNAVAILABLE_INFORMATION: "this attribute cannot be shown" in ulValueLen.
_UNAVAILABLE: Final = ULONG(-1).value

_MAX_SLOTS: Final = 1024
_MAX_OBJECTS: Final = 1024
_MAX_ATTRIBUTE_BYTES: Final = 64 * 1024
_MAX_SIGNATURE_BYTES: Final = 64 * 1024
_FIRST_SIGNATURE_BYTES: Final = 2048  #: holds RSA-16384

_CKF_OS_LOCKING_OK: Final = 0x2


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDescription:
    """CK_TOKEN_INFO, read fresh, with its padding removed."""

    label: str
    manufacturer: str
    model: str
    serial: str
    flags: int
    min_pin_bytes: int
    max_pin_bytes: int


def _text(field: Sequence[int]) -> str:
    """A padded CK_UTF8CHAR array (blanks, or NUL from some); what could drive a terminal is replaced."""
    text = bytes(field).rstrip(b" \x00").decode("utf-8", errors="replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _length(value: int, otherwise: int) -> int:
    """A length in CK_TOKEN_INFO; some modules leave it at zero or say that they do not know."""
    return value if 0 < value <= MAX_PIN_BYTES else otherwise


def _records(template: Template) -> "tuple[ctypes.Array[AttributeRecord], object]":
    """A CK_ATTRIBUTE array, and the memory that it points to: to be held as long as the array is used."""
    values = [ctypes.create_string_buffer(value, len(value)) for _, value in template]
    records = (AttributeRecord * len(template))(
        *(
            AttributeRecord(kind, ctypes.addressof(value), len(raw))
            for (kind, raw), value in zip(template, values, strict=True)
        )
    )
    return records, values


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
        get_function_list.restype = ULONG
        get_function_list.argtypes = (ctypes.c_void_p,)
        table = ctypes.POINTER(FunctionList)()
        rv: int = get_function_list(ctypes.byref(table))
        if rv != Rv.OK:
            raise Ckr("C_GetFunctionList", rv)
        if ctypes.cast(table, ctypes.c_void_p).value is None:
            raise TokenError("token.module", f"{path}: C_GetFunctionList gave no function list")
        self._functions = {
            name: ctypes.CFUNCTYPE(ULONG, *argtypes)(address)
            for name, (index, argtypes) in PROTOTYPES.items()
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
        arguments = InitializeArgs(flags=_CKF_OS_LOCKING_OK)
        rv = self._raw("C_Initialize", ctypes.byref(arguments))
        if rv == Rv.CANT_LOCK:
            rv = self._raw("C_Initialize", None)
        if rv not in (Rv.OK, Rv.CRYPTOKI_ALREADY_INITIALIZED):
            raise Ckr("C_Initialize", rv)

    def finalize(self) -> None:
        """C_Finalize: ends every session of this process."""
        self._call("C_Finalize", None)

    def description(self) -> str:
        """Manufacturer, name and version of the library, by C_GetInfo."""
        info = LibraryInfo()
        self._call("C_GetInfo", ctypes.byref(info))
        version = f"{info.libraryVersion.major}.{info.libraryVersion.minor}"
        return f"{_text(info.manufacturerID)}, {_text(info.libraryDescription)} {version}"

    def slots(self, *, with_token: bool = True) -> tuple[int, ...]:
        """Slots, by default those with a token in them, by C_GetSlotList's two calls; one may arrive in between."""
        count = ULONG(0)
        for _ in range(3):
            self._call("C_GetSlotList", int(with_token), None, ctypes.byref(count))
            room = min(count.value, _MAX_SLOTS) + 4
            handles = (ULONG * room)()
            count.value = room
            rv = self._raw("C_GetSlotList", int(with_token), handles, ctypes.byref(count))
            if rv == Rv.OK:
                return tuple(handles[: min(count.value, room)])
            if rv != Rv.BUFFER_TOO_SMALL:
                break
        raise Ckr("C_GetSlotList", rv)

    def slot_flags(self, slot: int) -> int:
        """Flags of C_GetSlotInfo."""
        return int(self._slot_info(slot).flags)

    def slot_description(self, slot: int) -> str:
        """Description of C_GetSlotInfo; many modules give the reader's name there."""
        return _text(self._slot_info(slot).slotDescription)

    def _slot_info(self, slot: int) -> SlotInfo:
        info = SlotInfo()
        self._call("C_GetSlotInfo", slot, ctypes.byref(info))
        return info

    def token(self, slot: int) -> TokenDescription:
        """C_GetTokenInfo, never from a cache of ours: its PIN flags change with every attempt."""
        info = TokenInfo()
        self._call("C_GetTokenInfo", slot, ctypes.byref(info))
        return TokenDescription(
            label=_text(info.label),
            manufacturer=_text(info.manufacturerID),
            model=_text(info.model),
            serial=_text(info.serialNumber),
            flags=int(info.flags),
            min_pin_bytes=_length(info.ulMinPinLen, 1),
            max_pin_bytes=_length(info.ulMaxPinLen, MAX_PIN_BYTES),
        )

    def open_session(self, slot: int, *, writable: bool = False) -> int:
        """C_OpenSession, by default read-only."""
        session = ULONG(0)
        flags = SessionFlags.SERIAL_SESSION | (SessionFlags.RW_SESSION if writable else 0)
        self._call("C_OpenSession", slot, flags, None, None, ctypes.byref(session))
        return session.value

    def close_session(self, session: int) -> None:
        """C_CloseSession; closing a process's last session with a token also logs it out (§5.6)."""
        self._call("C_CloseSession", session)

    def login(self, session: int, user_type: int, pin_address: int, pin_bytes: int) -> None:
        """C_Login with a PIN that stays where it is: only its address is handed over."""
        self._call("C_Login", session, user_type, pin_address, pin_bytes)

    def set_pin(self, session: int, old: PinBuffer, new: PinBuffer) -> None:
        """C_SetPIN of the user that is logged in, with both PINs where they are."""
        self._call("C_SetPIN", session, old.address, len(old), new.address, len(new))

    def find(self, session: int, *template: tuple[int, bytes]) -> tuple[int, ...]:
        """Handles of the objects that have these attributes; at most 1024."""
        attributes, _alive = _records(template)
        self._call("C_FindObjectsInit", session, attributes, len(template))
        found: list[int] = []
        handles = (ULONG * 64)()
        count = ULONG(0)
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
        query = AttributeRecord(kind, None, 0)
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
        query = AttributeRecord(kind, ctypes.addressof(value), length)
        rv = self._raw("C_GetAttributeValue", session, handle, ctypes.byref(query), 1)
        if rv in absent:
            return None
        if rv != Rv.OK:
            raise Ckr("C_GetAttributeValue", rv)
        return bytes(value[: min(query.ulValueLen, length)])

    def create_object(self, session: int, template: Template) -> int:
        """C_CreateObject."""
        handle = ULONG(0)
        attributes, _alive = _records(template)
        self._call("C_CreateObject", session, attributes, len(template), ctypes.byref(handle))
        return handle.value

    def generate_key_pair(self, session: int, mechanism: int, public: Template, private: Template) -> tuple[int, int]:
        """C_GenerateKeyPair with a mechanism that has no parameter.

        Returns:
            Handles of the public and of the private key.
        """
        handles = ULONG(0), ULONG(0)
        public_attributes, _alive = _records(public)
        private_attributes, _alive_too = _records(private)
        self._call(
            "C_GenerateKeyPair",
            session,
            ctypes.byref(MechanismRecord(mechanism, None, 0)),
            public_attributes,
            len(public),
            private_attributes,
            len(private),
            *(ctypes.byref(handle) for handle in handles),
        )
        return handles[0].value, handles[1].value

    def sign_init(self, session: int, mechanism: int, key: int) -> None:
        """C_SignInit with a mechanism that has no parameter."""
        self._call("C_SignInit", session, ctypes.byref(MechanismRecord(mechanism, None, 0)), key)

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
            length = ULONG(room)
            rv = self._raw("C_Sign", session, data, len(data), signature, ctypes.byref(length))
            if rv == Rv.OK:
                return bytes(signature[: min(length.value, room)])
            if rv != Rv.BUFFER_TOO_SMALL or not room < length.value <= _MAX_SIGNATURE_BYTES:
                break
            room = length.value
        raise Ckr("C_Sign", rv, begun=True)
