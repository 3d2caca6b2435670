# SPDX-License-Identifier: Apache-2.0
"""The store as the hub's services see it: whoever writes when the log is lost, the whole hub hears of it."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from privyseal.errors import LogIntegrityError
from privyseal.ports.store import LogHead, ReadTx, Store, Tx

__all__ = ["WatchedStore"]

T = TypeVar("T")


class WatchedStore:
    """A store, and who is told when it can no longer be written."""

    def __init__(self, store: Store, failed: Callable[[BaseException], None]) -> None:
        self._store: Final = store
        self._failed: Final = failed

    async def write(self, operation: Callable[[Tx], Awaitable[T]]) -> T:
        """As `Store.write`; a LogIntegrityError is told to the hub, and raised."""
        try:
            return await self._store.write(operation)
        except LogIntegrityError as error:
            self._failed(error)
            raise

    async def read(self, operation: Callable[[ReadTx], Awaitable[T]]) -> T:
        """As `Store.read`."""
        return await self._store.read(operation)

    @property
    def head(self) -> LogHead:
        """As `Store.head`."""
        return self._store.head

    async def close(self) -> None:
        """As `Store.close`."""
        await self._store.close()
