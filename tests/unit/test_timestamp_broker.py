# SPDX-License-Identifier: Apache-2.0
"""The hub's timestamp broker over foreign TSAs in memory: which are asked, what is believed, what is recorded."""

import asyncio
import datetime as dt
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pki_samples import tsa
from privyseal.errors import (
    ConfigError,
    DeniedError,
    MalformedInputError,
    PrivysealError,
    UnavailableError,
    UnsupportedInputError,
)
from privyseal.hub.config import TsaTable
from privyseal.hub.services.denials import Denials
from privyseal.hub.services.timestamps import Timestamps
from privyseal.pki import der, tsp
from privyseal.ports.store import Enrolment, ReadTx
from privyseal.storage.sqlite import SqliteStore
from privyseal.tlog.entry import Deny, Entry, TimestampEntry, parse_entry
from privyseal.wire.tsa import BusyError
from tsa_samples import made_by_hand, other_nonce

CALLER = Enrolment(
    role="client",
    name="build-7",
    salt=b"s" * 16,
    request_key=b"k" * 32,
    certificate_sha256=b"c" * 32,
    profiles=("*",),
    entry_index=0,
)
REQUEST = tsp.TimeStampReq(digest_algorithm="sha256", imprint=b"i" * 32, nonce=7)
ENCODED = tsp.encode_request(REQUEST)
DOWN = UnavailableError("tsa.unreachable", "it cannot be reached: no route")
Answer = Callable[[bytes], Awaitable[bytes]]


async def honest(request: bytes) -> bytes:
    return made_by_hand(request)


async def lying(request: bytes) -> bytes:
    return other_nonce(request).body


def failing(error: PrivysealError) -> Answer:
    async def answer(request: bytes) -> bytes:
        raise error

    return answer


async def silent(request: bytes) -> bytes:
    await asyncio.Event().wait()
    return b""


class World:
    """TSAs by URL, a store, and a clock."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.now_ms = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []

    async def ask(self, url: str, request: bytes) -> bytes:
        self.asked.append(url)
        return await self.answers[url](request)

    def broker(self, *, budget: int = 0, total_seconds: float = 30.0, **answers: Answer) -> Timestamps:
        self.answers = answers
        return Timestamps(
            store=self.store,
            denials=Denials(self.store),
            tables=tuple(TsaTable(url=url, per_minute=budget) for url in answers),
            ask=self.ask,
            clock=lambda: self.now_ms,
            ticks=lambda: self.now_ms,
            hedge_ms=1,
            total_seconds=total_seconds,
        )

    async def entries(self) -> list[Entry]:
        async def read(tx: ReadTx) -> tuple[bytes, ...]:
            return await tx.entries(0, 256)

        return [parse_entry(entry) for entry in await self.store.read(read)]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    store = await SqliteStore.open(
        ":memory:",
        origin="log.example/broker",
        log_key=Ed25519PrivateKey.from_private_bytes(b"k" * 32),
        clock=lambda: 1_700_000_000_000,
        head_path=None,
    )
    yield World(store)
    await store.close()


async def error_of(broker: Timestamps, encoded: bytes = ENCODED, caller: Enrolment = CALLER) -> PrivysealError:
    with pytest.raises(PrivysealError) as caught:
        await broker.create(caller, encoded)
    return caught.value


async def test_a_token_is_recorded_before_it_is_given(world: World) -> None:
    view = await world.broker(a=honest, b=honest).create(CALLER, ENCODED)

    token = tsp.parse_response(view.response)
    (entry,) = await world.entries()
    assert view.index == 0
    assert isinstance(entry, TimestampEntry)
    assert entry.client == hashlib.sha256(CALLER.request_key).hexdigest()
    assert entry.token == hashlib.sha256(token).hexdigest()
    assert entry.imprint == hashlib.sha256(REQUEST.imprint).hexdigest()
    assert entry.tsa == hashlib.sha256(tsa().leaf.der).hexdigest()
    assert world.asked == ["a"]


@pytest.mark.parametrize("bad", [lying, failing(DOWN)])
async def test_a_tsa_that_lies_or_fails_gives_way(world: World, bad: Answer) -> None:
    broker = world.broker(a=bad, b=honest)

    for _ in range(2):
        await broker.create(CALLER, ENCODED)

    assert world.asked == ["a", "b", "b"]
    assert [one.problem != "" for one in broker.status()] == [True, False]


async def test_beside_a_slow_one_another_is_asked_and_the_slow_one_is_let_go(world: World) -> None:
    broker = world.broker(a=silent, b=honest)

    await broker.create(CALLER, ENCODED)
    await broker.create(CALLER, ENCODED)

    assert world.asked == ["a", "b", "b"]
    assert {one.state for one in broker.status()} == {"ready"}


async def test_no_more_than_two_are_asked_at_once(world: World) -> None:
    error = await error_of(world.broker(a=silent, b=silent, c=honest, total_seconds=0.2))

    assert (error.code, error.retryable) == ("tsa.slow", True)
    assert world.asked == ["a", "b"]
    assert await world.entries() == []


async def test_when_none_gives_all_are_named(world: World) -> None:
    wrong = UnsupportedInputError("tsa.http_status", "it answers with HTTP 404")

    error = await error_of(world.broker(a=failing(DOWN), b=failing(wrong)))
    lasting = await error_of(world.broker(a=lying, b=failing(wrong)))

    assert error.message == f"the hub got no timestamp from its TSAs: a: {DOWN}; b: {wrong}"
    assert (error.code, error.exit_status) == ("tsa.none_gave", 7)
    assert (lasting.code, lasting.retryable) == ("tsa.none_will", False)
    assert await world.entries() == []


async def test_a_budget_is_shared_by_all_clients(world: World) -> None:
    broker = world.broker(a=honest, budget=2)
    await asyncio.gather(*(broker.create(CALLER, ENCODED) for _ in range(2)))

    error = await error_of(broker)

    assert (error.code, error.retryable) == ("tsa.none_gave", True)
    assert "a: resting, not asked" in error.message
    assert [one.state for one in broker.status()] == ["resting"]
    world.now_ms += 60_000
    world.answers["a"] = failing(DOWN)
    assert "no route" in (await error_of(broker)).message


async def test_the_breaker_spares_a_dead_tsa_and_tries_it_again(world: World) -> None:
    broker = world.broker(a=failing(DOWN))
    for _ in range(5):
        await error_of(broker)

    assert world.asked == ["a"] * 3
    assert [one.state for one in broker.status()] == ["open"]
    assert "a: open, not asked (last: it cannot be reached: no route" in (await error_of(broker)).message
    world.now_ms += 30_000
    await error_of(broker)
    assert world.asked == ["a"] * 4


async def test_patience_is_kept_for_all(world: World) -> None:
    busy = BusyError("tsa.busy", "it answers with HTTP 429", retry_after_seconds=50)
    broker = world.broker(a=failing(busy), b=honest)

    await broker.create(CALLER, ENCODED)

    assert [one.state for one in broker.status()] == ["resting", "ready"]


def foreign(**changes: object) -> bytes:
    return tsp.encode_request(replace(REQUEST, **changes))  # type: ignore[arg-type]  # on purpose: any field


def with_policy() -> bytes:
    version, imprint, *rest = der.children(der.read_single(ENCODED, "it"), "it")
    fields = (version.der, imprint.der, der.encode_oid("1.2.3"), *(one.der for one in rest))
    return der.encode_tlv(0x30, b"".join(fields))


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "text": b"<html>",
    "short imprint": foreign(imprint=b"i" * 31),
    "no nonce": foreign(nonce=None),
    "long nonce": foreign(nonce=1 << 64),
    "negative nonce": foreign(nonce=-1),
    "no certificates": foreign(cert_req=False),
    "weak": ENCODED.replace(bytes.fromhex("608648016503040201"), bytes.fromhex("608648016503040209")),
    "policy": with_policy(),
    "large": ENCODED + bytes(5000),
}


@pytest.mark.parametrize("kind", MALFORMED)
async def test_what_could_be_held_against_a_tsa_is_not_forwarded(world: World, kind: str) -> None:
    error = await error_of(world.broker(a=honest), MALFORMED[kind])

    assert isinstance(error, MalformedInputError)
    assert world.asked == []


async def test_a_client_that_may_use_no_key_is_denied_on_record(world: World) -> None:
    error = await error_of(world.broker(a=honest), caller=replace(CALLER, profiles=()))

    assert isinstance(error, DeniedError)
    (entry,) = await world.entries()
    assert isinstance(entry, Deny)
    assert (entry.code, entry.request) == (error.code, hashlib.sha256(ENCODED).hexdigest())
    assert world.asked == []


async def test_a_hub_without_tsas_says_so(world: World) -> None:
    error = await error_of(world.broker())

    assert isinstance(error, ConfigError)
    assert (error.code, world.asked) == ("tsa.none", [])


async def test_a_log_that_cannot_be_written_gives_no_token(world: World) -> None:
    await world.store.close()

    assert (await error_of(world.broker(a=honest))).branch in {"unavailable", "log"}


async def test_a_defect_on_the_way_does_not_close_a_half_open_breaker_for_ever(world: World) -> None:
    async def defective(request: bytes) -> bytes:
        raise ZeroDivisionError

    broker = world.broker(a=failing(DOWN))
    for _ in range(3):
        await error_of(broker)
    world.now_ms += 30_000
    world.answers["a"] = defective
    with pytest.raises(ZeroDivisionError):
        await broker.create(CALLER, ENCODED)

    world.answers["a"] = honest
    assert (await broker.create(CALLER, ENCODED)).index == 0
