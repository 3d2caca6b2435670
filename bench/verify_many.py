# SPDX-License-Identifier: Apache-2.0
"""What it costs to verify a release of a thousand programs, beside osslsigncode called for each of them.

Run by `make bench`. Nothing here asserts: it prints figures and a ratio.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pe_samples import make_pe, sign
from pki_samples import authority, signer

FILES = 1000
SIZE_BYTES = 74_000
RUNS = 5


def make_release(folder: Path) -> Path:
    """Programs that differ in their last bytes, all with the same signer, and the root that it ends at."""
    release = folder / "release"
    release.mkdir()
    image = make_pe(sections=(os.urandom(SIZE_BYTES - 4096),))
    for number in range(FILES):
        (release / f"{number:04}.exe").write_bytes(sign(image + number.to_bytes(8, "little"), signer("rsa")))
    (folder / "root.pem").write_bytes(authority().pem)
    return release


def seconds(commands: list[list[str]]) -> float:
    started = time.perf_counter()
    for command in commands:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            sys.exit(f"{command} ended with exit code {done.returncode}")
    return time.perf_counter() - started


def main() -> None:
    judge = shutil.which("osslsigncode")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        release, root = make_release(folder), str(folder / "root.pem")
        ours = [[sys.executable, "-m", "privyseal.cli.main", "verify", "--offline", "--trust", root, str(release)]]
        mine, theirs = [], []
        for _ in range(RUNS):
            mine.append(seconds(ours))
            if judge is not None:
                verify = [judge, "verify", "-CAfile", root, "-in"]
                theirs.append(seconds([[*verify, str(path)] for path in sorted(release.iterdir())]))
    own = statistics.median(mine)
    each_ms = own * 1000 / FILES
    print(f"privyseal verify, {FILES} files of {SIZE_BYTES} bytes in one run: {own:.2f} s ({each_ms:.2f} ms each)")
    if judge is None:
        print("osslsigncode is not installed: nothing to compare with")
    else:
        other = statistics.median(theirs)
        print(f"osslsigncode verify, once for each of them: {other:.2f} s; ratio {own / other:.2f}")


if __name__ == "__main__":
    main()
