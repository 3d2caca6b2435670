# SPDX-License-Identifier: Apache-2.0
"""What `privyseal doctor` looks at for every role: whose files these are, and the role's own TLS certificate."""

import datetime as dt
import os
import stat
import sys
from pathlib import Path
from typing import Final

from cryptography import x509

from privyseal.errors import ConfigError, IdentityError
from privyseal.identity.keyfile import load_tls_key
from privyseal.ports.clock import Clock
from privyseal.ports.diagnosis import Row, failed, look, passed, warned

__all__ = ["check_account", "check_files", "check_tls_certificate", "days_left", "is_own", "moment"]

_DAYS_BEFORE_EXPIRY: Final = 30


def moment(clock: Clock) -> dt.datetime:
    """The clock's time as a date, UTC."""
    return dt.datetime.fromtimestamp(clock() / 1000, dt.UTC)


def days_left(not_after: dt.datetime, now: dt.datetime) -> int:
    """Whole days until then."""
    return (not_after - now) // dt.timedelta(days=1)


def is_own(directory: Path) -> bool:
    """Whether a directory belongs to the account that runs this process (always, where that says nothing)."""
    return sys.platform == "win32" or directory.stat().st_uid == os.geteuid()


def check_account(directory: Path, command: str) -> Row:
    """Doctor runs as the account that the program runs as; else it sees another program's view of the files."""

    def check() -> Row:
        if is_own(directory):
            return passed("account", f"{directory} belongs to the account that asks")
        owner = directory.stat().st_uid
        return warned(
            "account",
            f"{directory} belongs to uid {owner}, and this is another account: it may see and use other things",
            f"sudo -u '#{owner}' {command}",
        )

    return look("account", check)


def check_files(directory: Path, private: tuple[Path, ...]) -> tuple[Row, ...]:
    """Private files are there, and their owner's alone; a row for each that is not."""
    wrong = tuple(row for path in private if (row := _wrong_file(path, directory)) is not None)
    if wrong:
        return wrong
    mode = stat.S_IMODE(directory.stat().st_mode)
    if sys.platform != "win32" and mode & 0o077:
        return (
            warned(
                "private files", f"{directory} can be entered by others (mode {mode:04o})", f"chmod 700 {directory}"
            ),
        )
    names = ", ".join(path.name for path in private)
    return (passed("private files", f"{names} in {directory}: there, and readable by their owner alone"),)


def _wrong_file(path: Path, directory: Path) -> Row | None:
    subject = "private files"
    try:
        status, owner = path.stat(), directory.stat().st_uid
    except OSError as error:
        return failed(
            subject,
            ConfigError(
                "file.missing",
                f"cannot read {path}: {error.strerror}",
                hint="bring it back from where it was kept; if it is lost, this role must join or be made anew",
            ),
        )
    if sys.platform == "win32":
        return None
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        return failed(
            subject,
            ConfigError(
                "file.too_open",
                f"{path} can be read by others (mode {mode:04o})",
                hint=f"chmod 600 {path}; if others could have copied it, make a new one",
            ),
        )
    if status.st_uid != owner:
        return failed(
            subject,
            ConfigError(
                "file.owner",
                f"{path} belongs to uid {status.st_uid}, its directory to uid {owner}",
                hint=f"chown {owner} {path}",
            ),
        )
    return None


def check_tls_certificate(certificate_path: Path, key_path: Path, clock: Clock) -> Row:
    """The role's own TLS certificate: its dates, and that it is for the key beside it."""

    def check() -> Row:
        certificate = _load(certificate_path)
        if certificate.public_key() != load_tls_key(key_path).public_key():
            raise ConfigError(
                "file.not_a_key",
                f"{certificate_path} is not the certificate of {key_path}",
                hint="one of the two was replaced: bring back both, or join again with a new join code",
            )
        now, begins, ends = moment(clock), certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not begins <= now <= ends:
            raise IdentityError(
                "identity.certificate_expired",
                f"the TLS certificate {certificate_path} is valid from {begins:%Y-%m-%d %H:%M} "
                f"to {ends:%Y-%m-%d %H:%M} only; this clock says {now:%Y-%m-%d %H:%M} (UTC)",
                hint="check this machine's clock; else join again with a new join code",
            )
        left = days_left(ends, now)
        found = f"{certificate_path} is valid until {ends:%Y-%m-%d}, {left} days"
        if left < _DAYS_BEFORE_EXPIRY:
            return warned("TLS certificate", found, "join again before that day, with a new join code")
        return passed("TLS certificate", found)

    return look("TLS certificate", check)


def _load(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise ConfigError(
            "file.not_a_key", f"{path} is not a PEM certificate", hint="bring it back, or join again"
        ) from error
