# SPDX-License-Identifier: Apache-2.0
"""A synchronous standby of a test's PostgreSQL server, which takes over from it under load."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from postgres_server import USER, PostgresServer, account
from several.proxy import free_port
from several.run import Lab

__all__ = ["fail_over", "running_standby"]

_NAME = "standby"


@contextmanager
def running_standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """A copy that the primary waits for at every commit."""
    folder = Path(tempfile.mkdtemp(prefix="privyseal-standby-"))
    os.chown(folder, account().get("user", -1), account().get("group", -1))
    standby = PostgresServer(binaries=primary.binaries, folder=folder, port=free_port())
    place = f"host={primary.folder} port={primary.port} user={USER} application_name={_NAME}"
    try:
        standby.run("pg_basebackup", "-d", place, "-D", standby.data, "-R", "-X", "stream", "-c", "fast")
        with (standby.data / "postgresql.auto.conf").open("a") as file:
            file.write(f"port = {standby.port}\nunix_socket_directories = '{folder}'\n")
        standby.start()
        asyncio.run(primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{_NAME}'"))
        asyncio.run(primary.execute("SELECT pg_reload_conf()"))
        state = "SELECT sync_state FROM pg_stat_replication"
        asyncio.run(primary.until(state, lambda rows: rows == [("sync",)]))
        yield standby
    finally:
        if (standby.data / "postmaster.pid").exists():
            standby.stop()
        shutil.rmtree(folder)


def fail_over(lab: Lab, standby: PostgresServer) -> None:
    """The primary is gone for good; the standby is promoted, and every hub is led to it."""
    lab.postgres.stop()
    standby.run("pg_ctl", "promote", "-w", "-D", standby.data)
    for ways in lab.ways:
        ways.database.lead_to(standby.socket)
