# SPDX-License-Identifier: Apache-2.0
"""Whether smart cards can be reached from a service: pcscd's socket, and polkit's word on who may use it.

pcscd asks polkit for the actions of org.debian.pcsc-lite.policy; their defaults allow only an active local session,
which a service is not. What doctor finds as an administrator at the screen, an agent does not find at night.
"""

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.errors import TokenError
from privyseal.ports.diagnosis import Row, look, passed, skipped, warned

__all__ = ["PcscPlaces", "needs_pcscd", "pcsc_rows"]

#: Modules that reach their token through pcscd, by a part of their file's name; others by what they load.
_NAMES: Final = ("opensc", "ykcs11", "etoken", "etpkcs11", "idprime")
_LOADED: Final = (b"libpcsclite", b"SCardEstablishContext")
_MAX_MODULE_BYTES: Final = 64 * 1024 * 1024
_ACTION: Final = "org.debian.pcsc-lite"
_CONNECT_SECONDS: Final = 5.0
#: What a service's account needs; deploy/systemd/50-privyseal-pcscd.rules is the same.
_RULE: Final = (
    'polkit.addRule(function(action, subject) { if (action.id.indexOf("org.debian.pcsc-lite.") == 0 && '
    'subject.user == "privyseal-agent") { return polkit.Result.YES; } });'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PcscPlaces:
    """Where pcscd and polkit keep what they need."""

    socket: Path = Path("/run/pcscd/pcscd.comm")
    actions: Path = Path("/usr/share/polkit-1/actions")
    rules: tuple[Path, ...] = (
        Path("/etc/polkit-1/rules.d"),
        Path("/usr/share/polkit-1/rules.d"),
        Path("/run/polkit-1/rules.d"),
    )


def needs_pcscd(module: Path) -> bool:
    """Whether a PKCS#11 module talks to pcscd.

    Raises:
        OSError: if it cannot be read.
    """
    if any(name in module.resolve().name.lower() for name in _NAMES):
        return True
    with module.open("rb") as file:
        content = file.read(_MAX_MODULE_BYTES)
    return any(name in content for name in _LOADED)


def pcsc_rows(places: PcscPlaces) -> tuple[Row, ...]:
    """Whether pcscd answers, and lets a service in."""
    return (
        look("pcscd", lambda: _check_socket(places.socket)),
        look("polkit rule for pcscd", lambda: _check_rule(places)),
    )


def _check_socket(path: Path) -> Row:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_CONNECT_SECONDS)
            connection.connect(str(path))
    except OSError as error:
        raise TokenError(
            "token.pcscd",
            f"pcscd cannot be reached at {path}: {error.strerror or error}",
            hint="systemctl enable --now pcscd.socket (Debian: package pcscd); without it the module sees no token",
        ) from error
    return passed("pcscd", f"answers at {path}")


def _check_rule(places: PcscPlaces) -> Row:
    subject = "polkit rule for pcscd"
    if not any(_ACTION in path.name for path in _listed(places.actions)):
        return passed(subject, f"not needed: {places.actions} holds no action of pcscd")
    unread: list[str] = []
    for folder in places.rules:
        try:
            for path in sorted(folder.glob("*.rules")):
                if _ACTION in path.read_text("utf-8", "replace"):
                    return passed(subject, f"{path} speaks of {_ACTION}")
            list(folder.iterdir())  # a folder that may not be listed looks empty to glob
        except FileNotFoundError:
            continue
        except OSError:
            unread.append(str(folder))
    if unread:
        return skipped(subject, f"this account may not read {', '.join(unread)}", "ask again with sudo")
    return warned(
        subject,
        f"no rule speaks of {_ACTION}: pcscd lets in active local sessions only, and a service is none",
        f"write this to /etc/polkit-1/rules.d/50-privyseal-pcscd.rules, with the agent's account: {_RULE}",
    )


def _listed(folder: Path) -> Iterable[Path]:
    return tuple(folder.iterdir()) if folder.is_dir() else ()
