# SPDX-License-Identifier: Apache-2.0
"""Private key files: written for their owner alone, refused when others could read them, and never shown in errors."""

import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import ConfigError
from privyseal.identity.keyfile import (
    load_ed25519,
    load_tls_key,
    parse_public_key,
    public_key_text,
    read_private,
    save_private_key,
    write_private,
    write_public,
)
from wire_samples import key

Load = Callable[[Path], object]
PKCS8 = (Encoding.PEM, PrivateFormat.PKCS8)


def refused(load: Load, path: Path, code: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.code == code
    assert path.name in caught.value.message
    return caught.value


def test_an_ed25519_key_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "request.key"

    save_private_key(path, key())

    assert load_ed25519(path).private_bytes_raw() == key().private_bytes_raw()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["request.key"]


def test_a_tls_key_comes_back(tmp_path: Path) -> None:
    path, private = tmp_path / "tls.key", ec.generate_private_key(ec.SECP256R1())

    save_private_key(path, private)

    assert load_tls_key(path).private_numbers() == private.private_numbers()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_umask_does_not_open_a_private_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_private(tmp_path / "secret", b"x")
    finally:
        os.umask(before)

    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_private_file_replaces_an_open_one_and_is_closed_then(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_public(path, b"old")
    assert path.stat().st_mode & 0o044

    write_private(path, b"new")

    assert (path.stat().st_mode & 0o777, read_private(path)) == (0o600, b"new")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o660, 0o666, 0o700 | 0o001])
@pytest.mark.parametrize("load", [load_ed25519, load_tls_key, read_private])
def test_a_key_that_others_could_reach_is_refused(tmp_path: Path, load: Load, mode: int) -> None:
    path = tmp_path / "request.key"
    save_private_key(path, key())
    path.chmod(mode)

    error = refused(load, path, "file.too_open")

    assert f"{mode:04o}" in error.message
    assert "chmod 600" in error.hint


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_what_the_owner_alone_can_reach_is_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "request.key"
    save_private_key(path, key())
    path.chmod(mode)

    assert load_ed25519(path).private_bytes_raw() == key().private_bytes_raw()


@pytest.mark.parametrize("load", [load_ed25519, load_tls_key, read_private])
def test_a_key_that_is_not_there(tmp_path: Path, load: Load) -> None:
    refused(load, tmp_path / "request.key", "file.missing")
    refused(load, tmp_path, "file.missing")


def _pem(private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return private.private_bytes(*PKCS8, NoEncryption())


RSA = rsa.generate_private_key(65537, 2048)
NO_KEYS = {
    "empty": b"",
    "text": b"hello",
    "not UTF-8": b"\xff" * 100,
    "public": key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "cut": _pem(key())[:-40],
    "encrypted": key().private_bytes(*PKCS8, BestAvailableEncryption(b"secret")),
    "raw": key().private_bytes_raw(),
    "RSA": _pem(RSA),
}


@pytest.mark.parametrize("kind", NO_KEYS)
@pytest.mark.parametrize("load", [load_ed25519, load_tls_key])
def test_what_is_not_such_a_key_is_refused(tmp_path: Path, load: Load, kind: str) -> None:
    path = tmp_path / "request.key"
    write_private(path, NO_KEYS[kind])

    error = refused(load, path, "file.not_a_key")

    assert base64.b64encode(key().private_bytes_raw()).decode() not in str(error)


def test_a_key_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.key"
    save_private_key(path, key())
    refused(load_tls_key, path, "file.not_a_key")
    save_private_key(path, ec.generate_private_key(ec.SECP256R1()))
    refused(load_ed25519, path, "file.not_a_key")


def test_a_tls_key_is_on_p_256(tmp_path: Path) -> None:
    path = tmp_path / "tls.key"
    save_private_key(path, ec.generate_private_key(ec.SECP384R1()))

    refused(load_tls_key, path, "file.not_a_key")


@given(st.binary(min_size=32, max_size=32))
def test_the_text_of_a_public_key_is_read(raw: bytes) -> None:
    text = public_key_text(raw)

    assert text.startswith("ed25519:")
    assert parse_public_key(text) == raw


GOOD = public_key_text(bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ed25519:",
        GOOD.removeprefix("ed25519:"),
        GOOD[:-1],
        GOOD + "A",
        GOOD.replace("ed25519", "rsa"),
        public_key_text(bytes(31)),
        public_key_text(bytes(33)),
        GOOD.replace("A", "ä", 1),
        " " + GOOD,
        GOOD + "\n",
        GOOD.upper(),
    ],
    ids=["empty", "prefix", "bare", "cut", "longer", "rsa", "31", "33", "not-ascii", "space", "newline", "upper"],
)
def test_what_is_no_public_key(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_public_key(text)

    assert caught.value.code == "key.text"


@given(st.text(max_size=60))
def test_noise_is_no_public_key(noise: str) -> None:
    with pytest.raises(ConfigError):
        parse_public_key(noise)
