# SPDX-License-Identifier: Apache-2.0
"""Refusals are on record, and nobody can fill the log with them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.hub.services.denials import Denials
from privyseal.ports.store import Enrolment
from privyseal.storage.sqlite import SqliteStore
from privyseal.tlog.entry import Deny, parse_entry


def member(number: int) -> Enrolment:
    return Enrolment(
        role="client",
        name=f"client {number}",
        certificate_sha256=bytes(32),
        request_key=bytes([number]) * 32,
        profiles=(),
        salt=b"salt",
        entry_index=0,
    )


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(
        ":memory:", origin="hub.example", log_key=Ed25519PrivateKey.generate(), clock=lambda: 1, head_path=None
    )
    yield opened
    await opened.close()


async def told(store: SqliteStore) -> list[tuple[str, str, int]]:
    """(first of the caller's hash, code, count) of each entry."""
    found = []
    for data in await store.read(lambda tx: tx.entries(0, 1000)):
        entry = parse_entry(data)
        assert isinstance(entry, Deny)
        found.append((entry.client[:4], entry.code, entry.count))
    return found


async def refuse(denials: Denials, number: int, times: int, code: str = "policy.profile") -> None:
    for _ in range(times):
        await denials.refuse(member(number), profile="p", request_id="r", code=code)


async def test_sixty_a_minute_are_entries_and_the_rest_is_one(store: SqliteStore) -> None:
    denials = Denials(store)
    await refuse(denials, 1, 100)
    await refuse(denials, 1, 5, "policy.opaque")
    await refuse(denials, 2, 3)
    assert len(await told(store)) == 63

    await denials.stop()

    found = await told(store)
    assert sorted(count for _, _, count in found[63:]) == [5, 40]
    assert sum(count for _, _, count in found) == 108


async def test_after_a_minute_a_caller_has_a_new_share(store: SqliteStore) -> None:
    denials = Denials(store, minute_seconds=0.05)
    await refuse(denials, 1, 61)
    await asyncio.gather(*denials._tasks)
    assert (await told(store))[-1][2] == 1
    await refuse(denials, 1, 1)
    assert len(await told(store)) == 62
    await denials.stop()


async def test_strangers_are_counted_by_code_and_hour(store: SqliteStore) -> None:
    denials = Denials(store, hour_seconds=0.05)
    for code in ("join.refused",) * 1000 + ("authority.quorum",):
        denials.count_stranger(code)
    assert await told(store) == []
    await asyncio.gather(*denials._tasks)

    assert await told(store) == [("", "authority.quorum", 1), ("", "join.refused", 1000)]
    await denials.stop()
    assert len(await told(store)) == 2


async def test_counts_that_cannot_be_written_cost_nothing_else(store: SqliteStore) -> None:
    denials = Denials(store)
    denials.count_stranger("join.refused")
    await refuse(denials, 1, 61)
    await store.close()

    await denials.stop()
