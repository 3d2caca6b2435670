# SPDX-License-Identifier: Apache-2.0
"""The whole sweep (`make soak`): every effect at which a hub or the agent can end, and every way that can break."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from postgres_server import running_postgres
from several.kills import EFFECTS, kill_at
from several.run import running_lab

_MOST_EFFECTS = 40


def sweep_kills(folder: Path, only: str) -> None:
    with running_postgres() as postgres:
        for name, effect in EFFECTS.items():
            if only not in name:
                continue
            with running_lab(folder / name.replace(" ", "-"), postgres) as lab:
                number = 0
                began_s = time.monotonic()
                while number < _MOST_EFFECTS and kill_at(lab, effect, number + 1):
                    number += 1
                    lab.renew_agent()
                    print(f"{name}: {number}", flush=True)
                lab.judge()
                print(f"{name}: at each of {number}; {lab.told}; {time.monotonic() - began_s:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m several")
    parser.add_argument("--only", default="", help="a part of the name")
    parser.add_argument("--keep", type=Path, help="a folder to work in, which is left behind")
    chosen = parser.parse_args()
    if chosen.keep is not None:
        sweep_kills(chosen.keep, chosen.only)
        return 0
    with tempfile.TemporaryDirectory(prefix="privyseal-several-") as folder:
        sweep_kills(Path(folder), chosen.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
