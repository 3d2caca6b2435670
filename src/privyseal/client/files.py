# SPDX-License-Identifier: Apache-2.0
"""Files of the person who signs: read once, written beside the target, renamed over it only when verified.

On any failure the original is untouched and no temporary file stays.
"""

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final

from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.model import Patch

__all__ = [
    "Draft",
    "SourceFile",
    "draft_beside",
    "is_draft",
    "open_source",
    "read_whole",
    "reopen_source",
    "write_edited",
    "write_signed",
    "write_whole",
]

_DRAFT_SUFFIX: Final = ".privyseal"
_COPY_BYTES: Final = 16 * 1024 * 1024
#: Opening a FIFO must not wait for a writer; where there is text mode, it is not meant.
_READ_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """An open file and what it looked like when it was opened."""

    path: Path
    stream: BufferedReader
    status: os.stat_result

    def check_unchanged(self) -> None:
        """Notice a file that somebody wrote to while it was being signed.

        Raises:
            MalformedInputError: `file.changed`.
        """
        try:
            at_path = self.path.stat()
        except OSError as error:
            raise self._changed() from error
        for now in (os.fstat(self.stream.fileno()), at_path):
            before = self.status
            if (now.st_ino, now.st_dev, now.st_size, now.st_mtime_ns) != (
                before.st_ino,
                before.st_dev,
                before.st_size,
                before.st_mtime_ns,
            ):
                raise self._changed()

    def _changed(self) -> MalformedInputError:
        return MalformedInputError(
            "file.changed",
            f"{self.path} changed while it was being signed; nothing was written",
            hint="sign after the build step that writes it has ended",
        )


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[SourceFile]:
    """Open a regular file for reading.

    Raises:
        MalformedInputError: `file.unreadable`. UnsupportedInputError: `file.not_regular`.
    """
    try:
        stream = _open_regular(path)
    except OSError as error:
        raise MalformedInputError("file.unreadable", f"cannot read {path}: {error.strerror}") from error
    with stream:
        yield SourceFile(path=path, stream=stream, status=os.fstat(stream.fileno()))


def _open_regular(path: Path) -> BufferedReader:
    """Looked at before, so that no device is touched, and afterwards: a FIFO may have taken the place meanwhile."""
    _check_regular(path, path.stat())
    descriptor = os.open(path, _READ_FLAGS)
    try:
        _check_regular(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise UnsupportedInputError(
            "file.not_regular", f"{path} is {kind}", hint="name a file: only sign and verify take directories"
        )


def read_whole(path: Path, at_most_bytes: int) -> bytes:
    """The content of a small file.

    Raises:
        MalformedInputError: `file.unreadable`, `file.too_large`. UnsupportedInputError: `file.not_regular`.
    """
    with open_source(path) as source:
        try:
            data = source.stream.read(at_most_bytes + 1)
        except OSError as error:
            raise MalformedInputError("file.unreadable", f"cannot read {path}: {error.strerror}") from error
    if len(data) > at_most_bytes:
        raise MalformedInputError(
            "file.too_large",
            f"{path} has more than the {at_most_bytes} bytes that such a file can have",
            hint="look whether it is the file that you mean",
        )
    return data


@contextlib.contextmanager
def reopen_source(path: Path, status: os.stat_result) -> Iterator[SourceFile]:
    """Open a file again that was read before.

    Raises:
        MalformedInputError: `file.changed` if it is not as it was then, `file.unreadable`.
    """
    with open_source(path) as source:
        again = SourceFile(path=path, stream=source.stream, status=status)
        again.check_unchanged()
        yield again


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A temporary file beside the one that it will replace.

    Attributes:
        target: The file as it was named, for messages.
        real: The same with symbolic links followed: the links stay, what they lead to is replaced.
    """

    target: Path
    real: Path
    path: Path
    stream: BinaryIO

    def fill(self, source: SourceFile, count: int) -> None:
        """Copy the first bytes of the source, and begin to bring them to the disk.

        Raises:
            MalformedInputError: `file.unwritable`, `file.changed`.
        """
        try:
            _copy_prefix(source.stream, self.stream, count)
            self.stream.flush()
            if hasattr(os, "fdatasync"):
                os.fdatasync(self.stream.fileno())
        except OSError as error:
            raise _unwritable(self.target, error) from error


@contextlib.contextmanager
def draft_beside(target: Path) -> Iterator[Draft]:
    """An empty draft; gone at the end unless it was put into place.

    Raises:
        MalformedInputError: `file.unwritable`.
    """
    real = _writable_place(target)
    with _temporary(real, target) as (path, stream):
        yield Draft(target=target, real=real, path=path, stream=stream)


@contextlib.contextmanager
def write_signed(
    source: SourceFile, patch: Patch, draft: Draft, *, receipt: bytes, receipt_path: Path, filled: bool = False
) -> Iterator[Path]:
    """Complete draft and receipt; when the block ends well, rename both into place.

    Args:
        source: The original.
        patch: What the signed file has in its stead.
        draft: What will take the target's place.
        receipt: Content of the receipt.
        receipt_path: Its place.
        filled: The draft holds the whole original already.

    Yields:
        The draft's path, complete, to be verified inside the block while it is on its way to the disk.

    Raises:
        MalformedInputError: `file.unwritable` (also for a full disk), `file.changed`; neither file is there then.
    """
    try:
        if not filled:
            _copy_prefix(source.stream, draft.stream, patch.keep_bytes)
        _apply(draft.stream, patch)
        _finish(draft.stream, source, draft.real)
    except OSError as error:
        raise _unwritable(draft.target, error) from error
    with _temporary(_writable_place(receipt_path), receipt_path) as (proof, proof_stream):
        try:
            proof_stream.write(receipt)
            _finish(proof_stream, source, receipt_path)
        except OSError as error:
            raise _unwritable(receipt_path, error) from error
        yield draft.path
        source.check_unchanged()
        _check_place(draft.target, draft.real)
        try:
            draft.path.replace(draft.real)
            proof.replace(receipt_path)
        except OSError as error:
            raise _unwritable(draft.target, error) from error


@contextlib.contextmanager
def write_edited(source: SourceFile, edits: tuple[Callable[[BinaryIO], Patch], ...], target: Path) -> Iterator[Path]:
    """Edit a copy, one edit after the other; when the block ends well, rename it into place. A receipt stays as it is.

    Args:
        source: The file.
        edits: Each reads the copy as the one before left it, and answers with what to change in it.
        target: Where the result goes; may be the file itself.

    Yields:
        The temporary copy, complete and on disk, to be verified inside the block.

    Raises:
        MalformedInputError: `file.unwritable` (also for a full disk), `file.changed`.
        PrivysealError: what an edit raises.
    """
    real = _writable_place(target)
    with _temporary(real, target) as (copy, stream):
        try:
            _copy_prefix(source.stream, stream, source.status.st_size)
            for edit in edits:
                stream.seek(0)
                _apply(stream, edit(stream))
                stream.flush()
            _finish(stream, source, real)
        except OSError as error:
            raise _unwritable(target, error) from error
        yield copy
        source.check_unchanged()
        _check_place(target, real)
        try:
            copy.replace(real)
        except OSError as error:
            raise _unwritable(target, error) from error


def write_whole(target: Path, data: bytes, source: SourceFile) -> None:
    """Write a small file that was made from another one, as a whole or not at all.

    Raises:
        MalformedInputError: `file.unwritable`.
    """
    with draft_beside(target) as draft:
        try:
            draft.stream.write(data)
            _finish(draft.stream, source, draft.real)
            draft.path.replace(draft.real)
        except OSError as error:
            raise _unwritable(target, error) from error


def _apply(stream: BinaryIO, patch: Patch) -> None:
    stream.truncate(patch.keep_bytes)
    for offset, data in patch.writes:
        stream.seek(offset)
        stream.write(data)


def _writable_place(target: Path) -> Path:
    """The file that is meant, links followed; refused at once if nothing could be renamed over it."""
    try:
        if target.is_dir():
            raise _unwritable(target, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
        target.exists()  # a name that is too long is noticed here
        return target.resolve()
    except (OSError, RuntimeError) as error:
        raise _unwritable(target, error) from error


def _check_place(target: Path, real: Path) -> None:
    """A link that was changed meanwhile leads to a file that nobody has read, or away from it."""
    if _writable_place(target) != real:
        raise MalformedInputError(
            "file.changed", f"{target} leads to another file than before; nothing was written", hint="sign again"
        )


def is_draft(name: str) -> bool:
    """Whether a file with this name is what a run writes, or wrote when it was killed: it is nobody's program."""
    return name.startswith(".") and name.endswith(_DRAFT_SUFFIX)


@contextlib.contextmanager
def _temporary(real: Path, target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """An open file beside the one that it will replace; gone at the end unless it was renamed."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{real.name[:100]}.", suffix=_DRAFT_SUFFIX, dir=real.parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "r+b") as stream:
            yield temporary, stream
    finally:
        temporary.unlink(missing_ok=True)


def _finish(stream: BinaryIO, source: SourceFile, real: Path) -> None:
    stream.flush()
    _keep_mode(stream.fileno(), source, real)
    os.fsync(stream.fileno())


def _copy_prefix(source: BinaryIO, target: BinaryIO, count: int) -> None:
    """Copy the first bytes; inside the kernel where it can (a copy-on-write file system shares the blocks)."""
    done = 0
    if hasattr(os, "copy_file_range"):
        try:
            while done < count:
                copied = os.copy_file_range(source.fileno(), target.fileno(), count - done, done, done)
                if copied == 0:
                    break
                done += copied
        except OSError:  # another file system, or one that cannot: copy the rest by hand
            pass
    source.seek(done)
    target.seek(done)
    while done < count:
        block = source.read(min(_COPY_BYTES, count - done))
        if not block:
            break
        target.write(block)
        done += len(block)
    if done != count:
        raise MalformedInputError("file.changed", "the file became shorter while it was being signed")


def _keep_mode(descriptor: int, source: SourceFile, target: Path) -> None:
    """The output gets the mode of the file it replaces, else of the input."""
    if hasattr(os, "fchmod"):
        try:
            mode = target.stat().st_mode
        except OSError:
            mode = source.status.st_mode
        os.fchmod(descriptor, stat.S_IMODE(mode))


def _unwritable(target: Path, error: OSError | RuntimeError) -> MalformedInputError:
    reason = error.strerror if isinstance(error, OSError) else "its symbolic links lead in a circle"
    return MalformedInputError(
        "file.unwritable",
        f"cannot write {target}: {reason}",
        hint="the original is untouched; make room or choose another place with -o",
    )
