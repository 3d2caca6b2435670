# SPDX-License-Identifier: Apache-2.0
"""`privyseal token pin`: on the token's host; `recover` at a desk with authority keys."""

import sys
from pathlib import Path
from typing import Annotated, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cyclopts import Parameter

from privyseal.cli.authority import AsJson, Authority
from privyseal.cli.render import emit, say
from privyseal.client.quorum_file import read_bounded
from privyseal.errors import ConfigError
from privyseal.identity.keyfile import load_ed25519, parse_public_key, public_key_text
from privyseal.identity.pin_recovery import MAX_RECOVERY_BYTES, open_recovery, parse_recovery

__all__ = ["change", "custody", "recover"]

_MAX_KEY_BYTES: Final = 4096


def change(
    name: str,
    /,
    *,
    directory: Annotated[Path, Parameter(name="--dir")],
    new_pin_file: Path | None = None,
    as_json: AsJson = False,
) -> None:
    """Give a token another PIN. The new one is typed twice; the present one comes from where agent.toml says.

    Logs in with the present PIN first. A PIN file holds the new PIN afterwards; in a credential or a keyring you put it
    yourself.

    Parameters
    ----------
    name
        Name of the token in agent.toml.
    directory
        The agent's directory.
    new_pin_file
        A file of mode 0600 that holds the new PIN and nothing else; nothing is asked then.
    as_json
        Print one JSON document.
    """
    from privyseal.cli.token_pins import change_here  # noqa: PLC0415 - extra `agent`

    done = change_here(directory, name, new_pin_file)
    kept = f"it is in {done.kept} now" if done.kept else "put the new PIN to where agent.toml says the PIN comes from"
    emit(
        {"token": name, "serial": done.serial, "changed": True, "kept": done.kept},
        (f"token {name}, serial {done.serial}: the PIN was changed; {kept}",),
        as_json=as_json,
    )


def custody(
    name: str,
    /,
    *,
    to: tuple[str, ...],
    threshold: int,
    directory: Annotated[Path, Parameter(name="--dir")],
    length: int = 0,
    digits: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a token a PIN that no person knows. The agent makes it and keeps it in the token's PIN file.

    First a recovery copy is written beside agent.toml; so many of the named authority keys together open it, at a desk:
    privyseal token pin recover. Keep copies of it elsewhere: it is no use to fewer of them.

    Parameters
    ----------
    name
        Name of the token in agent.toml.
    to
        Authority key that the recovery copy is made for: ed25519:…, or a file with that or a PEM public key. May be
        repeated.
    threshold
        How many of these keys it takes to open the recovery copy.
    directory
        The agent's directory.
    length
        Length of the PIN (default: 32, or as many as the token takes).
    digits
        Digits alone, for tokens that take nothing else.
    as_json
        Print one JSON document.
    """
    from privyseal.agent.pins import CustodyArguments  # noqa: PLC0415 - extra `agent`
    from privyseal.cli.token_pins import custody_here  # noqa: PLC0415

    authorities = tuple(_authority(text) for text in to)
    asked = CustodyArguments(token=name, authorities=authorities, threshold=threshold, length=length, digits=digits)
    done = custody_here(directory, asked)
    emit(
        {
            "token": name,
            "serial": done.serial,
            "kept": done.kept,
            "recovery": done.recovery,
            "threshold": threshold,
            "authorities": [public_key_text(key) for key in authorities],
        },
        (
            f"token {name}, serial {done.serial}: it has a PIN that no person knows; the agent keeps it in {done.kept}",
            f"recovery copy: {done.recovery} ({threshold} of {len(to)} authority keys open it); keep a copy elsewhere",
        ),
        as_json=as_json,
    )


def recover(file: Path, /, *, authority: Authority) -> None:
    """Print the PIN of a recovery copy, with the authority keys that it takes. From then on a person knows it.

    Parameters
    ----------
    file
        The recovery copy that `token pin custody` made.
    authority
        Authority key file; repeated until there are enough.
    """
    recovery = parse_recovery(read_bounded(file, MAX_RECOVERY_BYTES))
    pin = open_recovery(recovery, tuple(load_ed25519(path) for path in authority))
    try:
        sys.stdout.buffer.write(pin + b"\n")
        sys.stdout.flush()
    finally:
        pin[:] = bytes(len(pin))
    header = recovery.header
    say(f"PIN of token {header.token}, serial {header.serial}; change it when it has served its purpose")


def _authority(text: str) -> bytes:
    """The raw key behind `ed25519:…`, or in a file that holds that or a PEM public key."""
    if text.startswith("ed25519:"):
        return parse_public_key(text)
    data = read_bounded(Path(text), _MAX_KEY_BYTES)
    if not data.lstrip().startswith(b"-----BEGIN"):
        return parse_public_key(data.decode("utf-8", errors="replace").strip())
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("file.not_a_key", f"{text} is not an Ed25519 public key")
    return key.public_bytes_raw()
