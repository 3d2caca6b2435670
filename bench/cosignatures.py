# SPDX-License-Identifier: Apache-2.0
"""What a cosignature of either type costs: time to make and to check one, bytes on a checkpoint and in a policy.

Run by `make bench`. Nothing here asserts: it prints figures.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.cosignature import Cosigner

RUNS = 5000
TEXT = Checkpoint(origin="hub.example/log", size=20_852_163, root=bytes(range(32))).text


def microseconds(act: Callable[[], object]) -> str:
    """Median, and what one in a thousand takes."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter_ns()
        act()
        times.append((time.perf_counter_ns() - started) / 1000)
    times.sort()
    return f"{statistics.median(times):.0f} µs (1 in 1000: {times[-RUNS // 1000]:.0f} µs)"


def main() -> None:
    for key in (Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate()):
        cosigner = Cosigner(name="witness.example/w1", key=key)
        line = cosigner.sign(TEXT, 1_679_315_147)
        print(cosigner.verifier.algorithm)
        print("  make ", microseconds(partial(cosigner.sign, TEXT, 1_679_315_147)))
        print("  check", microseconds(partial(cosigner.verifier.verify, TEXT, line.signature)))
        print("  line ", len(line.line.encode()), "bytes; key", len(cosigner.verifier.vkey), "characters")


if __name__ == "__main__":
    main()
