# SPDX-License-Identifier: Apache-2.0
"""Published checkpoints: always the newest one, with the log's ML-DSA-44 line at most once a second, and witnesses'."""

from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from log_samples import genesis
from privyseal.hub.services.publication import Publication
from privyseal.ports.store import LogHead, Tx
from privyseal.storage.sqlite import SqliteStore
from privyseal.tlog.checkpoint import open_checkpoint, parse_checkpoint
from privyseal.tlog.cosignature import Cosigner, cosignatures
from privyseal.tlog.entry import encode_entry
from privyseal.tlog.note import NoteSigner, parse_note

ORIGIN = "log.example/published"
LOG_KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
LOG = NoteSigner(name=ORIGIN, key=LOG_KEY).verifier
COSIGNER = Cosigner(name=ORIGIN, key=MLDSA44PrivateKey.from_seed_bytes(b"k" * 32))
FIRST = Cosigner(name="witness.example/w1", key=Ed25519PrivateKey.from_private_bytes(b"1" * 32))
SECOND = Cosigner(name="witness.example/w2", key=MLDSA44PrivateKey.from_seed_bytes(b"2" * 32))


class World:
    """A store, what is published of it, and a clock that goes on when it is told to."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.now = 100.0
        self.publication = Publication(store=store, cosigner=COSIGNER, monotonic=lambda: self.now)

    async def grow(self) -> LogHead:
        async def append(tx: Tx) -> None:
            await tx.append(encode_entry(genesis()))

        await self.store.write(append)
        return self.store.head

    def newest(self) -> tuple[int, list[str]]:
        return shown(self.publication.newest())

    def cosigned(self) -> tuple[int, list[str]] | None:
        note = self.publication.cosigned()
        return None if note is None else shown(note)


def shown(text: str) -> tuple[int, list[str]]:
    """Size of a checkpoint whose lines all hold, and whose lines they are in their order."""
    note, also = parse_note(text), (COSIGNER.verifier,)
    checkpoint = open_checkpoint(text, origin=ORIGIN, verifiers=(LOG,), also=also)
    witnesses = (FIRST.verifier, SECOND.verifier)
    cosignatures(note, witnesses)
    names = {(one.name, one.key_id): one.name[-2:] for one in witnesses}
    names |= {(LOG.name, LOG.key_id): "log", (LOG.name, COSIGNER.verifier.key_id): "log-pq"}
    return checkpoint.size, [names[line.name, line.key_id] for line in note.signatures]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    store = await SqliteStore.open(":memory:", origin=ORIGIN, log_key=LOG_KEY, clock=lambda: 1, head_path=None)
    yield World(store)
    await store.close()


def cosign(world: World, head: LogHead, cosigner: Cosigner, seconds: int = 7) -> None:
    text = parse_note(head.note).text
    world.publication.add(head.note, (cosigner.sign(text, seconds),))


async def test_the_newest_checkpoint_has_both_of_the_log_s_lines(world: World) -> None:
    assert world.newest() == (0, ["log", "log-pq"])
    await world.grow()
    world.now += 1
    assert world.newest() == (1, ["log", "log-pq"])


async def test_the_log_states_no_time(world: World) -> None:
    (line,) = cosignatures(parse_note(world.publication.newest()), (COSIGNER.verifier,))
    assert line.seconds == 0


async def test_readers_of_one_checkpoint_share_one_line_for_ever(world: World) -> None:
    await world.grow()
    first = world.publication.newest()
    for _ in range(5):
        world.now += 0.7
        assert world.publication.newest() == first


async def test_within_a_second_a_newer_head_is_shown_as_it_is(world: World) -> None:
    assert world.newest() == (0, ["log", "log-pq"])
    for size in (1, 2, 3):
        head = await world.grow()
        world.now += 0.3
        assert world.newest() == (size, ["log"])
        assert world.publication.newest() == head.note
    world.now += 0.2
    assert world.newest() == (3, ["log", "log-pq"])


async def test_the_store_s_checkpoint_stays_as_it_was_committed(world: World) -> None:
    head = await world.grow()
    cosign(world, head, FIRST)
    world.newest()
    assert world.store.head == head
    assert len(parse_note(head.note).signatures) == 1


async def test_witnesses_lines_stand_on_the_newest_checkpoint_as_long_as_it_is_theirs(world: World) -> None:
    assert world.cosigned() is None
    first = await world.grow()
    cosign(world, first, FIRST)
    assert world.newest() == (1, ["log", "log-pq", "w1"])
    assert world.cosigned() == (1, ["log", "log-pq", "w1"])
    cosign(world, first, SECOND)
    assert world.newest() == (1, ["log", "log-pq", "w1", "w2"])

    second = await world.grow()
    assert world.newest() == (2, ["log"])
    assert world.cosigned() == (1, ["log", "log-pq", "w1", "w2"])
    cosign(world, second, SECOND)
    assert world.cosigned() == (2, ["log", "w2"])
    world.now += 1
    assert world.newest() == world.cosigned() == (2, ["log", "log-pq", "w2"])


async def test_lines_that_come_late_are_dropped(world: World) -> None:
    first, second = await world.grow(), await world.grow()
    cosign(world, second, FIRST)
    cosign(world, first, SECOND)
    assert world.cosigned() == (2, ["log", "log-pq", "w1"])


async def test_lines_on_a_checkpoint_that_is_the_head_no_more_are_published_too(world: World) -> None:
    first = await world.grow()
    await world.grow()
    cosign(world, first, FIRST)
    assert world.newest() == (2, ["log", "log-pq"])
    assert world.cosigned() == (1, ["log", "log-pq", "w1"])


async def test_a_witness_s_later_line_takes_the_place_of_its_earlier_one(world: World) -> None:
    head = await world.grow()
    cosign(world, head, FIRST, 7)
    cosign(world, head, SECOND)
    cosign(world, head, FIRST, 9)
    assert world.newest() == (1, ["log", "log-pq", "w1", "w2"])
    (line,) = cosignatures(parse_note(world.publication.newest()), (FIRST.verifier,))
    assert line.seconds == 9


async def test_no_lines_are_nothing_to_publish(world: World) -> None:
    head = await world.grow()
    world.publication.add(head.note, ())
    assert world.cosigned() is None


async def test_a_reader_of_one_does_not_keep_the_line_from_the_other(world: World) -> None:
    head = await world.grow()
    cosign(world, head, FIRST)
    for _ in range(3):
        head = await world.grow()
        world.now += 1
        assert world.newest()[1] == ["log", "log-pq"]
        assert world.cosigned() == (1, ["log", "log-pq", "w1"])
    assert parse_checkpoint(parse_note(world.publication.newest()).text).size == head.size
