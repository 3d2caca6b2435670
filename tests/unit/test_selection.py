# SPDX-License-Identifier: Apache-2.0
"""Which files a command means: names, directories, patterns, lists, and what is left out."""

import io
import os
from pathlib import Path

import pytest

from pe_samples import make_pe
from privyseal.client.files import draft_beside
from privyseal.client.selection import Selection, make_folders, select
from privyseal.errors import ConfigError, MalformedInputError

PROGRAM = make_pe()
ODD_NAMES = ("with space.exe", "quote'\".exe", "line\nbreak.exe", "größe ☂.exe", "-o.exe", "*.exe")


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release: programs at two levels, a text, a link."""
    (tmp_path / "dist" / "lib").mkdir(parents=True)
    for name in ("dist/b.exe", "dist/a.exe", "dist/lib/c.dll"):
        (tmp_path / name).write_bytes(PROGRAM)
    (tmp_path / "dist" / "readme.txt").write_text("hello")
    (tmp_path / "dist" / "empty.exe").touch()
    (tmp_path / "dist" / "link.exe").symlink_to("a.exe")
    (tmp_path / "dist" / "loop").symlink_to(".")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*given: str, lists: tuple[str, ...] = (), excludes: tuple[str, ...] = ()) -> list[str]:
    return [work.path.as_posix() for work in select(Selection(names=given, lists=lists, excludes=excludes))]


def test_a_named_file_is_meant_whatever_it_is() -> None:
    assert names("dist/readme.txt", "dist/link.exe", "no-such.exe") == [
        "dist/readme.txt",
        "dist/link.exe",
        "no-such.exe",
    ]


def test_a_directory_gives_what_can_be_signed_in_order_and_follows_no_link() -> None:
    assert names("dist") == ["dist/a.exe", "dist/b.exe", "dist/lib/c.dll"]


def test_what_another_run_writes_or_left_when_it_was_killed_is_not_signed(tree: Path) -> None:
    with draft_beside(tree / "dist" / "a.exe") as draft:
        draft.stream.write(PROGRAM)
        draft.stream.flush()
        beside = [path.name for path in (tree / "dist").iterdir() if path.is_file() and path.read_bytes() == PROGRAM]

        assert draft.path.name in beside
        assert names("dist") == ["dist/a.exe", "dist/b.exe", "dist/lib/c.dll"]


def test_each_file_comes_once() -> None:
    assert names("dist/a.exe", "dist", "./dist/a.exe", "dist/*.exe") == [
        "dist/a.exe",
        "dist/b.exe",
        "dist/lib/c.dll",
        "dist/empty.exe",
    ]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("dist/*.dll", None),
        ("dist/**/*.dll", ["dist/lib/c.dll"]),
        ("dist/[ab].exe", ["dist/a.exe", "dist/b.exe"]),
        ("dist/?.exe", ["dist/a.exe", "dist/b.exe"]),
        ("dist/lib*", None),
        ("dist/lib/../*b.exe", ["dist/lib/../b.exe"]),
        ("dist/**b.exe", ["dist/b.exe"]),
        ("dist/lib/**", ["dist/lib/c.dll"]),
    ],
)
def test_a_pattern_that_the_shell_left_alone(pattern: str, found: list[str] | None) -> None:
    if found is not None:
        assert names(pattern) == found
        return
    with pytest.raises(MalformedInputError) as caught:
        names(pattern)
    assert caught.value.code == "files.no_match"
    assert pattern in caught.value.message


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("*.dll", ["dist/a.exe", "dist/b.exe"]),
        ("lib", ["dist/a.exe", "dist/b.exe"]),
        ("dist/a*", ["dist/b.exe", "dist/lib/c.dll"]),
        ("A.EXE", ["dist/a.exe", "dist/b.exe", "dist/lib/c.dll"]),
    ],
)
def test_what_is_left_out(pattern: str, left: list[str]) -> None:
    assert names("dist", excludes=(pattern,)) == left


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_names(tree: Path, name: str) -> None:
    (tree / "odd").mkdir()
    (tree / "odd" / name).write_bytes(PROGRAM)

    assert names("odd") == [f"odd/{name}"]
    assert names(f"odd/{name}") == [f"odd/{name}"]
    (tree / "list").write_bytes(os.fsencode(f"odd/{name}") + b"\0")
    assert names(lists=("list",)) == [f"odd/{name}"]


def test_lists_hold_a_name_a_line(tree: Path) -> None:
    (tree / "list").write_bytes(b"dist/b.exe\r\n\ndist/lib\ngr\xc3\xb6\xc3\x9fe.exe\nraw\xff.exe")

    assert names("dist/a.exe", lists=("list",)) == [
        "dist/a.exe",
        "dist/b.exe",
        "dist/lib/c.dll",
        "größe.exe",
        os.fsdecode(b"raw\xff.exe"),
    ]


def test_standard_input_can_be_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"dist/b.exe\n")))

    assert names(lists=("-",)) == ["dist/b.exe"]


@pytest.mark.parametrize(
    ("selection", "code"),
    [
        (Selection(), "files.none"),
        (Selection(names=("dist",), excludes=("*",)), "files.none"),
        (Selection(lists=("no-such-list",)), "file.missing"),
        (Selection(lists=("dist",)), "file.missing"),
        (Selection(names=("dist/a.exe", "other/a.exe"), output=Path("out")), "files.same_target"),
    ],
)
def test_what_means_no_file(selection: Selection, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        select(selection)

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("given", "output", "targets"),
    [
        (("dist/a.exe",), None, ["dist/a.exe"]),
        (("dist/a.exe",), "new.exe", ["new.exe"]),
        (("dist/a.exe",), "dist/lib", ["dist/lib/a.exe"]),
        (("dist/a.exe", "dist/b.exe"), "new", ["new/a.exe", "new/b.exe"]),
        (("dist",), "new", ["new/a.exe", "new/b.exe", "new/lib/c.dll"]),
        (("dist/**/*.dll",), "new", ["new/c.dll"]),
    ],
)
def test_where_signed_files_go(given: tuple[str, ...], output: str | None, targets: list[str]) -> None:
    works = select(Selection(names=given, output=None if output is None else Path(output)))

    assert [work.target.as_posix() for work in works] == targets


@pytest.mark.parametrize(
    ("given", "alone"),
    [(("dist/a.exe",), True), (("no-such",), True), (("dist",), False), (("*.exe",), False), (("a", "b"), False)],
)
def test_one_file_or_several(given: tuple[str, ...], alone: bool) -> None:  # noqa: FBT001
    assert Selection(names=given).is_one_file is alone


def test_what_an_earlier_run_wrote_is_not_signed_again(tree: Path) -> None:
    """The output lies in the directory that is signed."""
    (tree / "dist" / "signed").mkdir()
    (tree / "dist" / "signed" / "a.exe").write_bytes(PROGRAM)
    (tree / "elsewhere").symlink_to("dist/signed")

    for output in ("dist/signed", "./dist/lib/../signed", "elsewhere"):
        works = select(Selection(names=("dist",), output=Path(output)))
        assert [work.path.as_posix() for work in works] == ["dist/a.exe", "dist/b.exe", "dist/lib/c.dll"]
    named = select(Selection(names=("dist/signed", "dist/b.exe"), output=Path("dist/signed")))
    assert [work.path.as_posix() for work in named] == ["dist/signed/a.exe", "dist/b.exe"]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "given",
    [
        pytest.param(("dist/a.exe", "out/a.exe"), id="over-an-input"),
        pytest.param(("dist/b.exe", "dist/a.exe"), id="over-an-input-by-a-link"),
        pytest.param(("dist/c.exe", "out/d.exe"), id="both-to-one-file-by-a-link"),
        pytest.param(("out/p.exe", "out/p.exe.tlog-proof"), id="receipt-over-an-input"),
        pytest.param(("dist/p.exe", "dist/p.exe.tlog-proof"), id="receipt-over-an-output"),
    ],
)
def test_no_file_of_a_run_is_written_over_another(tree: Path, given: tuple[str, ...], order: int) -> None:
    (tree / "out").mkdir()
    for name in ("out/a.exe", "dist/c.exe", "out/d.exe", "out/p.exe", "out/p.exe.tlog-proof", "dist/p.exe"):
        (tree / name).write_bytes(PROGRAM)
    (tree / "dist" / "p.exe.tlog-proof").write_bytes(PROGRAM)
    (tree / "out" / "b.exe").symlink_to("../dist/a.exe")
    (tree / "out" / "c.exe").symlink_to("d.exe")

    with pytest.raises(ConfigError) as caught:
        select(Selection(names=given[::order], output=Path("out")))

    assert caught.value.code == "files.same_target"


def test_links_that_lead_in_circles_end(tree: Path) -> None:
    for name in ("loop2", "loop3", "lib/up"):
        (tree / "dist" / name).symlink_to(tree / "dist")

    assert names("dist/**/*.dll") == names(f"{tree}/dist/**/*.dll".removeprefix(f"{tree}/")) == ["dist/lib/c.dll"]
    assert names("**/lib/*") == ["dist/lib/c.dll"]


def test_directories_of_an_output_are_made(tree: Path) -> None:
    works = select(Selection(names=("dist",), output=Path("signed")))

    make_folders(works)

    assert sorted(path.relative_to(tree).as_posix() for path in (tree / "signed").rglob("*")) == ["signed/lib"]


def test_an_output_that_cannot_be_a_directory_is_refused() -> None:
    works = select(Selection(names=("dist",), output=Path("dist/readme.txt")))

    with pytest.raises(MalformedInputError) as caught:
        make_folders(works)

    assert (caught.value.code, "dist/readme.txt" in caught.value.message) == ("file.unwritable", True)
