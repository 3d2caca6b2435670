# SPDX-License-Identifier: Apache-2.0
"""What it costs to verify a log and a receipt, and what a signature takes on disk.

Run by `make bench`. Nothing here asserts: it prints figures, each beside what is wanted of it. Each log is verified in
a process of its own, whose peak memory is its own.
"""

import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from log_samples import ORIGIN, SIGNER, GrownLog, genesis, intent_at, result_of
from lying_hub import HUB, make_trust
from privyseal.client.log import PublicLog
from privyseal.client.log_export import export_log
from privyseal.client.log_files import verify_log
from privyseal.client.log_source import FolderSource
from privyseal.ports.store import Tx
from privyseal.storage.sqlite import SqliteStore
from privyseal.tlog.entry import Entry, encode_entry
from privyseal.tlog.note import NoteSigner
from privyseal.tlog.receipt import Receipt
from privyseal.tlog.rows import TileRows
from privyseal.tlog.tree import leaf_hash

SIZES = (100_000, 400_000)
#: Entries for each checkpoint: the most that a group commit takes, and a commit for each entry.
COMMITS = {"256 entries a checkpoint": 256, "an entry a checkpoint": 1}
SIGNATURES = 2_000
RUNS = 9

RECEIPT = """
import sys, time
started = time.perf_counter()
from pathlib import Path
from privyseal.client.receipts import check_receipt
from privyseal.identity.bundle import load_bundle
imported = time.perf_counter()
check_receipt(Path(sys.argv[2]).read_bytes(), load_bundle(Path(sys.argv[1])))
print(imported - started, time.perf_counter() - imported)
"""


def entries(size: int) -> list[Entry]:
    """Signatures, two entries each, as an active hub writes them."""
    found: list[Entry] = [genesis()]
    while len(found) < size:
        number = len(found)
        intent = intent_at(number, number)
        found += [intent, result_of(number, number, intent)]
    return found[:size]


def make_export(folder: Path, size: int, commit: int) -> None:
    log, todo = GrownLog(), entries(size)
    for first in range(0, size, commit):
        log.commit(*todo[first : first + commit])
    export_log(log.public(), folder)


def verify(folder: Path) -> None:
    """The child's part: verify, and say how long that took and how much memory."""
    log = PublicLog(FolderSource(folder), key=SIGNER.verifier, origin=ORIGIN)
    started, used = time.perf_counter(), time.process_time()
    found = verify_log(log)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - used
    # Of this program alone: what getrusage tells began with the parent's memory.
    status = Path("/proc/self/status").read_text()
    (peak,) = re.findall(r"^VmHWM:\s+([0-9]+) kB", status, flags=re.MULTILINE)
    figures = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_kib": int(peak), "checkpoints": found.checkpoints}
    print(json.dumps(figures))


def in_child(folder: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, str(folder)], capture_output=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def bench_verify(folder: Path) -> None:
    for size in SIZES:
        for name, commit in COMMITS.items():
            if commit == 1 and size != SIZES[0]:
                continue
            place = folder / f"{size}-{commit}"
            place.mkdir()
            make_export(place, size, commit)
            found = in_child(place)
            rate, cpu_rate = size / found["seconds"], size / found["cpu_seconds"]
            print(
                f"verify {size} entries, {name}: {rate:,.0f}/s, {cpu_rate:,.0f} for each second of CPU (wanted: 60,000"
                f" but for signatures; {found['checkpoints']:.0f} checked), peak {found['peak_kib'] / 1024:.0f} MiB"
            )


def bench_hashes() -> None:
    data = [encode_entry(entry) for entry in entries(100_001)]
    rows = TileRows()
    started = time.perf_counter()
    for one in data:
        rows.append(leaf_hash(one))
    rate = len(data) / (time.perf_counter() - started)
    print(f"hashes and tiles alone: {rate:,.0f} entries/s (wanted: 150,000)")


def bench_receipt(folder: Path) -> None:
    trust = make_trust()
    log = GrownLog(origin=HUB, signer=NoteSigner(name=HUB, key=trust.log_key))
    log.commit(*entries(1001))
    index, size = 2, len(log.entries)
    proof = log.public().inclusion(index, size)
    receipt = Receipt(index=index, proof=proof, checkpoint=log.notes[-1], extra=log.entries[index])
    (folder / "bundle.json").write_bytes(trust.bundle.envelope)
    (folder / "receipt").write_text(receipt.encode())
    command = [sys.executable, "-c", RECEIPT, str(folder / "bundle.json"), str(folder / "receipt")]
    runs = [subprocess.run(command, capture_output=True, check=True).stdout.split() for _ in range(RUNS)]
    imports = statistics.median(float(run[0]) for run in runs) * 1000
    checks = statistics.median(float(run[1]) for run in runs) * 1000
    print(f"receipt with its bundle: {checks:.1f} ms, after {imports:.0f} ms of imports (wanted: below 50 ms)")


async def fill(database: Path) -> None:
    store = await SqliteStore.open(
        database, origin=ORIGIN, log_key=Ed25519PrivateKey.generate(), clock=lambda: 1, head_path=None
    )
    for entry in entries(2 * SIGNATURES + 1):

        async def write(tx: Tx, data: bytes = encode_entry(entry)) -> None:
            await tx.append(data)

        await store.write(write)
    await store.close()


def bench_bytes(folder: Path) -> None:
    database, export = folder / "hub.db", folder / "export"
    asyncio.run(fill(database))
    make_export(export, 2 * SIGNATURES + 1, 1)
    size = sum(path.stat().st_size for path in export.rglob("*") if path.is_file())
    print(
        f"on disk for each signature, a commit for each entry: log tables {database.stat().st_size / SIGNATURES:,.0f}"
        f" bytes, export {size / SIGNATURES:,.0f} bytes"
    )


def main() -> None:
    if len(sys.argv) > 1:
        verify(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench_hashes()
        bench_receipt(folder)
        bench_bytes(folder)
        bench_verify(folder)


if __name__ == "__main__":
    main()
