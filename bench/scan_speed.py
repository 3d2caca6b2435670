# SPDX-License-Identifier: Apache-2.0
"""How long a large image's scan takes beside hashing alone, and how much memory: `python bench/scan_speed.py [MIB]`.

The scan reads, hashes, and sums up for CheckSum.
"""

import hashlib
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pe_samples import make_pe
from privyseal.formats.authenticode import PE
from privyseal.formats.authenticode.checksum import word_sum
from privyseal.formats.model import SignOptions

BLOCK_SIZE_BYTES = 1 << 18
MIB = 1 << 20
SIZE_OF_RAW_DATA = 0x80 + 24 + 240 + 16  # of the only section that `make_pe` was asked for


def peak_mib() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def hash_alone(stream: BinaryIO) -> None:
    """Read and hash, as the scan does."""
    digest = hashlib.sha256()
    while block := stream.read(BLOCK_SIZE_BYTES):
        digest.update(block)


def sum_alone(stream: BinaryIO) -> None:
    """Read and sum up, as the scan does."""
    total = 0
    while block := stream.read(BLOCK_SIZE_BYTES):
        total += word_sum(block)


def best_seconds(path: Path, measured: Callable[[BinaryIO], object]) -> float:
    """The best of three runs, the file being in memory."""
    runs = []
    for _ in range(3):
        with path.open("rb") as stream:
            before = time.perf_counter()
            measured(stream)
            runs.append(time.perf_counter() - before)
    return min(runs)


def write_image(path: Path, size_mib: int) -> None:
    """An image with one section of that size."""
    image = bytearray(make_pe(sections=(b"\x90" * 512,)))
    struct.pack_into("<I", image, SIZE_OF_RAW_DATA, size_mib * MIB)
    with path.open("wb") as stream:
        stream.write(image[:-512])
        for _ in range(size_mib):
            stream.write(bytes(range(256)) * (MIB // 256))


def main() -> int:
    """Measure and print."""
    size_mib = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.exe"
        write_image(path, size_mib)
        before_mib = peak_mib()
        measures: dict[str, Callable[[BinaryIO], object]] = {
            "read and hash": hash_alone,
            "read and sum": sum_alone,
            "scan": lambda stream: PE.scan(stream, SignOptions()),
            "scan with page hashes": lambda stream: PE.scan(stream, SignOptions(page_hashes=True)),
        }
        for name, measured in measures.items():
            print(f"{name:24}{best_seconds(path, measured):8.3f} s for {size_mib} MiB")
    print(f"memory before {before_mib} MiB, afterwards {peak_mib()} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
