# SPDX-License-Identifier: Apache-2.0
"""Small private files, replaced as a whole: after any crash the old or the new content stands there."""

import contextlib
import os
import secrets
from pathlib import Path

__all__ = ["replace_private", "sync_directory"]


def replace_private(path: Path, data: bytes | memoryview) -> None:
    """Temporary file of mode 0600, fsync, rename, fsync of the directory. Makes no copy of `data` in memory.

    Raises:
        OSError: if a step failed; the temporary file is gone then.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Return once the names in a directory are on the medium.

    Raises:
        OSError: as it comes.
    """
    directory = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
