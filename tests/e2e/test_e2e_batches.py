# SPDX-License-Identifier: Apache-2.0
"""Whole releases: many files in one run, some of them broken, interrupted at any moment, and taken up again."""

import json
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from installation import Up, copy_of_program
from privyseal.client.hub import HubClient
from privyseal.client.journal import RequestJournal
from privyseal.client.receipts import receipt_path
from privyseal.client.signing import Plan, Progress, Signer, Work
from privyseal.errors import MalformedInputError
from programs import Outcome, command, environment, succeeded, until

pytestmark = pytest.mark.usefixtures("nothing_left_over")

BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty.exe": lambda image: b"",
    "text.exe": lambda image: b"words " * 100,
    "cut.exe": lambda image: image[: len(image) // 2],
    "headers.exe": lambda image: image[:300],
    "magic.exe": lambda image: image[:0x3C] + bytes(4) + image[0x40:],
}


def make_release(folder: Path, count: int, *, seed: int = 1) -> list[Path]:
    """Programs that differ in their last bytes."""
    folder.mkdir(parents=True)
    image = copy_of_program(folder, "seed.exe").read_bytes()
    (folder / "seed.exe").unlink()
    draw = random.Random(seed)
    files = [folder / f"app{number:04}.exe" for number in range(count)]
    for file in files:
        file.write_bytes(image + draw.randbytes(8))
    return files


def lines(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.out.splitlines()]


def results(up: Up) -> int:
    """How many signatures the log records."""
    found: int = succeeded(up.run("log", "verify", "--json")).document["signatures"]
    return found


def check_whole(folder: Path, before: dict[Path, bytes], left: frozenset[Path] = frozenset()) -> int:
    """Each file is as it was or signed with its receipt; nothing but what was left lies there. How many are signed."""
    signed = 0
    expected = {*before, *left}
    for file, content in before.items():
        if file.read_bytes() != content:
            signed += 1
            expected.add(receipt_path(file))
            assert receipt_path(file).exists(), file
    assert {path for path in folder.iterdir() if path not in expected} <= {receipt_path(file) for file in before}
    return signed


def test_a_release_in_one_request(up: Up, tmp_path: Path) -> None:
    files = make_release(tmp_path / "dist", 70)
    size = HubClient(up.client()).status().log_size

    *told, last = lines(succeeded(up.run("sign", "--key", "demo", "--json", tmp_path / "dist")))

    assert {one["file"] for one in told} == {str(file) for file in files}
    assert {one["state"] for one in told} == {"signed"}
    assert (last["summary"]["signed"], last["summary"]["failed"]) == (70, 0)
    assert last["summary"]["sent_bytes"] < 70 * 2048, "files do not travel"
    assert HubClient(up.client()).status().log_size == size + 140
    assert list(RequestJournal(up.client().identity.journal).open_requests()) == []
    for file in files[::20]:
        succeeded(up.run("verify", file))


def test_broken_files_among_good_ones(up: Up, tmp_path: Path) -> None:
    files = make_release(tmp_path / "dist", 12)
    for name, spoil in BROKEN.items():
        (tmp_path / "dist" / name).write_bytes(spoil(files[0].read_bytes()))
    before = {file: file.read_bytes() for file in (tmp_path / "dist").iterdir()}
    given: list[str | Path] = ["sign", "--key", "demo", "--json", *sorted(before), tmp_path / "no-such.exe"]

    stopped = up.run(*given)

    assert (stopped.code, check_whole(tmp_path / "dist", before)) == (9, 0)
    assert Counter(one.get("state") for one in lines(stopped)) == {"failed": 6, None: 1}
    assert lines(stopped)[-1]["summary"]["unsigned"] == 12
    went_on = up.run(*given, "--continue-on-error")
    assert (went_on.code, check_whole(tmp_path / "dist", before)) == (9, 12)
    told = {Path(one["file"]).name: one for one in lines(went_on) if "file" in one}
    assert {name for name, one in told.items() if one["state"] == "failed"} == {*BROKEN, "no-such.exe"}
    assert {one["error"]["code"] for one in told.values() if "error" in one} == {
        "file.empty",
        "file.unreadable",
        "format.not_recognised",
        "pe.truncated",
    }


def spoilt(image: bytes, number: int) -> bytes:
    """Broken in a way of its own: cut off, emptied, headers that lie, tables that lead nowhere."""
    copy = bytearray(image)
    lfanew = int.from_bytes(image[0x3C:0x40], "little")
    is_plus = image[lfanew + 24 : lfanew + 26] == b"\x0b\x02"
    fields = (lfanew, lfanew + 6, lfanew + 20, lfanew + 24, lfanew + 24 + (108 if is_plus else 92))
    if number < 15:
        ends = (0, 1, 2, 60, 64, 100, lfanew, lfanew + 4, lfanew + 20, lfanew + 30, 300, 400, 512, 600, 900)
        return image[: ends[number]]
    if number < 25:
        offset, value = fields[number % 5], (0xFF, 0x00)[number // 20]
        copy[offset : offset + 4] = bytes((value,)) * 4
        if (value, number % 5) in {(0, 1), (0xFF, 4)}:  # no sections, or too many data directories, would be sound
            copy[lfanew : lfanew + 2] = b"XX"
        return bytes(copy)
    directory = lfanew + 24 + (112 if is_plus else 96) + 32
    offset, size = ((1 << 30, 8), (8, 8), (len(image), 8), (len(image) - 8, 1 << 31), (3, 64))[number - 25]
    copy[directory : directory + 8] = offset.to_bytes(4, "little") + size.to_bytes(4, "little")
    return bytes(copy)


def test_a_thousand_files_of_which_thirty_are_broken(up: Up, tmp_path: Path) -> None:
    files = make_release(tmp_path / "dist", 1000)
    broken = files[::34][:30]
    for number, file in enumerate(broken):
        file.write_bytes(spoilt(file.read_bytes(), number))
    before = {file: file.read_bytes() for file in files}
    signatures = results(up)
    names = tmp_path / "names"
    names.write_text("".join(f"{file}\n" for file in files))

    outcome = up.run("sign", "--key", "demo", "--json", "--continue-on-error", "--files-from", names)

    told = {Path(one["file"]): one for one in lines(outcome) if "file" in one}
    assert outcome.code == 9, outcome.err
    assert {file for file, one in told.items() if one["state"] == "failed"} == set(broken)
    assert all(one["error"]["message"] for one in told.values() if "error" in one)
    assert check_whole(tmp_path / "dist", before) == 970
    assert all(file.read_bytes() == before[file] for file in broken)
    assert results(up) == signatures + 970
    again = up.run("verify", "--json", tmp_path / "dist")
    assert sum(one["verified"] for one in lines(again) if "verified" in one) == 970


def test_files_that_are_read_only_are_replaced_and_stay_so(up: Up, tmp_path: Path) -> None:
    file, _ = make_release(tmp_path / "dist", 2)
    file.chmod(0o444)

    succeeded(up.run("sign", "--key", "demo", tmp_path / "dist"))

    assert file.stat().st_mode & 0o777 == 0o444
    succeeded(up.run("verify", file))


def test_the_table_for_people_names_each_failure(up: Up, tmp_path: Path) -> None:
    make_release(tmp_path / "dist", 2)
    (tmp_path / "dist" / "empty.exe").touch()

    outcome = up.run("sign", "--key", "demo", "--continue-on-error", *sorted((tmp_path / "dist").iterdir()))

    assert outcome.code == 9
    table = outcome.out.split("\n\n")
    assert len(table) == 3, outcome.out
    assert "empty.exe is empty" in table[1]
    assert table[2].startswith("2 signed, 1 failed in ")


def test_signed_files_can_be_left_alone(up: Up, tmp_path: Path) -> None:
    files = make_release(tmp_path / "dist", 3)
    succeeded(up.run("sign", "--key", "demo", files[0]))
    before = files[0].read_bytes()
    signatures = results(up)

    told = lines(succeeded(up.run("sign", "--key", "demo", "--json", "--skip-signed", tmp_path / "dist")))

    assert Counter(one.get("state") for one in told) == {"signed": 2, "skipped": 1, None: 1}
    assert files[0].read_bytes() == before
    assert results(up) == signatures + 2


def test_a_dry_run_changes_nothing(up: Up, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in make_release(tmp_path / "dist", 3)}
    size = HubClient(up.client()).status().log_size

    told = lines(succeeded(up.run("sign", "--key", "demo", "--json", "--dry-run", tmp_path / "dist")))

    assert [one["file"] for one in told if one.get("state") == "unsigned"] == [str(file) for file in sorted(before)]
    assert told[-1]["summary"]["unsigned"] == 3
    assert check_whole(tmp_path / "dist", before) == 0
    assert HubClient(up.client()).status().log_size == size


def test_the_same_content_twice_is_signed_for_each_file(up: Up, tmp_path: Path) -> None:
    first, second = make_release(tmp_path / "dist", 2)
    second.write_bytes(first.read_bytes())
    signatures = results(up)

    succeeded(up.run("sign", "--key", "demo", tmp_path / "dist"))

    assert results(up) == signatures + 2
    for file in (first, second):
        succeeded(up.run("verify", file))


def test_an_output_on_another_file_system(up: Up, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in make_release(tmp_path / "dist", 2)}
    with memory_folder() as folder:
        succeeded(up.run("sign", "--key", "demo", tmp_path / "dist", "-o", folder))

        assert check_whole(tmp_path / "dist", before) == 0
        for file in before:
            succeeded(up.run("verify", folder / file.name))


@contextmanager
def memory_folder() -> Iterator[Path]:
    folder = Path("/dev/shm") / f"privyseal-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.parametrize("done", [0, 1, 40])
def test_an_interrupted_run_is_taken_up_and_nothing_is_signed_twice(up: Up, tmp_path: Path, done: int) -> None:
    files = make_release(tmp_path / "dist", 80, seed=100 + done)
    before = {file: file.read_bytes() for file in files}
    works = tuple(Work(path=file, target=file) for file in files)
    signatures = results(up)

    def interrupt(progress: Progress) -> None:
        if progress.stage == "sign" and progress.done >= done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Signer(up.client(), profile="demo").sign_all(works, Plan(), interrupt)

    assert check_whole(tmp_path / "dist", before) <= 80
    (kept,) = RequestJournal(up.client().identity.journal).open_requests()
    assert len(kept.body.preimages) == 80
    succeeded(up.run("sign", "--key", "demo", tmp_path / "dist"))
    assert check_whole(tmp_path / "dist", before) == 80
    assert results(up) == signatures + 80
    assert list(RequestJournal(up.client().identity.journal).open_requests()) == []
    succeeded(up.run("verify", files[-1]))


def test_what_an_interrupted_run_did_not_ask_for_is_asked_for_now(up: Up, tmp_path: Path) -> None:
    """Files that changed meanwhile, and new ones, get signatures of their own."""
    files = make_release(tmp_path / "dist", 6, seed=6)
    signatures = results(up)

    def interrupt(progress: Progress) -> None:
        if progress.stage == "sign":
            raise KeyboardInterrupt

    works = tuple(Work(path=file, target=file) for file in files[:4])
    with pytest.raises(KeyboardInterrupt):
        Signer(up.client(), profile="demo").sign_all(works, Plan(), interrupt)
    files[0].write_bytes(files[4].read_bytes() + b"another build")

    succeeded(up.run("sign", "--key", "demo", tmp_path / "dist"))

    assert results(up) == signatures + 7
    for file in files:
        succeeded(up.run("verify", file))


def test_a_signature_that_found_no_place_is_not_made_again(up: Up, tmp_path: Path) -> None:
    (file,) = make_release(tmp_path / "dist", 1)
    receipt_path(file).mkdir()
    signatures = results(up)
    assert up.run("sign", "--key", "demo", file).code == 1
    receipt_path(file).rmdir()

    succeeded(up.run("sign", "--key", "demo", file))

    assert results(up) == signatures + 1
    succeeded(up.run("verify", file))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_whole_files_and_is_taken_up(up: Up, tmp_path: Path, number: signal.Signals) -> None:
    files = make_release(tmp_path / "dist", 300, seed=number)
    before = {file: file.read_bytes() for file in files}
    signatures = results(up)
    config = up.client().path
    running = subprocess.Popen(
        command("sign", "--key", "demo", tmp_path / "dist"),
        env=environment(tmp_path, config),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    until(lambda: any(receipt_path(file).exists() for file in files), "the first receipt")
    running.send_signal(number)
    _, said = running.communicate(timeout=30)

    assert running.returncode == (-number if number is signal.SIGKILL else 130), said
    left = frozenset((tmp_path / "dist").glob(".*.privyseal"))
    if number is not signal.SIGKILL:
        assert (said, left) == (b"interrupted\n", frozenset())
    assert check_whole(tmp_path / "dist", before, left) < 300
    succeeded(up.run("sign", "--key", "demo", tmp_path / "dist"))
    assert check_whole(tmp_path / "dist", before, left) == 300
    assert results(up) == signatures + 300


def test_an_unknown_key_profile_concerns_all(up: Up, tmp_path: Path) -> None:
    works = tuple(Work(path=file, target=file) for file in make_release(tmp_path / "dist", 2))

    outcome = up.run("sign", "--key", "nobody", "--json", tmp_path / "dist")

    assert outcome.code == 2
    assert lines(outcome)[-1]["error"]["code"] == "profile.unknown"
    (tmp_path / "dist" / "app0000.exe").write_bytes(b"")
    first, second = Signer(up.client(), profile="demo").sign_all(works, Plan())
    assert isinstance(first.error, MalformedInputError)
    assert (second.error, second.signed) == (None, None)


def test_two_runs_over_the_same_files_both_end_well(up: Up, tmp_path: Path) -> None:
    files = make_release(tmp_path / "dist", 120, seed=120)
    before = {file: file.read_bytes() for file in files}
    signatures = results(up)
    kept = sorted(up.client().identity.journal.glob("*"))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: up.run("sign", "--key", "demo", "--json", tmp_path / "dist"), range(2))

    assert (succeeded(first).code, succeeded(second).code) == (0, 0)
    assert check_whole(tmp_path / "dist", before) == 120
    assert results(up) <= signatures + 240
    assert sorted(up.client().identity.journal.iterdir()) == kept
    succeeded(up.run("verify", "--require-receipt", tmp_path / "dist"))
