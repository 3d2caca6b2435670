# SPDX-License-Identifier: Apache-2.0
"""The store as the hub's services see it: when it may be written, and who hears that it no longer can.

After a start nothing is written before somebody else agrees that this log is the newest (DESIGN §5). `head.checkpoint`
shows a database that was brought back alone; it says nothing if it was brought back with it. An agent or a witness that
has seen more of the log does.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from privyseal.errors import LogIntegrityError, UnavailableError
from privyseal.ports.clock import Clock
from privyseal.ports.store import LogHead, ReadTx, Store, Tx

__all__ = ["GuardedStore"]

T = TypeVar("T")


class GuardedStore:
    """A store that only reads until `agree` is called; `Store` says what its calls promise.

    Attributes:
        agreed: Whether it writes.
        committed_ms: When this process last wrote to it, by the hub's clock; None if it has not.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        on_agreement: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Guard a store.

        Args:
            store: The store itself.
            clock: The time.
            on_agreement: Called once, when it begins to write.
            failed: Called with the error when it can no longer be written, whoever was writing.
        """
        self._store: Final = store
        self._on_agreement: Final = on_agreement
        self._failed: Final = failed
        self._clock: Final = clock
        self.agreed = False
        self.committed_ms: int | None = None

    def agree(self) -> None:
        """Somebody else knows this log, and no newer one."""
        if not self.agreed:
            self.agreed = True
            self._on_agreement()

    def refusal(self) -> UnavailableError:
        """Why nothing is written yet."""
        return UnavailableError(
            "log.unconfirmed",
            f"nobody has confirmed since the start that this log of {self.head.size} entries is the newest",
            hint="start an agent that was linked before, or a witness; if none is left, compare the size with that of"
            " the newest receipt, and start the hub with --confirmed-size",
        )

    async def write(self, operation: Callable[[Tx], Awaitable[T]]) -> T:
        """As `Store.write`; a LogIntegrityError is told to the hub, and raised.

        Raises:
            UnavailableError: `log.unconfirmed`. And what `Store.write` raises.
        """
        if not self.agreed:
            raise self.refusal()
        try:
            value = await self._store.write(operation)
        except LogIntegrityError as error:
            self._failed(error)
            raise
        self.committed_ms = self._clock()
        return value

    async def read(self, operation: Callable[[ReadTx], Awaitable[T]]) -> T:
        """As `Store.read`."""
        return await self._store.read(operation)

    def listen(self, heard: Callable[[tuple[str, ...]], None]) -> None:
        """As `Store.listen`."""
        self._store.listen(heard)

    @property
    def head(self) -> LogHead:
        """As `Store.head`."""
        return self._store.head

    async def close(self) -> None:
        """As `Store.close`."""
        await self._store.close()
