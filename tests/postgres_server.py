# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of Debian's packages for one test session, run as an account that is not root.

It syncs to disk like any other: what the tests say of durability is said of a server as it is meant to be run.
"""

import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

__all__ = ["PASSWORD", "USER", "PostgresServer", "account", "find_binaries", "running_postgres"]

USER = "privyseal"
PASSWORD = "a-test-password"
#: Only a server that hangs takes so long.
_START_SECONDS = 240


def find_binaries() -> Path | None:
    """The folder of the newest server's programs."""

    def version(folder: Path) -> tuple[int, ...]:
        return tuple(int(number) for number in re.findall(r"\d+", folder.parent.name))

    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version)
    if found:
        return found[-1]
    program = shutil.which("initdb")
    return None if program is None else Path(program).parent


def account() -> dict[str, Any]:
    """initdb and postgres refuse root: another account runs them then, in a folder that is its own."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@dataclass(kw_only=True)
class PostgresServer:
    """A running server: on a socket in `folder`, where every account is trusted, and on loopback by password."""

    binaries: Path
    folder: Path
    port: int

    def __post_init__(self) -> None:
        self._numbers = count()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def socket(self) -> Path:
        return self.folder / f".s.PGSQL.{self.port}"

    def run(self, program: str, *arguments: str | Path) -> None:
        # Not a pipe: the server inherits it, and would keep it open.
        with (self.folder / "output").open("ab") as output:
            done = subprocess.run(
                [str(self.binaries / program), *map(str, arguments)],
                cwd=self.folder,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_START_SECONDS,
                check=False,
                **account(),
            )
        assert done.returncode == 0, (self.folder / "output").read_text(errors="replace")[-2000:]

    def start(self) -> None:
        self.run("pg_ctl", "start", "-w", "-t", str(_START_SECONDS), "-D", self.data, "-l", self.folder / "log")

    def stop(self, mode: str = "immediate") -> None:
        """`immediate` is what a crash does: nothing is written out, and the next start recovers from the WAL."""
        self.run("pg_ctl", "stop", "-w", "-D", self.data, "-m", mode)

    def limit_files(self, pids: list[int], size_bytes: int | None) -> None:
        """Let processes of the server extend no file beyond a size; None takes that back."""
        program = shutil.which("prlimit")
        assert program is not None
        size = "unlimited" if size_bytes is None else size_bytes
        for pid in pids:
            self.run(program, "--pid", str(pid), f"--fsize={size}:unlimited")

    def url(self, database: str, *, folder: Path | None = None) -> str:
        return f"postgresql://{USER}@/{database}?host={folder or self.folder}&port={self.port}"

    async def execute(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.url(database))
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    async def until(self, sql: str, holds: Callable[[list[tuple[Any, ...]]], bool]) -> list[tuple[Any, ...]]:
        """Ask again until the answer is as it should be; the answer."""
        connection = await asyncpg.connect(self.url("postgres"))
        try:
            while True:
                found = [tuple(row) for row in await connection.fetch(sql)]
                if holds(found):
                    return found
        finally:
            await connection.close()

    async def make_database(self, template: str = "template1") -> str:
        """A fresh database, or a copy of another one; its name."""
        name = f"hub_{next(self._numbers)}"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A new server; a missing package skips the test, or fails it where CI is set."""
    binaries = find_binaries()
    if binaries is None:
        reason = "postgresql is not installed: see requirements/system.txt"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    # Not under pytest's own folder: the server's account could not enter it. A socket's path must be short, too.
    folder = Path(tempfile.mkdtemp(prefix="privyseal-postgres-"))
    server = PostgresServer(binaries=binaries, folder=folder, port=_free_port())
    try:
        password = folder / "password"
        password.write_text(PASSWORD)
        for path in (folder, password):
            os.chown(path, account().get("user", -1), account().get("group", -1))
        server.run(
            *("initdb", "-D", server.data, "-U", USER, "-E", "UTF8", "--locale", "C.UTF-8", "--pwfile", password),
            *("--auth-local=trust", "--auth-host=scram-sha-256"),
        )
        with (server.data / "postgresql.auto.conf").open("a") as file:
            file.write(f"port = {server.port}\nlisten_addresses = '127.0.0.1'\n")
            file.write(f"unix_socket_directories = '{folder}'\n")
            # After a crash: one call, and not one for each of 300 files of each test's database.
            file.write("recovery_init_sync_method = 'syncfs'\n")
        server.start()
        yield server
    finally:
        if (server.data / "postmaster.pid").exists():
            server.stop("immediate")
        shutil.rmtree(folder)
