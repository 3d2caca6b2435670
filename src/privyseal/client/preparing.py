# SPDX-License-Identifier: Apache-2.0
"""Reading files before anything is asked of a hub: which format, which digest, which bytes to sign.

All cores read at once; hashing releases the interpreter's lock. Of a large file the whole file's SHA-256, which is only
claimed, is taken beside the format's own digest.
"""

import hashlib
import os
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.client.files import open_source
from privyseal.errors import MalformedInputError
from privyseal.formats.model import Artifact, Format, Preimage, Scan, SignOptions
from privyseal.formats.registry import HEAD_BYTES, detect_format
from privyseal.wire.statement import ClaimedFile

__all__ = ["Prepared", "Scanned", "Scanning", "Work", "scan_file"]

_LARGE_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A file to sign; `target` may be the file itself."""

    path: Path
    target: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """What reading a file once has told.

    Attributes:
        status: The file as it was then.
        file_sha256: Of the whole file, hex; only claimed towards the hub.
    """

    work: Work
    status: os.stat_result
    format: Format
    scan: Scan
    file_sha256: str

    def prepare(self, chain: tuple[bytes, ...], options: SignOptions, *, is_chosen: bool = False) -> "Prepared":
        """The same with the bytes that the signature will cover.

        Args:
            chain: Certificates (DER) of the key profile, leaf first.
            options: How it shall be signed.
            is_chosen: Somebody has chosen this certificate: another key of the profile will not do.

        Raises:
            UnsupportedInputError: what the format cannot write.
        """
        preimage = self.format.preimage(self.scan, chain, options)
        is_key_fixed = is_chosen or self.format.certificate_in_preimage
        return Prepared(scanned=self, chain=chain, preimage=preimage, is_key_fixed=is_key_fixed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A file of which it is known what will be signed."""

    scanned: Scanned
    chain: tuple[bytes, ...]
    preimage: Preimage
    is_key_fixed: bool

    @property
    def format_name(self) -> str:
        """See `Wanted`."""
        return self.scanned.format.name

    @property
    def artifact(self) -> Artifact:
        """See `Wanted`."""
        return self.scanned.scan.artifact

    @property
    def claimed(self) -> ClaimedFile:
        """See `Wanted`."""
        scanned = self.scanned
        # A name need not be Unicode, but what is signed and sent is.
        name = scanned.work.path.name.encode(errors="replace").decode()
        return ClaimedFile(name=name, sha256=scanned.file_sha256, size=scanned.scan.size_bytes)


class Scanning:
    """A file that is being read on other threads."""

    def __init__(self, work: Work, options: SignOptions, executor: Executor) -> None:
        self.work = work
        self.is_large = _size_bytes(work.path) > _LARGE_BYTES
        self._sha256: Future[str] | None = executor.submit(_file_sha256, work.path) if self.is_large else None
        self._scan = executor.submit(scan_file, work, options, whole=not self.is_large)

    def result(self) -> Scanned:
        """What was read.

        Raises:
            MalformedInputError: `file.unreadable`, `file.changed`, or what the format says.
            UnsupportedInputError: what the format says.
        """
        scanned = self._scan.result()
        if self._sha256 is None:
            return scanned
        return Scanned(
            work=scanned.work,
            status=scanned.status,
            format=scanned.format,
            scan=scanned.scan,
            file_sha256=self._sha256.result(),
        )


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # told with its name when it is opened
        return 0


def scan_file(work: Work, options: SignOptions, *, whole: bool) -> Scanned:
    """Read a file for its format's digest.

    Args:
        work: The file.
        options: How it shall be signed.
        whole: Take the whole file's SHA-256, too.

    Raises:
        MalformedInputError: `file.unreadable`, `file.changed`, or what the format says.
        UnsupportedInputError: what the format says.
    """
    with open_source(work.path) as source:
        try:
            chosen = detect_format(source.stream.read(HEAD_BYTES), str(work.path))
            source.stream.seek(0)
            scan = chosen.scan(source.stream, options)
            sha256 = ""
            if whole:
                source.stream.seek(0)
                sha256 = hashlib.file_digest(source.stream, "sha256").hexdigest()
        except OSError as error:
            raise MalformedInputError("file.unreadable", f"cannot read {work.path}: {error.strerror}") from error
        except MalformedInputError:
            source.check_unchanged()  # a file that became shorter is no malformed one
            raise
        source.check_unchanged()
        return Scanned(work=work, status=source.status, format=chosen, scan=scan, file_sha256=sha256)


def _file_sha256(path: Path) -> str:
    with open_source(path) as source:
        try:
            return hashlib.file_digest(source.stream, "sha256").hexdigest()
        except OSError as error:
            raise MalformedInputError("file.unreadable", f"cannot read {path}: {error.strerror}") from error
