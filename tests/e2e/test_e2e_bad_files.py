# SPDX-License-Identifier: Apache-2.0
"""Files that cannot be signed or written: a clear refusal, the file as it was, nothing left beside it."""

import os
import resource
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from installation import Site, Up, copy_of_program
from pe_samples import make_pe
from privyseal.client.hub import HubClient
from privyseal.client.receipts import receipt_path
from privyseal.client.signing import Plan, Progress, Signer, Work
from programs import refused, succeeded, unchanged

_LFANEW = 0x80
_OPTIONAL = _LFANEW + 24
_SECTIONS = _OPTIONAL + 112 + 8 * 16
_CERTIFICATES = _OPTIONAL + 112 + 8 * 4


def log_size(up: Up) -> int:
    return HubClient(up.client()).status().log_size


def refuses(up: Up, file: Path, status: int, code: str) -> None:
    """Signing ends with this, in words, in place; the log has heard nothing of it."""
    size = log_size(up)
    with unchanged(file, receipt_path(file)):
        outcome = refused(up.run("sign", "--key", "demo", "--json", file), status, code)
        assert outcome.document["error"]["retryable"] is False
    assert log_size(up) == size


def with_bytes(offset: int, form: str, *values: int) -> bytes:
    image = bytearray(make_pe())
    struct.pack_into(form, image, offset, *values)
    return bytes(image)


BAD_IMAGES = {
    "nothing": (b"", "file.empty"),
    "text": (b"just words, many of them\n" * 100, "format.not_recognised"),
    "elf": (b"\x7fELF" + bytes(4096), "format.not_recognised"),
    "only-mz": (b"MZ", "format.not_recognised"),
    "mz-and-zeros": (b"MZ" + bytes(4096), "format.not_recognised"),
    "header-behind-the-end": (b"MZ" + bytes(58) + struct.pack("<I", 1 << 31) + bytes(4096), "format.not_recognised"),
    "cut-in-coff": (make_pe()[: _LFANEW + 10], "pe.truncated"),
    "cut-in-optional-header": (make_pe()[: _OPTIONAL + 60], "pe.truncated"),
    "cut-in-data-directories": (make_pe()[: _CERTIFICATES + 4], "pe.truncated"),
    "cut-in-section-table": (make_pe()[: _SECTIONS + 20], "pe.truncated"),
    "unknown-magic": (with_bytes(_OPTIONAL, "<H", 0x107), "pe.optional_header"),
    "no-certificate-directory": (with_bytes(_OPTIONAL + 108, "<I", 4), "pe.no_certificate_directory"),
    "enormous-section-count": (with_bytes(_LFANEW + 6, "<H", 0xFFFF), "pe.truncated"),
    "section-behind-the-end": (with_bytes(_SECTIONS + 16, "<II", 0x7FFFFFFF, 0x400), "pe.truncated"),
    "certificate-table-outside": (with_bytes(_CERTIFICATES, "<II", 1 << 30, 4096), "pe.certificate_table"),
    "certificate-table-enormous": (with_bytes(_CERTIFICATES, "<II", 512, 0xFFFFFFF8), "pe.certificate_table"),
    "certificate-table-in-headers": (with_bytes(_CERTIFICATES, "<II", 0x40, 8), "pe.overlap"),
    "certificate-table-over-a-section": (with_bytes(_CERTIFICATES, "<II", 512, 512), "pe.overlap"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_what_is_no_sound_program(up: Up, tmp_path: Path, name: str) -> None:
    content, code = BAD_IMAGES[name]
    file = tmp_path / "bad.exe"
    file.write_bytes(content)

    refuses(up, file, 1, code)


def test_a_directory(up: Up, tmp_path: Path) -> None:
    (tmp_path / "folder.exe").mkdir()

    refuses(up, tmp_path / "folder.exe", 2, "files.none")


def test_a_fifo_is_not_waited_for(up: Up, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.exe")

    refuses(up, tmp_path / "fifo.exe", 1, "file.not_regular")


def test_a_file_that_is_not_there(up: Up, tmp_path: Path) -> None:
    refuses(up, tmp_path / "no-such.exe", 1, "file.unreadable")


def test_a_path_through_a_file(up: Up, app: Path) -> None:
    refuses(up, app / "inner.exe", 1, "file.unreadable")


def test_a_link_to_itself(up: Up, tmp_path: Path) -> None:
    (tmp_path / "loop.exe").symlink_to("loop.exe")

    refuses(up, tmp_path / "loop.exe", 1, "file.unreadable")


def test_a_name_that_no_file_can_have(up: Up, tmp_path: Path) -> None:
    refuses(up, tmp_path / ("x" * 300), 1, "file.unreadable")


@pytest.mark.parametrize("place", ["no-such-folder/out.exe", "app.exe/out.exe"])
def test_an_output_that_cannot_be_written(up: Up, app: Path, place: str) -> None:
    with unchanged(app):
        refused(up.run("sign", "--key", "demo", app, "-o", app.parent / place), 1, "file.unwritable")


def test_an_output_that_is_a_directory_gets_the_file_under_its_name(up: Up, app: Path) -> None:
    target = app.parent / "folder"
    target.mkdir()

    before = app.read_bytes()
    succeeded(up.run("sign", "--key", "demo", app, "-o", target))

    assert app.read_bytes() == before
    succeeded(up.run("verify", target / "app.exe"))


def test_an_output_in_whose_place_a_directory_stands(up: Up, app: Path) -> None:
    target = app.parent / "folder"
    (target / "app.exe").mkdir(parents=True)

    with unchanged(app, target / "app.exe" / "nothing"):
        refused(up.run("sign", "--key", "demo", app, "-o", target), 1, "file.unwritable")


def test_a_receipt_that_cannot_be_written(up: Up, app: Path) -> None:
    receipt_path(app).mkdir()

    with unchanged(app):
        refused(up.run("sign", "--key", "demo", app), 1, "file.unwritable")


def test_a_name_with_no_room_for_its_receipt(up: Up, app: Path) -> None:
    long = app.rename(app.with_name("x" * 250 + ".exe"))

    with unchanged(long):
        refused(up.run("sign", "--key", "demo", long), 1, "file.unwritable")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system with room for one copy of the program; None where this test may not mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    options = ("-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place))
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode != 0:
        yield None
        return
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk(up: Up, app: Path, small_disk: Path | None) -> None:
    before: Callable[[], None] | None = None
    if small_disk is None:
        limit = app.stat().st_size // 2
        before = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # noqa: E731
    else:
        app = copy_of_program(small_disk)

    with unchanged(app):
        refused(up.run("sign", "--key", "demo", app, before=before), 1, "file.unwritable")


@pytest.mark.parametrize("moment", ["read", "sign"])
@pytest.mark.parametrize("change", ["written", "longer", "shorter", "replaced", "gone"])
def test_a_file_that_changes_while_it_is_signed(up: Up, app: Path, moment: str, change: str) -> None:
    changed: list[bytes | None] = []

    def observe(progress: Progress) -> None:
        if progress.stage != moment or changed:
            return
        data = app.read_bytes()
        if change in {"replaced", "gone"}:
            app.unlink()
        if change != "gone":
            new = {"longer": data + b"x" * 8, "shorter": data[:-8]}.get(change, data[:4096] + b"!" + data[4097:])
            app.write_bytes(new)
        changed.append(None if change == "gone" else app.read_bytes())

    works = (Work(path=app, target=app),)
    (outcome,) = Signer(up.client(), profile="demo").sign_all(works, Plan(), observe)

    assert outcome.error is not None
    assert outcome.error.code == ("file.unreadable" if change == "gone" else "file.changed")
    assert changed == [app.read_bytes() if app.exists() else None]
    assert [path.name for path in app.parent.iterdir()] == ([] if change == "gone" else ["app.exe"])


def test_a_receipt_of_before_is_not_lost_with_a_signature_that_failed(up: Up, app: Path) -> None:
    """A signed program stays together with the receipt of the signature that it carries."""
    succeeded(up.run("sign", "--key", "demo", app))
    signed, receipt = app.read_bytes(), receipt_path(app).read_bytes()

    def observe(progress: Progress) -> None:
        if progress.stage == "sign" and progress.outcome is None:
            app.write_bytes(signed[:0x400] + bytes((signed[0x400] ^ 1,)) + signed[0x401:])

    works = (Work(path=app, target=app),)
    (outcome,) = Signer(up.client(), profile="demo").sign_all(works, Plan(), observe)

    assert outcome.error is not None
    assert outcome.error.code == "file.changed"

    assert receipt_path(app).read_bytes() == receipt
    app.write_bytes(signed)
    succeeded(up.run("verify", app))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("sign", "app.exe"), "usage.arguments"),
        (("sign", "--key", "demo"), "files.none"),
        (("sign", "--key", "demo", "--digest", "md5", "app.exe"), "usage.arguments"),
        (("sign", "--key", "demo", "--no-such-flag", "app.exe"), "usage.arguments"),
        (("verify",), "usage.arguments"),
        (("no-such-command",), "usage.arguments"),
        (("log", "no-such-command"), "usage.arguments"),
        (("sign", "--key", "no-such-profile", "app.exe"), "profile.unknown"),
        (("sign", "--key", "", "app.exe"), "profile.unknown"),
        (("sign", "--key", "..", "app.exe"), "profile.unknown"),
        (("sign", "--key", "../../status", "app.exe"), "profile.unknown"),
        (("sign", "--key", "demo", "--config", "no-such.toml", "app.exe"), "config.missing"),
        (("sign", "--key", "demo", "--config", "app.exe", "app.exe"), "config.malformed"),
    ],
)
def test_usage_and_configuration(up: Up, app: Path, arguments: tuple[str, ...], code: str) -> None:
    with unchanged(app):
        refused(up.run(*arguments, cwd=app.parent), 2, code)


def test_a_wrong_argument_leads_to_the_help_of_its_own_command(up: Up) -> None:
    outcome = refused(up.run("config", "check", "two words.toml"), 2, "usage.arguments")

    assert "was given: two words.toml [" in outcome.err
    assert "next: privyseal config check --help" in outcome.err


@pytest.mark.parametrize("command", ["sign", "verify", "timestamp", "hub invite", "client grant", "token scan"])
def test_help_names_no_flag_and_no_default_that_says_nothing(up: Up, command: str) -> None:
    text = succeeded(up.run(*command.split(), "--help")).out

    assert "--empty-" not in text
    assert "False]" not in text
    assert "[default: (" not in text


def test_a_program_name_that_is_too_long_to_sign(up: Up, app: Path) -> None:
    """The hub takes preimages of a bounded size; nothing of the program's own size travels."""
    with unchanged(app):
        outcome = up.run("sign", "--key", "demo", "-d", "x" * 120_000, app)
    assert outcome.code in {0, 1, 2}


def test_the_log_is_whole_after_all_refusals(up: Up, site: Site) -> None:
    succeeded(up.run("log", "verify"))
    succeeded(site.run("log", "verify"))
