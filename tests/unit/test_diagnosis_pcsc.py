# SPDX-License-Identifier: Apache-2.0
"""`doctor` on pcscd: who needs it, whether it answers, whether polkit lets a service in."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from diagnoses import fails, row
from privyseal.agent.diagnosis_pcsc import PcscPlaces, needs_pcscd, pcsc_rows
from privyseal.ports.diagnosis import Verdict

ACTION = "org.debian.pcsc-lite.policy"
RULES = Path(__file__).parents[2] / "deploy" / "systemd" / "50-privyseal-pcscd.rules"


@pytest.fixture
def places() -> Iterator[PcscPlaces]:
    with tempfile.TemporaryDirectory() as name:  # a socket's path has 107 bytes at most
        root = Path(name)
        (root / "actions").mkdir()
        (root / "rules").mkdir()
        yield PcscPlaces(socket=root / "pcscd.comm", actions=root / "actions", rules=(root / "none", root / "rules"))


def rule(places: PcscPlaces) -> Verdict:
    return row(pcsc_rows(places), "polkit rule for pcscd").verdict


def test_a_daemon_that_listens_is_found(places: PcscPlaces) -> None:
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(places.socket))
        daemon.listen()

        assert row(pcsc_rows(places), "pcscd").verdict is Verdict.PASS

    fails(row(pcsc_rows(places), "pcscd"), "token.pcscd", "token")  # the socket is there, and nobody behind it


def test_a_daemon_that_is_not_installed(places: PcscPlaces) -> None:
    found = row(pcsc_rows(places), "pcscd")

    fails(found, "token.pcscd", "token")
    assert "pcscd.socket" in found.next_step


def test_without_polkits_action_no_rule_is_needed(places: PcscPlaces) -> None:
    assert rule(places) is Verdict.PASS


def test_a_missing_rule_is_told_with_what_to_write(places: PcscPlaces) -> None:
    (places.actions / ACTION).touch()
    (places.rules[1] / "10-other.rules").write_text("polkit.addRule(function(action, subject) {});")

    found = row(pcsc_rows(places), "polkit rule for pcscd")

    assert found.verdict is Verdict.WARN
    told = found.next_step.partition("account: ")[2]
    assert "".join(told.split()) == "".join(line for line in RULES.read_text().split("\n") if line[:2] != "//").replace(
        " ", ""
    )


def test_the_rule_that_is_shipped_is_found(places: PcscPlaces) -> None:
    (places.actions / ACTION).touch()
    (places.rules[1] / RULES.name).write_bytes(RULES.read_bytes())

    assert rule(places) is Verdict.PASS


def test_rules_that_may_not_be_read_are_not_judged(places: PcscPlaces) -> None:
    (places.actions / ACTION).touch()
    places.rules[0].touch()  # for root, too, what is no folder cannot be listed

    assert rule(places) is Verdict.SKIP


@pytest.mark.parametrize(
    ("name", "content", "needs"),
    [
        ("opensc-pkcs11.so", b"\x7fELF", True),
        ("libykcs11.so.2", b"\x7fELF", True),
        ("libeToken.so", b"\x7fELF", True),
        ("vendor.so", b"\x7fELF libpcsclite.so.1\0", True),
        ("libsofthsm2.so", b"\x7fELF", False),
    ],
)
def test_modules_that_need_pcscd(tmp_path: Path, name: str, content: bytes, needs: bool) -> None:  # noqa: FBT001
    (tmp_path / name).write_bytes(content)

    assert needs_pcscd(tmp_path / name) is needs
