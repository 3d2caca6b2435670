# SPDX-License-Identifier: Apache-2.0
"""Moving a hub from SQLite to PostgreSQL: rows a second with everything that is verified, and the memory that it takes.

Run by `make bench` if Debian's PostgreSQL is there. Nothing here asserts: it prints figures.
"""

import asyncio
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from log_samples import intent_at, result_of
from postgres_server import find_binaries, running_postgres
from privyseal.hub.moving import Stage, move_hub
from privyseal.ports.queue import Job, Request
from privyseal.ports.store import Tx
from privyseal.tlog.entry import encode_entry
from stopped_hub import made_hub, opened

ENTRIES = int(os.environ.get("ENTRIES", "20000"))
BATCH = 100


async def fill(hub: Path) -> None:
    """Signatures as a hub writes them: intent and result, a request and its job each, and 100 in a commit."""
    store = await opened(hub)
    for start in range(0, ENTRIES // 2, BATCH):

        async def write(tx: Tx, first: int = start) -> None:
            for number in range(first, first + BATCH):
                name = f"{number:064x}"
                intent = intent_at(1_700_000_000_000 + number, number)
                for entry in (intent, result_of(1_700_000_000_000 + number, number, intent)):
                    await tx.append(encode_entry(entry))
                request = Request(
                    id=name,
                    client="build",
                    idempotency_key=name,
                    profile="acme",
                    envelope=bytes(700),
                    created_ms=1,
                    not_after_ms=2,
                    queued_ms=1,
                    priority=1,
                )
                job = Job(request_id=name, item=0, profile="acme", signed=bytes(400), detail=bytes(100))
                await tx.add_request(request, (job,))

        await store.write(write)
    await store.close()


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    if find_binaries() is None:
        print("PostgreSQL is not installed")
        return
    with running_postgres() as server, tempfile.TemporaryDirectory() as folder:
        hub = Path(folder) / "hub"
        asyncio.run(made_hub(hub, filled=False))
        asyncio.run(fill(hub))
        url = server.url(asyncio.run(server.make_database()))
        before_mb, at_s = peak_mb(), time.monotonic()

        def told(stage: Stage) -> None:
            print(f"{time.monotonic() - at_s:8.2f} s  {stage}")

        done = asyncio.run(move_hub(hub, url, told=told))
        rows = sum(count for _, count in done.tables)
        print(
            f"{done.entries} entries, {rows} rows in {done.seconds:.1f} s: {rows / done.seconds:.0f} rows a second,"
            f" {done.entries / done.seconds:.0f} entries a second; memory {before_mb:.0f} to {peak_mb():.0f} MB"
        )


if __name__ == "__main__":
    main()
