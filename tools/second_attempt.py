# SPDX-License-Identifier: Apache-2.0
"""Runs tests that failed beside others once more, alone, and says which they were.

Real processes, servers and cards are what most tests here are made of, and three of them run at a time. A test that
fails in that crowd and holds alone has met a deadline of its own or a race, in itself or in what it tests: worth a
look, and named here for that, but no reason to throw a whole run away. More than a few of them are.
"""

import json
import subprocess
import sys
from pathlib import Path

_FAILED = 1  #: pytest's exit status for failed tests; every other one is final
_MOST = 3
_LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")


def main() -> int:
    """The exit status of the second attempt, or of the first if there is none."""
    status = int(sys.argv[1])
    if status != _FAILED or not _LAST_FAILED.is_file():
        return status
    failed = sorted(json.loads(_LAST_FAILED.read_text()))
    if not 0 < len(failed) <= _MOST:
        return status
    print(f"\nsecond attempt, alone: {len(failed)} of the tests failed beside others", flush=True)
    done = subprocess.run([sys.executable, "-m", "pytest", "-n", "0", *failed], check=False)
    for name in failed:
        print(f"{'failed twice' if done.returncode else 'held alone, failed beside others'}: {name}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
