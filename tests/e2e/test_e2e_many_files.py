# SPDX-License-Identifier: Apache-2.0
"""A release of a thousand files, some of them broken in every way that a file system knows; a disk that fills up."""

import json
import os
import random
import resource
from collections import Counter
from pathlib import Path

import pytest

from installation import Up
from pe_samples import make_pe
from privyseal.client.hub import HubClient
from privyseal.client.receipts import receipt_path
from programs import privyseal, succeeded

GOOD = 970
#: Names that a terminal, a shell, a parser or a decoder may stumble over.
NAMES = (
    b"with space.exe",
    b"quote'\".exe",
    b"line\nbreak.exe",
    b"back\rto the start.exe",
    b"\x1b[2J\x1b]0;title\x07.exe",
    b"tab\t.exe",
    b"del\x7f.exe",
    b"bell\x07\x08\x08.exe",
    "größe ☂ 中.exe".encode(),
    "control\u009b2J\u0085.exe".encode(),
    "right\u202eexe.gpj".encode(),
    b"undecodable\xff\xfe.exe",
    b"--key.exe",
    b"-o.exe",
    b"*.exe",
    b"$(touch x).exe",
    b"x" * 240 + b".exe",
)


def make_broken(folder: Path) -> dict[str, str]:
    """Thirty things in the way, by name, and what is said of them when they are named themselves."""
    image = make_pe(overlay=b"12345678")
    broken: dict[str, str] = {}
    contents = {
        "empty": (b"", "file.empty"),
        "text": (b"words " * 100, "format.not_recognised"),
        "cut": (image[: len(image) // 2], "pe.truncated"),
        "nul": (bytes(4096), "format.not_recognised"),
    }
    for number in range(5):
        for name, (content, code) in contents.items():
            (folder / f"{name}{number}.bad").write_bytes(content)
            broken[f"{name}{number}.bad"] = code
    for number in range(2):
        os.mkfifo(folder / f"fifo{number}.bad")
        (folder / f"folder{number}.bad").mkdir()
        (folder / f"dangling{number}.bad").symlink_to(f"nowhere{number}")
        (folder / f"circle{number}.bad").symlink_to(f"circle{number}.bad")
        (folder / f"device{number}.bad").symlink_to(("/dev/zero", "/dev/null")[number])
        broken |= {
            f"fifo{number}.bad": "file.not_regular",
            f"dangling{number}.bad": "file.unreadable",
            f"circle{number}.bad": "file.unreadable",
            f"device{number}.bad": "file.not_regular",
            f"gone{number}.bad": "file.unreadable",
        }
    return broken


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    folder.mkdir()
    draw = random.Random(970)
    names = [f"app{number:04}.exe".encode() for number in range(GOOD - len(NAMES))] + list(NAMES)
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(make_pe(overlay=draw.randbytes(8)))
    return folder


def test_a_thousand_files_of_which_thirty_are_broken(up: Up, release: Path, tmp_path: Path) -> None:
    good = sorted(release.iterdir())
    broken = make_broken(release)
    names = tmp_path / "names"
    names.write_bytes(b"\0".join(os.fsencode(path) for path in [*good, *(release / name for name in broken)]))
    size = HubClient(up.client()).status().log_size

    done = up.run("sign", "--key", "demo", "--json", "--continue-on-error", "--files-from", names)

    assert done.code == 9
    assert "Traceback" not in done.err
    *told, last = [json.loads(line) for line in done.out.split("\n")[:-1]]
    assert (last["summary"]["signed"], last["summary"]["failed"]) == (GOOD, 30)
    assert len({one["file"] for one in told}) == GOOD + 30
    said = {Path(one["file"]).name: one["error"]["code"] for one in told if one["state"] == "failed"}
    assert said == broken
    assert HubClient(up.client()).status().log_size == size + 2 * GOOD
    assert all(receipt_path(path).is_file() for path in good)
    assert not [path for path in release.iterdir() if path.name.endswith(".privyseal")]
    for path in good[:: GOOD // 3]:
        succeeded(up.run("verify", path))


@pytest.mark.parametrize("arguments", [("sign", "--key", "demo"), ("sign", "--key", "demo", "--json"), ("verify",)])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_are_somebody_elses_words(up: Up, tmp_path: Path, arguments: tuple[str, ...], encoding: str) -> None:
    """Text of ours moves no cursor, whatever a terminal can show; JSON carries the very name."""
    folder = tmp_path / "odd"
    folder.mkdir()
    odd = [os.fsdecode(os.fsencode(folder) + b"/" + name) for name in NAMES]
    for place, name in enumerate(odd):
        Path(name).write_bytes(make_pe(overlay=bytes([place]) * 8) if place % 3 else b"MZ")

    done = privyseal(
        *arguments,
        *(("--continue-on-error",) if arguments[0] == "sign" else ()),
        *odd,
        config=up.client().path,
        cwd=tmp_path,
        more={"PYTHONIOENCODING": encoding},
    )

    assert done.code in {3, 9}, done
    assert "Traceback" not in done.err
    assert not [c for c in done.out + done.err if c != "\n" and not c.isprintable()]
    if "--json" in arguments:
        assert {json.loads(line).get("file") for line in done.out.splitlines()} == {*odd, None}


def test_a_quota_in_the_middle_of_a_release(up: Up, tmp_path: Path) -> None:
    """Files for which there is no room stay as they were; the others are signed, and nothing twice afterwards."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for place in range(30):
        pad = b"\x90" * (512 if place % 3 else 1 << 20)
        (folder / f"{place:02}.exe").write_bytes(make_pe(sections=(pad,), overlay=place.to_bytes(8)))
    large = {path: path.read_bytes() for path in folder.iterdir() if path.stat().st_size > 1 << 20}
    size = HubClient(up.client()).status().log_size

    def before() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))

    done = up.run("sign", "--key", "demo", "--json", folder, before=before)

    assert done.code == 9
    states = Counter(
        (one["state"], one.get("error", {}).get("code")) for one in map(json.loads, done.out.splitlines()[:-1])
    )
    assert states == {("signed", None): 20, ("failed", "file.unwritable"): 10}
    assert {path: path.read_bytes() for path in large} == large
    assert len(list(folder.iterdir())) == 50
    succeeded(up.run("sign", "--key", "demo", folder))
    assert HubClient(up.client()).status().log_size == size + 60
    succeeded(up.run("verify", "--require-receipt", folder))
