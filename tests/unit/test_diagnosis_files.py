# SPDX-License-Identifier: Apache-2.0
"""`doctor` on files: whose they are, who may read them, and a role's own TLS certificate."""

import datetime as dt
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from diagnoses import fails, row
from privyseal.hub.diagnosis import check_space
from privyseal.identity.ca import issue_member, make_ca, new_tls_key
from privyseal.identity.diagnosis import check_account, check_files, check_tls_certificate
from privyseal.identity.keyfile import save_private_key, write_private, write_public
from privyseal.ports.clock import Clock
from privyseal.ports.diagnosis import Verdict, look

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
IS_ROOT = os.geteuid() == 0  # only root may give files away; to others, the root directory is somebody else's


def at(moment: dt.datetime) -> Clock:
    return lambda: int(moment.timestamp() * 1000)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with a TLS key and its certificate."""
    home = tmp_path / "home"
    ca_key, key = new_tls_key(), new_tls_key()
    ca = make_ca("hub.example", ca_key, NOW)
    save_private_key(home / "tls.key", key)
    certificate = issue_member(ca, ca_key, key.public_key(), "privyseal://hub.example/client/build-7", NOW)
    write_public(home / "tls.pem", certificate.public_bytes(Encoding.PEM))
    return home


def test_private_files_are_sound(home: Path) -> None:
    write_private(home / "request.key", b"x")

    (found,) = check_files(home, (home / "tls.key", home / "request.key"))

    assert found.verdict is Verdict.PASS
    assert "request.key" in found.found


def test_each_private_file_that_others_can_read_is_told(home: Path) -> None:
    write_private(home / "request.key", b"x")
    (home / "tls.key").chmod(0o640)
    (home / "request.key").chmod(0o604)

    rows = check_files(home, (home / "tls.key", home / "request.key"))

    assert len(rows) == 2
    for found, name in zip(rows, ("tls.key", "request.key"), strict=True):
        fails(found, "file.too_open", "config")
        assert f"chmod 600 {home / name}" in found.next_step


def test_a_private_file_that_is_missing_is_told(home: Path) -> None:
    (found,) = check_files(home, (home / "request.key",))

    fails(found, "file.missing", "config")


def test_a_directory_that_others_can_enter_is_a_warning(home: Path) -> None:
    home.chmod(0o755)

    (found,) = check_files(home, (home / "tls.key",))

    assert (found.verdict, found.next_step) == (Verdict.WARN, f"chmod 700 {home}")


def test_a_private_file_of_somebody_else_is_told(home: Path) -> None:
    if IS_ROOT:
        os.chown(home / "tls.key", 4711, -1)

    (found,) = check_files(home if IS_ROOT else Path("/"), (home / "tls.key",))

    fails(found, "file.owner", "config")


def test_another_account_is_told_whose_it_must_be(home: Path) -> None:
    assert check_account(home, "privyseal doctor").verdict is Verdict.PASS
    if IS_ROOT:
        os.chown(home, 4711, -1)

    found = check_account(home if IS_ROOT else Path("/"), "privyseal doctor")

    owner = 4711 if IS_ROOT else 0
    assert (found.verdict, found.next_step) == (Verdict.WARN, f"sudo -u '#{owner}' privyseal doctor")


@pytest.mark.parametrize(("days", "verdict"), [(10, Verdict.PASS), (340, Verdict.WARN)])
def test_the_tls_certificate_has_days_left(home: Path, days: int, verdict: Verdict) -> None:
    found = check_tls_certificate(home / "tls.pem", home / "tls.key", at(NOW + days * DAY))

    assert row([found], "TLS certificate").verdict is verdict


@pytest.mark.parametrize("days", [-10, 400])
def test_the_tls_certificate_is_not_valid(home: Path, days: int) -> None:
    found = check_tls_certificate(home / "tls.pem", home / "tls.key", at(NOW + days * DAY))

    fails(found, "identity.certificate_expired", "identity")


def test_the_tls_certificate_is_for_another_key(home: Path) -> None:
    save_private_key(home / "tls.key", new_tls_key())

    fails(check_tls_certificate(home / "tls.pem", home / "tls.key", at(NOW)), "file.not_a_key", "config")


def test_the_tls_certificate_is_none(home: Path) -> None:
    (home / "tls.pem").write_text("hello")

    fails(check_tls_certificate(home / "tls.pem", home / "tls.key", at(NOW)), "file.not_a_key", "config")


def test_a_file_that_is_gone_while_looking_is_told(home: Path) -> None:
    (home / "tls.pem").unlink()

    found = check_tls_certificate(home / "tls.pem", home / "tls.key", at(NOW))

    fails(found, "file.unusable", "config")
    assert str(home / "tls.pem") in found.found


def test_space_for_the_log(tmp_path: Path) -> None:
    assert check_space(tmp_path, 5 * 1024**3).verdict is Verdict.PASS
    assert check_space(tmp_path, 500 * 1024**2).verdict is Verdict.WARN
    fails(look("disk space", lambda: check_space(tmp_path, 1024)), "store.unavailable", "unavailable")
