# SPDX-License-Identifier: Apache-2.0
"""kill -9 in the middle of writes: what was acknowledged is there, and nothing stands there by half."""

import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.ports.journal import OutcomeState
from privyseal.storage.journal import SqliteJournal
from privyseal.storage.sqlite import SqliteStore

KEY = b"k" * 32

STORE_WRITER = """
import asyncio, os, sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from privyseal.storage.sqlite import SqliteStore

async def main(folder):
    store = await SqliteStore.open(
        folder / "hub.db", origin="log.example/kill",
        log_key=Ed25519PrivateKey.from_private_bytes(b"k" * 32), clock=lambda: 0,
        head_path=folder / "head.checkpoint")

    async def caller(name):
        count = 0
        while True:
            async def pair(tx):
                first = await tx.append(b"%d %d a" % (name, count))
                await tx.append(b"%d %d b" % (name, count))
                return first
            index = await store.write(pair)
            os.write(1, b"%d %d %d\\n" % (index, name, count))
            count += 1

    await asyncio.gather(*(caller(name) for name in range(8)))

asyncio.run(main(Path(sys.argv[1])))
"""

JOURNAL_WRITER = """
import asyncio, os, sys
from pathlib import Path
from privyseal.ports.journal import JournalPart
from privyseal.storage.journal import SqliteJournal

async def main(folder):
    journal = await SqliteJournal.open(folder / "journal.db", origin="hub.example")
    number = 0
    while True:
        number += 1
        await journal.begin(
            checkpoint_note="note %d" % number, size=number, root=bytes(32), token="lab", profile="demo", fence=number,
            parts=(JournalPart(request_id="%d" % number, items=((0, b"entry"), (1, b"entry"))),))
        os.write(1, b"%d begun\\n" % number)
        await journal.finish(
            "%d" % number, 0, number, signature=b"signature", branch="", code="", message="")
        os.write(1, b"%d finished\\n" % number)

asyncio.run(main(Path(sys.argv[1])))
"""


def killed_after(script: str, folder: Path, lines: int) -> list[list[bytes]]:
    """Run a writer, kill it once it has acknowledged that much; all that it acknowledged."""
    paths = os.pathsep.join(path for path in sys.path if path)
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert child.stdout is not None
    with child:
        acknowledged = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        acknowledged += child.stdout.read().splitlines(keepends=True)
    assert child.returncode == -signal.SIGKILL
    return [line.split() for line in acknowledged]


@pytest.mark.parametrize("lines", [1, 40, 333])
async def test_a_killed_hub_lost_nothing_acknowledged(tmp_path: Path, lines: int) -> None:
    acknowledged = killed_after(STORE_WRITER, tmp_path, lines)

    store = await SqliteStore.open(
        tmp_path / "hub.db",
        origin="log.example/kill",
        log_key=Ed25519PrivateKey.from_private_bytes(KEY),
        clock=lambda: 0,
        head_path=tmp_path / "head.checkpoint",
    )
    entries = await store.read(lambda tx: tx.entries(0, 1_000_000))
    await store.close()

    assert len(acknowledged) >= lines
    for index, name, count in acknowledged:
        assert entries[int(index)] == b" ".join((name, count, b"a"))
    assert len(entries) % 2 == 0
    for first, second in list(pairwise(entries))[::2]:
        assert (first[:-1], first[-1:], second[-1:]) == (second[:-1], b"a", b"b")


@pytest.mark.parametrize("lines", [1, 100])
async def test_a_killed_agent_knows_what_it_began(tmp_path: Path, lines: int) -> None:
    acknowledged = killed_after(JOURNAL_WRITER, tmp_path, lines)
    last = int(acknowledged[-1][0])

    journal = await SqliteJournal.open(tmp_path / "journal.db", origin="hub.example")

    assert last <= await journal.max_fence("lab") <= last + 1
    assert last <= (await journal.state()).size <= last + 1
    for number, kind in ((int(number), kind) for number, kind in acknowledged):
        outcomes = [await journal.outcome(str(number), item, number) for item in (0, 1)]
        assert [outcome is not None for outcome in outcomes] == [True, True]
        if kind == b"finished":
            assert outcomes[0] is not None
            assert outcomes[0].state is OutcomeState.SIGNED
    assert len(await journal.entries(0, 1_000_000)) % 2 == 0
    await journal.close()
