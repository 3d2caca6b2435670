# SPDX-License-Identifier: Apache-2.0
"""Run many schedules: `python -m simulated --count 100000`; one of them again: `--seed N`."""

import argparse
import os
import sys
import time

from simulated.world import run_schedule


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulated", description="Schedules of the signing protocol under faults.")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=os.environ.get("PRIVYSEAL_SEED"))
    parser.add_argument("--steps", action="store_true", help="tell how many steps each schedule took")
    asked = parser.parse_args()
    first, count = (asked.first, asked.count) if asked.seed is None else (int(asked.seed), 1)
    began, signed, bad = time.process_time(), 0, 0
    for seed in range(first, first + count):
        report = run_schedule(seed)
        signed += report.signed
        if asked.seed is not None:
            print(report)
        if asked.steps:
            print(f"seed {seed}: {report.steps} {report.signed} {report.entries} {report.struck}")
        if report.violations:
            bad += 1
            print(f"seed {seed}: {'; '.join(report.violations)}  [{', '.join(report.struck)}]", flush=True)
    seconds = time.process_time() - began
    speed = f"{count / seconds:.0f} a second of processor time"
    print(f"{count} schedules, {signed} items signed, {bad} with violations, {speed}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
