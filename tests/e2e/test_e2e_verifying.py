# SPDX-License-Identifier: Apache-2.0
"""What `verify` refuses: changed programs, changed receipts, receipts of others, logs that do not extend."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from installation import Site, Up, copy_of_program, free_port
from privyseal.client.receipts import receipt_path
from privyseal.tlog.note import encode_base64
from privyseal.tlog.receipt import parse_receipt
from programs import privyseal, refused, succeeded, unchanged


@pytest.fixture(scope="module")
def original(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed program; each test copies it."""
    app = copy_of_program(tmp_path_factory.mktemp("signed"))
    succeeded(up.run("sign", "--key", "demo", app))
    return app


@pytest.fixture
def signed(original: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "signed"
    folder.mkdir()
    (folder / "app.exe.tlog-proof").write_bytes(receipt_path(original).read_bytes())
    copy = folder / "app.exe"
    copy.write_bytes(original.read_bytes())
    return copy


def refuses(up: Up, file: Path, status: int, code: str, *more: str | Path) -> None:
    """In words and in JSON, and without touching anything."""
    with unchanged(file, receipt_path(file)):
        refused(up.run("verify", *more, "--json", file), status, code)


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)


def test_a_changed_byte_of_the_program(up: Up, signed: Path) -> None:
    flip(signed, 0x1000)

    refuses(up, signed, 3, "authenticode.digest_mismatch", "--offline")


@pytest.mark.parametrize("from_end", [40, 300, 1200])
def test_a_changed_byte_of_the_signature(up: Up, signed: Path, from_end: int) -> None:
    flip(signed, signed.stat().st_size - from_end)

    outcome = up.run("verify", "--offline", "--json", signed)

    assert outcome.code in {1, 3}
    refused(outcome, outcome.code, outcome.document["error"]["code"])


def test_a_program_without_signature(up: Up, app: Path) -> None:
    refuses(up, app, 3, "file.unsigned")


def test_a_receipt_of_another_program(up: Up, signed: Path, app: Path) -> None:
    flip(app, 0x1000)
    succeeded(up.run("sign", "--key", "demo", app))

    refuses(up, signed, 3, "receipt.mismatch", "--offline", "--receipt", receipt_path(app))


def test_a_receipt_of_another_signature_of_the_same_program(up: Up, signed: Path, app: Path) -> None:
    succeeded(up.run("sign", "--key", "demo", "--digest", "sha384", app))

    refuses(up, signed, 3, "receipt.mismatch", "--offline", "--receipt", receipt_path(app))


def _other_entry(text: str) -> str:
    extra = parse_receipt(text).extra
    entry = json.loads(extra)
    entry["artifact"]["digest"] = "0" * 64
    changed = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
    return text.replace(encode_base64(extra), encode_base64(changed))


def _other_index(text: str) -> str:
    return text.replace(f"\nindex {parse_receipt(text).index}\n", "\nindex 0\n")


def _other_size(text: str) -> str:
    head, _, note = text.partition("\n\n")
    lines = note.split("\n")
    lines[1] = str(int(lines[1]) + 1)
    return head + "\n\n" + "\n".join(lines)


def _other_origin(text: str) -> str:
    return text.replace("privyseal.local/", "privyseal.local.example/")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        (_other_entry, 3, "proof.inclusion"),
        (_other_index, 3, "proof.inclusion"),
        (_other_size, 3, "note.signature"),
        (_other_origin, 3, "checkpoint.origin"),
        (lambda _: "", 1, "receipt.malformed"),
        (lambda text: text[: len(text) // 2], 1, "receipt.malformed"),
        (lambda text: text.replace("\n", "\r\n"), 1, "receipt.malformed"),
        (lambda text: text + "\n" * 2_000_000, 1, "receipt.malformed"),
        (lambda _: "\0" * 100, 1, "receipt.malformed"),
    ],
    ids=["entry", "index", "size", "origin", "empty", "half", "line-ends", "enormous", "zeros"],
)
def test_a_changed_receipt(up: Up, signed: Path, change: Callable[[str], str], status: int, code: str) -> None:
    path = receipt_path(signed)
    path.write_bytes(change(path.read_text()).encode())

    refuses(up, signed, status, code, "--offline")


def test_a_receipt_that_is_not_there(up: Up, signed: Path) -> None:
    refuses(up, signed, 1, "file.unreadable", "--receipt", signed.with_name("no-such-file"))


def test_a_receipt_without_a_pinned_hub_is_told_and_not_judged(up: Up, signed: Path) -> None:
    trusted = ("--trust", up.directory / "test-root.pem")

    told = succeeded(privyseal("verify", *trusted, signed, cwd=signed.parent))

    assert f"{receipt_path(signed)} was not judged" in told.out
    for asked in (("--require-receipt",), ("--receipt", receipt_path(signed))):
        refused(privyseal("verify", *trusted, *asked, signed, cwd=signed.parent), 2, "receipt.no_bundle")


def test_a_stranger_needs_only_file_receipt_bundle_and_root(up: Up, signed: Path, tmp_path: Path) -> None:
    """Copies in another directory, without a configuration, and without a way to the hub."""
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    originals = (signed, receipt_path(signed), up.client().identity.bundle, up.directory / "test-root.pem")
    for original in originals:
        (stranger / original.name).write_bytes(original.read_bytes())
    given = ("--bundle", "bundle.json", "--trust", "test-root.pem", "--require-receipt", "--json")

    verified = succeeded(privyseal("verify", *given, "app.exe", cwd=stranger)).document

    assert verified["verified"]
    assert verified["receipt"]["log"] == up.client().load_bundle().hub
    assert verified["log_size"] is None
    flip(stranger / "app.exe.tlog-proof", 200)
    outcome = privyseal("verify", *given, "app.exe", cwd=stranger)
    assert outcome.document["error"]["code"].split(".")[0] in {"receipt", "proof", "note", "entry"}
    assert outcome.code in {1, 3}


def test_a_bundle_of_another_hub(up: Up, site: Site, signed: Path) -> None:
    refuses(up, signed, 3, "checkpoint.origin", "--bundle", site.client().identity.bundle)


def test_a_file_that_is_no_bundle_is_named(up: Up, signed: Path) -> None:
    root = up.directory / "test-root.pem"
    outcome = refused(up.run("verify", "--trust", root, "--bundle", signed, signed), 1, "envelope.malformed")

    assert f"trust bundle {signed}: " in outcome.err
    assert "next: a trust bundle is bundle.json" in outcome.err


def test_a_receipt_of_another_hub(up: Up, site: Site, signed: Path) -> None:
    root = up.directory / "test-root.pem"

    refused(site.run("verify", "--trust", root, signed), 3, "checkpoint.origin")


def test_a_hub_that_does_not_answer_is_not_needed(up: Up, signed: Path, tmp_path: Path) -> None:
    config = tmp_path / "client.toml"
    text = up.config.read_text().replace(up.client().web_urls[0], f"https://localhost:{free_port()}")
    text = text.replace('"client"', f'"{up.directory / "client"}"')
    config.write_text(text.replace("test-root", str(up.directory / "test-root")))

    assert "--offline" in refused(privyseal("verify", signed, config=config), 7, "hub.unreachable").err
    succeeded(privyseal("verify", "--offline", signed, config=config))


def test_a_hub_that_is_not_the_pinned_one(up: Up, site: Site, signed: Path, tmp_path: Path) -> None:
    """A client of one hub is sent to another: its certificate is not the pinned hub's."""
    config = tmp_path / "client.toml"
    web = site.client().web_urls[0]
    text = up.config.read_text().replace(up.client().web_urls[0], web)
    text = text.replace('"client"', f'"{up.directory / "client"}"')
    config.write_text(text.replace("test-root", str(up.directory / "test-root")))

    refused(privyseal("verify", signed, config=config), 6, "hub.certificate")
    refused(privyseal("log", "verify", config=config), 6, "hub.certificate")


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, "file.missing"), (b"no certificates here", "trust.malformed"), (b"", "trust.malformed")],
)
def test_trusted_roots_that_cannot_be_read(up: Up, signed: Path, content: bytes | None, code: str) -> None:
    roots = signed.parent.parent / "roots.pem"
    if content is not None:
        roots.write_bytes(content)

    refuses(up, signed, 2, code, "--trust", roots)
