# SPDX-License-Identifier: Apache-2.0
"""Tile coordinates, paths and entry bundles: the examples of C2SP tlog-tiles, and what must be refused."""

import pytest

from privyseal.errors import MalformedInputError
from privyseal.tlog.tile import EntryBundle, Tile, decode_bundle, encode_bundle, parse_path, tile_at


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        (Tile(level=0, index=1234067), "tile/0/x001/x234/067"),
        (Tile(level=0, index=0), "tile/0/000"),
        (Tile(level=1, index=999, width=17), "tile/1/999.p/17"),
        (Tile(level=63, index=1000, width=255), "tile/63/x001/000.p/255"),
        (EntryBundle(index=1234067), "tile/entries/x001/x234/067"),
        (EntryBundle(index=0, width=1), "tile/entries/000.p/1"),
        (Tile(level=0, index=2**55 - 1), "tile/0/x036/x028/x797/x018/x963/967"),
    ],
)
def test_paths_are_those_of_the_specification(resource: Tile | EntryBundle, path: str) -> None:
    assert resource.path == path
    assert parse_path(path) == resource


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/tile/0/000",
        "tile/0/000/",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/+1/000",
        "tile/0/0",
        "tile/0/x000/001",
        "tile/0/001/001",
        "tile/0/x001",
        "tile/0/0000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/07",
        "tile/0/000.p/",
        "tile/0/000.p/17\n",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/../000",
        "tile/entries/000.p/300",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/0/" + "x001/" * 1_000_000 + "001",
    ],
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_path(path)

    assert caught.value.code == "tile.malformed"


def test_a_tree_of_70000_has_the_tiles_of_the_example() -> None:
    size = 70_000

    assert tile_at(level=0, hash_index=69_887, tree_size=size) == Tile(level=0, index=272)
    assert tile_at(level=0, hash_index=69_888, tree_size=size) == Tile(level=0, index=273, width=112)
    assert tile_at(level=1, hash_index=0, tree_size=size) == Tile(level=1, index=0)
    assert tile_at(level=1, hash_index=256, tree_size=size) == Tile(level=1, index=1, width=17)
    assert tile_at(level=2, hash_index=0, tree_size=size) == Tile(level=2, index=0, width=1)


@pytest.mark.parametrize(("level", "hash_index"), [(0, 70_000), (1, 273), (2, 1), (3, 0), (0, -1)])
def test_a_tree_has_no_other_hashes(level: int, hash_index: int) -> None:
    with pytest.raises(MalformedInputError) as caught:
        tile_at(level=level, hash_index=hash_index, tree_size=70_000)

    assert caught.value.code == "tile.malformed"


def test_a_bundle_is_length_prefixed() -> None:
    entries = (b"one", b"", b"x" * 65_535)

    bundle = encode_bundle(entries)

    assert bundle[:7] == b"\x00\x03one\x00\x00"
    assert decode_bundle(bundle, width=3) == entries


@pytest.mark.parametrize("entries", [(), (b"",) * 257, (b"x" * 65_536,)], ids=["none", "257", "too long"])
def test_an_impossible_bundle_is_refused(entries: tuple[bytes, ...]) -> None:
    with pytest.raises(MalformedInputError) as caught:
        encode_bundle(entries)

    assert caught.value.code == "bundle.malformed"
