# SPDX-License-Identifier: Apache-2.0
"""Private files where modes mean nothing: Windows's access control lists, through its own `icacls`.

Written from Microsoft's documentation of icacls and of security descriptor strings (SDDL); never run on Windows.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from privyseal.errors import ConfigError

__all__ = ["Icacls", "protect", "refuse_if_open", "strangers"]

#: Runs icacls with these arguments; its exit code.
Icacls = Callable[[tuple[str, ...]], int]

_SECONDS: Final = 30
#: SDDL names of groups that hold more people than the owner: Everyone, Authenticated Users, Users, Guests, Interactive,
#: Network, Anonymous, and the same as SIDs.
_MANY: Final = {
    "WD": "Everyone",
    "AU": "Authenticated Users",
    "BU": "Users",
    "BG": "Guests",
    "IU": "Interactive",
    "NU": "Network",
    "AN": "Anonymous",
    "S-1-1-0": "Everyone",
    "S-1-5-11": "Authenticated Users",
    "S-1-5-32-545": "Users",
    "S-1-5-32-546": "Guests",
}
#: One entry: type;flags;rights;object;inherited object;account (SDDL).
_ENTRY: Final = re.compile(r"\(([^;()]*);([^;()]*);([^;()]*);([^;()]*);([^;()]*);([^;()]*)")


def icacls(arguments: tuple[str, ...]) -> int:
    """Run Windows's icacls."""
    command = ["icacls", *arguments]  # found on the system's own path
    return subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False).returncode


def strangers(sddl: str) -> tuple[str, ...]:
    """Groups of many that a security descriptor lets in; a descriptor without a list lets everybody in."""
    _, found, discretionary = sddl.partition("D:")
    if not found:
        return ("Everyone",)
    discretionary = discretionary.partition("S:")[0]
    entries = _ENTRY.findall(discretionary)
    allowed = (account for kind, _, _, _, _, account in entries if kind in {"A", "OA", "XA"})
    return tuple(dict.fromkeys(_MANY[account] for account in allowed if account in _MANY))


def protect(path: Path, run: Icacls = icacls) -> None:
    """Let nobody in but the owner and the system's administrators.

    Raises:
        ConfigError: `file.unprotected`; nothing private may be written there.
    """
    # *S-1-3-4 is "owner rights", SY the system: names would depend on Windows's language.
    arguments = (str(path), "/inheritance:r", "/grant:r", "*S-1-3-4:F", "*S-1-5-18:F", "*S-1-5-32-544:F", "/Q")
    if run(arguments) != 0:
        raise ConfigError(
            "file.unprotected",
            f"{path} cannot be closed to others: icacls failed",
            hint="choose a place on an NTFS volume in your own profile",
        )


def refuse_if_open(path: Path, run: Icacls = icacls) -> None:
    """Refuse a private file that more people than its owner can read.

    Raises:
        ConfigError: `file.too_open`, `file.unprotected` if that cannot be known.
    """
    with tempfile.TemporaryDirectory(prefix="privyseal-") as folder:
        saved = Path(folder) / "acl"
        if run((str(path), "/save", str(saved), "/Q")) != 0 or not saved.is_file():
            raise ConfigError(
                "file.unprotected",
                f"it cannot be told who may read {path}: icacls failed",
                hint="choose a place on an NTFS volume in your own profile",
            )
        # A line with the name, a line with the descriptor, in UTF-16.
        text = saved.read_text("utf-16", "replace")
    many = strangers(text.partition("\n")[2].strip())
    if many:
        raise ConfigError(
            "file.too_open",
            f"{path} can be read by others ({', '.join(many)})",
            hint=f'icacls "{path}" /inheritance:r /grant:r *S-1-3-4:F; if others could have copied it, make a new one',
        )
