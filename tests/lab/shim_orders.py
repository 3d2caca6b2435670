# SPDX-License-Identifier: Apache-2.0
"""What the shim can be told to do, as lines for `FaultyToken.break_with` (see `pkcs11_fault_shim.c`).

`when` says which calls of the function are meant, counted since the lines were written: `at`, `every`, `first`,
`chance`.
"""

ALWAYS = ""
#: No token, until other lines are written; sessions that a call finds open meanwhile are lost for good.
REMOVED = "quirk removed"


def at(call: int) -> str:
    """This call of each process alone, from 1 on."""
    return f"@{call}"


def every(calls: int) -> str:
    """Every so many calls of a process."""
    return f"/{calls}"


def first(calls: int) -> str:
    """The first calls of all processes together; then the function is healed."""
    return f"*{calls}"


def chance(percent: float, *, seed: int) -> str:
    """A share of all processes' calls; the same ones for the same seed."""
    return f"%{percent:.6f} {seed}"


def _order(*words: str) -> str:
    return " ".join(word for word in words if word)


def returns(function: str, rv: int, when: str = ALWAYS) -> str:
    """Return a CK_RV without doing anything."""
    return _order(function, "rv", f"{rv:x}", when)


def hangs(function: str, when: str = ALWAYS) -> str:
    """Never return, without doing anything."""
    return _order(function, "hang", when)


def aborts(function: str, when: str = ALWAYS) -> str:
    """End the process, without doing anything."""
    return _order(function, "abort", when)


def crashes_after(function: str, when: str = ALWAYS) -> str:
    """Do the work, then end the process by SIGSEGV."""
    return _order(function, "segv", when)


def hangs_after(function: str, when: str = ALWAYS) -> str:
    """Do the work, then never return; the log has `FUNCTION-done` in between."""
    return _order(function, "late", when)


def delays(function: str, ms: int, when: str = ALWAYS) -> str:
    """Wait, then go on with another order that is due, or with the work."""
    return _order(function, "delay", str(ms), when)


def empty_after_open(ms: int) -> str:
    """No slots until `ms` after C_Initialize, and after a session was closed."""
    return f"quirk empty-after-open {ms}"


def busy_after_close(ms: int, rv: int = 0x30) -> str:
    """C_OpenSession and C_SignInit return `rv` (CKR_DEVICE_ERROR) until `ms` after a session was closed."""
    return f"quirk busy-after-close {ms} {rv:x}"


def session_cap(sessions: int) -> str:
    """CKR_SESSION_COUNT for one session more than these, in one process."""
    return f"quirk session-cap {sessions}"


def pin_counter(tries: int) -> str:
    """So many wrong PINs, over all processes, lock the PIN; the flags of the token tell how near that is."""
    return f"quirk pin-counter {tries}"
