# SPDX-License-Identifier: Apache-2.0
"""The exact bytes of each request, on disk before they are first sent (DESIGN §4).

Whoever asks again after a crash sends the same bytes under the same idempotency key, and gets the same signatures:
a second run over the same files signs nothing twice.
"""

import contextlib
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from privyseal.errors import ConfigError, PrivysealError
from privyseal.identity.keyfile import write_private
from privyseal.wire.api import SignatureRequest, decode_body
from privyseal.wire.statement import RequestStatement, accepted_statement

__all__ = ["KeptRequest", "RequestJournal"]

_KEEP_SECONDS: Final = 7 * 86_400
_SUFFIX: Final = ".request.json"
#: The hub takes no larger body.
_MAX_BYTES: Final = 64 << 20


class KeptRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was about to be sent, or was sent, and whose files are not all in place."""

    id: str
    statement: RequestStatement
    body: SignatureRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    path: Path
    modified_s: float
    size_bytes: int


class RequestJournal:
    """One directory with one file for each open request."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, request_id: str, body: SignatureRequest) -> None:
        """Write a request down, durably; clears what is older than a week.

        Raises:
            ConfigError: `journal.unwritable`; nothing may be sent then.
        """
        try:
            write_private(self._path(request_id), msgspec.json.encode(body))
            for old in (*self._found("*" + _SUFFIX), *self._found(f".*{_SUFFIX}.*.tmp")):
                if old.modified_s < time.time() - _KEEP_SECONDS:
                    old.path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                "journal.unwritable", f"cannot keep the request in {self._directory}: {error.strerror}"
            ) from error

    def forget(self, request_id: str) -> None:
        """Every file of the request is in place, or will never be."""
        self._path(request_id).unlink(missing_ok=True)

    def open_requests(self) -> Iterator[KeptRequest]:
        """What earlier runs left, oldest first; what cannot be read is none of ours and is left alone."""
        for found in self._found("*" + _SUFFIX):
            try:
                if found.size_bytes > _MAX_BYTES:
                    continue
                body = decode_body(found.path.read_bytes(), SignatureRequest)
                statement = accepted_statement(body.envelope)
            except (OSError, PrivysealError):
                continue
            yield KeptRequest(id=found.path.name.removesuffix(_SUFFIX), statement=statement, body=body)

    def _found(self, pattern: str) -> list[_Found]:
        """Files by age, the oldest first. Other runs may forget theirs at any moment."""
        files = []
        for path in self._directory.glob(pattern):
            with contextlib.suppress(OSError):
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    files.append(_Found(path=path, modified_s=status.st_mtime, size_bytes=status.st_size))
        return sorted(files, key=lambda one: one.modified_s)

    def _path(self, request_id: str) -> Path:
        return self._directory / (request_id + _SUFFIX)
