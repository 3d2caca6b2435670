# SPDX-License-Identifier: Apache-2.0
"""A card that does nothing but count, in a virtual reader behind a pcscd of its own (vsmartcard's vpcd).

`00 2A 9E 9A` counts one signature, as on an OpenPGP card, which shows the count in DO 93. Reader and pcscd have a
network namespace (vpcd listens on fixed ports, on all addresses) and a mount namespace (pcscd's socket has a fixed
path) of their own; PCSCLITE_CSOCK_NAME tells programs outside where that socket is.
"""

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from privyseal.tokens.pcsc import Pcsc

__all__ = ["READER", "SIGN", "CountingReader", "counting_reader", "use_card"]

READER = "Counting reader 00 00"
SIGN = bytes.fromhex("002a9e9a00")
_ATR = bytes.fromhex("3bd518ff8191fe1fc38073c8211008")
_PORT = 0x8C7B
_DRIVER = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"
_PROGRAMS = ("pcscd", "unshare", "setpriv", "ip", "mount")
_PREPARE = (
    'mount -t tmpfs none /run && mkdir /run/pcscd && mount --bind "$0/run" /run/pcscd && ip link set lo up &&'
    ' { setpriv --pdeathsig KILL pcscd --foreground --config "$0/readers" & } && exec "$@"'
)
_START_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingReader:
    """What a test may do to the card."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]

    def reinsert(self) -> None:
        """Take the card out and put it back; pcscd has noticed both when this returns."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"reinsert\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"back\n"


@contextlib.contextmanager
def counting_reader() -> Iterator[CountingReader]:
    """Skips on a laptop that cannot have one, fails in CI."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    missing += [] if Path(_DRIVER).exists() else [_DRIVER]
    if missing or os.geteuid() != 0:
        reason = f"no pcscd in a namespace: {', '.join(missing) or 'not root'}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    # Not pytest's tmp_path: a unix socket's path has 108 bytes at most.
    with tempfile.TemporaryDirectory(prefix="privyseal-count-") as name:
        for part in ("run", "readers"):
            Path(name, part).mkdir()
        Path(name, "readers/vpcd").write_text(
            f'FRIENDLYNAME "Counting reader"\nDEVICENAME /dev/null:0x{_PORT:X}\n'
            f"LIBPATH {_DRIVER}\nCHANNELID 0x{_PORT:X}\n"
        )
        with subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-c", _PREPARE, name, sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"back\n"
                yield CountingReader(process=process, environment={"PCSCLITE_CSOCK_NAME": f"{name}/run/pcscd.comm"})
            finally:
                process.kill()


def use_card(times: int) -> None:
    """Have the card count signatures: what a program does that nobody knows of."""
    pcsc = Pcsc()
    with pcsc.card(READER) as card:
        for _ in range(times):
            assert card.ask(SIGN).is_ok
    pcsc.close()


# The card: this file as a program in the namespaces


class _Card:
    def __init__(self) -> None:
        self.count = 0
        self.is_present = True
        self.was_missed = threading.Event()
        self.is_on = threading.Event()

    def answer(self, message: bytes) -> bytes | None:
        """vpcd's protocol: one byte is an order (off, on, reset, or a question for the ATR), more is a command."""
        if len(message) > 1:
            return self._command(message)
        if message[0] == 4:
            return _ATR
        if message[0] == 1:
            self.is_on.set()
        return None

    def _command(self, command: bytes) -> bytes:
        count = self.count.to_bytes(3, "big")
        if command[:4] == SIGN[:4]:
            self.count += 1
            return b"\x90\0"
        if command[:4] == b"\0\xca\0\x7a":
            return b"\x7a\x05\x93\x03" + count + b"\x90\0"
        return b"\x6a\x88"


def _serve(card: _Card) -> None:
    while True:
        try:
            link = socket.create_connection(("127.0.0.1", _PORT))
        except ConnectionRefusedError:
            time.sleep(0.02)  # pcscd is not there yet, and a port gives no event for that
            continue
        with link, contextlib.suppress(OSError, struct.error):
            while message := link.recv(struct.unpack(">H", link.recv(2, socket.MSG_WAITALL))[0], socket.MSG_WAITALL):
                if message == b"\4" and not card.is_present:
                    card.was_missed.set()
                    break  # a connection that ends is a card that is gone
                answer = card.answer(message)
                if answer is not None:
                    link.sendall(struct.pack(">H", len(answer)) + answer)


def _main() -> None:
    card = _Card()
    threading.Thread(target=_serve, args=(card,), daemon=True).start()
    print("back" if card.is_on.wait(_START_SECONDS) else "pcscd did not switch the card on", flush=True)  # noqa: T201
    for _ in sys.stdin:
        card.was_missed.clear()
        card.is_present = False
        card.was_missed.wait(_START_SECONDS)
        card.is_on.clear()
        card.is_present = True
        print("back" if card.is_on.wait(_START_SECONDS) else "pcscd did not notice", flush=True)  # noqa: T201


if __name__ == "__main__":
    _main()
