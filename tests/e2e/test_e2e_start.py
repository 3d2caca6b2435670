# SPDX-License-Identifier: Apache-2.0
"""What a command brings into memory before it does anything, and how `up`, `hub` and `agent` refuse to start."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from installation import Site, Up, copy_of_program, free_port
from programs import command, environment, privyseal, refused, succeeded, unchanged

_HEAVY = {"aiohttp", "asyncpg", "cryptography", "cyclopts", "msgspec", "rich", "sqlite3", "structlog", "urllib3"}
_HUB_OR_AGENT = {"aiohttp", "sqlite3", "structlog"}


def modules_after(*arguments: str, config: Path, cwd: Path) -> tuple[int, set[str]]:
    """Exit code of a command, and the top-level modules that it has imported."""
    program = (
        "import json, sys; from privyseal.cli.main import main; code = main(sys.argv[1:]); "
        "names = sorted({name.partition('.')[0] for name in sys.modules}); "
        "print(json.dumps([code, names]), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment(cwd, config),
        cwd=cwd,
        capture_output=True,
        check=True,
    )
    code, names = json.loads(done.stderr.decode().splitlines()[-1])
    return code, set(names)


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_told_without_importing_anything_heavy(up: Up, tmp_path: Path, flag: str) -> None:
    code, names = modules_after(flag, config=up.config, cwd=tmp_path)

    assert code == 0
    assert "privyseal" in names
    assert names & _HEAVY == set()


@pytest.mark.parametrize("asked", ["sign", "verify", "status", "log verify", "config show", "client show", "doctor"])
def test_a_clients_commands_need_no_extra(up: Up, tmp_path: Path, asked: str) -> None:
    app = copy_of_program(tmp_path)
    succeeded(up.run("sign", "--key", "demo", app))
    more = {"sign": ("--key", "demo", str(app)), "verify": (str(app),)}.get(asked, ())

    code, names = modules_after(*asked.split(), *more, config=up.config, cwd=tmp_path)

    assert code == 0
    assert names & _HUB_OR_AGENT == set()
    assert "cryptography" in names


def test_help_is_for_people_and_names_the_exit_codes() -> None:
    said = succeeded(privyseal("--help")).out

    assert "10 log integrity" in said
    for noun in (
        "hub",
        "agent",
        "client",
        "key",
        "token",
        "log",
        "queue",
        "config",
        "sign",
        "verify",
        "up",
        "demo",
        "doctor",
    ):
        assert f"\n  {noun}" in said.replace("│", " "), noun


@pytest.mark.parametrize("noun", ["hub", "agent", "client", "key", "token", "log", "queue", "config"])
def test_every_command_has_help(noun: str) -> None:
    assert "Usage: privyseal " + noun in succeeded(privyseal(noun, "--help")).out


def test_output_that_nobody_reads_ends_the_program_without_a_word(up: Up, tmp_path: Path) -> None:
    writer = subprocess.Popen(
        command("log", "show", "--last", "100000", "--json"),
        env=environment(tmp_path, up.config),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert writer.stdout is not None
    writer.stdout.close()
    _, said = writer.communicate(timeout=60)

    assert (writer.returncode, said) == (130, b"")


def test_up_refuses_a_directory_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("not yours")

    with unchanged(tmp_path / "letter.txt"):
        refused(privyseal("up", "--dir", tmp_path), 2, "up.half_made")


def test_up_refuses_a_place_that_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    refused(privyseal("up", "--dir", tmp_path / "file" / "home"), 2, "file.unusable")


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1", "127.0.0.1:99999", ":80", "127.0.0.1:-1"])
def test_up_refuses_an_address_that_is_none(tmp_path: Path, listen: str) -> None:
    refused(privyseal("up", "--dir", tmp_path / "home", "--listen", listen), 2, "config.address")
    assert not (tmp_path / "home").exists()


def test_up_refuses_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        refused(privyseal("up", "--dir", tmp_path / "home", "--listen", address), 2, "listen.failed")


def test_a_second_up_in_the_same_directory_leaves_the_first_alone(up: Up, app: Path) -> None:
    refused(privyseal("up", "--dir", up.directory), 2, "listen.failed")

    succeeded(up.run("sign", "--key", "demo", app))
    succeeded(up.run("log", "verify"))


def test_a_hub_is_made_once(site: Site, tmp_path: Path) -> None:
    key = tmp_path / "authority.key"
    place = ("--listen", f"127.0.0.1:{free_port()}", "--name", "hub.example/again")

    refused(privyseal("hub", "init", "--dir", site.hub_directory, "--authority", key, *place), 2, "hub.exists")
    with unchanged(site.authority):
        there = ("--dir", tmp_path / "hub", "--authority", site.authority)
        refused(privyseal("hub", "init", *there, *place), 2, "authority.exists")
    assert not key.exists()


@pytest.mark.parametrize("name", ["", "Hub", "hub name", "hub\n", "hüb", "h" * 256])
def test_a_hub_whose_name_cannot_be_an_origin(tmp_path: Path, name: str) -> None:
    place = ("--dir", tmp_path / "hub", "--authority", tmp_path / "authority.key", "--name", name)

    outcome = privyseal("hub", "init", *place, "--listen", "127.0.0.1:1")

    refused(outcome, 2, "config.malformed")
    assert not (tmp_path / "authority.key").exists(), "a key without its hub"


def test_nothing_runs_where_nothing_was_made(tmp_path: Path) -> None:
    refused(privyseal("hub", "run", "--dir", tmp_path), 2, "config.missing")
    refused(privyseal("agent", "run", "--dir", tmp_path), 2, "config.missing")
    refused(privyseal("key", "list", "--dir", tmp_path, "--json"), 2, "config.missing")
    refused(privyseal("token", "list", "--dir", tmp_path), 2, "config.missing")
    refused(privyseal("config", "check", cwd=tmp_path), 2, "config.missing")


def test_an_authority_key_must_be_there(site: Site, tmp_path: Path) -> None:
    refused(site.run("hub", "invite", "client", "x", cwd=tmp_path), 2, "authority.missing")
    missing = ("--authority", tmp_path / "no-such.key")
    refused(site.run("hub", "invite", "client", "x", *missing), 2, "file.missing")


def test_private_files_are_private(site: Site, up: Up) -> None:
    for directory in (site.directory, up.directory):
        private = [path for path in directory.rglob("*") if path.suffix == ".key" or path.name in {"pin", "agent.toml"}]
        assert len(private) >= 8
        assert [path for path in private if path.stat().st_mode & 0o077] == []


def test_a_key_that_others_can_read_is_not_used(site: Site, tmp_path: Path) -> None:
    config = site.add_client("careless-with-files")
    key = config.parent / "client" / "request.key"
    key.chmod(0o644)
    app = copy_of_program(tmp_path)

    with unchanged(app):
        refused(site.run("sign", "--key", "release", app, client="careless-with-files"), 2, "file.too_open")
