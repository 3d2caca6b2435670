# SPDX-License-Identifier: Apache-2.0
"""`privyseal doctor` on real installations: sound ones, and each kind of damage done for real."""

import ctypes
import datetime as dt
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from diagnoses import fails, row, verdicts
from installation import Site, Up, copy_of_program, running_up
from privyseal.cli.doctor import Part, diagnose
from privyseal.hub.config import load_hub_config, split_address
from privyseal.identity.bundle import load_bundle, seal_bundle
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import Clock
from privyseal.ports.diagnosis import Row, Verdict
from programs import privyseal, refused, succeeded
from tsa_samples import html, running_tsa

pytestmark = pytest.mark.usefixtures("nothing_left_over")


def ahead(**duration: float) -> Clock:
    """A clock that is wrong by so much."""
    return lambda: time.time_ns() // 1_000_000 + dt.timedelta(**duration) // dt.timedelta(milliseconds=1)


def rows(parts: tuple[Part, ...], role: str) -> tuple[Row, ...]:
    (found,) = [part.rows for part in parts if part.role == role]
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two states of a stopped installation: as it was made, and after one more signature."""
    folder = tmp_path_factory.mktemp("kept")
    with running_up(folder / "home"):
        pass
    shutil.copytree(folder / "home", folder / "before")
    with running_up(folder / "home") as up:
        succeeded(up.run("sign", "--key", "demo", copy_of_program(folder)))
    return folder / "before", folder / "home"


@pytest.fixture
def stopped(kept: tuple[Path, Path], tmp_path: Path) -> Path:
    """A stopped installation to be damaged."""
    return Path(shutil.copytree(kept[1], tmp_path / "stopped"))


@pytest.fixture
def client_of_up(up: Up, tmp_path: Path) -> Path:
    """A copy of a running installation's client, to be damaged."""
    shutil.copytree(up.directory / "client", tmp_path / "copy" / "client")
    shutil.copy(up.config, tmp_path / "copy" / "client.toml")
    return tmp_path / "copy"


def test_a_running_installation_is_sound(up: Up) -> None:
    parts = diagnose(up.directory, "", login=True)

    assert [part.role for part in parts] == ["hub", "agent", "client"]
    assert [verdicts(part.rows) for part in parts] == [{}, {}, {"TSA": Verdict.SKIP}]
    for subject in ("key profile demo", "log", "clock", "standing at hub", "hub, mtls listener"):
        row(rows(parts, "client"), subject)
    row(rows(parts, "agent"), "certificate of demo: key on token")
    row(rows(parts, "hub"), "log head")


def test_the_program_says_it_to_people_and_to_programs(up: Up, tmp_path: Path) -> None:
    said = succeeded(privyseal("doctor", "--dir", up.directory, cwd=tmp_path)).out
    told = succeeded(up.run("doctor", "--json", cwd=tmp_path)).document

    assert "0 failed, 0 to look into" in said
    assert (told["sound"], told["exit"]) == (True, 0)
    assert {one["role"] for one in told["rows"]} == {"client"}
    assert all(one["next"] == "" for one in told["rows"] if one["verdict"] == "pass")


def test_the_worst_stands_last_and_gives_the_exit_code(stopped: Path, tmp_path: Path) -> None:
    outcome = privyseal("doctor", "--dir", stopped, cwd=tmp_path)

    assert outcome.code == 7, outcome
    *_, begin, then = outcome.out.splitlines()
    assert begin.startswith("begin with: agent, hub, web listener: the hub at ")
    assert begin.endswith("[hub.unreachable]")
    assert then == "      next: is it running, and can this machine reach it?"
    assert outcome.err == ""


def test_a_machine_without_any_role_is_told_so(tmp_path: Path) -> None:
    refused(privyseal("doctor", "--json", cwd=tmp_path), 2, "config.missing")
    outcome = refused(privyseal("doctor", "--dir", tmp_path, cwd=tmp_path), 2, "config.missing")

    assert "hub.toml" in outcome.err


CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE = 1, 2, 10


def without_roots_powers() -> None:
    """In a program that is about to start (prctl(2), PR_CAPBSET_DROP): what another account than root could not do."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


def test_a_client_configuration_that_may_not_be_seen_is_no_role(stopped: Path, tmp_path: Path) -> None:
    (stopped / "client.toml").unlink()
    (tmp_path / "config").mkdir(mode=0)

    outcome = privyseal("doctor", "--dir", stopped, "--json", cwd=tmp_path, before=without_roots_powers)

    assert {one["role"] for one in outcome.document["rows"]} == {"hub", "agent"}
    (tmp_path / "config").chmod(0o700)


def test_a_port_that_only_the_service_may_open_is_no_fail(stopped: Path, tmp_path: Path) -> None:
    path = stopped / "hub" / "hub.toml"
    path.write_text(re.sub(r"(?m)^listen_web = .*$", 'listen_web = "127.0.0.1:7"', path.read_text()))
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())

    outcome = privyseal("doctor", "--dir", stopped, "--json", cwd=tmp_path, before=without_roots_powers)

    (found,) = [one for one in outcome.document["rows"] if one["subject"] == "port 127.0.0.1:7"]
    assert found["verdict"] == ("warn" if first > 7 else "pass")
    assert "docs/systemd.md" in found["next"] or first <= 7


def test_nothing_is_changed_by_looking(stopped: Path) -> None:
    def state() -> dict[Path, tuple[bytes, int]]:
        files = (path for path in stopped.rglob("*") if path.is_file())
        return {path: (path.read_bytes(), path.stat().st_mode) for path in files}

    before = state()
    diagnose(stopped, "")

    assert state() == before


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(300, Verdict.FAIL), (-300, Verdict.FAIL), (40, Verdict.WARN), (-40, Verdict.WARN)]
)
def test_a_clock_that_is_wrong(up: Up, seconds: int, verdict: Verdict) -> None:
    found = row(rows(diagnose(None, str(up.config), clock=ahead(seconds=seconds)), "client"), "clock")

    assert found.verdict is verdict
    assert ("ahead of" if seconds > 0 else "behind") in found.found
    if verdict is Verdict.FAIL:
        fails(found, "clock.skew", "config")


def test_certificates_that_have_expired(up: Up) -> None:
    parts = diagnose(up.directory, "", login=True, clock=ahead(days=500))

    fails(row(rows(parts, "client"), "TLS certificate"), "identity.certificate_expired", "identity")
    fails(row(rows(parts, "client"), "key profile demo"), "certificate.expired", "denied")
    fails(row(rows(parts, "agent"), "certificate of demo: dates"), "chain.expired", "verification")


def test_a_signing_certificate_that_is_about_to_expire(up: Up) -> None:
    found = row(rows(diagnose(None, str(up.config), clock=ahead(days=440)), "client"), "key profile demo")

    assert found.verdict is Verdict.WARN


def test_a_key_that_others_can_read(client_of_up: Path) -> None:
    (client_of_up / "client" / "request.key").chmod(0o644)

    found = row(rows(diagnose(client_of_up, ""), "client"), "private files")

    fails(found, "file.too_open", "config")


def test_requests_that_were_left_over(client_of_up: Path) -> None:
    (client_of_up / "client" / "journal").mkdir(exist_ok=True)
    (client_of_up / "client" / "journal" / "abc.request.json").touch()

    found = row(rows(diagnose(client_of_up, ""), "client"), "leftover requests")

    assert found.verdict is Verdict.WARN
    assert found.found.startswith("1 in ")


def test_a_journal_that_cannot_be_written(client_of_up: Path) -> None:
    journal = client_of_up / "client" / "journal"
    shutil.rmtree(journal, ignore_errors=True)
    journal.symlink_to("/proc/self/task")  # a directory that root cannot write to either

    fails(row(rows(diagnose(client_of_up, ""), "client"), "request journal"), "journal.unwritable", "config")


def test_the_tsas_of_client_and_hub_are_asked(client_of_up: Path, stopped: Path) -> None:
    with running_tsa() as first, running_tsa(html) as second:
        with (client_of_up / "client.toml").open("a") as file:
            file.write(f'timestamp = ["{first.url}", "{second.url}"]\n')
        with (stopped / "hub" / "hub.toml").open("a") as file:
            file.write(f'[[tsa]]\nurl = "{first.url}"\n')

        client = rows(diagnose(client_of_up, ""), "client")
        hub = rows(diagnose(stopped, ""), "hub")

    assert row(client, f"TSA {first.url}").verdict is Verdict.PASS
    fails(row(client, f"TSA {second.url}"), "tsa.not_a_timestamp", "malformed")
    assert row(hub, f"TSA {first.url}").verdict is Verdict.PASS


def test_the_hub_may_ask_the_tsas_for_its_clients(client_of_up: Path) -> None:
    with (client_of_up / "client.toml").open("a") as file:
        file.write('timestamp_via = "hub"\n')

    found = row(rows(diagnose(client_of_up, ""), "client"), "TSA")

    assert (found.verdict, "the hub asks" in found.found) == (Verdict.SKIP, True)


def test_another_hub_behind_the_address(client_of_up: Path, stopped: Path) -> None:
    shutil.copy(stopped / "client" / "bundle.json", client_of_up / "client" / "bundle.json")

    found = rows(diagnose(client_of_up, ""), "client")

    fails(row(found, "hub, web listener"), "hub.certificate", "identity")
    fails(row(found, "hub, mtls listener"), "hub.certificate", "identity")


def test_configuration_that_cannot_be_read(client_of_up: Path) -> None:
    (client_of_up / "client.toml").write_text("name = ")

    found = rows(diagnose(client_of_up, ""), "client")

    fails(row(found, "configuration"), "config.malformed", "config")
    assert row(found, "all else").verdict is Verdict.SKIP


def test_a_client_that_was_revoked(site: Site) -> None:
    config = site.add_client("leaver")
    assert Verdict.FAIL not in verdicts(rows(diagnose(None, str(config)), "client")).values()
    succeeded(site.administer("hub", "revoke", "client", "leaver"))

    outcome = privyseal("doctor", "--config", config, "--json", cwd=site.directory)

    assert outcome.code == 6
    codes = {one["subject"]: one["code"] for one in outcome.document["rows"] if one["verdict"] == "fail"}
    assert codes["standing at hub"] == "identity.revoked"
    assert set(codes) == {"standing at hub", "hub, mtls listener"}


def test_the_same_hub_with_another_bundle(client_of_up: Path, up: Up) -> None:
    pinned = client_of_up / "client" / "bundle.json"
    statement = msgspec.structs.replace(load_bundle(pinned).statement, serial=2)
    pinned.write_bytes(seal_bundle(statement, (load_ed25519(up.directory / "authority.key"),)).envelope)

    found = rows(diagnose(client_of_up, ""), "client")

    fails(row(found, "trust bundle at hub"), "bundle.differs", "identity")
    assert row(found, "hub, web listener").verdict is Verdict.PASS


def test_a_stopped_hub_is_sound_by_itself(stopped: Path) -> None:
    found = rows(diagnose(stopped, ""), "hub")

    assert verdicts(found) == {}
    assert [one.found for one in found if one.subject.startswith("port ")] == ["free: the hub does not run now"] * 2


@pytest.fixture
def squatter(stopped: Path) -> Iterator[str]:
    """A foreign program on the hub's port."""
    address = load_hub_config(stopped / "hub").listen_web
    with socket.create_server(split_address(address)):
        yield address


def test_a_port_that_somebody_else_holds(stopped: Path, squatter: str) -> None:
    fails(row(rows(diagnose(stopped, ""), "hub"), f"port {squatter}"), "listen.failed", "config")


def test_a_database_that_is_damaged(stopped: Path) -> None:
    database = stopped / "hub" / "hub.db"
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))

    fails(row(rows(diagnose(stopped, ""), "hub"), "database"), "log.corrupt", "log")


def test_a_database_that_is_no_database(stopped: Path) -> None:
    (stopped / "hub" / "hub.db").write_bytes(b"hello" * 1000)

    fails(row(rows(diagnose(stopped, ""), "hub"), "database"), "log.corrupt", "log")


def test_a_database_from_a_backup(stopped: Path, kept: tuple[Path, Path]) -> None:
    shutil.copy(kept[0] / "hub" / "hub.db", stopped / "hub" / "hub.db")

    found = rows(diagnose(stopped, ""), "hub")

    assert row(found, "database").verdict is Verdict.PASS
    fails(row(found, "log head"), "log.rollback", "log")


def test_a_head_that_is_missing(stopped: Path) -> None:
    (stopped / "hub" / "head.checkpoint").unlink()

    fails(row(rows(diagnose(stopped, ""), "hub"), "log head"), "log.head_missing", "log")


@pytest.mark.parametrize("name", ["log.key", "log-ml-dsa-44.key"])
def test_a_log_key_of_another_hub(stopped: Path, up: Up, name: str) -> None:
    shutil.copy(up.directory / "hub" / name, stopped / "hub" / name)

    fails(row(rows(diagnose(stopped, ""), "hub"), "keys"), "file.not_a_key", "config")


def test_a_hub_that_was_never_started(stopped: Path) -> None:
    (stopped / "hub" / "hub.db").unlink()

    found = rows(diagnose(stopped, ""), "hub")

    assert verdicts(found) == {"database": Verdict.SKIP, "log head": Verdict.SKIP}
