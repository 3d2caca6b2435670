# SPDX-License-Identifier: Apache-2.0
"""`privyseal timestamp`."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from privyseal.cli.render import emit, emit_error, say
from privyseal.client.config import optional_client_config
from privyseal.client.timestamp_file import FileTimestamper, TimestampedFile
from privyseal.client.timestamping import open_timestamper
from privyseal.errors import ConfigError, LogIntegrityError, PrivysealError

__all__ = ["timestamp"]

_SOME_FAILED: Final = 9
#: Most of the time is spent waiting for TSAs; more at once is what they answer with HTTP 429.
_AT_ONCE: Final = 4


def timestamp(
    *files: Path,
    timestamp: Annotated[tuple[str, ...], Parameter(name="--timestamp")] = (),
    all_signatures: Annotated[bool, Parameter(name="--all", negative="")] = False,
    trust: tuple[Path, ...] = (),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> int:
    """Put timestamps beside the signatures of files, in place. Needs neither key nor receipt; a receipt stays valid.

    Each file is verified before and after; on any failure it is as it was. Several files: goes on after a failure.

    Parameters
    ----------
    files
        Signed files.
    timestamp
        URL of a TSA (RFC 3161) to ask instead of those in client.toml; may be repeated: asked in this order.
    all_signatures
        Replace timestamps that are there already.
    trust
        PEM file with roots to trust, beside those of the configuration and the system. May be repeated.
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places; none is needed with --timestamp).
    """
    if not files:
        raise ConfigError("usage.arguments", "no file is named", hint="privyseal timestamp FILE...")
    timestamper = open_timestamper(optional_client_config(config), timestamp, trust=trust, notice=say)
    if timestamper is None:
        raise ConfigError(
            "timestamp.none",
            "no TSA is named",
            hint='name one with --timestamp URL, or in client.toml: timestamp = ["http://tsa.example.com"]',
        )
    subject = FileTimestamper(timestamper, replace=all_signatures)
    different = tuple({os.path.realpath(path): path for path in files}.values())
    if len(different) == 1:
        done = subject.add(different[0])
        emit(_data(done), (_line(done),), as_json=as_json)
        return 0
    return _several(subject, different, timestamper.stop, as_json=as_json)


def _several(subject: FileTimestamper, files: tuple[Path, ...], stop: Callable[[], None], *, as_json: bool) -> int:
    def add(path: Path) -> TimestampedFile | PrivysealError:
        try:
            return subject.add(path)
        except LogIntegrityError:
            raise
        except PrivysealError as error:
            return error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            outcomes = tuple(pool.map(add, files))
        except KeyboardInterrupt:
            stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    data, lines = [], []
    for path, outcome in zip(files, outcomes, strict=True):
        if isinstance(outcome, PrivysealError):
            emit_error(_about(path, outcome), as_json=False)
            data.append({"file": str(path), "error": _problem(outcome)})
            lines.append(f"failed    {path} [{outcome.code}]")
        else:
            data.append(_data(outcome))
            lines.append(_line(outcome))
    failed = sum(isinstance(outcome, PrivysealError) for outcome in outcomes)
    lines.append(f"          {len(files) - failed} of {len(files)} files are timestamped")
    emit({"files": data, "failed": failed}, lines, as_json=as_json)
    return _SOME_FAILED if failed else 0


def _data(done: TimestampedFile) -> dict[str, Any]:
    return {
        "file": str(done.path),
        "format": done.format,
        "added": done.added,
        "timestamps": [moment.isoformat() for moment in done.times],
    }


def _about(path: Path, error: PrivysealError) -> PrivysealError:
    """The error with the file named: of several, it is not clear which one a TSA failed."""
    if str(path) in error.message:
        return error
    return type(error)(error.code, f"{path}: {error.message}", hint=error.hint)


def _problem(error: PrivysealError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint, "retryable": error.retryable}


def _line(done: TimestampedFile) -> str:
    times = ", ".join(f"{moment:%Y-%m-%d %H:%M:%SZ}" for moment in done.times)
    word = "timestamp" if done.added else "unchanged"
    return f"{word} {done.path} ({times})"
