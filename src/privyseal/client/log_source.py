# SPDX-License-Identifier: Apache-2.0
"""Where the files of a log lie (C2SP tlog-tiles): at a hub, in a directory, or at any web server."""

import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import urllib3
from urllib3.exceptions import HTTPError

from privyseal.client.cell import Cell
from privyseal.errors import ConfigError, LogIntegrityError, UnavailableError, UnsupportedInputError
from privyseal.tlog.tile import EntryBundle

__all__ = [
    "CHECKPOINTS_PER_FILE",
    "TAIL",
    "VKEY",
    "FolderSource",
    "HubSource",
    "LogSource",
    "StoredNotes",
    "WebSource",
    "checkpoints_path",
    "log_source",
]

CHECKPOINTS_PER_FILE: Final = 256
TAIL: Final = "checkpoints/tail"
VKEY: Final = "vkey"

#: A full entry bundle of the longest entries; nothing else of a log is longer.
_MAX_FILE_BYTES: Final = 256 * (2 + 0xFFFF)
_TIMEOUT: Final = urllib3.Timeout(connect=10.0, read=30.0)
_ANSWER_SECONDS: Final = 300.0
_PIECE_BYTES: Final = 64 * 1024


def checkpoints_path(number: int) -> str:
    """Where the `number`-th 256 stored checkpoints lie in an export."""
    return EntryBundle(index=number).path.replace("tile/entries", "checkpoints", 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNotes:
    """Stored checkpoints as they were read: 256, or what is left at the end.

    Attributes:
        path: Where they stood, for messages.
        data: Signed notes as JSON strings, one a line.
        may_be_fewer: Whether fewer than 256 are the end; otherwise some are missing.
    """

    path: str
    data: bytes
    may_be_fewer: bool = True


class LogSource(Protocol):
    """Reads the files of one log."""

    @property
    def place(self) -> str:
        """Where that is, for people."""
        ...

    def read(self, path: str) -> bytes | None:
        """The content of a file by its path below the log's prefix; None if it is not there.

        Raises:
            UnavailableError: the log cannot be read now.
            LogIntegrityError: `log.file_size` if it is longer than any file of a log.
        """
        ...

    def read_vkey(self) -> bytes | None:
        """The log's key as an export names it; None if nobody does."""
        ...

    def read_checkpoints(self, number: int) -> StoredNotes:
        """The `number`-th 256 checkpoints that were signed on the way, or those that are left; none if there are none.

        Raises:
            UnavailableError, LogIntegrityError: as `read`.
        """
        ...


class HubSource:
    """The log of a hub, at its web listener."""

    def __init__(self, web: Cell) -> None:
        self._web = web
        self.place: Final = "the hub"

    def read(self, path: str) -> bytes | None:
        """The content, None if it was pruned; what else the hub does not have is its refusal."""
        try:
            return self._web.request("GET", f"/log/{path}")
        except UnsupportedInputError as error:
            if error.code != "log.pruned_entries":
                raise
            return None

    def read_vkey(self) -> None:
        """A hub does not say by which key it is to be judged."""

    def read_checkpoints(self, number: int) -> StoredNotes:
        """As the hub counts them: from the n-th on."""
        path = f"checkpoints/{number * CHECKPOINTS_PER_FILE}"
        return StoredNotes(path=path, data=self.read(path) or b"")


def _stored_in_files(source: LogSource, number: int) -> StoredNotes:
    """A full file of checkpoints, or the last one."""
    path = checkpoints_path(number)
    data = source.read(path)
    if data is not None:
        return StoredNotes(path=path, data=data, may_be_fewer=False)
    return StoredNotes(path=TAIL, data=source.read(TAIL) or b"")


class FolderSource:
    """A log in a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self.place: Final = str(folder)

    def read(self, path: str) -> bytes | None:
        """The content of a file below the directory."""
        place = self.folder / path
        if not place.is_file():  # a pipe would never end
            return None
        with place.open("rb") as stream:
            return _checked(stream.read(_MAX_FILE_BYTES + 1), path)

    def read_vkey(self) -> bytes | None:
        """The log's key as the export names it."""
        return self.read(VKEY)

    def read_checkpoints(self, number: int) -> StoredNotes:
        """A full file, or the last one."""
        return _stored_in_files(self, number)


class WebSource:
    """A log at any web server: what it serves is believed as little as a file."""

    def __init__(self, url: str) -> None:
        self.place: Final = url.rstrip("/")
        self._pool = urllib3.PoolManager(retries=False, timeout=_TIMEOUT)

    def read(self, path: str) -> bytes | None:
        """The content at a path below the URL."""
        url = f"{self.place}/{path}"
        try:
            response = self._pool.request("GET", url, preload_content=False, decode_content=False)
            try:
                data = _body(response, url)
            except BaseException:
                response.close()
                raise
        except HTTPError as error:
            raise UnavailableError(
                "log.unreachable", f"{url} cannot be read: {error}", hint="is the URL the log's prefix?"
            ) from error
        response.release_conn()
        if response.status in {404, 410}:
            return None
        if response.status != 200:
            raise UnavailableError(
                "log.unreachable", f"{url} answered with HTTP {response.status}", hint="is the URL the log's prefix?"
            )
        return _checked(data, path)

    def read_vkey(self) -> bytes | None:
        """The log's key as the export names it."""
        return self.read(VKEY)

    def read_checkpoints(self, number: int) -> StoredNotes:
        """A full file, or the last one."""
        return _stored_in_files(self, number)


def _body(response: urllib3.BaseHTTPResponse, url: str) -> bytes:
    deadline = time.monotonic() + _ANSWER_SECONDS
    body = bytearray()
    while len(body) <= _MAX_FILE_BYTES and (piece := response.read1(_PIECE_BYTES, decode_content=False)):
        body += piece
        if time.monotonic() > deadline:
            raise UnavailableError("log.unreachable", f"the answer of {url} did not end in time")
    if len(body) > _MAX_FILE_BYTES:
        response.close()
    return bytes(body)


def _checked(data: bytes, path: str) -> bytes:
    if len(data) > _MAX_FILE_BYTES:
        raise LogIntegrityError("log.file_size", f"{path} is longer than any file of a log")
    return data


def log_source(place: str) -> FolderSource | WebSource:
    """The log in a directory or at a URL.

    Raises:
        ConfigError: `log.place`.
    """
    parts = urllib.parse.urlsplit(place)
    if parts.scheme and "@" in parts.netloc:
        raise ConfigError(
            "log.place", "the log's URL holds a name or password", hint="a log is public: name it without"
        )
    if parts.scheme in {"http", "https"} and parts.hostname and not parts.query and not parts.fragment:
        return WebSource(place)
    folder = Path(place)
    if not folder.is_dir():
        raise ConfigError(
            "log.place",
            f"{place} is neither a directory nor an http(s) URL without query",
            hint="name the directory that `privyseal log export` wrote, or the URL at which it is served",
        )
    return FolderSource(folder)
