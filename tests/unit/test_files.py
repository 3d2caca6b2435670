# SPDX-License-Identifier: Apache-2.0
"""Reading a file to be signed, and putting signed file and receipt into place together or not at all."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.client.files import draft_beside, open_source, write_edited, write_signed
from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.model import Patch

ORIGINAL = bytes(range(256)) * 64
PATCH = Patch(keep_bytes=1000, writes=((10, b"changed"), (1000, b"appended")))
PATCHED = ORIGINAL[:10] + b"changed" + ORIGINAL[17:1000] + b"appended"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A file alone in its directory; nothing else may be there afterwards but its receipt."""
    file = tmp_path / "app.exe"
    file.write_bytes(ORIGINAL)
    yield file
    assert {path.name for path in tmp_path.iterdir()} <= {"app.exe", "link.exe", "out.exe", "receipt"}


def put(file: Path, target: Path, patch: Patch = PATCH, receipt: bytes = b"the receipt") -> bytes:
    """Write a patched copy; what its block found in the temporary file."""
    with (
        open_source(file) as source,
        draft_beside(target) as draft,
        write_signed(source, patch, draft, receipt=receipt, receipt_path=file.with_name("receipt")) as written,
    ):
        return written.read_bytes()


def test_file_and_receipt_are_in_place_together(file: Path) -> None:
    seen = put(file, file)

    assert seen == file.read_bytes() == PATCHED
    assert file.with_name("receipt").read_bytes() == b"the receipt"


def test_another_output_leaves_the_input_alone(file: Path) -> None:
    put(file, file.with_name("out.exe"))

    assert file.read_bytes() == ORIGINAL
    assert file.with_name("out.exe").read_bytes() == PATCHED


def test_without_help_of_the_kernel_the_copy_is_the_same(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    put(file, file)

    assert file.read_bytes() == PATCHED


def test_a_copy_that_the_kernel_makes_in_pieces(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = os.copy_file_range

    def piecewise(source: int, target: int, count: int, *offsets: int) -> int:
        return copy(source, target, min(count, 100), *offsets) if offsets[0] < 500 else 0

    monkeypatch.setattr(os, "copy_file_range", piecewise)
    put(file, file)

    assert file.read_bytes() == PATCHED


@given(keep=st.integers(0, len(ORIGINAL)), content=st.binary(max_size=50))
def test_any_prefix_and_whatever_is_appended(
    tmp_path_factory: pytest.TempPathFactory, keep: int, content: bytes
) -> None:
    file = tmp_path_factory.mktemp("prefix") / "app.exe"
    file.write_bytes(ORIGINAL)

    put(file, file, Patch(keep_bytes=keep, writes=((keep, content),)))

    assert file.read_bytes() == ORIGINAL[:keep] + content


def test_an_error_in_the_block_leaves_everything(file: Path) -> None:
    file.with_name("receipt").write_bytes(b"an older receipt")

    with (
        pytest.raises(ZeroDivisionError),
        open_source(file) as source,
        draft_beside(file) as draft,
        write_signed(source, PATCH, draft, receipt=b"new", receipt_path=file.with_name("receipt")),
    ):
        raise ZeroDivisionError

    assert file.read_bytes() == ORIGINAL
    assert file.with_name("receipt").read_bytes() == b"an older receipt"


def test_a_source_that_is_shorter_than_what_shall_stay(file: Path) -> None:
    with pytest.raises(MalformedInputError) as caught:
        put(file, file, Patch(keep_bytes=len(ORIGINAL) + 1, writes=()))

    assert caught.value.code == "file.changed"
    assert file.read_bytes() == ORIGINAL


@pytest.mark.parametrize("place", ["no-such-folder/out.exe", "app.exe/out.exe", ".", "x" * 300, "loop"])
def test_a_target_that_cannot_be(file: Path, tmp_path_factory: pytest.TempPathFactory, place: str) -> None:
    folder = tmp_path_factory.mktemp("targets")
    (folder / "app.exe").touch()
    (folder / "loop").symlink_to("loop")

    with pytest.raises(MalformedInputError) as caught:
        put(file, folder / place)

    assert caught.value.code == "file.unwritable"
    assert caught.value.hint
    assert sorted(path.name for path in folder.iterdir()) == ["app.exe", "loop"]
    assert not file.with_name("receipt").exists()


def test_the_mode_is_that_of_the_replaced_file_or_of_the_input(file: Path) -> None:
    file.chmod(0o750)
    put(file, file.with_name("out.exe"))
    assert file.with_name("out.exe").stat().st_mode & 0o777 == 0o750

    file.with_name("out.exe").chmod(0o604)
    put(file, file.with_name("out.exe"))
    assert file.with_name("out.exe").stat().st_mode & 0o777 == 0o604


def test_a_link_stays_and_its_target_is_replaced(file: Path) -> None:
    link = file.with_name("link.exe")
    link.symlink_to("app.exe")
    put(link, link)

    assert link.is_symlink()
    assert file.read_bytes() == PATCHED


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path, tmp_path / "fifo", Path(os.devnull)):
        with pytest.raises(UnsupportedInputError) as caught, open_source(place):
            pass
        assert caught.value.code == "file.not_regular"


@pytest.mark.parametrize("place", ["none", "file/inner", "x" * 300])
def test_a_file_that_cannot_be_read(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(MalformedInputError) as caught, open_source(tmp_path / place):
        pass

    assert caught.value.code == "file.unreadable"


@pytest.mark.parametrize("change", ["touch", "truncate", "append", "replace", "remove"])
def test_a_source_that_changed_is_noticed(file: Path, change: str) -> None:
    with open_source(file) as source:
        source.check_unchanged()
        if change == "touch":
            os.utime(file, ns=(0, 0))
        elif change == "truncate":
            os.truncate(file, 10)
        elif change == "append":
            with file.open("ab") as stream:
                stream.write(b"x")
        else:
            file.unlink()
            if change == "replace":
                file.write_bytes(ORIGINAL)
        with pytest.raises(MalformedInputError) as caught:
            source.check_unchanged()

    assert caught.value.code == "file.changed"


def cut(stream: BinaryIO) -> Patch:
    """Keeps the first half of what it finds, and says how much that was."""
    size = len(stream.read())
    return Patch(keep_bytes=size // 2, writes=((size // 2, b"%d" % size),))


def test_each_edit_sees_what_the_one_before_left(file: Path) -> None:
    file.chmod(0o440)
    with open_source(file) as source, write_edited(source, (cut, cut), file) as written:
        assert file.read_bytes() == ORIGINAL
        seen = written.read_bytes()

    assert seen == file.read_bytes() == ORIGINAL[:4098] + b"8197"
    assert file.stat().st_mode & 0o777 == 0o440


def test_an_edit_that_fails_leaves_nothing(file: Path) -> None:
    def fail(_: BinaryIO) -> Patch:
        raise MalformedInputError("test.edit", "no")

    with open_source(file) as source, pytest.raises(MalformedInputError), write_edited(source, (cut, fail), file):
        pytest.fail("the block must not run")

    assert file.read_bytes() == ORIGINAL


def test_what_is_not_verified_is_not_put_into_place(file: Path) -> None:
    with open_source(file) as source, pytest.raises(KeyboardInterrupt), write_edited(source, (cut,), file):
        raise KeyboardInterrupt

    assert file.read_bytes() == ORIGINAL


def test_a_file_that_changes_meanwhile_is_not_replaced(file: Path) -> None:
    with open_source(file) as source, pytest.raises(MalformedInputError) as caught, write_edited(source, (cut,), file):
        file.write_bytes(b"newer")

    assert caught.value.code == "file.changed"
    assert file.read_bytes() == b"newer"


def test_a_file_that_became_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    """Whatever stands there when it is opened counts, not what was looked at before."""
    place, fifo = tmp_path / "app.exe", tmp_path / "fifo"
    place.touch()
    os.mkfifo(fifo)

    class Turning(type(place)):  # type: ignore[misc]  # the class that Path makes on this system
        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            found: os.stat_result = super().stat(follow_symlinks=follow_symlinks)
            fifo.replace(place)
            return found

    with pytest.raises(UnsupportedInputError) as caught, open_source(Turning(place)):
        pass
    assert caught.value.code == "file.not_regular"


@pytest.mark.parametrize("way", ["signed", "edited"])
def test_a_link_that_is_changed_meanwhile_has_nothing_overwritten(tmp_path: Path, way: str) -> None:
    link, first, second = (tmp_path / name for name in ("link.exe", "first.exe", "second.exe"))
    for path in (first, second):
        path.write_bytes(path.name.encode())
    link.symlink_to(first)

    def relink() -> None:
        link.unlink()
        link.symlink_to(second)

    def edit(stream: BinaryIO) -> Patch:
        relink()
        return Patch(keep_bytes=0, writes=((0, b"edited"),))

    def sign() -> None:
        patch = Patch(keep_bytes=0, writes=((0, b"signed"),))
        with draft_beside(link) as draft:
            relink()
            with (
                open_source(link) as source,
                write_signed(source, patch, draft, receipt=b"r", receipt_path=tmp_path / "r"),
            ):
                pass

    def edit_it() -> None:
        with open_source(second) as source, write_edited(source, (edit,), link):
            pass

    with pytest.raises(MalformedInputError) as caught:
        (sign if way == "signed" else edit_it)()

    assert caught.value.code == "file.changed"
    assert (first.read_bytes(), second.read_bytes()) == (b"first.exe", b"second.exe")
    assert sorted(tmp_path.iterdir()) == [first, link, second]
