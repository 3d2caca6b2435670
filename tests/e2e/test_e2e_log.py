# SPDX-License-Identifier: Apache-2.0
"""The log as anybody reads it (C2SP tlog-tiles): tiles, bundles and checkpoint agree, and nothing else is served."""

import json

import pytest

from api_client import Api, api_of, ask, web_of
from installation import Up
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint
from privyseal.tlog.cosignature import Cosignature, cosignatures
from privyseal.tlog.note import Note, parse_note, parse_vkey, verify_note
from privyseal.tlog.proof import consistency_proof, consistency_tiles, verify_consistency
from privyseal.tlog.tile import EntryBundle, Tile, decode_bundle
from privyseal.tlog.tree import HASH_BYTES, Frontier, leaf_hash
from programs import until

ENTRIES = 2 * 140


@pytest.fixture(scope="module")
def web(up: Up) -> Api:
    """A log that has filled a tile and begun another."""
    path = f"/v1/signatures?wait=60&enough={ENTRIES // 2}"
    answer = api_of(up.client())("POST", path, ask(up.client(), items=ENTRIES // 2).body)
    assert answer.document["state"] == "done"
    return web_of(up.client())


def newest(up: Up, web: Api) -> Checkpoint:
    bundle = up.client().load_bundle()
    note = web("GET", "/log/checkpoint").body.decode()
    return open_checkpoint(note, origin=bundle.hub, verifiers=(parse_vkey(bundle.statement.log_key),))


def doubly_signed(web: Api) -> Note:
    """The newest checkpoint with two lines: the log's second line on an older one may be less than a second old."""

    def look() -> Note | None:
        note = parse_note(web("GET", "/log/checkpoint").body)
        return note if len(note.signatures) > 1 else None

    return until(look, "a checkpoint with two lines")


def read(web: Api, place: Tile | EntryBundle) -> bytes:
    answer = web("GET", f"/log/{place.path}")
    assert (answer.status, answer.kind) == (200, "application/octet-stream")
    return answer.body


def entries(web: Api, size: int) -> list[bytes]:
    return [
        entry
        for index in range(-(-size // 256))
        for width in [min(256, size - index * 256)]
        for entry in decode_bundle(read(web, EntryBundle(index=index, width=width)), width=width)
    ]


def test_tiles_hold_the_hashes_of_the_entries(up: Up, web: Api) -> None:
    checkpoint = newest(up, web)
    leaves = [leaf_hash(entry) for entry in entries(web, checkpoint.size)]

    assert checkpoint.size > ENTRIES
    for index in range(-(-checkpoint.size // 256)):
        hashes = leaves[index * 256 : (index + 1) * 256]
        assert read(web, Tile(level=0, index=index, width=len(hashes))) == b"".join(hashes)
    frontier = Frontier()
    for leaf in leaves[:256]:
        frontier = frontier.append(leaf).frontier
    assert read(web, Tile(level=1, index=0, width=checkpoint.size // 256))[:HASH_BYTES] == frontier.root
    for leaf in leaves[256:]:
        frontier = frontier.append(leaf).frontier
    assert frontier.root == checkpoint.root


def test_every_earlier_tree_is_a_prefix_of_the_newest(up: Up, web: Api) -> None:
    checkpoint = newest(up, web)
    leaves = [leaf_hash(entry) for entry in entries(web, checkpoint.size)]
    frontier = Frontier()
    for size, leaf in enumerate(leaves, start=1):
        frontier = frontier.append(leaf).frontier
        if size not in {1, 2, 3, 64, 255, 256, 257, checkpoint.size}:
            continue
        tiles = {tile: read(web, tile) for tile in consistency_tiles(size, checkpoint.size)}
        verify_consistency(
            old_size=size,
            old_root=frontier.root,
            new_size=checkpoint.size,
            new_root=checkpoint.root,
            proof=consistency_proof(size, checkpoint.size, tiles),
        )


def test_a_partial_tile_stays_what_it_was(web: Api) -> None:
    whole = read(web, Tile(level=0, index=0))

    for width in (1, 17, 255):
        assert read(web, Tile(level=0, index=0, width=width)) == whole[: width * HASH_BYTES]


def test_what_is_not_filled_yet_is_not_there(up: Up, web: Api) -> None:
    size = newest(up, web).size

    for place in (
        Tile(level=0, index=size // 256),
        Tile(level=0, index=99, width=1),
        Tile(level=1, index=0, width=size // 256 + 1),
        Tile(level=2, index=0, width=1),
        Tile(level=63, index=0, width=1),
        EntryBundle(index=size // 256, width=256),
        EntryBundle(index=2**40, width=1),
    ):
        assert web("GET", f"/log/{place.path}").status == 404, place


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/00/000", "tile/64/000",
        "tile/-1/000", "tile/0/x000/000", "tile/entries/abc", "tile/data/000", "tile/0/" + "x999/" * 9 + "999",
        "tile/0/000/", "tile/0/%30%30%30.p/1%00", "tile/" + "0" * 3000,
    ],
)  # fmt: skip
def test_a_path_that_names_no_tile(web: Api, path: str) -> None:
    assert web("GET", f"/log/{path}").problem == (422, "tile.malformed")


def test_tiles_may_be_kept_for_ever_and_the_checkpoint_not(up: Up, web: Api) -> None:
    assert web("GET", "/log/checkpoint").kind.startswith("text/plain")
    assert web("GET", "/log/tile/0/000").caching == "public, max-age=31536000, immutable"
    assert web("GET", "/log/checkpoint").caching == "no-cache"


def test_a_published_checkpoint_has_the_log_s_two_lines_and_a_stored_one_has_one(up: Up, web: Api) -> None:
    bundle = up.client().load_bundle()
    ed25519, mldsa = parse_vkey(bundle.statement.log_key), bundle.log_mldsa_key

    published = doubly_signed(web)

    lines = [(line.name, line.key_id) for line in published.signatures]
    assert lines == [(bundle.hub, ed25519.key_id), (bundle.hub, mldsa.key_id)]
    assert verify_note(published, (ed25519,), also=(mldsa,)) == (ed25519,)
    assert cosignatures(published, (mldsa,)) == (Cosignature(key=mldsa, seconds=0),)
    stored = web("GET", "/log/checkpoints/0").body.decode().split("\n")[:-1]
    assert {len(parse_note(json.loads(note)).signatures) for note in stored} == {1}


def test_a_hub_without_witnesses_has_no_cosigned_checkpoint(web: Api) -> None:
    assert web("GET", "/log/cosigned").status == 404


def test_stored_checkpoints_are_served_256_at_a_time(up: Up, web: Api) -> None:
    bundle = up.client().load_bundle()
    first = web("GET", "/log/checkpoints/0")
    notes = [json.loads(line) for line in first.body.decode().split("\n")[:-1]]

    assert first.caching == "no-cache"
    assert 1 <= len(notes) <= 256
    keys = (parse_vkey(bundle.statement.log_key),)
    sizes = [open_checkpoint(note, origin=bundle.hub, verifiers=keys).size for note in notes]
    assert sizes == sorted(set(sizes))
    rest = web("GET", f"/log/checkpoints/{len(notes) - 1}").body.decode()
    assert json.loads(rest.split("\n")[0]) == notes[-1]
    assert web("GET", f"/log/checkpoints/{2**62}").body == b""


@pytest.mark.parametrize("start", ["-1", "00", "x", "0x1", str(2**63), "9" * 5000, "tail"])
def test_what_is_no_number_of_a_checkpoint(web: Api, start: str) -> None:
    assert web("GET", f"/log/checkpoints/{start}").problem == (422, "checkpoint.malformed")
