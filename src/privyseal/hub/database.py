# SPDX-License-Identifier: Apache-2.0
"""Opening the database that a hub's configuration names."""

from privyseal.errors import ConfigError, PrivysealError
from privyseal.hub.config import HubConfig, HubFiles, load_hub_config
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import Clock
from privyseal.ports.store import Store
from privyseal.storage.postgres import PostgresStore
from privyseal.storage.sqlite import SqliteStore

__all__ = ["open_store"]


async def open_store(config: HubConfig, origin: str, files: HubFiles, clock: Clock) -> Store:
    """The hub's store: PostgreSQL if the configuration names a database there, else the SQLite file.

    Raises:
        ConfigError: `store.moved` if the log was moved to PostgreSQL meanwhile.
        ConfigError, LogIntegrityError, UnavailableError: as `PostgresStore.open`, `SqliteStore.open`.
    """
    log_key = load_ed25519(files.log_key)
    if config.database:
        return await PostgresStore.open(
            config.database, origin=origin, log_key=log_key, clock=clock, head_path=files.head
        )
    # `hub migrate --to` changes hub.toml while it has this database alone. Who waited for that opens what was moved.
    try:
        store = await SqliteStore.open(
            files.database, origin=origin, log_key=log_key, clock=clock, head_path=files.head
        )
    except PrivysealError as error:
        if load_hub_config(files.directory).database:
            raise _moved(files) from error
        raise
    if load_hub_config(files.directory).database:
        await store.close()
        raise _moved(files)
    return store


def _moved(files: HubFiles) -> ConfigError:
    return ConfigError(
        "store.moved",
        f"the log in {files.database} was moved to PostgreSQL while this waited for it",
        hint="run the same command again: it reads hub.toml anew",
    )
