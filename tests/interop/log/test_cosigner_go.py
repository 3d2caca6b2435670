# SPDX-License-Identifier: Apache-2.0
"""ML-DSA-44 cosignatures between us and Go: its crypto/mldsa, in notes as its sumdb/note reads and writes them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from go_programs import build_go
from installation import Up, running_up
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.cosignature import Cosigner, cosignatures, parse_cosigner_vkey
from privyseal.tlog.note import Note, NoteSigner, parse_note, parse_vkey, verify_note
from programs import succeeded, until
from running_witness import running_witness

pytestmark = [pytest.mark.interop, pytest.mark.timeout(400)]

LOG = NoteSigner(name="log.example/a", key=Ed25519PrivateKey.from_private_bytes(b"l" * 32))
WITNESS = Cosigner(name="witness.example/w1", key=MLDSA44PrivateKey.from_seed_bytes(b"w" * 32))
SAME = Cosigner(name="witness.example/w1", key=Ed25519PrivateKey.from_private_bytes(b"w" * 32))
SIZES = (0, 1, 255, 20852163, 2**63 - 1)
TIMES = (0, 1, 1679315147, 2**63 - 1)


@pytest.fixture(scope="module")
def cosigner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_go(Path(__file__).with_name("cosigner.go"), tmp_path_factory.mktemp("cosigner"))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("judged") / "home") as running:
        yield running


def run(program: Path, note: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [program, *arguments], input=note, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
    )
    assert "goroutine" not in done.stderr, done.stderr
    return done


def checkpoint(size: int, origin: str = LOG.verifier.name) -> str:
    return Checkpoint(origin=origin, size=size, root=size.to_bytes(8, "big") * 4).text


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seconds", TIMES)
def test_go_verifies_ours(cosigner: Path, size: int, seconds: int) -> None:
    text = checkpoint(size)
    lines = (LOG.sign(text), SAME.sign(text, seconds), WITNESS.sign(text, seconds))

    done = run(cosigner, Note(text=text, signatures=lines).encode(), "verify", WITNESS.verifier.vkey)

    assert (done.returncode, done.stdout) == (0, f"{seconds}\n"), done.stderr


@pytest.mark.parametrize("origin", ["ö" * 127, "o" * 255, "a log of ours"])
def test_go_verifies_ours_whatever_the_origin(cosigner: Path, origin: str) -> None:
    text = checkpoint(7, origin)

    done = run(cosigner, Note(text=text, signatures=(WITNESS.sign(text, 5),)).encode(), "verify", WITNESS.verifier.vkey)

    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr


def test_go_refuses_ours_over_another_tree(cosigner: Path) -> None:
    line = WITNESS.sign(checkpoint(7), 5)

    done = run(cosigner, Note(text=checkpoint(8), signatures=(line,)).encode(), "verify", WITNESS.verifier.vkey)

    assert done.returncode == 1
    assert "invalid signature" in done.stderr


def test_go_verifies_what_a_hub_exports_and_a_witness_cosigns(cosigner: Path, up: Up, tmp_path: Path) -> None:
    bundle, folder, out = up.client().load_bundle(), tmp_path / "log", tmp_path / "cosigned"

    def look() -> str | None:
        succeeded(up.run("log", "export", folder))
        note = (folder / "checkpoint").read_text("utf-8")
        return note if len(parse_note(note).signatures) == 2 else None

    note = until(look, "a checkpoint with both of the log's lines")
    assert run(cosigner, note, "verify", bundle.statement.log_mldsa_key).stdout == "0\n"

    with running_witness(tmp_path / "w", parse_vkey(bundle.statement.log_key)) as witness:
        succeeded(up.run("log", "witness", "--to", witness.url, "--witness", witness.vkeys[1], "--out", out))
    done = run(cosigner, out.read_text("utf-8"), "verify", witness.vkeys[1])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1_700_000_000


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seconds", TIMES)
def test_we_verify_go_s(cosigner: Path, size: int, seconds: int) -> None:
    text = checkpoint(size)
    note = Note(text=text, signatures=(LOG.sign(text),)).encode()

    done = run(cosigner, note, "sign", WITNESS.verifier.name, (b"w" * 32).hex(), str(seconds))

    assert done.returncode == 0, done.stderr
    vkey, _, cosigned = done.stdout.partition("\n")
    assert vkey == WITNESS.verifier.vkey
    parsed = parse_note(cosigned)
    assert verify_note(parsed, (LOG.verifier,))
    (found,) = cosignatures(parsed, (parse_cosigner_vkey(vkey),))
    assert found.seconds == seconds
