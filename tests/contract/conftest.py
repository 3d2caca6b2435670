# SPDX-License-Identifier: Apache-2.0
"""The stores that the contract is held against: each adapter, opened on nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from postgres_server import PostgresServer
from privyseal.ports.store import Store
from privyseal.storage.postgres import PostgresStore
from privyseal.storage.sqlite import SqliteStore

ORIGIN = "log.example/contract"
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


def _now_ms() -> int:
    return 1_700_000_000_000


@pytest.fixture(params=["sqlite file", "sqlite memory", pytest.param("postgresql", marks=pytest.mark.interop)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    head_path = tmp_path / "head.checkpoint"
    opened: Store
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.url(await server.make_database())
        opened = await PostgresStore.open(url, origin=ORIGIN, log_key=KEY, clock=_now_ms, head_path=head_path)
    elif request.param == "sqlite file":
        opened = await SqliteStore.open(
            tmp_path / "hub.db", origin=ORIGIN, log_key=KEY, clock=_now_ms, head_path=head_path
        )
    else:
        opened = await SqliteStore.open(":memory:", origin=ORIGIN, log_key=KEY, clock=_now_ms, head_path=None)
    yield opened
    await opened.close()
