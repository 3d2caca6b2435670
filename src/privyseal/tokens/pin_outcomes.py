# SPDX-License-Identifier: Apache-2.0
"""What the return values of C_Login and C_SetPIN say of the PIN that was presented (PKCS#11 v3.1 §5.1, §5.6)."""

from typing import Final

from privyseal.tokens.ckr import Rv
from privyseal.tokens.pin_journal import Outcome
from privyseal.tokens.remedies import Remedy, remedy_for

__all__ = ["CHANGE_OUTCOMES", "NEW_PIN_REFUSED", "login_outcome"]

#: Of C_Login's errors, those that tell of something that was already so when the function was invoked (§5.1), before it
#: saw a PIN.
_LOGIN_NOT_JUDGED: Final = frozenset(
    {
        Rv.USER_ALREADY_LOGGED_IN,
        Rv.SESSION_HANDLE_INVALID,
        Rv.TOKEN_NOT_PRESENT,
        Rv.CRYPTOKI_NOT_INITIALIZED,
        Rv.ARGUMENTS_BAD,
        Rv.FUNCTION_NOT_SUPPORTED,
    }
)

#: What C_SetPIN's errors say of the present PIN, which it judges first. What is not named leaves it unknown whether the
#: PIN was changed.
CHANGE_OUTCOMES: Final[dict[int, Outcome]] = {
    Rv.PIN_INCORRECT: "refused",
    Rv.PIN_EXPIRED: "refused",
    Rv.PIN_LOCKED: "refused",
    # The present PIN was accepted just before: these speak of the new one, or of what was so before any was seen.
    Rv.PIN_INVALID: "not-judged",
    Rv.PIN_LEN_RANGE: "not-judged",
    Rv.PIN_TOO_WEAK: "not-judged",
    Rv.SESSION_HANDLE_INVALID: "not-judged",
    Rv.SESSION_READ_ONLY: "not-judged",
    Rv.TOKEN_NOT_PRESENT: "not-judged",
    Rv.TOKEN_WRITE_PROTECTED: "not-judged",
    Rv.CRYPTOKI_NOT_INITIALIZED: "not-judged",
    Rv.ARGUMENTS_BAD: "not-judged",
    Rv.FUNCTION_NOT_SUPPORTED: "not-judged",
}
#: Of these, what speaks of the new PIN.
NEW_PIN_REFUSED: Final = frozenset({Rv.PIN_INVALID, Rv.PIN_LEN_RANGE, Rv.PIN_TOO_WEAK})


def login_outcome(rv: int) -> Outcome | None:
    """What an error of C_Login says of the PIN; None if nobody knows: the token may have counted."""
    if remedy_for(rv, in_sign=False) is Remedy.NEVER:
        return "refused"
    return "not-judged" if rv in _LOGIN_NOT_JUDGED else None
