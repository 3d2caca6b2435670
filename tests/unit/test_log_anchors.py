# SPDX-License-Identifier: Apache-2.0
"""Anchors: what stands in the log must fit the log and the token; and a hub that makes them by itself."""

import asyncio
import base64
import datetime as dt
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from log_samples import ORIGIN, GrownLog, genesis, sha
from pki_samples import authority, make_token, tsa
from privyseal.client.log_anchors import AnchorCheck
from privyseal.client.log_files import verify_log
from privyseal.errors import ConfigError, DeniedError, PrivysealError, UnavailableError
from privyseal.hub.config import TsaTable, parse_interval
from privyseal.hub.services.anchors import Anchors
from privyseal.hub.services.denials import Denials
from privyseal.hub.services.timestamps import Timestamps
from privyseal.ports.store import Enrolment, ReadTx, Tx
from privyseal.storage.sqlite import SqliteStore
from privyseal.tlog import audit
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.entry import Anchor, Deny, Entry, encode_entry, parse_entry
from tsa_samples import made_by_hand

ROOTS = (tsa().root.der,)
NOW = dt.datetime.now(dt.UTC)


def anchor_of(checkpoint: Checkpoint, **changes: Any) -> Anchor:
    """A true one, with changes."""
    imprint = hashlib.sha256(checkpoint.text.encode()).digest()
    token = make_token(b"", gen_time=f"{NOW:%Y%m%d%H%M%SZ}".encode(), imprint=imprint)
    entry = Anchor(
        ts=9000,
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        imprint=imprint.hex(),
        token=hashlib.sha256(token).hexdigest(),
        der=base64.b64encode(token).decode(),
        tsa=hashlib.sha256(tsa().leaf.der).hexdigest(),
        client=sha(7),
    )
    return replace(entry, **changes)


def judged(log: GrownLog, roots: tuple[bytes, ...] = ROOTS) -> AnchorCheck:
    check = AnchorCheck(log.public(), roots)
    verify_log(log.public(), (check,))
    return check


def refusal(log: GrownLog, roots: tuple[bytes, ...] = ROOTS) -> tuple[str, bool]:
    """The code, and whether the entry is named."""
    with pytest.raises(PrivysealError) as caught:
        judged(log, roots)
    return caught.value.code, f"entry {len(log.entries) - 1}:" in caught.value.message


def test_a_true_anchor_holds_also_some_entries_later() -> None:
    log = GrownLog().grow_to(5)
    early = anchor_of(log.newest)
    log.grow_to(9).commit(early)
    log.commit(anchor_of(log.newest))

    for roots in (ROOTS, ()):
        found = judged(log, roots)
        assert found.count == 2
        assert found.newest is not None
        assert (found.newest.index, found.newest.size) == (10, 10)
        assert found.newest.gen_time == NOW.replace(microsecond=0)
        assert bool(found.newest.subject) == bool(roots)


def test_a_token_that_did_not_fit_is_named_by_its_hash_alone() -> None:
    log = GrownLog().grow_to(5)
    log.commit(anchor_of(log.newest, der=""))

    found = judged(log).newest
    assert found is not None
    assert found.gen_time is None


OTHER = base64.b64encode(make_token(b"other")).decode()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"root": sha(1)}, "log.entry"),
        ({"root": "no root"}, "log.entry"),
        ({"size": 4}, "log.entry"),
        ({"size": 0}, "log.entry"),
        ({"size": 6}, "log.entry"),
        ({"size": -1}, "log.entry"),
        ({"size": 2**53 - 1}, "log.entry"),
        ({"imprint": sha(1)}, "log.anchor"),
        ({"token": sha(1)}, "log.anchor"),
        ({"der": "AAAA"}, "log.anchor"),
        ({"der": "\u00e4"}, "log.anchor"),
        ({"der": OTHER}, "log.anchor"),
        (
            {"der": OTHER, "token": hashlib.sha256(base64.b64decode(OTHER)).hexdigest()},
            "log.anchor",
        ),
        ({"tsa": sha(1)}, "log.anchor"),
    ],
    ids=range(14),
)
def test_an_anchor_that_does_not_fit_is_named(changes: dict[str, Any], code: str) -> None:
    log = GrownLog().grow_to(5)
    log.commit(anchor_of(log.newest, **changes))

    assert refusal(log) == (code, True)


def test_a_token_that_nobody_vouches_for_is_refused_where_roots_are_named() -> None:
    log = GrownLog().grow_to(5)
    log.commit(anchor_of(log.newest))

    assert refusal(log, (authority().der,)) == ("log.anchor_token", True)
    assert judged(log, ()).count == 1


def test_an_anchor_far_behind_its_checkpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "ANCHOR_WINDOW", 8)
    log = GrownLog().grow_to(5)
    entry = anchor_of(log.newest)
    log.grow_to(12).commit(entry)
    assert judged(log).count == 1
    log.commit(entry)
    assert refusal(log) == ("log.entry", True)


# -- the hub's side ---------------------------------------------------------------------------------------------------

CALLER = Enrolment(
    role="client",
    name="build-7",
    salt=b"s" * 16,
    request_key=b"k" * 32,
    certificate_sha256=b"c" * 32,
    profiles=("*",),
    entry_index=0,
)


class World:
    """A hub's store and a TSA, and a clock that stands until it is moved or slept."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.now_ms = int(NOW.timestamp() * 1000)
        self.is_down = False
        self.asked = 0
        self.slept: asyncio.Queue[float] = asyncio.Queue()
        self.go = asyncio.Semaphore(0)

    async def ask(self, _url: str, request: bytes) -> bytes:
        self.asked += 1
        if self.is_down:
            raise UnavailableError("tsa.unreachable", "no route")
        return made_by_hand(request, at=dt.datetime.fromtimestamp(self.now_ms / 1000, dt.UTC))

    async def sleep(self, seconds: float) -> None:
        await self.slept.put(seconds)
        await self.go.acquire()
        self.now_ms += int(seconds * 1000)

    def anchors(self, every_seconds: float = 0.0, *, tables: tuple[TsaTable, ...] = (TsaTable(url="a"),)) -> Anchors:
        timestamps = Timestamps(
            store=self.store,
            denials=Denials(self.store),
            tables=tables,
            ask=self.ask,
            clock=lambda: self.now_ms,
            ticks=lambda: self.now_ms,
        )
        return Anchors(
            store=self.store,
            timestamps=timestamps,
            clock=lambda: self.now_ms,
            every_seconds=every_seconds,
            ticks=lambda: self.now_ms,
            sleep=self.sleep,
        )

    async def append(self, *entries: Entry) -> None:
        async def write(tx: Tx) -> None:
            for entry in entries:
                await tx.append(encode_entry(entry))

        await self.store.write(write)

    async def entries(self) -> list[Entry]:
        async def read(tx: ReadTx) -> tuple[bytes, ...]:
            return await tx.entries(0, 10_000)

        return [parse_entry(entry) for entry in await self.store.read(read)]

    async def slept_for(self) -> float:
        return await asyncio.wait_for(self.slept.get(), 30)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    worlds: list[World] = []
    store = await SqliteStore.open(
        ":memory:",
        origin=ORIGIN,
        log_key=Ed25519PrivateKey.from_private_bytes(b"l" * 32),
        clock=lambda: worlds[0].now_ms if worlds else 1,
        head_path=None,
    )
    worlds.append(World(store))
    await worlds[0].append(genesis())
    yield worlds[0]
    await store.close()


def deny(number: int) -> Deny:
    return Deny(ts=number, client="", profile="", request="", code="")


async def code_of(anchors: Anchors, caller: Enrolment | None = CALLER) -> str:
    with pytest.raises(PrivysealError) as caught:
        await anchors.create(caller)
    return caught.value.code


async def test_what_the_hub_writes_holds(world: World) -> None:
    view = await world.anchors().create(CALLER)

    log = GrownLog()
    log.commit(genesis())
    log.commit((await world.entries())[1])
    found = judged(log)
    assert (view.index, view.size) == (1, 1)
    assert found.newest is not None
    assert found.newest.gen_time is not None
    assert view.time_ms == int(found.newest.gen_time.timestamp() * 1000)
    assert (await world.entries())[1].client == hashlib.sha256(CALLER.request_key).hexdigest()  # type: ignore[union-attr]


async def test_once_a_minute_whoever_asks(world: World) -> None:
    anchors = world.anchors()
    done = await asyncio.gather(*(anchors.create(CALLER) for _ in range(3)), return_exceptions=True)
    assert [one.code if isinstance(one, PrivysealError) else "" for one in done] == ["", *["anchor.recent"] * 2]
    world.now_ms += 59_999
    assert await code_of(anchors, None) == "anchor.recent"
    world.now_ms += 1
    assert (await anchors.create(None)).index == 2
    assert world.asked == 2


async def test_who_may_not_ask_is_denied_and_recorded(world: World) -> None:
    stranger = Enrolment(
        role="client", name="x", salt=b"", request_key=b"x", certificate_sha256=b"", profiles=(), entry_index=0
    )
    with pytest.raises(DeniedError):
        await world.anchors().create(stranger)
    assert isinstance((await world.entries())[-1], Deny)
    assert world.asked == 0
    with pytest.raises(ConfigError):
        await world.anchors(tables=()).create(CALLER)


async def test_a_failure_does_not_count_as_an_anchor(world: World) -> None:
    anchors = world.anchors()
    world.is_down = True
    assert await code_of(anchors) == "tsa.none_gave"
    world.is_down = False
    await anchors.create(CALLER)


async def test_the_hub_anchors_by_itself_what_is_new_and_tries_again_after_a_failure(world: World) -> None:
    anchors = world.anchors(every_seconds=3600.0)
    world.is_down = True
    anchors.start()
    try:
        assert await world.slept_for() == 600.0
        world.is_down = False
        world.go.release()
        assert await world.slept_for() == 3600.0
        assert [type(entry) for entry in await world.entries()] == [type(genesis()), Anchor]
        world.go.release()
        assert await world.slept_for() == 3600.0, "nothing is new"
        await world.append(deny(world.now_ms), deny(world.now_ms))
        world.go.release()
        assert await world.slept_for() == 3600.0
        assert [type(entry) for entry in await world.entries()][2:] == [Deny, Deny, Anchor]
    finally:
        await anchors.stop()


async def test_a_hub_that_starts_again_waits_for_the_rest_of_the_time(world: World) -> None:
    await world.anchors().create(None)
    await world.append(*(deny(world.now_ms) for _ in range(600)))
    world.now_ms += 1_000_000
    anchors = world.anchors(every_seconds=3600.0)
    anchors.start()
    try:
        assert await world.slept_for() == 2600.0
    finally:
        await anchors.stop()


async def test_a_hub_that_is_not_told_to_does_nothing(world: World) -> None:
    anchors = world.anchors()
    anchors.start()
    await anchors.stop()
    assert world.asked == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 0), ("1m", 60), ("24h", 86_400), ("7d", 604_800), ("99999d", 8_639_913_600)]
)
def test_intervals(text: str, seconds: float) -> None:
    assert parse_interval(text) == seconds


@pytest.mark.parametrize("text", ["0h", "1", "h", "-1h", "1.5h", "1s", " 1h", "100000d", "\u0661h"])
def test_what_is_no_interval(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_interval(text)
