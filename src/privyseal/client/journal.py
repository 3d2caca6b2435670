# SPDX-License-Identifier: Apache-2.0
"""The exact bytes of each request, on disk before they are first sent (DESIGN §4).

Whoever asks again after a crash sends the same bytes under the same idempotency key, and gets the same signature.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from privyseal.errors import ConfigError
from privyseal.identity.keyfile import write_private

__all__ = ["journalled"]

_KEEP_SECONDS: Final = 7 * 86_400


@contextlib.contextmanager
def journalled(directory: Path, request_id: str, envelope: bytes) -> Iterator[None]:
    """Keep the request until the block ends well; what is left over is cleared after a week.

    Raises:
        ConfigError: `journal.unwritable`; nothing was sent then.
    """
    path = directory / f"{request_id}.request.json"
    try:
        write_private(path, envelope)
        for old in directory.glob("*.request.json"):
            if old.stat().st_mtime < time.time() - _KEEP_SECONDS:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError("journal.unwritable", f"cannot keep the request in {directory}: {error.strerror}") from error
    yield
    path.unlink(missing_ok=True)
