# SPDX-License-Identifier: Apache-2.0
"""The PIN in memory, and the rules for PIN files."""

import copy
import ctypes
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import TokenError
from privyseal.tokens.pin import MAX_PIN_BYTES, PinBuffer, read_pin_file

pins = st.binary(min_size=1, max_size=MAX_PIN_BYTES).filter(lambda pin: not set(pin) & {0, 10, 13})


def filled(pin: bytes) -> PinBuffer:
    buffer = PinBuffer()
    buffer.fill(pin)
    return buffer


def pin_file(directory: Path, content: bytes, mode: int = 0o600) -> Path:
    path = directory / "pin"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@given(pins)
def test_a_pin_goes_in_and_stands_at_its_address(pin: bytes) -> None:
    buffer = filled(pin)

    assert bytes(buffer.view) == pin
    assert ctypes.string_at(buffer.address, len(buffer)) == pin


def test_wiping_leaves_nothing_and_a_copy_is_on_its_own() -> None:
    buffer = filled(b"12345678")
    other = buffer.copy()
    address = buffer.address

    buffer.wipe()

    assert len(buffer) == 0
    assert ctypes.string_at(address, 64) == bytes(64)
    assert bytes(other.view) == b"12345678"


def test_a_buffer_does_not_show_or_give_away_its_pin() -> None:
    buffer = filled(b"12345678")

    assert "12345678" not in f"{buffer!r} {buffer}"
    for action in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="not for copying"):
            action(buffer)


@pytest.mark.parametrize(
    ("pin", "code"),
    [
        (b"", "token.pin_missing"),
        (b"x" * (MAX_PIN_BYTES + 1), "token.pin_file"),
        (b"12\n34", "token.pin_file"),
        (b"12\x0034", "token.pin_file"),
    ],
)
def test_what_cannot_be_a_pin_is_refused_and_not_kept(pin: bytes, code: str) -> None:
    buffer = PinBuffer()

    with pytest.raises(TokenError) as caught:
        buffer.fill(pin)

    assert caught.value.code == code
    assert len(buffer) == 0


@given(pins, st.sampled_from([b"", b"\n", b"\r\n"]))
def test_a_pin_file_may_end_its_line(tmp_path_factory: pytest.TempPathFactory, pin: bytes, ending: bytes) -> None:
    path = pin_file(tmp_path_factory.getbasetemp(), pin + ending)

    assert bytes(read_pin_file(str(path)).view) == pin


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "token.pin_missing"),
        (b"\n", "token.pin_missing"),
        (b"1234\n5678\n", "token.pin_file"),
        (b"1234\n\n", "token.pin_file"),
        (b"x" * 1_000_000, "token.pin_file"),
    ],
)
def test_a_file_that_holds_no_pin_is_refused(tmp_path: Path, content: bytes, code: str) -> None:
    with pytest.raises(TokenError) as caught:
        read_pin_file(str(pin_file(tmp_path, content)))

    assert caught.value.code == code


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666, 0o700 | 0o007])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(TokenError) as caught:
        read_pin_file(str(pin_file(tmp_path, b"1234", mode)))

    assert caught.value.code == "token.pin_file"
    assert f"{mode:04o}" in caught.value.message
    assert "chmod" in caught.value.hint


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_a_file_of_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    assert bytes(read_pin_file(str(pin_file(tmp_path, b"1234", mode))).view) == b"1234"


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = Path("/etc/passwd")
    if os.geteuid() == 0:
        path = pin_file(tmp_path, b"1234")
        os.chown(path, 12345, -1)

    with pytest.raises(TokenError, match=f"belongs to user {path.stat().st_uid}"):
        read_pin_file(str(path))


def test_a_credential_of_the_service_manager_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/etc")

    with pytest.raises(TokenError, match="does not hold one line"):
        read_pin_file("/etc/passwd")  # a file of root that others may read, though no PIN

    if os.geteuid() == 0:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        assert bytes(read_pin_file(str(pin_file(tmp_path, b"1234", 0o440))).view) == b"1234"


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)

    for path in (tmp_path / "pipe", tmp_path, tmp_path / "missing"):
        with pytest.raises(TokenError) as caught:
            read_pin_file(str(path))
        assert caught.value.code == "token.pin_file"


def test_a_pin_arrives_through_a_pipe_in_parts() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"12345678 and what follows")
    buffer = PinBuffer()

    buffer.read(reading, 8)

    assert bytes(buffer.view) == b"12345678"
    assert os.read(reading, 100) == b" and what follows"
    os.close(writing)
    with pytest.raises(TokenError) as caught:
        buffer.read(reading, 8)
    assert caught.value.code == "token.pin_missing"
    os.close(reading)
