# SPDX-License-Identifier: Apache-2.0
"""Replacing a small file so that after any crash either the old or the new content stands there, whole.

The steps are the usual ones (temporary file in the same directory, fsync, rename, fsync of the directory);
each is a method of `FileSystem`, so that tests can let each of them fail.
"""

import fcntl
import os
import sys
from pathlib import Path
from typing import Protocol

__all__ = ["FileSystem", "PosixFileSystem", "replace_durably"]

_OWNER_ONLY = 0o600


class FileSystem(Protocol):
    """The calls that `replace_durably` makes. Each raises OSError as the call below it does."""

    def create(self, path: Path) -> int:
        """Open a new or emptied file for writing, readable by its owner alone; the descriptor."""
        ...

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of `data`."""
        ...

    def sync(self, descriptor: int) -> None:
        """Return once what was written is on the medium."""
        ...

    def close(self, descriptor: int) -> None:
        """Close the descriptor."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Give a file the name of another, in one step."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Return once the names in a directory are on the medium."""
        ...


class PosixFileSystem:
    """The file system of a POSIX host."""

    def create(self, path: Path) -> int:
        """Open a new or emptied file for writing, readable by its owner alone; the descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _OWNER_ONLY)

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of `data`."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def sync(self, descriptor: int) -> None:
        """Return once what was written is on the medium."""
        if sys.platform == "darwin":
            # fsync(2) there leaves the data in the drive's cache.
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close the descriptor."""
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file the name of another, in one step."""
        source.replace(target)

    def sync_directory(self, path: Path) -> None:
        """Return once the names in a directory are on the medium."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_durably(files: FileSystem, path: Path, data: bytes) -> None:
    """Replace the content of a file, or create it. One writer at a time.

    Raises:
        OSError: if a step failed; whether old or new content survives a crash is then open.
    """
    # A fixed name: what an earlier crash left behind is overwritten instead of piling up.
    temporary = path.with_name(f".{path.name}.new")
    descriptor = files.create(temporary)
    try:
        files.write(descriptor, data)
        files.sync(descriptor)
    finally:
        files.close(descriptor)
    files.rename(temporary, path)
    files.sync_directory(path.parent)
