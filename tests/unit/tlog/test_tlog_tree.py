# SPDX-License-Identifier: Apache-2.0
"""Tree and proofs against the plain recursions of RFC 6962 §2.1, for every size up to 300 and some beyond."""

import hashlib
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError, UnavailableError, VerificationError
from privyseal.tlog.proof import (
    consistency_proof,
    consistency_tiles,
    inclusion_proof,
    inclusion_tiles,
    verify_consistency,
    verify_inclusion,
)
from privyseal.tlog.subtree import frontier_from_tiles, frontier_tiles
from privyseal.tlog.tile import Tile
from privyseal.tlog.tree import EMPTY_ROOT, MAX_TREE_SIZE, Frontier, TileNode, leaf_hash

SIZES = 300
LEAVES = tuple(hashlib.sha256(b"\x00" + b"entry %d" % number).digest() for number in range(600))


@cache
def mth(start: int, end: int) -> bytes:
    """RFC 6962 §2.1, MTH(D[start:end])."""
    if end == start:
        return hashlib.sha256().digest()
    if end - start == 1:
        return LEAVES[start]
    middle = split(start, end)
    return hashlib.sha256(b"\x01" + mth(start, middle) + mth(middle, end)).digest()


def split(start: int, end: int) -> int:
    power = 1
    while power * 2 < end - start:
        power *= 2
    return start + power


def path(index: int, start: int, end: int) -> list[bytes]:
    """RFC 6962 §2.1.1, PATH(m, D[start:end])."""
    if end - start == 1:
        return []
    middle = split(start, end)
    if index < middle:
        return [*path(index, start, middle), mth(middle, end)]
    return [*path(index, middle, end), mth(start, middle)]


def subproof(old: int, start: int, end: int, *, known: bool) -> list[bytes]:
    """RFC 6962 §2.1.2, SUBPROOF(m, D[start:end], b)."""
    if old == end:
        return [] if known else [mth(start, end)]
    middle = split(start, end)
    if old <= middle:
        return [*subproof(old, start, middle, known=known), mth(middle, end)]
    return [*subproof(old, middle, end, known=False), mth(start, middle)]


def tile_content(tile: Tile) -> bytes:
    """C2SP tlog-tiles, word for word."""
    span = 256**tile.level
    first = tile.index * 256
    return b"".join(mth(place * span, (place + 1) * span) for place in range(first, first + tile.width))


def contents(tiles: tuple[Tile, ...]) -> dict[Tile, bytes]:
    return {tile: tile_content(tile) for tile in tiles}


def grown(size: int) -> Frontier:
    frontier = Frontier()
    for leaf in LEAVES[:size]:
        frontier = frontier.append(leaf).frontier
    return frontier


def test_appending_gives_the_root_of_every_size() -> None:
    frontier = Frontier()
    roots = [frontier.root]
    for leaf in LEAVES:
        frontier = frontier.append(leaf).frontier
        roots.append(frontier.root)

    assert roots == [mth(0, size) for size in range(len(LEAVES) + 1)]
    assert roots[0] == EMPTY_ROOT


def test_a_leaf_is_hashed_with_its_own_prefix() -> None:
    assert leaf_hash(b"entry 7") == LEAVES[7]


def test_nodes_of_level_1_come_with_each_256th_leaf() -> None:
    frontier = Frontier()
    nodes: list[TileNode] = []
    for leaf in LEAVES:
        growth = frontier.append(leaf)
        frontier = growth.frontier
        nodes += growth.nodes

    assert [(node.level, node.index, node.hash) for node in nodes] == [
        (1, 0, mth(0, 256)),
        (1, 1, mth(256, 512)),
    ]


def test_many_leaves_at_once_give_what_one_after_the_other_gives() -> None:
    for start, end in ((0, 0), (0, 1), (0, 600), (1, 256), (255, 257), (300, 513)):
        before = grown(start)
        growth = before.extend(LEAVES[start:end])

        after = before
        nodes: list[TileNode] = []
        for leaf in LEAVES[start:end]:
            one = after.append(leaf)
            after = one.frontier
            nodes += one.nodes
        assert (growth.frontier, list(growth.nodes)) == (after, nodes)
        assert growth.frontier.root == mth(0, max(start, end))


def test_nodes_of_two_levels_come_at_once() -> None:
    full = Frontier(size=2**16 - 1, hashes=tuple(bytes([place]) * 32 for place in range(16)))

    growth = full.append(b"leaf" * 8)

    assert [(node.level, node.index) for node in growth.nodes] == [(1, 255), (2, 0)]
    assert growth.nodes[1].hash == growth.frontier.root


@pytest.mark.parametrize("size", [*range(SIZES), 511, 512, 513, 600])
def test_the_frontier_follows_from_the_tiles(size: int) -> None:
    tiles = frontier_tiles(size)

    assert frontier_from_tiles(size, contents(tiles)) == grown(size)
    assert len(tiles) <= 2


@pytest.mark.parametrize("size", [*range(1, SIZES, 7), 255, 256, 257, 512, 600])
def test_inclusion_proofs_are_those_of_the_recursion(size: int) -> None:
    for index in range(size):
        proof = inclusion_proof(index, size, contents(inclusion_tiles(index, size)))

        assert list(proof) == path(index, 0, size)
        verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=proof, root=mth(0, size))


@pytest.mark.parametrize("new", [*range(1, SIZES, 7), 255, 256, 257, 512, 600])
def test_consistency_proofs_are_those_of_the_recursion(new: int) -> None:
    for old in range(1, new + 1):
        proof = consistency_proof(old, new, contents(consistency_tiles(old, new)))

        assert list(proof) == subproof(old, 0, new, known=True)
        verify_consistency(old_size=old, new_size=new, old_root=mth(0, old), new_root=mth(0, new), proof=proof)


def test_every_tree_extends_the_empty_one() -> None:
    assert consistency_tiles(0, 300) == ()
    assert consistency_proof(0, 300, {}) == ()
    verify_consistency(old_size=0, new_size=300, old_root=EMPTY_ROOT, new_root=mth(0, 300), proof=())
    verify_consistency(old_size=0, new_size=0, old_root=EMPTY_ROOT, new_root=EMPTY_ROOT, proof=())


@pytest.mark.parametrize(
    ("old_root", "new_size", "new_root", "proof"),
    [
        (LEAVES[0], 300, mth(0, 300), ()),
        (EMPTY_ROOT, 300, mth(0, 300), (LEAVES[0],)),
        (EMPTY_ROOT, 0, LEAVES[0], ()),
        (LEAVES[0], 0, LEAVES[0], ()),
    ],
    ids=["another old root", "a proof", "another new root", "two wrong roots"],
)
def test_anything_else_at_size_0_is_refused(
    old_root: bytes, new_size: int, new_root: bytes, proof: tuple[bytes, ...]
) -> None:
    with pytest.raises(VerificationError) as caught:
        verify_consistency(old_size=0, new_size=new_size, old_root=old_root, new_root=new_root, proof=proof)

    assert caught.value.code == "proof.consistency"


def test_nothing_is_included_in_the_empty_tree() -> None:
    with pytest.raises(VerificationError) as caught:
        verify_inclusion(leaf=LEAVES[0], index=0, size=0, proof=(), root=EMPTY_ROOT)

    assert caught.value.code == "proof.inclusion"


@pytest.mark.parametrize(("old", "new"), [(2, 1), (-1, 3), (1, -1), (0, 2**63), (5, 2**70)])
def test_impossible_sizes_are_refused(old: int, new: int) -> None:
    with pytest.raises(MalformedInputError) as made:
        consistency_tiles(old, new)
    with pytest.raises(VerificationError) as verified:
        verify_consistency(old_size=old, new_size=new, old_root=EMPTY_ROOT, new_root=EMPTY_ROOT, proof=())

    assert (made.value.code, verified.value.code) == ("proof.range", "proof.consistency")


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3), (0, 2**63)])
def test_a_leaf_outside_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(MalformedInputError) as made:
        inclusion_tiles(index, size)
    with pytest.raises(VerificationError) as verified:
        verify_inclusion(leaf=LEAVES[0], index=index, size=size, proof=(), root=EMPTY_ROOT)

    assert (made.value.code, verified.value.code) == ("proof.range", "proof.inclusion")


def test_the_largest_tree_is_handled() -> None:
    size = MAX_TREE_SIZE

    assert {tile.level for tile in inclusion_tiles(0, size)} == set(range(8))
    assert len(consistency_tiles(size - 1, size)) <= 8


def test_a_missing_tile_does_not_judge_the_log() -> None:
    with pytest.raises(UnavailableError) as caught:
        inclusion_proof(3, 300, {})

    assert caught.value.code == "tile.missing"


def test_a_tile_of_another_length_is_refused() -> None:
    short = {tile: content[:-1] for tile, content in contents(inclusion_tiles(3, 300)).items()}

    with pytest.raises(MalformedInputError) as caught:
        inclusion_proof(3, 300, short)

    assert caught.value.code == "tile.malformed"


@st.composite
def inclusions(draw: st.DrawFn) -> tuple[int, int, list[bytes]]:
    size = draw(st.integers(1, 600))
    index = draw(st.integers(0, size - 1))
    return index, size, path(index, 0, size)


@given(inclusions(), st.data())
def test_a_changed_inclusion_proof_is_refused(case: tuple[int, int, list[bytes]], data: st.DataObject) -> None:
    index, size, honest = case
    proof, leaf, root = list(honest), LEAVES[index], mth(0, size)
    change = data.draw(st.sampled_from(["bit", "drop", "add", "swap", "index", "leaf", "root"]))
    place = data.draw(st.integers(0, max(len(proof) - 1, 0)))
    if change == "bit" and proof:
        proof[place] = flip(proof[place], data.draw(st.integers(0, 255)))
    elif change == "drop" and proof:
        del proof[place]
    elif change == "swap" and len(set(proof)) > 1:
        proof.reverse()
    elif change == "index" and size > 1:
        index = data.draw(st.integers(0, size - 1).filter(lambda other: other != index))
    elif change == "leaf":
        leaf = flip(leaf, data.draw(st.integers(0, 255)))
    elif change == "root":
        root = flip(root, data.draw(st.integers(0, 255)))
    else:
        proof.insert(place, data.draw(st.sampled_from([root, leaf, EMPTY_ROOT, b""])))

    with pytest.raises(VerificationError) as caught:
        verify_inclusion(leaf=leaf, index=index, size=size, proof=tuple(proof), root=root)

    assert caught.value.code == "proof.inclusion"


@given(st.integers(1, 600), st.integers(1, 600), st.data())
def test_a_changed_consistency_proof_is_refused(one: int, other: int, data: st.DataObject) -> None:
    old, new = sorted((one, other))
    proof, old_root, new_root = subproof(old, 0, new, known=True), mth(0, old), mth(0, new)
    change = data.draw(st.sampled_from(["bit", "drop", "add", "swap", "old", "new"]))
    place = data.draw(st.integers(0, max(len(proof) - 1, 0)))
    if change == "bit" and proof:
        proof[place] = flip(proof[place], data.draw(st.integers(0, 255)))
    elif change == "drop" and proof:
        del proof[place]
    elif change == "swap" and len(set(proof)) > 1:
        proof.reverse()
    elif change == "old":
        old_root = flip(old_root, data.draw(st.integers(0, 255)))
    elif change == "new":
        new_root = flip(new_root, data.draw(st.integers(0, 255)))
    else:
        proof.insert(place, data.draw(st.sampled_from([old_root, new_root, EMPTY_ROOT, b""])))

    with pytest.raises(VerificationError) as caught:
        verify_consistency(old_size=old, new_size=new, old_root=old_root, new_root=new_root, proof=tuple(proof))

    assert caught.value.code == "proof.consistency"


def test_an_inner_node_is_no_leaf() -> None:
    with pytest.raises(VerificationError) as caught:
        verify_inclusion(leaf=mth(0, 2), index=0, size=3, proof=(LEAVES[2],), root=mth(0, 3))
    with pytest.raises(VerificationError) as root:
        verify_inclusion(leaf=mth(0, 2), index=0, size=2, proof=(), root=mth(0, 2))

    assert (caught.value.code, root.value.code) == ("proof.inclusion", "proof.inclusion")


def test_a_tree_does_not_grow_under_the_same_root() -> None:
    with pytest.raises(VerificationError) as caught:
        verify_consistency(old_size=2, new_size=4, old_root=mth(0, 2), new_root=mth(0, 2), proof=())

    assert caught.value.code == "proof.consistency"


def test_an_endless_proof_is_not_walked() -> None:
    with pytest.raises(VerificationError) as caught:
        verify_inclusion(leaf=LEAVES[0], index=0, size=MAX_TREE_SIZE, proof=(LEAVES[0],) * 100_000, root=LEAVES[0])

    assert "100000" in caught.value.message


def flip(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value, "big") ^ 1 << bit).to_bytes(len(value), "big")
