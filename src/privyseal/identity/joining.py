# SPDX-License-Identifier: Apache-2.0
"""Join codes: one line of text that lets one machine join once.

A code carries the hub's web address, the SHA-256 of its trust bundle (so that first contact cannot be intercepted) and
a secret of which the hub knows only the hash. The role is in the text so that a client cannot join as an agent by
mistake; the hub holds role and name to the invitation all the same.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

from privyseal.errors import ConfigError

__all__ = ["ROLES", "JoinCodeText", "format_join_code", "parse_join_code", "proof_message"]

ROLES: Final = ("client", "agent")
_PREFIX: Final = "pvjoin1-"
_SECRET_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinCodeText:
    """What a join code says."""

    role: str
    web_url: str
    bundle_sha256: bytes
    secret: bytes


def format_join_code(code: JoinCodeText) -> str:
    """The text that is pasted on the joining machine."""
    body = bytes((ROLES.index(code.role),)) + code.bundle_sha256 + code.secret + code.web_url.encode()
    check = hashlib.sha256(body).digest()[:2]
    return _PREFIX + base64.urlsafe_b64encode(body + check).decode().rstrip("=")


def parse_join_code(text: str, role: str) -> JoinCodeText:
    """Read a join code for this role.

    Raises:
        ConfigError: `join.code` if it is not one (a character lost when pasting is noticed), `join.role` if it is for
            another role.
    """
    text = text.strip()
    try:
        padded = text.removeprefix(_PREFIX)
        data = base64.b64decode(padded + "=" * (-len(padded) % 4), altchars=b"-_", validate=True)
        body, check = data[:-2], data[-2:]
        url = body[1 + 32 + _SECRET_BYTES :].decode("ascii")
    except (binascii.Error, ValueError):
        body, check, url = b"", b"-", ""
    sound = text.startswith(_PREFIX) and hashlib.sha256(body).digest()[:2] == check and url.startswith("https://")
    if not sound or body[0] >= len(ROLES):
        raise ConfigError("join.code", "this is not a join code, or a part of it is missing", hint="paste it whole")
    if ROLES[body[0]] != role:
        raise ConfigError(
            "join.role",
            f"this join code is for a{'n' * (ROLES[body[0]] == 'agent')} {ROLES[body[0]]}, not for a {role}",
            hint=f"privyseal {ROLES[body[0]]} join",
        )
    code = JoinCodeText(role=role, web_url=url, bundle_sha256=body[1:33], secret=body[33 : 33 + _SECRET_BYTES])
    if format_join_code(code) != text:  # base64 leaves bits of the last character free
        raise ConfigError("join.code", "this is not a join code, or a part of it is missing", hint="paste it whole")
    return code


def proof_message(secret: bytes, csr: bytes) -> bytes:
    """What the request key signs to show that who joins holds it."""
    return b"privyseal join v1\n" + hashlib.sha256(secret).digest() + hashlib.sha256(csr).digest()
