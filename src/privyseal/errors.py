# SPDX-License-Identifier: Apache-2.0
"""The whole error taxonomy of Privyseal.

Every error that a person or a program can meet is a `PrivysealError`: a branch (the class) says what kind of
trouble it is and fixes exit code and HTTP status; a stable dotted `code` says which trouble; the message names
the object and what was expected; the hint names the next step. This module imports nothing of the project.
"""

from typing import ClassVar

__all__ = [
    "ApprovalPendingError",
    "ConfigError",
    "ConflictError",
    "DeniedError",
    "IdentityError",
    "LogIntegrityError",
    "MalformedInputError",
    "PrivysealError",
    "TokenError",
    "UnavailableError",
    "UnsupportedInputError",
    "UsbError",
    "VerificationError",
    "branch_named",
]


class PrivysealError(Exception):
    """Base of every error that crosses a boundary of Privyseal.

    Attributes:
        code: Stable dotted name, for example `token.pin_locked`; programs match on it.
        message: What happened, to which object, and what was expected. Never a PIN or another secret.
        hint: What to do next; empty if there is nothing that the reader could do.
    """

    branch: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(code, message, hint)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class ConfigError(PrivysealError):
    """A flag, a configuration file or an installation is not usable as it stands."""

    branch = "config"
    exit_status = 2
    http_status = 400


class MalformedInputError(PrivysealError):
    """The input does not follow its format."""

    branch = "malformed"
    exit_status = 1
    http_status = 422


class UnsupportedInputError(PrivysealError):
    """The input may be sound, but Privyseal does not handle it."""

    branch = "unsupported"
    exit_status = 1
    http_status = 422


class VerificationError(PrivysealError):
    """A signature, certificate, receipt or proof does not hold."""

    branch = "verification"
    exit_status = 3
    http_status = 422


class DeniedError(PrivysealError):
    """The caller is known, and may not do this."""

    branch = "denied"
    exit_status = 4
    http_status = 403


class ApprovalPendingError(PrivysealError):
    """The request waits for approval."""

    branch = "approval"
    exit_status = 5
    http_status = 202


class IdentityError(PrivysealError):
    """The caller could not be identified, or its credential is spent."""

    branch = "identity"
    exit_status = 6
    http_status = 401


class UnavailableError(PrivysealError):
    """A part of the system cannot be reached or is not ready; trying again later may help.

    Attributes:
        retry_after_seconds: Earlier than that it will not; None if nobody knows.
    """

    branch = "unavailable"
    exit_status = 7
    http_status = 503
    retryable = True

    def __init__(self, code: str, message: str, *, hint: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(code, message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class ConflictError(PrivysealError):
    """The request contradicts one that was made before."""

    branch = "conflict"
    exit_status = 1
    http_status = 409


class TokenError(PrivysealError):
    """The token, its module, its key or its PIN.

    Attributes:
        ckr: PKCS#11 return value behind the error, or None.
        function: PKCS#11 function that returned it, or empty.
        begun: Whether the signing operation itself (C_Sign) may have run; if not, the same (request, fence) may be
            tried again.
    """

    branch = "token"
    exit_status = 8
    http_status = 502

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        ckr: int | None = None,
        function: str = "",
        begun: bool = False,
    ) -> None:
        super().__init__(code, message, hint=hint)
        self.ckr = ckr
        self.function = function
        self.begun = begun


class UsbError(PrivysealError):
    """A USB device, its export or its import."""

    branch = "usb"
    exit_status = 8
    http_status = 409


class LogIntegrityError(PrivysealError):
    """The log does not prove what it must. Never caught: stop writing, keep serving reads, tell a person."""

    branch = "log"
    exit_status = 10
    http_status = 500


_BRANCHES: tuple[type[PrivysealError], ...] = (
    ConfigError,
    MalformedInputError,
    UnsupportedInputError,
    VerificationError,
    DeniedError,
    ApprovalPendingError,
    IdentityError,
    UnavailableError,
    ConflictError,
    TokenError,
    UsbError,
    LogIntegrityError,
)


def branch_named(name: str) -> type[PrivysealError]:
    """The class whose `branch` is `name`; `PrivysealError` itself for a name from a newer peer."""
    return next((cls for cls in _BRANCHES if cls.branch == name), PrivysealError)
