# SPDX-License-Identifier: Apache-2.0
"""docs/sdk.md is a program: its examples run one after the other, and what they made is judged by others."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from installation import Up, copy_of_program, running_up
from interop_tools import run_program
from privyseal.client.receipts import check_receipt
from privyseal.errors import PrivysealError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sdk.md"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("sdk") / "up") as running:
        yield running


@pytest.fixture(scope="module")
def ran(up: Up, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every name that the page's examples leave behind, and what they printed."""
    place = tmp_path_factory.mktemp("release")
    copy_of_program(place, "app.exe")
    (place / "dist").mkdir()
    for number in range(3):
        copy_of_program(place / "dist", f"app{number}.exe")
    (place / "dist" / "notes.txt").write_text("not a program")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 9
    printed: list[tuple[object, ...]] = []
    names: dict[str, Any] = {"print": lambda *words: printed.append(words), "printed": printed, "place": place}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("PRIVYSEAL_CONFIG", str(up.client().path))
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_the_release_is_signed(ran: dict[str, Any]) -> None:
    assert [outcome.error for outcome in ran["outcomes"]] == [None] * 3
    assert (ran["place"] / "app-signed.exe.tlog-proof").exists()
    assert ran["report"].receipt is not None


def test_the_error_is_the_one_that_is_meant(ran: dict[str, Any]) -> None:
    assert ("profile.unknown", 2, False) in [words[:3] for words in ran["printed"]]


@pytest.mark.interop
def test_openssl_takes_request_and_signature(ran: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "csr.pem").write_bytes(ran["request"].public_bytes(Encoding.PEM))
    status, said = run_program("openssl", "req", "-verify", "-noout", "-in", tmp_path / "csr.pem")
    assert (status, "verify OK" in said) == (0, True), said

    (tmp_path / "signature").write_bytes(ran["signature"])
    (tmp_path / "content").write_bytes(b"release notes")
    (tmp_path / "root.pem").write_bytes(ran["chain"][-1].public_bytes(Encoding.PEM))
    arguments = ("-binary", "-inform", "DER", "-purpose", "any", "-CAfile", tmp_path / "root.pem")
    files = ("-in", tmp_path / "signature", "-content", tmp_path / "content", "-out", tmp_path / "out")
    status, said = run_program("openssl", "cms", "-verify", *arguments, *files)
    assert (status, "successful" in said) == (0, True), said


def test_a_bare_digest_has_a_receipt(ran: dict[str, Any], up: Up) -> None:
    receipt = check_receipt(ran["result"].receipt, up.client().load_bundle())

    assert (receipt.entry.format, receipt.entry.outcome) == ("digest", "ok")


def test_what_needs_the_key_itself_is_refused(ran: dict[str, Any]) -> None:
    for call in (ran["key"].private_numbers, lambda: ran["key"].decrypt(b"", None)):
        with pytest.raises(PrivysealError) as caught:
            call()
        assert caught.value.code == "key.remote"
