# SPDX-License-Identifier: Apache-2.0
"""The long soak (`make soak`): signatures by the thousand on a token that fails, and on one that does not.

python -m lab --signatures 10000 --percent 1
"""

import argparse
import asyncio
import logging
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import structlog

from lab.fault_shim import FaultyToken, around
from lab.soak import Tally, discrepancies, soak, soak_orders
from privyseal.agent import ladder
from privyseal.agent.ladder import Bound, Rung
from privyseal.agent.recovery import RecoveringToken
from privyseal.errors import PrivysealError
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.factory import open_token
from softhsm import EC_ID, fresh_softhsm

MECHANISM = Mechanism.ECDSA_SHA256
_PARTS = 10
#: How much a worker may grow; among faults it is another one at the end, which may have loaded more.
_MOST_GROWTH_KIB, _MOST_DIFFERENCE_KIB = 256, 32_768


def worker_memory(token: RecoveringToken) -> tuple[int, int]:
    """Resident KiB and open descriptors of the worker that runs now."""
    worker = token._token._worker  # type: ignore[attr-defined]
    if worker is None:
        return 0, 0
    process = Path("/proc") / str(worker.pid)
    pages = int((process / "statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024, len(list((process / "fd").iterdir()))


async def run(faulty: FaultyToken, signatures: int, percent: float, seed: int) -> int:
    """Sign, account, print; the number of discrepancies."""
    steps: Counter[str] = Counter()

    async def told(rung: Rung, error: PrivysealError, _outcome: str) -> None:
        steps[f"{rung.value} after {error.code}"] += 1

    free = {rung: Bound(count=10**9, seconds=60.0) for rung in Rung}
    config = faulty.config(call_seconds=0.8, sign_seconds=0.5)
    token = RecoveringToken(open_token(config), told=told, tally=ladder.Tally(free), pause_seconds=0.001)
    spki = next(key.spki for key in await token.keys() if key.key_id == EC_ID)
    if percent:
        faulty.break_with(*soak_orders(percent=percent, seed=seed))
    whole, begun_s = Tally(), time.monotonic()
    weights: list[tuple[int, int]] = []
    for part in range(_PARTS):
        count = signatures // _PARTS
        tally = await soak(token, key_id=EC_ID, mechanism=MECHANISM, signatures=count, callers=3, first=part * count)
        whole.signatures |= tally.signatures
        whole.begun |= tally.begun
        whole.refused |= tally.refused
        whole.unbegun += tally.unbegun
        weights.append(worker_memory(token))
        kib, descriptors = weights[-1]
        own_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{(part + 1) * count:>8} asked  worker {kib} KiB, {descriptors} descriptors; here {own_kib} KiB",
            flush=True,
        )
    seconds = time.monotonic() - begun_s
    faulty.heal()
    await token.close()
    growth_kib, new_descriptors = (last - first for first, last in zip(weights[0], weights[-1], strict=True))
    wrong = discrepancies(whole, faulty, signatures=signatures, spki=spki, mechanism=MECHANISM)
    print(
        f"{len(whole.signatures)} signatures, {len(whole.begun)} unknown, {len(whole.refused)} refused, {seconds:.0f} s"
    )
    for step, count in steps.most_common():
        print(f"{count:>8} {step}")
    if growth_kib > (_MOST_DIFFERENCE_KIB if percent else _MOST_GROWTH_KIB) or new_descriptors > 0:
        wrong.append(f"the worker grew by {growth_kib} KiB and {new_descriptors} descriptors")
    for line in wrong[:20]:
        print(f"WRONG: {line}")
    return len(wrong) + len(whole.refused)


def main() -> int:
    """0 if every account agrees and nothing was refused."""
    parser = argparse.ArgumentParser(prog="python -m lab")
    parser.add_argument("--signatures", type=int, default=10_000)
    parser.add_argument("--percent", type=float, default=1.0, help="of the signatures meet a fault")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what modules and their processes say of their ends
    with tempfile.TemporaryDirectory(prefix="privyseal-soak-") as directory:
        faulty = around(fresh_softhsm(Path(directory)))
        return 1 if asyncio.run(run(faulty, chosen.signatures, chosen.percent, chosen.seed)) else 0


if __name__ == "__main__":
    sys.exit(main())
