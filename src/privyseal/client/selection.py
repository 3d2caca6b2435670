# SPDX-License-Identifier: Apache-2.0
"""Which files a command means: files, directories, patterns, lists, and what to leave out.

A file that is named is meant, whatever it is. From a directory only those files are taken that Privyseal can sign, and
symbolic links in it are not followed: what they lead to is either in the directory itself or was not meant.
"""

import fnmatch
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.client.files import is_draft
from privyseal.client.preparing import Work
from privyseal.client.receipts import receipt_path
from privyseal.errors import ConfigError, MalformedInputError, PrivysealError
from privyseal.formats.registry import HEAD_BYTES, detect_format

__all__ = ["Selection", "make_folders", "select"]

_MAX_LIST_BYTES: Final = 64 << 20
_PATTERN: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was asked for.

    Attributes:
        names: Files, directories, and patterns that the shell left alone (`**` crosses directories).
        lists: Files with one name a line, or with names ended by NUL; `-` is standard input.
        excludes: Patterns of names to leave out, held against the whole path and each of its parts.
        output: Where signed files go instead of in place: a file, or a directory for several.
    """

    names: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    output: Path | None = None

    @property
    def is_one_file(self) -> bool:
        """Whether exactly one file is named, and nothing that could mean several."""
        return len(self.names) == 1 and not self.lists and not _is_pattern(self.names[0]) and not _is_dir(self.names[0])


def select(selection: Selection) -> tuple[Work, ...]:
    """The files in the order in which they were named, each once, by whatever names and links it was found.

    Raises:
        ConfigError: `files.none`, `files.same_target`, `file.missing` for a list, `files.list`.
        MalformedInputError: `files.no_match` for a pattern, `file.unreadable` for a directory.
    """
    found: dict[Path, Work] = {}
    for path, below in _paths(selection, None if selection.output is None else _real(selection.output)):
        if not _excluded(path, selection.excludes):
            found.setdefault(_real(path), Work(path=path, target=_target(path, below, selection)))
    if not found:
        places = ", ".join((*selection.names, *selection.lists))
        raise ConfigError(
            "files.none",
            f"no file to sign was found: {places}" if places else "no file to sign is named",
            hint="name files, directories or patterns; see --exclude",
        )
    works = tuple(found.values())
    _check_targets(works)
    return works


def make_folders(works: tuple[Work, ...]) -> None:
    """Make the directories that files go to instead of in place, before anything is signed.

    Raises:
        MalformedInputError: `file.unwritable`.
    """
    for folder in {work.target.parent: None for work in works if work.target != work.path}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MalformedInputError(
                "file.unwritable",
                f"cannot make the directory {folder}: {error.strerror}",
                hint="nothing was signed; choose another place with -o",
            ) from error


def _paths(selection: Selection, output: Path | None) -> Iterator[tuple[Path, Path]]:
    """Each file, and its place below what was named."""
    listed = (name for place in selection.lists for name in _read_list(place))
    for name in (*selection.names, *listed):
        if not os.path.lexists(name) and _is_pattern(name):
            yield from _matches(name)
        elif _is_dir(name):
            yield from _signable_below(Path(name), output)
        else:
            yield Path(name), Path(Path(name).name)


def _matches(pattern: str) -> Iterator[tuple[Path, Path]]:
    """As a shell means it: `*` gives no hidden names. And `**` follows no links to directories: they may be circles."""
    place = Path(pattern)
    asked = tuple(part if part == "**" else re.sub(r"\*+", "*", part) for part in place.relative_to(place.anchor).parts)
    files = "*" if asked[-1] == "**" else ""
    found = sorted(
        path
        for path in Path(place.anchor).glob("/".join((*asked, files)).rstrip("/"))
        if not _is_dir(str(path)) and not any(part.startswith(".") for part in path.parts if part not in asked)
    )
    if not found:
        raise MalformedInputError("files.no_match", f"no file matches {pattern!r}")
    for path in found:
        yield path, Path(path.name)


def _signable_below(directory: Path, output: Path | None) -> Iterator[tuple[Path, Path]]:
    """What can be signed in a directory; the place of the signed files, should it lie there, holds none to sign."""

    def refuse(error: OSError) -> None:
        raise MalformedInputError("file.unreadable", f"cannot read {error.filename}: {error.strerror}") from error

    for parent, folders, names in os.walk(directory, onerror=refuse):
        folders[:] = sorted(folder for folder in folders if output is None or _real(Path(parent, folder)) != output)
        for name in sorted(names):
            path = Path(parent, name)
            if not is_draft(name) and not path.is_symlink() and path.is_file() and _is_signable(path):
                yield path, path.relative_to(directory)


def _is_signable(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            detect_format(stream.read(HEAD_BYTES), path.name)
    except PrivysealError:
        return False
    except OSError:  # it may well be one: opening it to be signed says what is wrong
        return True
    return True


def _read_list(place: str) -> Iterator[str]:
    try:
        if place == "-":
            data = sys.stdin.buffer.read(_MAX_LIST_BYTES + 1)
        else:
            with Path(place).open("rb") as stream:
                data = stream.read(_MAX_LIST_BYTES + 1)
    except OSError as error:
        raise ConfigError("file.missing", f"cannot read the list {place}: {error.strerror}") from error
    if len(data) > _MAX_LIST_BYTES:
        raise ConfigError("files.list", f"the list {place} has more than {_MAX_LIST_BYTES} bytes")
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    yield from (os.fsdecode(name) for name in names if name)


def _excluded(path: Path, patterns: tuple[str, ...]) -> bool:
    texts = (path.as_posix(), *path.parts)
    return any(fnmatch.fnmatchcase(text, pattern) for text in texts for pattern in patterns)


def _target(path: Path, below: Path, selection: Selection) -> Path:
    output = selection.output
    if output is None:
        return path
    return output if selection.is_one_file and not output.is_dir() else output / below


def _check_targets(works: tuple[Work, ...]) -> None:
    """No file of a run, and no receipt, is written over another file of the run."""
    owners = {_real(work.path): work for work in works}
    for work in works:
        for written in (work.target, receipt_path(work.target)):
            other = owners.setdefault(_real(written), work)
            if other is not work:
                raise ConfigError(
                    "files.same_target",
                    f"{written} would be written for {work.path}, and is of {other.path}, too",
                    hint="sign them in two runs, or name the directory that holds both",
                )


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a circle of links: opening it says so
        return path.absolute()


def _is_pattern(name: str) -> bool:
    return not _PATTERN.isdisjoint(name)


def _is_dir(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # a name that no file can have: opening it says so
        return False
