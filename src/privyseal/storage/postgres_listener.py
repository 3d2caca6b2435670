# SPDX-License-Identifier: Apache-2.0
"""What the processes of one PostgreSQL tell each other: which requests have changed (NOTIFY, one for each batch).

A message is a hint. It comes after the commit that it speaks of, or never: so whoever listens asks the database, and
asks from time to time although nothing was heard.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import asyncpg
import structlog

from privyseal.storage.calls import Query
from privyseal.storage.postgres_session import FAULTS, SETTINGS

__all__ = ["PostgresListener", "notify"]

_LOG: Final = structlog.get_logger("privyseal.storage")
_CHANNEL: Final = "privyseal_request"
_NOTIFY: Final = "SELECT pg_notify(?, ?)"
#: A payload has less than 8,000 bytes; a request's id has 64.
_MOST_IDS: Final = 100
_CONNECT_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 1.0


async def notify(process: str, request_ids: tuple[str, ...]) -> None:
    """Have the others hear of changed requests when the open transaction commits."""
    for start in range(0, len(request_ids), _MOST_IDS):
        text = ",".join((process, *request_ids[start : start + _MOST_IDS]))
        await Query(_NOTIFY, (_CHANNEL, text))


class PostgresListener:
    """A connection of its own that hears what others notify, made anew when it was lost."""

    def __init__(self, url: str, process: str) -> None:
        """`process` is what this one calls itself in `notify`."""
        self._url: Final = url
        self._process: Final = process
        self._task: asyncio.Task[None] | None = None

    def start(self, heard: Callable[[tuple[str, ...]], None]) -> None:
        """Call back with ids of requests, on the running event loop; with none after each new connection."""
        self._task = asyncio.create_task(self._run(heard), name="postgres listener")

    async def stop(self) -> None:
        """Hear nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self, heard: Callable[[tuple[str, ...]], None]) -> None:
        while True:
            try:
                await self._listen(heard)
            except FAULTS as error:
                _LOG.warning("other hub processes are not heard", reason=str(error))
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _listen(self, heard: Callable[[tuple[str, ...]], None]) -> None:
        """Until the connection is lost."""
        lost = asyncio.Event()

        def take(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            process, *request_ids = str(payload).split(",")
            if process != self._process:
                heard(tuple(request_ids))

        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            self._url, timeout=_CONNECT_SECONDS, server_settings=SETTINGS
        )
        try:
            connection.add_termination_listener(lambda _connection: lost.set())
            await connection.add_listener(_CHANNEL, take)
            heard(())
            await lost.wait()
        finally:
            connection.terminate()
