# SPDX-License-Identifier: Apache-2.0
"""`privyseal verify`: one file in detail, or many with a line for each signature."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, NoReturn

from cyclopts import Parameter

from privyseal.cli.render import emit, emit_error, say
from privyseal.cli.verdicts import brief_lines, detailed_lines, verdict_data
from privyseal.client.config import optional_client_config
from privyseal.client.receipts import receipt_path
from privyseal.client.verifying import Verifier, VerifyOptions, VerifyReport
from privyseal.errors import ConfigError, VerificationError

__all__ = ["verify"]

_ALL_FAILED: Final = VerificationError.exit_status
_SOME_FAILED: Final = 9
#: What a file that was found in a directory may be, unless its name or a receipt says that it was meant to be signed.
_OTHER_FILES: Final = frozenset(("format.not_recognised", "file.empty"))
_PROGRAMS: Final = frozenset((".exe", ".dll", ".sys", ".efi", ".ocx", ".cpl", ".scr", ".drv"))


@dataclass(slots=True, kw_only=True)
class _Count:
    """How many files came to which end."""

    verified: int = 0
    failed: int = 0
    skipped: int = 0
    without_receipt: int = 0


def verify(  # noqa: PLR0913 - a command's options
    *files: Path,
    trust: tuple[Path, ...] = (),
    receipt: Path | None = None,
    bundle: Path | None = None,
    offline: Annotated[bool, Parameter(negative="")] = False,
    require_timestamp: Annotated[bool, Parameter(negative="")] = False,
    require_receipt: Annotated[bool, Parameter(negative="")] = False,
    policy: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> int:
    """Verify every signature of files, and the receipts beside them.

    A receipt is judged with the trust bundle that this machine pinned when it joined, or with the one that --bundle
    names; without either the signatures alone are verified. With several files, or a directory, each signature gets
    one line. Exit codes: 0 all verified, 3 none did, 9 some did not; for a single file also 1 if it cannot be read.

    Parameters
    ----------
    files
        Signed files, and directories: every file below them of a format that can be signed.
    trust
        PEM file with roots to trust, beside those of the configuration and the system. May be repeated.
    receipt
        The receipt (default: FILE.tlog-proof, if it is there).
    bundle
        A trust bundle to judge receipts with; then no hub is asked.
    offline
        Ask no hub.
    require_timestamp
        Refuse a signature without a timestamp that holds.
    require_receipt
        Refuse a file without a receipt that holds.
    policy
        Quorum policy (c2sp.org/tlog-policy) that each receipt's checkpoint must meet by its witnesses' cosignatures.
    as_json
        Print one JSON document for each file, one a line.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    if not files:
        raise ConfigError("usage.arguments", "no file to verify was named", hint="privyseal verify FILE...")
    is_single = len(files) == 1 and not files[0].is_dir()
    if receipt is not None and not is_single:
        raise ConfigError(
            "usage.arguments", "--receipt is for a single file", hint="leave each receipt beside its file"
        )
    options = VerifyOptions(
        trust=trust,
        receipt=receipt,
        bundle=bundle,
        offline=offline,
        require_timestamp=require_timestamp,
        require_receipt=require_receipt,
        policy=policy,
    )
    verifier = Verifier(options, optional_client_config(config))
    return _one(verifier, files[0], as_json=as_json) if is_single else _many(verifier, files, as_json=as_json)


def _one(verifier: Verifier, file: Path, *, as_json: bool) -> int:
    report = verifier.verify(file)
    _emit(report, detailed_lines, as_json=as_json)
    if report.error is None:
        return 0
    emit_error(report.error, as_json=False)
    return report.error.exit_status


def _many(verifier: Verifier, files: tuple[Path, ...], *, as_json: bool) -> int:
    count = _Count()
    for path, was_named in _targets(files):
        report = verifier.verify(path)
        if not was_named and _is_other_file(report):
            count.skipped += 1
            continue
        if report.error is None:
            count.verified += 1
            count.without_receipt += report.receipt is None
        else:
            count.failed += 1
        _emit(report, brief_lines, as_json=as_json)
    skipped = f", {count.skipped} of no format that can be signed" if count.skipped else ""
    bare = f"; {count.without_receipt} verified without a judged receipt" if count.without_receipt else ""
    say(f"{count.verified} files verified, {count.failed} failed{skipped}{bare}")
    if not count.verified and not count.failed:
        raise VerificationError(
            "verify.nothing", "there is no file of a format that can be signed", hint="check the directory's name"
        )
    if not count.failed:
        return 0
    return _SOME_FAILED if count.verified else _ALL_FAILED


def _is_other_file(report: VerifyReport) -> bool:
    """Whether nobody meant this file to be signed: a program that was overwritten must not pass for such a one."""
    path = report.path
    if report.error is None or report.error.code not in _OTHER_FILES:
        return False
    return path.suffix.lower() not in _PROGRAMS and not receipt_path(path).exists()


def _emit(report: VerifyReport, lines: Callable[[VerifyReport], Iterable[str]], *, as_json: bool) -> None:
    emit(verdict_data(report) if as_json else {}, () if as_json else lines(report), as_json=as_json)


def _targets(files: tuple[Path, ...]) -> Iterator[tuple[Path, bool]]:
    """Each file once, and whether it was named itself; directories in order, without following links to others."""
    for named in files:
        if not named.is_dir():
            yield named, True
            continue
        for folder, folders, names in os.walk(named, onerror=_raise):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file():  # not a socket, nor a link that leads nowhere
                    yield path, False


def _raise(error: OSError) -> NoReturn:
    # A directory that cannot be read must not pass for an empty one.
    raise error
