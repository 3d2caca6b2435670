# SPDX-License-Identifier: Apache-2.0
"""Opening the database that a hub's configuration names."""

from privyseal.hub.config import HubConfig, HubFiles
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import Clock
from privyseal.ports.store import Store
from privyseal.storage.postgres import PostgresStore
from privyseal.storage.sqlite import SqliteStore

__all__ = ["open_store"]


async def open_store(config: HubConfig, origin: str, files: HubFiles, clock: Clock) -> Store:
    """The hub's store: PostgreSQL if the configuration names a database there, else the SQLite file.

    Raises:
        ConfigError, LogIntegrityError, UnavailableError: as `PostgresStore.open`, `SqliteStore.open`.
    """
    log_key = load_ed25519(files.log_key)
    if config.database:
        return await PostgresStore.open(
            config.database, origin=origin, log_key=log_key, clock=clock, head_path=files.head
        )
    return await SqliteStore.open(files.database, origin=origin, log_key=log_key, clock=clock, head_path=files.head)
