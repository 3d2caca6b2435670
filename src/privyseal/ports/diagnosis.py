# SPDX-License-Identifier: Apache-2.0
"""What `privyseal doctor` finds: rows, each with what was looked at and, unless it is sound, the next step."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from privyseal.errors import ConfigError, PrivysealError

__all__ = ["Row", "Verdict", "failed", "look", "passed", "skipped", "warned"]


class Verdict(Enum):
    """How a row ended."""

    PASS = "pass"  # noqa: S105 - a word, no secret
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that was looked at.

    Attributes:
        subject: What it was, in a few words.
        found: What was seen, naming the object.
        next_step: What to do; empty for a pass.
        code: The error's stable name behind a fail, else empty.
        exit_status: The exit code of that error's branch; 0 unless it is a fail.
    """

    subject: str
    verdict: Verdict
    found: str
    next_step: str = ""
    code: str = ""
    exit_status: int = 0


def passed(subject: str, found: str) -> Row:
    """Sound."""
    return Row(subject=subject, verdict=Verdict.PASS, found=found)


def warned(subject: str, found: str, next_step: str) -> Row:
    """It works, and somebody should look into it."""
    return Row(subject=subject, verdict=Verdict.WARN, found=found, next_step=next_step)


def skipped(subject: str, reason: str, next_step: str) -> Row:
    """It was not looked at."""
    return Row(subject=subject, verdict=Verdict.SKIP, found=reason, next_step=next_step)


def failed(subject: str, error: PrivysealError) -> Row:
    """It does not work, for the reason that the programs themselves would give."""
    return Row(
        subject=subject,
        verdict=Verdict.FAIL,
        found=error.message,
        next_step=error.hint or f"see {error.code} in docs/errors/{error.branch}.md",
        code=error.code,
        exit_status=error.exit_status,
    )


def look(subject: str, check: Callable[[], Row]) -> Row:
    """The row that a check gives; an error that it raises is a fail."""
    try:
        return check()
    except PrivysealError as error:
        return failed(subject, error)
    except OSError as error:
        place = "a file" if error.filename is None else str(error.filename)
        return failed(subject, ConfigError("file.unusable", f"cannot use {place}: {error.strerror or error}"))
