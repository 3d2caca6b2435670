# SPDX-License-Identifier: Apache-2.0
"""The contract of the Store port (ports/store.py): transactions and log, run on every adapter."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.errors import ConflictError, LogIntegrityError, PrivysealError, UnavailableError
from privyseal.ports.store import JoinCode, ReadTx, Store, Tx
from privyseal.tlog.checkpoint import open_checkpoint
from privyseal.tlog.note import VerifierKey
from privyseal.tlog.proof import (
    consistency_proof,
    consistency_tiles,
    inclusion_proof,
    inclusion_tiles,
    verify_consistency,
    verify_inclusion,
)
from privyseal.tlog.tree import EMPTY_ROOT, leaf_hash

ORIGIN = "log.example/contract"
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
VERIFIER = VerifierKey(name=ORIGIN, public_key=KEY.public_key().public_bytes_raw())

CODE = JoinCode(
    secret_sha256=b"h" * 32,
    role="agent",
    name="office",
    profiles=("*",),
    expires_ms=5,
    statement_sha256=b"a" * 32,
)


def appending(*entries: bytes) -> Callable[[Tx], Awaitable[tuple[int, ...]]]:
    async def operation(tx: Tx) -> tuple[int, ...]:
        return tuple([await tx.append(entry) for entry in entries])

    return operation


async def test_an_empty_log_has_a_signed_head(store: Store) -> None:
    assert (store.head.size, store.head.root) == (0, EMPTY_ROOT)
    assert open_checkpoint(store.head.note, origin=ORIGIN, verifiers=(VERIFIER,)).size == 0
    assert await store.read(lambda tx: tx.checkpoints(0, 10)) == ()


async def test_appended_entries_are_under_the_new_head(store: Store) -> None:
    assert await store.write(appending(b"one", b"two")) == (0, 1)
    first = store.head
    assert await store.write(appending(b"three")) == (2,)

    opened = open_checkpoint(store.head.note, origin=ORIGIN, verifiers=(VERIFIER,))
    assert (opened.size, opened.root) == (store.head.size, store.head.root) == (3, store.head.root)
    assert await store.read(lambda tx: tx.checkpoints(0, 10)) == (first.note, store.head.note)
    assert await store.read(lambda tx: tx.checkpoints(1, 10)) == (store.head.note,)
    assert await store.read(lambda tx: tx.checkpoints(0, 1)) == (first.note,)
    assert await store.read(lambda tx: tx.checkpoints(2, 1)) == ()


async def test_entries_are_read_by_range(store: Store) -> None:
    await store.write(appending(b"one", b"", b"three"))

    assert await store.read(lambda tx: tx.entries(0, 2)) == (b"one", b"")
    assert await store.read(lambda tx: tx.entries(2, 5)) == (b"three",)
    assert await store.read(lambda tx: tx.entries(3, 5)) == ()
    assert await store.read(lambda tx: tx.entries(2**63, 2**63)) == ()


async def test_proofs_follow_from_the_tiles(store: Store) -> None:
    heads = [store.head]
    for start in range(0, 600, 75):
        await store.write(appending(*(b"entry %d" % number for number in range(start, start + 75))))
        heads.append(store.head)
    last = heads[-1]

    async def tiles_for(tx: ReadTx) -> None:
        for index in (0, 255, 256, 511, 512, 599):
            wanted = inclusion_tiles(index, last.size)
            tiles = {tile: await tx.tile(tile.level, tile.index, tile.width) for tile in wanted}
            verify_inclusion(
                leaf=leaf_hash(b"entry %d" % index),
                index=index,
                size=last.size,
                proof=inclusion_proof(index, last.size, tiles),
                root=last.root,
            )
        for old in heads:
            wanted = consistency_tiles(old.size, last.size)
            tiles = {tile: await tx.tile(tile.level, tile.index, tile.width) for tile in wanted}
            verify_consistency(
                old_size=old.size,
                new_size=last.size,
                old_root=old.root,
                new_root=last.root,
                proof=consistency_proof(old.size, last.size, tiles),
            )

    await store.read(tiles_for)
    assert last.size == 600


@pytest.mark.parametrize(("level", "index", "width"), [(0, 0, 3), (0, 1, 1), (1, 0, 1), (7, 2**54, 256)])
async def test_a_tile_that_is_not_all_there_is_an_error(store: Store, level: int, index: int, width: int) -> None:
    await store.write(appending(b"one", b"two"))

    with pytest.raises(LogIntegrityError) as caught:
        await store.read(lambda tx: tx.tile(level, index, width))

    assert caught.value.code == "log.missing_hash"


async def test_the_oldest_covering_checkpoint_is_found(store: Store) -> None:
    await store.write(appending(b"one", b"two"))
    first = store.head.note
    await store.write(appending(b"three"))

    assert await store.read(lambda tx: tx.covering_checkpoint(1)) == first
    assert await store.read(lambda tx: tx.covering_checkpoint(2)) == store.head.note
    with pytest.raises(LogIntegrityError) as caught:
        await store.read(lambda tx: tx.covering_checkpoint(3))
    assert caught.value.code == "log.missing_checkpoint"


async def test_an_operation_sees_its_own_writes(store: Store) -> None:
    await store.write(appending(b"one"))

    async def operation(tx: Tx) -> tuple[int, tuple[bytes, ...], bytes]:
        await tx.append(b"two")
        return await tx.log_size(), await tx.entries(0, 5), await tx.tile(0, 0, 2)

    size, entries, tile = await store.write(operation)

    assert (size, entries) == (2, (b"one", b"two"))
    assert tile == leaf_hash(b"one") + leaf_hash(b"two")


async def test_a_failing_operation_is_undone_alone(store: Store) -> None:
    async def failing(tx: Tx) -> None:
        await tx.append(b"withdrawn")
        await tx.add_join_code(CODE)
        raise ConflictError("test.refused", "no")

    outcomes = await asyncio.gather(
        store.write(appending(b"one")),
        store.write(failing),
        store.write(appending(b"two")),
        return_exceptions=True,
    )

    assert (outcomes[0], outcomes[2]) == ((0,), (1,))
    assert isinstance(outcomes[1], ConflictError)
    assert await store.read(lambda tx: tx.entries(0, 5)) == (b"one", b"two")
    assert await store.write(lambda tx: tx.take_join_code(CODE.secret_sha256)) is None


async def test_a_bug_in_an_operation_reaches_its_caller_alone(store: Store) -> None:
    async def broken(tx: Tx) -> None:
        await tx.append(b"withdrawn")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.write(broken)

    assert await store.write(appending(b"one")) == (0,)


async def test_an_operation_may_await_nothing_but_its_transaction(store: Store) -> None:
    never = asyncio.get_running_loop().create_future()

    async def suspending(tx: Tx) -> None:
        await tx.append(b"withdrawn")
        await never

    with pytest.raises(RuntimeError, match="awaited something else"):
        await store.write(suspending)

    assert await store.write(appending(b"one")) == (0,)


async def test_an_entry_that_fits_no_bundle_is_refused(store: Store) -> None:
    with pytest.raises(PrivysealError) as caught:
        await store.write(appending(b"x" * 65_536))

    assert caught.value.code == "entry.too_large"
    assert await store.write(appending(b"x" * 65_535)) == (0,)


async def test_without_entries_there_is_no_checkpoint(store: Store) -> None:
    before = store.head

    await store.write(lambda tx: tx.add_join_code(CODE))

    assert store.head is before
    assert await store.read(lambda tx: tx.checkpoints(0, 10)) == ()


async def test_gathered_operations_share_commits(store: Store) -> None:
    indexes = await asyncio.gather(*(store.write(appending(b"entry %d" % number)) for number in range(600)))
    notes = await store.read(lambda tx: tx.checkpoints(0, 1000))

    assert [index for (index,) in indexes] == list(range(600))
    assert 3 <= len(notes) < 100  # 256 at most in one commit


async def test_a_cancelled_caller_takes_nobody_with_it(store: Store) -> None:
    waiting = [asyncio.ensure_future(store.write(appending(b"entry %d" % number))) for number in range(20)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()

    outcomes = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes[::2]] == [asyncio.CancelledError] * 10
    assert await store.write(appending(b"after")) == (store.head.size - 1,)
    assert set(outcomes[1::2]) <= {(index,) for index in range(store.head.size)}


async def test_closing_finishes_what_was_handed_in(store: Store) -> None:
    writes = [asyncio.ensure_future(store.write(appending(b"entry %d" % number))) for number in range(30)]
    await asyncio.sleep(0)

    await store.close()
    await store.close()

    assert await asyncio.gather(*writes) == [(number,) for number in range(30)]
    for late in (store.write(appending(b"late")), store.read(lambda tx: tx.enrolments())):
        with pytest.raises(UnavailableError) as caught:
            await late
        assert caught.value.code == "store.closed"
