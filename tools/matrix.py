# SPDX-License-Identifier: Apache-2.0
"""Sign every input in every way, ask every judge, print the table: `python tools/matrix.py [--all]`.

Without `--all` every file is signed in every way, with keys and digests in turn. The exit status is 1 if any answer is
not the expected one (tests/authenticode_matrix.py); then each such answer is named at the end.
"""

import concurrent.futures
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from authenticode_matrix import JUDGES, Cell, cells, judged, unexpected

WORDS = {True: "yes", False: "no"}


def judge(cell: Cell) -> dict[str, bool] | str:
    """Ask the judges, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return judged(cell, Path(folder))


def line(cell: Cell, said: dict[str, bool] | str, wrong: list[str]) -> str:
    """A row of the table."""
    if isinstance(said, str):
        answers = said.ljust(14 * len(JUDGES))
    else:
        answers = "".join((WORDS[said[name]] if name in said else "-").ljust(14) for name in JUDGES)
    return f"{cell.file.name:38}{cell.option:13}{cell.kind:5}{cell.algorithm:8}{answers}{'UNEXPECTED' if wrong else ''}"


def main() -> int:
    """Print the table; 1 if a cell is not as expected."""
    todo = tuple(cells(everything="--all" in sys.argv[1:]))
    print(f"{'file':38}{'signed':13}{'key':5}{'digest':8}{''.join(name.ljust(14) for name in JUDGES)}")
    failures: list[str] = []
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as workers:
        for cell, said in zip(todo, workers.map(judge, todo, chunksize=8), strict=True):
            wrong = unexpected(cell, said)
            failures += wrong
            print(line(cell, said, wrong).rstrip(), flush=True)
    print(f"{len(todo)} files signed and judged, {len(failures)} unexpected answers")
    print("\n".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
