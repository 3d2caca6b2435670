# SPDX-License-Identifier: Apache-2.0
"""Constants and structures of pkcs11.h that Privyseal uses, over ctypes (PKCS#11 v3.1 §3, §4; function list v2.40)."""

import ctypes
import sys
from typing import Any, ClassVar, Final

__all__ = [
    "BYTES",
    "PROTOTYPES",
    "ULONG",
    "ULONG_P",
    "Attribute",
    "AttributeRecord",
    "FunctionList",
    "InitializeArgs",
    "LibraryInfo",
    "MechanismRecord",
    "ObjectClass",
    "SessionFlags",
    "SlotFlags",
    "SlotInfo",
    "TokenFlags",
    "TokenInfo",
    "UserType",
    "ulong",
]

ULONG = ctypes.c_ulong
ULONG_P = ctypes.POINTER(ULONG)
BYTES = ctypes.c_void_p


def ulong(value: int) -> bytes:
    """A CK_ULONG as an attribute's value."""
    return bytes(ULONG(value))


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


class SessionFlags:
    """Flags of CK_SESSION_INFO (§3.3)."""

    RW_SESSION: ClassVar[int] = 0x2
    SERIAL_SESSION: ClassVar[int] = 0x4


class UserType:
    """CK_USER_TYPE (§3.5)."""

    USER: ClassVar[int] = 1
    CONTEXT_SPECIFIC: ClassVar[int] = 2


class Attribute:
    """CK_ATTRIBUTE_TYPE (§4)."""

    CLASS: ClassVar[int] = 0x0
    TOKEN: ClassVar[int] = 0x1
    PRIVATE: ClassVar[int] = 0x2
    LABEL: ClassVar[int] = 0x3
    VALUE: ClassVar[int] = 0x11
    CERTIFICATE_TYPE: ClassVar[int] = 0x80
    ISSUER: ClassVar[int] = 0x81
    SERIAL_NUMBER: ClassVar[int] = 0x82
    KEY_TYPE: ClassVar[int] = 0x100
    SUBJECT: ClassVar[int] = 0x101
    ID: ClassVar[int] = 0x102
    SENSITIVE: ClassVar[int] = 0x103
    SIGN: ClassVar[int] = 0x108
    VERIFY: ClassVar[int] = 0x10A
    MODULUS: ClassVar[int] = 0x120
    MODULUS_BITS: ClassVar[int] = 0x121
    PUBLIC_EXPONENT: ClassVar[int] = 0x122
    EXTRACTABLE: ClassVar[int] = 0x162
    EC_PARAMS: ClassVar[int] = 0x180
    EC_POINT: ClassVar[int] = 0x181
    ALWAYS_AUTHENTICATE: ClassVar[int] = 0x202


class ObjectClass:
    """CK_OBJECT_CLASS (§4)."""

    CERTIFICATE: ClassVar[int] = 1
    PUBLIC_KEY: ClassVar[int] = 2
    PRIVATE_KEY: ClassVar[int] = 3


class Structure(ctypes.Structure):
    """A structure as the header lays it out."""

    # pkcs11.h packs to one byte on Windows and not at all elsewhere (§2.1 of the header's own notes).
    if sys.platform == "win32":
        _pack_ = 1


class Version(Structure):
    """CK_VERSION."""

    _fields_: ClassVar = [("major", ctypes.c_ubyte), ("minor", ctypes.c_ubyte)]


class LibraryInfo(Structure):
    """CK_INFO."""

    _fields_: ClassVar = [
        ("cryptokiVersion", Version),
        ("manufacturerID", ctypes.c_ubyte * 32),
        ("flags", ULONG),
        ("libraryDescription", ctypes.c_ubyte * 32),
        ("libraryVersion", Version),
    ]


class SlotInfo(Structure):
    """CK_SLOT_INFO."""

    _fields_: ClassVar = [
        ("slotDescription", ctypes.c_ubyte * 64),
        ("manufacturerID", ctypes.c_ubyte * 32),
        ("flags", ULONG),
        ("hardwareVersion", Version),
        ("firmwareVersion", Version),
    ]


class TokenInfo(Structure):
    """CK_TOKEN_INFO."""

    _fields_: ClassVar = [
        ("label", ctypes.c_ubyte * 32),
        ("manufacturerID", ctypes.c_ubyte * 32),
        ("model", ctypes.c_ubyte * 16),
        ("serialNumber", ctypes.c_ubyte * 16),
        ("flags", ULONG),
        ("sessions", ULONG * 4),  # how many there are and may be: not used
        ("ulMaxPinLen", ULONG),
        ("ulMinPinLen", ULONG),
        ("memory", ULONG * 4),  # sizes: not used
        ("hardwareVersion", Version),
        ("firmwareVersion", Version),
        ("utcTime", ctypes.c_ubyte * 16),
    ]


class AttributeRecord(Structure):
    """CK_ATTRIBUTE."""

    _fields_: ClassVar = [("type", ULONG), ("pValue", ctypes.c_void_p), ("ulValueLen", ULONG)]


class MechanismRecord(Structure):
    """CK_MECHANISM."""

    _fields_: ClassVar = [("mechanism", ULONG), ("pParameter", ctypes.c_void_p), ("ulParameterLen", ULONG)]


class InitializeArgs(Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_: ClassVar = [
        ("CreateMutex", ctypes.c_void_p),
        ("DestroyMutex", ctypes.c_void_p),
        ("LockMutex", ctypes.c_void_p),
        ("UnlockMutex", ctypes.c_void_p),
        ("flags", ULONG),
        ("pReserved", ctypes.c_void_p),
    ]


class FunctionList(Structure):
    """CK_FUNCTION_LIST up to C_GenerateKeyPair; every v2.x list is longer."""

    _fields_: ClassVar = [("version", Version), ("functions", ctypes.c_void_p * 60)]


#: Function name -> its place in CK_FUNCTION_LIST and its argument types.
PROTOTYPES: Final[dict[str, tuple[int, tuple[Any, ...]]]] = {
    "C_Initialize": (0, (ctypes.c_void_p,)),
    "C_Finalize": (1, (ctypes.c_void_p,)),
    "C_GetInfo": (2, (ctypes.POINTER(LibraryInfo),)),
    "C_GetSlotList": (4, (ctypes.c_ubyte, ULONG_P, ULONG_P)),
    "C_GetSlotInfo": (5, (ULONG, ctypes.POINTER(SlotInfo))),
    "C_GetTokenInfo": (6, (ULONG, ctypes.POINTER(TokenInfo))),
    "C_SetPIN": (11, (ULONG, BYTES, ULONG, BYTES, ULONG)),
    "C_OpenSession": (12, (ULONG, ULONG, ctypes.c_void_p, ctypes.c_void_p, ULONG_P)),
    "C_CloseSession": (13, (ULONG,)),
    "C_Login": (18, (ULONG, ULONG, BYTES, ULONG)),
    "C_CreateObject": (20, (ULONG, ctypes.POINTER(AttributeRecord), ULONG, ULONG_P)),
    "C_GetAttributeValue": (24, (ULONG, ULONG, ctypes.POINTER(AttributeRecord), ULONG)),
    "C_FindObjectsInit": (26, (ULONG, ctypes.POINTER(AttributeRecord), ULONG)),
    "C_FindObjects": (27, (ULONG, ULONG_P, ULONG, ULONG_P)),
    "C_FindObjectsFinal": (28, (ULONG,)),
    "C_SignInit": (42, (ULONG, ctypes.POINTER(MechanismRecord), ULONG)),
    "C_Sign": (43, (ULONG, BYTES, ULONG, BYTES, ULONG_P)),
    "C_GenerateKeyPair": (
        59,
        (
            ULONG,
            ctypes.POINTER(MechanismRecord),
            ctypes.POINTER(AttributeRecord),
            ULONG,
            ctypes.POINTER(AttributeRecord),
            ULONG,
            ULONG_P,
            ULONG_P,
        ),
    ),
}
