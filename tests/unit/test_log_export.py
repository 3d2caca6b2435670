# SPDX-License-Identifier: Apache-2.0
"""A log as files: an export holds what the hub's log holds, grows without touching what was published, and every byte
of it is judged."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from log_samples import ORIGIN, SIGNER, GrownLog, genesis, intent_at, result_of
from privyseal.client.log import PublicLog
from privyseal.client.log_export import export_log
from privyseal.client.log_files import VerifiedLog, verify_log
from privyseal.client.log_kept import KeptCheckpoint
from privyseal.client.log_source import FolderSource
from privyseal.errors import ConfigError, LogIntegrityError
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.rows import TileRows
from privyseal.tlog.subtree import frontier_tiles
from privyseal.tlog.tile import EntryBundle, Tile
from privyseal.tlog.tree import Frontier, leaf_hash


def folder_log(folder: Path) -> PublicLog:
    return PublicLog(FolderSource(folder), key=SIGNER.verifier, origin=ORIGIN)


def verified(folder: Path) -> VerifiedLog:
    return verify_log(folder_log(folder))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def broken(folder: Path) -> str:
    """The code with which a directory is refused."""
    with pytest.raises(LogIntegrityError) as caught:
        verified(folder)
    return caught.value.code


SIZES = (1, 2, 255, 256, 257, 511, 512, 700)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_exported_verifies_and_is_laid_out_as_tlog_tiles(tmp_path: Path, size: int) -> None:
    log = GrownLog().grow_to(size)

    done = export_log(log.public(), tmp_path)

    found = verified(tmp_path)
    assert (done.size, done.added, done.checkpoints) == (size, size, len(log.notes))
    assert (found.summary.size, found.checkpoints, found.beyond) == (size, len(log.notes), 0)
    assert found.summary.root == log.newest.root
    full, rest = divmod(size, 256)
    wanted = {"checkpoint", "vkey", "checkpoints/tail"}
    for number in range(full):
        wanted |= {Tile(level=0, index=number).path, EntryBundle(index=number).path}
    if rest:
        wanted |= {Tile(level=0, index=full, width=rest).path, EntryBundle(index=full, width=rest).path}
    if full:
        wanted.add(Tile(level=1, index=0, width=full).path)
    assert contents(tmp_path).keys() == wanted
    assert found.tiles == len([path for path in wanted if path.startswith("tile/") and "entries" not in path])


def test_a_second_run_adds_what_is_new_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    log = GrownLog()
    before: dict[str, tuple[int, bytes]] = {}
    for size in SIZES:
        log.grow_to(size)
        log.reads.clear()
        export_log(log.public(), tmp_path)

        entries = [path for path in log.reads if path.startswith("tile/entries")]
        assert len(entries) <= 2, "bundles that were full are not read again"
        now = {name: ((tmp_path / name).stat().st_ino, data) for name, data in contents(tmp_path).items()}
        kept = {name: file for name, file in before.items() if name in now and name.startswith("tile/")}
        assert {name: now[name] for name in kept} == kept
        assert all(".p/" in name for name in before.keys() - now.keys()), "only partial tiles are removed"
        verified(tmp_path)
        before = now

    inodes = {name: (tmp_path / name).stat().st_ino for name in contents(tmp_path)}
    assert export_log(log.public(), tmp_path).added == 0
    assert {name: (tmp_path / name).stat().st_ino for name in contents(tmp_path)} == inodes


def test_partial_tiles_stay_until_there_is_a_full_one(tmp_path: Path) -> None:
    log = GrownLog()
    for size in (3, 9):
        export_log(log.grow_to(size).public(), tmp_path)
    assert {"tile/0/000.p/3", "tile/0/000.p/9", "tile/entries/000.p/3"} <= contents(tmp_path).keys()

    export_log(log.grow_to(300).public(), tmp_path)

    assert [name for name in contents(tmp_path) if "000.p/" in name] == ["tile/1/000.p/1"]


def test_more_checkpoints_than_one_file_holds(tmp_path: Path) -> None:
    log = GrownLog().grow_to(300, commit=1)
    export_log(log.public(), tmp_path)
    first = (tmp_path / "checkpoints/000").read_bytes()
    log.grow_to(600, commit=1)
    log.reads.clear()

    done = export_log(log.public(), tmp_path)

    assert done.checkpoints == verified(tmp_path).checkpoints == 600
    assert (tmp_path / "checkpoints/000").read_bytes() == first
    assert [path for path in log.reads if path.startswith("checkpoints")] == ["checkpoints/256", "checkpoints/512"]


def test_a_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    log = GrownLog()
    for size in (3, 250, 260):
        export_log(log.grow_to(size, commit=1).public(), tmp_path)
    files = contents(tmp_path)
    assert {"checkpoints/000", "checkpoints/tail", "tile/1/000.p/1"} <= files.keys()

    for name, data in files.items():
        for place in range(0, len(data), max(1, len(data) // 8)):
            spoilt = bytearray(data)
            spoilt[place] ^= 1 << (place % 8)
            (tmp_path / name).write_bytes(spoilt)
            with pytest.raises(LogIntegrityError):
                verified(tmp_path)
        for cut in (b"", data[:-1], data + b"\n"):
            (tmp_path / name).write_bytes(cut)
            with pytest.raises(LogIntegrityError):
                verified(tmp_path)
        (tmp_path / name).write_bytes(data)
    verified(tmp_path)


def test_partial_tiles_of_earlier_sizes_are_judged_too(tmp_path: Path) -> None:
    log = GrownLog()
    for size in (3, 9):
        export_log(log.grow_to(size).public(), tmp_path)

    for name, code in (("tile/0/000.p/3", "log.tile"), ("tile/entries/000.p/3", "log.bundle")):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(bytes([data[0]]) + data[1:-1] + bytes([data[-1] ^ 1]))
        assert broken(tmp_path) == code
        (tmp_path / name).write_bytes(data)


@pytest.mark.parametrize(
    "name", ["checkpoint", "tile/0/000", "tile/1/000.p/1", "tile/entries/001", "tile/entries/002.p/4", "tile/0/002.p/4"]
)
def test_a_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    export_log(GrownLog().grow_to(516).public(), tmp_path)
    (tmp_path / name.replace("000.p/1", "000.p/2")).unlink()

    assert broken(tmp_path) == "log.file_missing"


def test_a_beginning_that_is_missing_without_an_entry_that_says_so_is_refused(tmp_path: Path) -> None:
    export_log(GrownLog().grow_to(516).public(), tmp_path)
    for name in ("tile/entries/000", "tile/entries/001"):
        (tmp_path / name).unlink()
        assert broken(tmp_path) == "log.pruned"


def test_a_partial_tile_that_was_removed_is_read_from_the_full_one(tmp_path: Path) -> None:
    log = GrownLog().grow_to(200)
    export_log(log.public(), tmp_path)
    published = {name: (tmp_path / name).read_bytes() for name in ("checkpoint", "checkpoints/tail")}
    export_log(log.grow_to(256).public(), tmp_path)
    for name, data in published.items():
        (tmp_path / name).write_bytes(data)
    assert not (tmp_path / "tile/0/000.p").exists()

    assert verified(tmp_path).summary.size == 200


def test_an_older_checkpoint_under_newer_ones_is_a_log_that_was_cut(tmp_path: Path) -> None:
    log = GrownLog().grow_to(20)
    export_log(log.public(), tmp_path)
    note = (tmp_path / "checkpoint").read_bytes()
    export_log(log.grow_to(30).public(), tmp_path)
    (tmp_path / "checkpoint").write_bytes(note)

    assert broken(tmp_path) == "log.rewound"


def test_a_stored_checkpoint_of_another_tree_is_found(tmp_path: Path) -> None:
    log = GrownLog().grow_to(20)
    fork = sign_checkpoint(replace(log.newest, size=8, root=bytes(32)), SIGNER)
    log.notes[1] = fork
    export_log(log.public(), tmp_path)

    assert broken(tmp_path) == "log.root"


def test_stored_checkpoints_out_of_order_are_refused(tmp_path: Path) -> None:
    log = GrownLog().grow_to(20)
    log.notes.insert(0, log.notes[-1])
    export_log(log.public(), tmp_path)

    assert broken(tmp_path) == "log.checkpoint"


def test_a_pipe_in_the_place_of_a_file_is_no_file(tmp_path: Path) -> None:
    export_log(GrownLog().grow_to(5).public(), tmp_path)
    (tmp_path / "tile/entries/000.p/5").unlink()
    os.mkfifo(tmp_path / "tile/entries/000.p/5")

    assert broken(tmp_path) == "log.file_missing"


def test_what_no_log_has_is_named(tmp_path: Path) -> None:
    export_log(GrownLog().grow_to(5).public(), tmp_path)
    (tmp_path / "tile/0/notes.txt").write_text("x")

    assert broken(tmp_path) == "log.stray"


def test_an_export_that_was_cut_off_still_verifies_and_is_completed(tmp_path: Path) -> None:
    log = GrownLog().grow_to(200)
    export_log(log.public(), tmp_path)
    published = {name: (tmp_path / name).read_bytes() for name in ("checkpoint", "checkpoints/tail")}
    partial = {name: data for name, data in contents(tmp_path).items() if ".p/" in name}
    export_log(log.grow_to(300).public(), tmp_path)
    for name, data in (published | partial).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)

    found = verified(tmp_path)
    assert found.summary.size == 200
    assert found.beyond == 5
    export_log(log.public(), tmp_path)
    assert verified(tmp_path).summary.size == 300


def test_a_hub_that_rewrote_its_log_publishes_nothing(tmp_path: Path) -> None:
    export_log(GrownLog().grow_to(20).public(), tmp_path)
    other = GrownLog()
    other.commit(genesis(), intent_at(2, 1))
    other.grow_to(40)
    before = (tmp_path / "checkpoint").read_bytes()

    with pytest.raises(LogIntegrityError) as caught:
        export_log(other.public(), tmp_path)

    assert caught.value.code == "log.fork"
    assert (tmp_path / "checkpoint").read_bytes() == before
    verified(tmp_path)


def test_a_hub_that_cut_its_log_publishes_nothing(tmp_path: Path) -> None:
    export_log(GrownLog().grow_to(20).public(), tmp_path)

    with pytest.raises(LogIntegrityError) as caught:
        export_log(GrownLog().grow_to(10).public(), tmp_path)

    assert caught.value.code == "log.rewound"


def test_entries_that_do_not_give_the_root_are_not_published_and_leave_no_trace_in_the_next_run(tmp_path: Path) -> None:
    log = GrownLog().grow_to(300)
    good = log.entries[7]
    log.entries[7] = good.replace(b'"v":1', b'"v":2')
    with pytest.raises(LogIntegrityError) as caught:
        export_log(log.public(), tmp_path)
    assert caught.value.code == "log.root"
    assert not (tmp_path / "checkpoint").exists()

    log.entries[7] = good
    export_log(log.public(), tmp_path)
    assert verified(tmp_path).summary.size == 300


def test_a_directory_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")

    with pytest.raises(ConfigError) as caught:
        export_log(GrownLog().grow_to(5).public(), tmp_path)

    assert caught.value.code == "log.not_an_export"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("note", ["x\n\n", ""])
def test_a_checkpoint_that_is_none(tmp_path: Path, note: str) -> None:
    log = GrownLog().grow_to(5)
    log.notes.append(note)

    with pytest.raises(LogIntegrityError) as caught:
        export_log(log.public(), tmp_path)

    assert caught.value.code == "log.checkpoint"


def test_intents_and_results_are_paired_in_an_export(tmp_path: Path) -> None:
    log, intent = GrownLog(), intent_at(2, 1)
    log.commit(genesis(), intent, result_of(3, 1, intent), intent_at(4, 2))
    export_log(log.public(), tmp_path)
    assert verified(tmp_path).summary.open_intents == (3,)

    log.commit(result_of(5, 1, intent))
    export_log(log.public(), tmp_path)
    assert broken(tmp_path) == "log.entry"


@pytest.mark.parametrize("size", [*SIZES, 65_536, 65_537, 66_000])
def test_recomputed_tiles_are_those_that_a_tree_needs(size: int) -> None:
    leaves = [leaf_hash(number.to_bytes(4, "big")) for number in range(size)]
    rows, frontier = TileRows(), Frontier()
    tiles: dict[Tile, bytes] = {}
    for leaf in leaves:
        tiles |= dict(rows.append(leaf))
        frontier = frontier.append(leaf).frontier
    tiles |= dict(rows.unfinished())

    again = TileRows.at(size, {tile: tiles[tile] for tile in frontier_tiles(size)})
    assert rows.root == again.root == frontier.root
    assert again.unfinished() == rows.unfinished()
    assert tiles[Tile(level=0, index=0, width=min(size, 256))] == b"".join(leaves[:256])
    assert Checkpoint(origin=ORIGIN, size=again.size, root=again.root).size == size


@pytest.mark.parametrize("size", [1, 200, 256, 700])
def test_a_log_extends_a_checkpoint_that_was_kept_elsewhere(tmp_path: Path, size: int) -> None:
    log = GrownLog().grow_to(size)
    kept = tmp_path / "head.checkpoint"
    kept.write_text(log.notes[-1])
    log.grow_to(700)

    head = KeptCheckpoint(log.public(), kept)
    verify_log(log.public(), (head,))

    assert (head.path, head.checkpoint.size) == (kept, size)


def test_a_log_that_does_not_extend_a_kept_checkpoint_is_refused(tmp_path: Path) -> None:
    log = GrownLog().grow_to(300)
    kept = tmp_path / "head.checkpoint"

    def refused(note: str) -> LogIntegrityError:
        kept.write_text(note)
        with pytest.raises(LogIntegrityError) as caught:
            verify_log(log.public(), (KeptCheckpoint(log.public(), kept),))
        assert str(kept) in caught.value.message
        return caught.value

    other = Checkpoint(origin=ORIGIN, size=200, root=bytes(32))
    longer = replace(other, size=301)
    assert refused(sign_checkpoint(other, SIGNER)).code == "log.fork"
    assert refused(sign_checkpoint(longer, SIGNER)).code == "log.rewound"
    assert refused(log.notes[-1].replace("300", "301")).code == "log.checkpoint"
    assert refused("").code == "log.checkpoint"


def test_a_kept_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        KeptCheckpoint(GrownLog().grow_to(3).public(), tmp_path / "head.checkpoint")

    assert caught.value.code == "file.missing"


def test_a_kept_checkpoint_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    log = GrownLog().grow_to(3).public()
    (tmp_path / "junk").write_bytes(bytes(range(256)))

    with pytest.raises(ConfigError, match=f"{tmp_path}: Is a directory"):
        KeptCheckpoint(log, tmp_path)
    with pytest.raises(LogIntegrityError, match=f"^{tmp_path}/junk is no checkpoint of log"):
        KeptCheckpoint(log, tmp_path / "junk")
