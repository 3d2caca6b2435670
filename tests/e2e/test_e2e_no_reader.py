# SPDX-License-Identifier: Apache-2.0
"""Whoever reads the output has gone: what was not done, or did not verify, is no success."""

import os
import subprocess
from pathlib import Path

import pytest

from installation import Up
from pe_samples import make_pe
from programs import command, environment


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """So many files that what is said of them is more than Python keeps back."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for place in range(150):
        (folder / f"{place:03}{'-' * 60}.exe").write_bytes(make_pe(overlay=place.to_bytes(8)))
    return folder


@pytest.mark.parametrize("arguments", [("verify",), ("verify", "--json"), ("sign", "--key", "demo")])
def test_nobody_reads(up: Up, dist: Path, arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command(*arguments, dist),
            env=environment(dist.parent, up.client().path),
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)

    assert done.returncode == 130, done
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_there_is_no_room_for_what_is_said(up: Up, dist: Path, flags: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("verify", *flags, dist),
            env=environment(dist.parent, up.client().path),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )

    assert b"Traceback" not in done.stderr
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        b"privyseal: cannot use a file, or write the output: No space left on device [file.unusable]",
    )


def test_standard_output_is_closed(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "app.exe"
    file.write_bytes(make_pe(overlay=b"closed"))

    done = up.run("sign", "--key", "demo", file, before=lambda: os.close(1))

    assert (done.code, done.err) == (0, "")
