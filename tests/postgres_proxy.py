# SPDX-License-Identifier: Apache-2.0
"""Stands between a store and its PostgreSQL server, and breaks the connection around COMMIT.

Only so can a COMMIT be lost on its way there, or its answer on its way back: the server itself does either whole.
"""

import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from postgres_server import PostgresServer

__all__ = ["CommitProxy", "commit_proxy"]

_COMMIT = b"COMMIT\0"


class CommitProxy:
    """Listens on a socket like a server's, and carries each connection there.

    Attributes:
        lose: What is lost next: `commit` before the server has it, `answer` after the server gave it, or nothing.
        lost: Set once that has happened.
        closed: While True, nobody gets through.
    """

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.folder = folder
        self.lose = ""
        self.lost = threading.Event()
        self.closed = False
        self._target = str(server.folder / f".s.PGSQL.{server.port}")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / f".s.PGSQL.{server.port}"))
        self._listener.listen()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.closed:
                    client.close()
                    continue
                upstream = socket.socket(socket.AF_UNIX)
                upstream.connect(self._target)
                self._sockets += [client, upstream]
                for work in (self._carry_there, self._carry_back):
                    thread = threading.Thread(target=work, args=(client, upstream))
                    self._threads.append(thread)
                    thread.start()

    def _carry_there(self, client: socket.socket, upstream: socket.socket) -> None:
        with suppress(OSError), client.makefile("rb") as messages:
            (length,) = struct.unpack("!I", messages.read(4))
            upstream.sendall(struct.pack("!I", length) + messages.read(length - 4))
            while head := messages.read(5):
                kind, length = struct.unpack("!cI", head)
                body = messages.read(length - 4)
                if kind == b"Q" and body == _COMMIT and self.lose == "commit":
                    self._break(client, upstream)
                    return
                upstream.sendall(head + body)
        _end(client, upstream)

    def _carry_back(self, client: socket.socket, upstream: socket.socket) -> None:
        with suppress(OSError), upstream.makefile("rb") as messages:
            while head := messages.read(5):
                kind, length = struct.unpack("!cI", head)
                body = messages.read(length - 4)
                if kind == b"C" and body == _COMMIT and self.lose == "answer":
                    self._break(client, upstream)
                    return
                client.sendall(head + body)
        _end(client, upstream)

    def _break(self, client: socket.socket, upstream: socket.socket) -> None:
        self.lose = ""
        _end(client, upstream)
        self.lost.set()

    def close(self) -> None:
        """End every connection."""
        _end(self._listener)
        self._threads[0].join()
        _end(*self._sockets)
        for thread in self._threads:
            thread.join()


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@contextmanager
def commit_proxy(server: PostgresServer) -> Iterator[CommitProxy]:
    """A proxy in front of a server."""
    with tempfile.TemporaryDirectory(prefix="privyseal-proxy-") as folder:
        proxy = CommitProxy(server, Path(folder))
        try:
            yield proxy
        finally:
            proxy.close()
