# SPDX-License-Identifier: Apache-2.0
"""The control socket of a card: its two ends."""

import socket
import socketserver
import threading
from pathlib import Path

import msgspec

from lab.piv.apdu import Ins
from lab.piv.orders import Await, Counter, Fault, Insert, Order, Release, Remove, Renew, Set, State
from lab.piv.station import Station

__all__ = ["CardControl", "serve_control"]

_order = msgspec.json.Decoder(Order)
_state = msgspec.json.Decoder(State)
#: A card that does not answer its control socket within this is not there any more.
_GRACE_SECONDS = 15.0


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, station: Station) -> None:
        self.station = station
        super().__init__(str(path), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        for line in self.rfile:
            state = self.server.station.obey(_order.decode(line))
            self.wfile.write(msgspec.json.encode(state) + b"\n")


def serve_control(path: Path, station: Station) -> None:
    """Listen from now on, in threads of its own."""
    threading.Thread(target=_Server(path, station).serve_forever, daemon=True).start()


class CardControl:
    """A test's hand on a card in another process."""

    def __init__(self, path: Path | str) -> None:
        self._path = path

    @property
    def state(self) -> State:
        return self._say(Set())

    def break_with(self, *faults: Fault) -> None:
        """From the next command on, these in place of all before."""
        self._say(Set(faults=faults))

    def turn(self, knobs: Set) -> None:
        self._say(knobs)

    def release(self) -> None:
        """Let commands that are stalled go on."""
        self._say(Release())

    def remove(self) -> None:
        self._say(Remove())

    def insert(self) -> None:
        self._say(Insert())

    def renew(self) -> None:
        """Have another card in place of this one."""
        self._say(Renew())

    def until(self, counter: Counter, at_least: int, *, seconds: float = 10.0) -> State:
        """Wait until a counter is this high.

        Raises:
            TimeoutError: If it is not within these seconds.
        """
        state = self._say(Await(counter=counter, at_least=at_least, seconds=seconds), seconds=seconds)
        if getattr(state, counter) < at_least:
            raise TimeoutError(f"{counter} is {getattr(state, counter)} after {seconds:g} s, not {at_least}")
        return state

    def count(self, ins: Ins) -> int:
        """How many commands of this INS were answered."""
        return sum(apdu.ins == ins for apdu in self.state.commands)

    def _say(self, order: Order, *, seconds: float = 0.0) -> State:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(_GRACE_SECONDS + seconds)
            link.connect(str(self._path))
            link.sendall(msgspec.json.encode(order) + b"\n")
            with link.makefile("rb") as answers:
                return _state.decode(answers.readline())
