# SPDX-License-Identifier: Apache-2.0
"""What to do about each return value of a PKCS#11 module: the one table (DESIGN §7).

Two columns, because the same number says "safe to try again" before C_Sign and "nobody knows" from C_Sign itself. In
the second column a remedy prepares the token for what comes next; the operation that failed is never entered again by
the agent. Whether it may be repeated at all, under a new fence and a new intent, is `may_have_signed`'s answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from privyseal.tokens.ckr import LunaRv, NssRv, Rv

__all__ = ["REMEDIES", "UNKNOWN", "Remedies", "Remedy", "may_have_signed", "remedy_for"]


class Remedy(Enum):
    """What may help."""

    RETRY = "retry"  #: the same session is good for another call
    NEW_SESSION = "new session"
    NEW_LOGIN = "new login"  #: a new session that is logged in; the PIN journal decides whether it may be
    NEW_WORKER = "new worker"
    GIVE_UP = "give up"  #: the same call would fail the same way
    NEVER = "never retry"  #: it is about the PIN: nothing more is tried before a person acts


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedies:
    """One row: before C_Sign, and in C_Sign."""

    before: Remedy
    in_sign: Remedy


_RETRY: Final = Remedies(before=Remedy.RETRY, in_sign=Remedy.NEW_SESSION)
_SESSION: Final = Remedies(before=Remedy.NEW_SESSION, in_sign=Remedy.NEW_SESSION)
_LOGIN: Final = Remedies(before=Remedy.NEW_LOGIN, in_sign=Remedy.NEW_LOGIN)
_WORKER: Final = Remedies(before=Remedy.NEW_WORKER, in_sign=Remedy.NEW_WORKER)
_GIVE_UP: Final = Remedies(before=Remedy.GIVE_UP, in_sign=Remedy.GIVE_UP)
_NEVER: Final = Remedies(before=Remedy.NEVER, in_sign=Remedy.NEVER)

#: For a code that stands nowhere: one new worker, and then no more.
UNKNOWN: Final = _WORKER

REMEDIES: Final[Mapping[int, Remedies]] = {
    Rv.CANCEL: _RETRY,
    Rv.HOST_MEMORY: _WORKER,
    Rv.SLOT_ID_INVALID: _SESSION,  # slots are looked for anew with each session
    Rv.GENERAL_ERROR: _WORKER,  # "may be in an inconsistent state" (§5.1.1)
    Rv.FUNCTION_FAILED: _SESSION,
    Rv.ARGUMENTS_BAD: _GIVE_UP,
    Rv.NO_EVENT: _RETRY,
    Rv.NEED_TO_CREATE_THREADS: _GIVE_UP,
    Rv.CANT_LOCK: _GIVE_UP,
    Rv.ATTRIBUTE_READ_ONLY: _GIVE_UP,
    Rv.ATTRIBUTE_SENSITIVE: _GIVE_UP,
    Rv.ATTRIBUTE_TYPE_INVALID: _GIVE_UP,
    Rv.ATTRIBUTE_VALUE_INVALID: _GIVE_UP,
    Rv.ACTION_PROHIBITED: _GIVE_UP,
    Rv.DATA_INVALID: _GIVE_UP,
    Rv.DATA_LEN_RANGE: _GIVE_UP,
    Rv.DEVICE_ERROR: _SESSION,
    Rv.DEVICE_MEMORY: _SESSION,
    Rv.DEVICE_REMOVED: _SESSION,
    Rv.ENCRYPTED_DATA_INVALID: _GIVE_UP,
    Rv.ENCRYPTED_DATA_LEN_RANGE: _GIVE_UP,
    Rv.AEAD_DECRYPT_FAILED: _GIVE_UP,
    Rv.FUNCTION_CANCELED: _RETRY,
    Rv.FUNCTION_NOT_PARALLEL: _GIVE_UP,
    Rv.FUNCTION_NOT_SUPPORTED: _GIVE_UP,
    Rv.KEY_HANDLE_INVALID: _SESSION,  # handles do not outlive a token that was taken out
    Rv.KEY_SIZE_RANGE: _GIVE_UP,
    Rv.KEY_TYPE_INCONSISTENT: _GIVE_UP,
    Rv.KEY_NOT_NEEDED: _GIVE_UP,
    Rv.KEY_CHANGED: _GIVE_UP,
    Rv.KEY_NEEDED: _GIVE_UP,
    Rv.KEY_INDIGESTIBLE: _GIVE_UP,
    Rv.KEY_FUNCTION_NOT_PERMITTED: _GIVE_UP,
    Rv.KEY_NOT_WRAPPABLE: _GIVE_UP,
    Rv.KEY_UNEXTRACTABLE: _GIVE_UP,
    Rv.MECHANISM_INVALID: _GIVE_UP,
    Rv.MECHANISM_PARAM_INVALID: _GIVE_UP,
    Rv.OBJECT_HANDLE_INVALID: _SESSION,
    Rv.OPERATION_ACTIVE: _SESSION,
    Rv.OPERATION_NOT_INITIALIZED: _SESSION,
    Rv.PIN_INCORRECT: _NEVER,
    Rv.PIN_INVALID: _NEVER,
    Rv.PIN_LEN_RANGE: _NEVER,
    Rv.PIN_EXPIRED: _NEVER,
    Rv.PIN_LOCKED: _NEVER,
    Rv.SESSION_CLOSED: _SESSION,
    Rv.SESSION_COUNT: _WORKER,  # sessions that nobody closed go with their process
    Rv.SESSION_HANDLE_INVALID: _SESSION,
    Rv.SESSION_PARALLEL_NOT_SUPPORTED: _GIVE_UP,
    Rv.SESSION_READ_ONLY: _GIVE_UP,
    Rv.SESSION_EXISTS: _GIVE_UP,
    Rv.SESSION_READ_ONLY_EXISTS: _GIVE_UP,
    Rv.SESSION_READ_WRITE_SO_EXISTS: _GIVE_UP,
    Rv.SIGNATURE_INVALID: _GIVE_UP,
    Rv.SIGNATURE_LEN_RANGE: _GIVE_UP,
    Rv.TEMPLATE_INCOMPLETE: _GIVE_UP,
    Rv.TEMPLATE_INCONSISTENT: _GIVE_UP,
    Rv.TOKEN_NOT_PRESENT: _SESSION,
    Rv.TOKEN_NOT_RECOGNIZED: _SESSION,
    Rv.TOKEN_WRITE_PROTECTED: _GIVE_UP,
    Rv.UNWRAPPING_KEY_HANDLE_INVALID: _GIVE_UP,
    Rv.UNWRAPPING_KEY_SIZE_RANGE: _GIVE_UP,
    Rv.UNWRAPPING_KEY_TYPE_INCONSISTENT: _GIVE_UP,
    Rv.USER_ALREADY_LOGGED_IN: _RETRY,
    Rv.USER_NOT_LOGGED_IN: _LOGIN,
    Rv.USER_PIN_NOT_INITIALIZED: _NEVER,
    Rv.USER_TYPE_INVALID: _GIVE_UP,
    Rv.USER_ANOTHER_ALREADY_LOGGED_IN: _WORKER,
    Rv.USER_TOO_MANY_TYPES: _WORKER,
    Rv.WRAPPED_KEY_INVALID: _GIVE_UP,
    Rv.WRAPPED_KEY_LEN_RANGE: _GIVE_UP,
    Rv.WRAPPING_KEY_HANDLE_INVALID: _GIVE_UP,
    Rv.WRAPPING_KEY_SIZE_RANGE: _GIVE_UP,
    Rv.WRAPPING_KEY_TYPE_INCONSISTENT: _GIVE_UP,
    Rv.RANDOM_SEED_NOT_SUPPORTED: _GIVE_UP,
    Rv.RANDOM_NO_RNG: _GIVE_UP,
    Rv.DOMAIN_PARAMS_INVALID: _GIVE_UP,
    Rv.CURVE_NOT_SUPPORTED: _GIVE_UP,
    Rv.BUFFER_TOO_SMALL: _GIVE_UP,  # C_Sign leaves the operation active, and nothing is signed (§5.2)
    Rv.SAVED_STATE_INVALID: _GIVE_UP,
    Rv.INFORMATION_SENSITIVE: _GIVE_UP,
    Rv.STATE_UNSAVEABLE: _GIVE_UP,
    Rv.CRYPTOKI_NOT_INITIALIZED: _WORKER,
    Rv.CRYPTOKI_ALREADY_INITIALIZED: _RETRY,
    Rv.MUTEX_BAD: _WORKER,
    Rv.MUTEX_NOT_LOCKED: _WORKER,
    Rv.NEW_PIN_MODE: _NEVER,
    Rv.NEXT_OTP: _NEVER,
    Rv.EXCEEDED_MAX_ITERATIONS: _GIVE_UP,
    Rv.FIPS_SELF_TEST_FAILED: _WORKER,
    Rv.LIBRARY_LOAD_FAILED: _WORKER,
    Rv.PIN_TOO_WEAK: _NEVER,
    Rv.PUBLIC_KEY_INVALID: _GIVE_UP,
    Rv.FUNCTION_REJECTED: _GIVE_UP,
    Rv.TOKEN_RESOURCE_EXCEEDED: _SESSION,
    Rv.OPERATION_CANCEL_FAILED: _SESSION,
    Rv.KEY_EXHAUSTED: _GIVE_UP,
    # Vendors' own. Another vendor may mean something else by the same number; that of a PIN is the safe reading.
    LunaRv.USER_LOCKED_OUT: _NEVER,
    LunaRv.USER_NOT_AUTHORIZED: _NEVER,
    LunaRv.SO_LOGIN_FAILURE_THRESHOLD: _NEVER,
    LunaRv.CHALLENGE_INCORRECT: _NEVER,
    LunaRv.ACCEL_DEVICE_ERROR: _SESSION,
    LunaRv.UNABLE_TO_CONNECT: _WORKER,
    LunaRv.TIMEOUT: _SESSION,
    LunaRv.DEVICE_TIMEOUT: _SESSION,
    LunaRv.AGAIN: _RETRY,
    LunaRv.STC_NO_SESSION_KEY: _WORKER,
    LunaRv.STC_SESSION_INVALID: _WORKER,
    LunaRv.STC_NO_CHANNEL: _WORKER,
    LunaRv.PARTITION_DISABLED: _GIVE_UP,
    LunaRv.OPERATION_NOT_ALLOWED: _GIVE_UP,
    LunaRv.LICENSE_CAPACITY_EXCEEDED: _GIVE_UP,
    LunaRv.HSM_TAMPERED: _GIVE_UP,
    LunaRv.HSM_RESTART_REQUIRED: _GIVE_UP,
    LunaRv.KEY_NOT_ACTIVE: _GIVE_UP,
    NssRv.CERTDB_FAILED: _WORKER,
    NssRv.KEYDB_FAILED: _WORKER,
}


def remedy_for(rv: int, *, in_sign: bool) -> Remedy:
    """What the table says; for a code that it does not have, what it says of unknown ones."""
    row = REMEDIES.get(rv, UNKNOWN)
    return row.in_sign if in_sign else row.before


def may_have_signed(rv: int) -> bool:
    """Whether C_Sign may have used the key before it returned this.

    A module that refuses the call as such (its arguments, the mechanism, the PIN) has not used the key. All else it may
    return after it has: a reader that is pulled out answers too late.
    """
    return remedy_for(rv, in_sign=True) not in (Remedy.GIVE_UP, Remedy.NEVER)
