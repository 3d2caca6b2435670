# SPDX-License-Identifier: Apache-2.0
"""Return values of Cryptoki functions (PKCS#11 v3.1 §6.3 and its header), and what each means to a caller.

`Ckr` is the error of every PKCS#11 call: it keeps the number and the function, because the same number says
"safe to try again" from C_SignInit and "nobody knows" from C_Sign.
"""

from enum import IntEnum
from typing import Final

from privyseal.errors import TokenError

__all__ = ["Ckr", "LunaRv", "NssRv", "Rv", "ckr_name"]


class Rv(IntEnum):
    """CK_RV: each name is the standard's without its `CKR_`."""

    OK = 0x0000
    CANCEL = 0x0001
    HOST_MEMORY = 0x0002
    SLOT_ID_INVALID = 0x0003
    GENERAL_ERROR = 0x0005
    FUNCTION_FAILED = 0x0006
    ARGUMENTS_BAD = 0x0007
    NO_EVENT = 0x0008
    NEED_TO_CREATE_THREADS = 0x0009
    CANT_LOCK = 0x000A
    ATTRIBUTE_READ_ONLY = 0x0010
    ATTRIBUTE_SENSITIVE = 0x0011
    ATTRIBUTE_TYPE_INVALID = 0x0012
    ATTRIBUTE_VALUE_INVALID = 0x0013
    ACTION_PROHIBITED = 0x001B
    DATA_INVALID = 0x0020
    DATA_LEN_RANGE = 0x0021
    DEVICE_ERROR = 0x0030
    DEVICE_MEMORY = 0x0031
    DEVICE_REMOVED = 0x0032
    ENCRYPTED_DATA_INVALID = 0x0040
    ENCRYPTED_DATA_LEN_RANGE = 0x0041
    AEAD_DECRYPT_FAILED = 0x0042
    FUNCTION_CANCELED = 0x0050
    FUNCTION_NOT_PARALLEL = 0x0051
    FUNCTION_NOT_SUPPORTED = 0x0054
    KEY_HANDLE_INVALID = 0x0060
    KEY_SIZE_RANGE = 0x0062
    KEY_TYPE_INCONSISTENT = 0x0063
    KEY_NOT_NEEDED = 0x0064
    KEY_CHANGED = 0x0065
    KEY_NEEDED = 0x0066
    KEY_INDIGESTIBLE = 0x0067
    KEY_FUNCTION_NOT_PERMITTED = 0x0068
    KEY_NOT_WRAPPABLE = 0x0069
    KEY_UNEXTRACTABLE = 0x006A
    MECHANISM_INVALID = 0x0070
    MECHANISM_PARAM_INVALID = 0x0071
    OBJECT_HANDLE_INVALID = 0x0082
    OPERATION_ACTIVE = 0x0090
    OPERATION_NOT_INITIALIZED = 0x0091
    PIN_INCORRECT = 0x00A0
    PIN_INVALID = 0x00A1
    PIN_LEN_RANGE = 0x00A2
    PIN_EXPIRED = 0x00A3
    PIN_LOCKED = 0x00A4
    SESSION_CLOSED = 0x00B0
    SESSION_COUNT = 0x00B1
    SESSION_HANDLE_INVALID = 0x00B3
    SESSION_PARALLEL_NOT_SUPPORTED = 0x00B4
    SESSION_READ_ONLY = 0x00B5
    SESSION_EXISTS = 0x00B6
    SESSION_READ_ONLY_EXISTS = 0x00B7
    SESSION_READ_WRITE_SO_EXISTS = 0x00B8
    SIGNATURE_INVALID = 0x00C0
    SIGNATURE_LEN_RANGE = 0x00C1
    TEMPLATE_INCOMPLETE = 0x00D0
    TEMPLATE_INCONSISTENT = 0x00D1
    TOKEN_NOT_PRESENT = 0x00E0
    TOKEN_NOT_RECOGNIZED = 0x00E1
    TOKEN_WRITE_PROTECTED = 0x00E2
    UNWRAPPING_KEY_HANDLE_INVALID = 0x00F0
    UNWRAPPING_KEY_SIZE_RANGE = 0x00F1
    UNWRAPPING_KEY_TYPE_INCONSISTENT = 0x00F2
    USER_ALREADY_LOGGED_IN = 0x0100
    USER_NOT_LOGGED_IN = 0x0101
    USER_PIN_NOT_INITIALIZED = 0x0102
    USER_TYPE_INVALID = 0x0103
    USER_ANOTHER_ALREADY_LOGGED_IN = 0x0104
    USER_TOO_MANY_TYPES = 0x0105
    WRAPPED_KEY_INVALID = 0x0110
    WRAPPED_KEY_LEN_RANGE = 0x0112
    WRAPPING_KEY_HANDLE_INVALID = 0x0113
    WRAPPING_KEY_SIZE_RANGE = 0x0114
    WRAPPING_KEY_TYPE_INCONSISTENT = 0x0115
    RANDOM_SEED_NOT_SUPPORTED = 0x0120
    RANDOM_NO_RNG = 0x0121
    DOMAIN_PARAMS_INVALID = 0x0130
    CURVE_NOT_SUPPORTED = 0x0140
    BUFFER_TOO_SMALL = 0x0150
    SAVED_STATE_INVALID = 0x0160
    INFORMATION_SENSITIVE = 0x0170
    STATE_UNSAVEABLE = 0x0180
    CRYPTOKI_NOT_INITIALIZED = 0x0190
    CRYPTOKI_ALREADY_INITIALIZED = 0x0191
    MUTEX_BAD = 0x01A0
    MUTEX_NOT_LOCKED = 0x01A1
    NEW_PIN_MODE = 0x01B0
    NEXT_OTP = 0x01B1
    EXCEEDED_MAX_ITERATIONS = 0x01B5
    FIPS_SELF_TEST_FAILED = 0x01B6
    LIBRARY_LOAD_FAILED = 0x01B7
    PIN_TOO_WEAK = 0x01B8
    PUBLIC_KEY_INVALID = 0x01B9
    FUNCTION_REJECTED = 0x0200
    TOKEN_RESOURCE_EXCEEDED = 0x0201
    OPERATION_CANCEL_FAILED = 0x0202
    KEY_EXHAUSTED = 0x0203


_VENDOR_DEFINED: Final = 0x8000_0000


class LunaRv(IntEnum):
    """Thales (SafeNet) Luna's own, from its cryptoki_v2.h: those that say what to do next."""

    USER_LOCKED_OUT = _VENDOR_DEFINED + 0x07
    ACCEL_DEVICE_ERROR = _VENDOR_DEFINED + 0x0C
    USER_NOT_AUTHORIZED = _VENDOR_DEFINED + 0x1A
    SO_LOGIN_FAILURE_THRESHOLD = _VENDOR_DEFINED + 0x1C
    UNABLE_TO_CONNECT = _VENDOR_DEFINED + 0x1F
    PARTITION_DISABLED = _VENDOR_DEFINED + 0x20
    TIMEOUT = _VENDOR_DEFINED + 0x24
    DEVICE_TIMEOUT = _VENDOR_DEFINED + 0x2B
    OPERATION_NOT_ALLOWED = _VENDOR_DEFINED + 0x30
    LICENSE_CAPACITY_EXCEEDED = _VENDOR_DEFINED + 0x31
    AGAIN = _VENDOR_DEFINED + 0x41
    STC_NO_SESSION_KEY = _VENDOR_DEFINED + 0x4F
    STC_SESSION_INVALID = _VENDOR_DEFINED + 0x53
    STC_NO_CHANNEL = _VENDOR_DEFINED + 0x56
    CHALLENGE_INCORRECT = _VENDOR_DEFINED + 0x67
    HSM_TAMPERED = _VENDOR_DEFINED + 0x76
    HSM_RESTART_REQUIRED = _VENDOR_DEFINED + 0x8D
    KEY_NOT_ACTIVE = _VENDOR_DEFINED + 0x136


class NssRv(IntEnum):
    """NSS's own (CKR_NSS_…), from its pkcs11n.h."""

    CERTDB_FAILED = 0xCE53_4351
    KEYDB_FAILED = 0xCE53_4352


_BY_VALUE: Final = {int(rv): rv for rv in Rv}

#: What is not named here is `token.failed`.
_CODES: Final[dict[Rv | None, str]] = {
    Rv.PIN_INCORRECT: "token.pin_incorrect",
    Rv.PIN_INVALID: "token.pin_incorrect",
    Rv.PIN_LEN_RANGE: "token.pin_incorrect",
    Rv.PIN_EXPIRED: "token.pin_expired",
    Rv.PIN_LOCKED: "token.pin_locked",
    Rv.USER_PIN_NOT_INITIALIZED: "token.pin_missing",
    Rv.SLOT_ID_INVALID: "token.not_found",
    Rv.TOKEN_NOT_PRESENT: "token.not_found",
    Rv.TOKEN_NOT_RECOGNIZED: "token.not_found",
    Rv.DEVICE_REMOVED: "token.not_found",
    Rv.KEY_HANDLE_INVALID: "token.key_not_found",
    Rv.OBJECT_HANDLE_INVALID: "token.key_not_found",
    Rv.SESSION_HANDLE_INVALID: "token.session_lost",
    Rv.SESSION_CLOSED: "token.session_lost",
    Rv.USER_NOT_LOGGED_IN: "token.session_lost",
}

_HINTS: Final = {
    "token.pin_incorrect": "put the right PIN in place, then: privyseal token unlock NAME --dir DIR",
    "token.pin_expired": "set a new PIN with the vendor's tool, then: privyseal token unlock NAME --dir DIR",
    "token.pin_missing": "set a user PIN with the vendor's tool",
    "token.pin_locked": "unlock it with the vendor's tool (SO PIN, PUK), then: privyseal token unlock NAME --dir DIR",
    "token.not_found": "check that the token is plugged in and that no other program holds it",
    "token.key_not_found": "list the token's keys; the key may have been deleted or renamed",
    "token.session_lost": "another program may share the token, or it was re-inserted; try again",
    "token.failed": "see the vendor's documentation for this return value of this function",
}


def ckr_name(rv: int) -> str:
    """`CKR_PIN_LOCKED` for 0xA4; vendor-defined and unknown values as a number."""
    if (known := _BY_VALUE.get(rv)) is not None:
        return f"CKR_{known.name}"
    if rv & _VENDOR_DEFINED:
        return f"CKR_VENDOR_DEFINED (0x{rv:08X})"
    return f"CK_RV 0x{rv:08X}"


class Ckr(TokenError):  # noqa: N818 - the standard's own word
    """A PKCS#11 function did not return CKR_OK."""

    ckr: int

    def __init__(self, function: str, rv: int, *, begun: bool = False) -> None:
        code = _CODES.get(_BY_VALUE.get(rv), "token.failed")
        super().__init__(
            code,
            f"{function} returned {ckr_name(rv)}",
            hint=_HINTS[code],
            ckr=rv,
            function=function,
            begun=begun,
        )
