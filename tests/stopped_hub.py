# SPDX-License-Identifier: Apache-2.0
"""A hub over SQLite that does not run, with something in every table, and what its databases hold."""

import datetime as dt
import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from postgres_server import PostgresServer
from privyseal.hub.config import HubConfig, HubFiles, load_hub_config
from privyseal.hub.database import open_store
from privyseal.hub.database_line import with_database
from privyseal.hub.services.genesis import write_genesis
from privyseal.hub.setup import NewHub, init_hub
from privyseal.identity.bundle import load_bundle
from privyseal.ports.clock import system_clock
from privyseal.ports.queue import Job, Lease, Request
from privyseal.ports.store import Enrolment, Grant, JoinCode, ProfileRow, Store, Tx
from privyseal.tlog.entry import Deny, encode_entry

__all__ = ["append", "entries", "made_hub", "opened", "postgres_rows", "sqlite_rows"]


async def made_hub(directory: Path, *, name: str = "hub.example/lab", filled: bool = True, database: str = "") -> Path:
    """Make a hub and fill its database, or only begin its log; `directory` gets hub.toml and all beside it."""
    config = HubConfig(
        name=name,
        listen_mtls="127.0.0.1:8443",
        listen_web="127.0.0.1:8444",
        mtls_url="https://localhost:8443",
        web_url="https://localhost:8444",
    )
    authority = directory.with_name(directory.name + "-authority.key")
    init_hub(NewHub(directory=directory, authority_path=authority, config=config), dt.datetime.now(dt.UTC))
    if database:
        path = directory / "hub.toml"
        path.write_text(with_database(path.read_text(), database))
    store = await opened(directory)
    bundle = load_bundle(HubFiles(directory).bundle)
    await store.write(lambda tx: write_genesis(tx, bundle))
    if filled:
        await store.write(_fill)
        for _ in range(3):  # several checkpoints
            await append(store, 200)
        await store.write(lambda tx: tx.put_cosigned(store.head.size, store.head.note))
    await store.close()
    return directory


async def _fill(tx: Tx) -> None:
    def salted(text: str) -> bytes:
        return hashlib.sha256(text.encode()).digest()

    for role in ("client", "agent"):
        await tx.add_enrolment(
            Enrolment(
                role=role,
                name="büro-1",
                certificate_sha256=salted(role),
                request_key=salted("key" + role),
                profiles=("*",),
                salt=b"s" * 16,
                entry_index=0,
                revoked_ms=9 if role == "client" else None,
            )
        )
        code = JoinCode(
            secret_sha256=salted("code" + role),
            role=role,
            name="x",
            profiles=(),
            expires_ms=5,
            statement_sha256=salted("a"),
        )
        await tx.add_join_code(code)
    await tx.take_join_code(salted("codeagent"))
    await tx.add_grant(Grant(request_key=salted("keyclient"), profile="acme", envelope=b"envelope", entry_index=1))
    await tx.put_profile(
        ProfileRow(
            name="acme",
            agent="büro-1",
            token="ev",
            chain=(b"leaf", b"issuer"),
            level="pinned",
            opaque=("pkcs11",),
            token_label="",
            token_serial="0123",
            hardware=True,
            entry_index=4,
        )
    )
    await tx.put_lease(Lease(token="büro-1/ev", holder="one", fence=7, expires_ms=1))
    await tx.put_agent_seq(salted("keyagent"), 12)
    await tx.take_statement(salted("order"), 2**60)
    for number in range(3):
        request = Request(
            id=f"{number:064x}",
            client="büro-1",
            idempotency_key=f"once-{number}",
            profile="acme",
            envelope=bytes(300),
            created_ms=1,
            not_after_ms=2**60,
            queued_ms=1,
            priority=1,
        )
        jobs = tuple(
            Job(request_id=request.id, item=item, profile="acme", signed=bytes(70_000), detail=b"")
            for item in range(20)
        )
        await tx.add_request(request, jobs)


async def opened(directory: Path) -> Store:
    """The store that hub.toml names, opened as a hub opens it."""
    files = HubFiles(directory)
    return await open_store(load_hub_config(directory), load_bundle(files.bundle).origin, files, system_clock)


async def append(store: Store, count: int = 1) -> None:
    """Append entries in one commit."""

    async def write(tx: Tx) -> None:
        ts = await tx.now_ms()
        for _ in range(count):
            await tx.append(encode_entry(Deny(ts=ts, client="", profile="", request="", code="")))

    await store.write(write)


async def entries(store: Store) -> tuple[bytes, ...]:
    return await store.read(lambda tx: tx.entries(0, 1_000_000))


def sqlite_rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for (name,) in names}


async def postgres_rows(server: PostgresServer, database: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables."""
    names = await server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database)
    return {name: sorted(await server.execute(f"SELECT * FROM {name}", database), key=repr) for (name,) in names}
