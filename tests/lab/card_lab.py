# SPDX-License-Identifier: Apache-2.0
"""The lab's card behind a pcscd of its own, for our worker and for OpenSC's programs.

Card and pcscd have a network namespace (vpcd listens on fixed ports, on all addresses) and a mount namespace
(pcscd's socket has a fixed path) of their own. A directory of the test lies at /run/pcscd there, so programs
outside reach that pcscd by its socket: PCSCLITE_CSOCK_NAME tells them where.
"""

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lab.piv.control import CardControl
from lab.piv.keys import DEFAULT_LAYOUT, load_or_make_keys
from lab.piv.objects import SERIAL
from privyseal.tokens.config import TokenConfig
from softhsm import absent, need

__all__ = ["PIN", "WRONG_PIN", "CardLab", "card_lab"]

PIN = b"731946"
WRONG_PIN = b"000000"

_TESTS = Path(__file__).parents[1]
_MODULES = (
    "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib64/opensc-pkcs11.so",
    "/usr/lib/opensc-pkcs11.so",
)
_VPCD = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"
_READER = f"""FRIENDLYNAME "Lab reader"
DEVICENAME /dev/null:0x8C7B
LIBPATH {_VPCD}
CHANNELID 0x8C7B
"""
_TWIN = "/usr/lib/pcsc/drivers/serial/libccidtwin.so"
_LOCKING = "app opensc-pkcs11 { pkcs11 { lock_login = true; } }\n"
#: In the namespaces, before the card: an empty /run, in it the test's directory as /run/pcscd.
_PREPARE = (
    'mount -t tmpfs none /run && mkdir /run/pcscd && mount --bind "$0" /run/pcscd && ip link set lo up && exec "$@"'
)
_START_SECONDS = 10.0


class CardLab:
    """One card, its reader and its pcscd. Made by `card_lab`, which also ends all three."""

    def __init__(
        self,
        directory: Path,
        *,
        module: str,
        layout: dict[int, str],
        twin: tuple[str, ...] = (),
        is_recorded: bool = False,
    ) -> None:
        self.directory = directory
        self.module = module
        self._layout = layout
        self._twin = twin
        self._is_recorded = is_recorded
        self.card = CardControl(directory / "card.sock")
        self._card_process: subprocess.Popen[bytes] | None = None
        self._pcscd: subprocess.Popen[bytes] | None = None
        self.set_pin_file(PIN)

    @property
    def environment(self) -> dict[str, str]:
        """What programs need to find this pcscd."""
        return {"PCSCLITE_CSOCK_NAME": str(self.directory / "run/pcscd.comm")}

    @property
    def locking_environment(self) -> dict[str, str]:
        """The same, with OpenSC set to `lock_login`: no other program gets the card while ours is logged in, and
        OpenSC repeats no private-key operation by itself."""
        return self.environment | {"OPENSC_CONF": str(self.directory / "opensc.conf")}

    @property
    def pin_file(self) -> Path:
        return self.directory / "pin"

    @property
    def journal(self) -> Path:
        return self.directory / "pin.journal"

    @property
    def record(self) -> Path:
        """All that a recorded card heard and said since its process began, PINs among it; see `Station`."""
        return self.directory / "record"

    @property
    def reader_record(self) -> Path:
        """All messages to and from a serial reader; see `run_twin_wire`."""
        return self.directory / "messages"

    @property
    def _device(self) -> Path:
        return self.directory / "tty"

    @property
    def _wire(self) -> tuple[str, ...]:
        record = ("--record", str(self.record)) if self._is_recorded else ()
        if not self._twin:
            return record
        return (*record, "--twin", str(self._device), "--twin-record", str(self.reader_record), *self._twin)

    @property
    def _reader(self) -> str:
        if not self._twin:
            return _READER
        return f'FRIENDLYNAME "Lab reader"\nDEVICENAME {self._device}:GemPCTwin\nLIBPATH {_TWIN}\n'

    def set_pin_file(self, pin: bytes) -> None:
        self.pin_file.write_bytes(pin + b"\n")
        self.pin_file.chmod(0o600)

    def config(self, **changes: Any) -> TokenConfig:
        settings: dict[str, Any] = {
            "name": "card",
            "kind": "pkcs11",
            "module": self.module,
            "serial": SERIAL,
            "pin_file": str(self.pin_file),
            "journal": str(self.journal),
            "environment": self.environment,
            "respawn_seconds": 0.0,
        }
        return TokenConfig(**(settings | changes))

    def kind(self, slot: int) -> str:
        """`rsa2048` or `p256`."""
        return self._layout[slot]

    def certificate(self, slot: int) -> x509.Certificate:
        """The card's own certificate of the key in a slot."""
        return x509.load_der_x509_certificate(_keys(slot, self._layout[slot]))

    def spki(self, slot: int) -> bytes:
        """SubjectPublicKeyInfo of the key in a slot, from the card's own certificate."""
        certificate = self.certificate(slot)
        return certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def pkcs11_tool(self, *arguments: str) -> bytes:
        return self.run("pkcs11-tool", "--module", self.module, *arguments)

    def run(self, program: str, *arguments: str, seconds: float = 30.0) -> bytes:
        """Run a program that finds this pcscd; whatever it prints is in the error if it fails."""
        done = subprocess.run(
            [program, *arguments],
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def remove_card(self) -> None:
        """Take the card out, and wait until pcscd has noticed."""
        self.card.remove()
        self._await_reader("empty")

    def insert_card(self) -> None:
        """Put the card back once pcscd has missed it, and wait until pcscd has noticed."""
        self.card.insert()
        self._await_reader("present")

    def start_pcscd(self) -> None:
        """Start it, and wait until it has the card."""
        assert self._card_process is not None
        with (self.directory / "pcscd.log").open("ab") as log:
            self._pcscd = subprocess.Popen(
                [
                    *("nsenter", "--mount", "--net", "--target", str(self._card_process.pid)),
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("pcscd", "--foreground", "--config", str(self.directory / "reader.conf.d")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        _await_listener(self.directory / "run/pcscd.comm", self.directory / "pcscd.log")
        self._await_reader("present")

    def kill_pcscd(self) -> None:
        """End it as a crash would: its clients' connections break, its socket file stays."""
        assert self._pcscd is not None
        self._pcscd.send_signal(signal.SIGKILL)
        self._pcscd.wait()
        self._pcscd = None

    def start(self) -> None:
        """Start the card in namespaces of its own, then pcscd in the same."""
        for name in ("run", "reader.conf.d"):
            (self.directory / name).mkdir()
        (self.directory / "reader.conf.d/reader").write_text(self._reader)
        (self.directory / "opensc.conf").write_text(_LOCKING)
        layout = [f"--key={slot:02x}={kind}" for slot, kind in self._layout.items()]
        control = self.directory / "card.sock"
        with (self.directory / "card.log").open("wb") as log:
            self._card_process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--net", "sh", "-c", _PREPARE, str(self.directory / "run")),
                    *(sys.executable, "-P", "-m", "lab.piv", "--keys", str(_key_directory()), *layout),
                    *("--control", str(control), "--pin", PIN.decode(), *self._wire),
                ],
                env=os.environ | {"PYTHONPATH": str(_TESTS)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        _await_listener(control, self.directory / "card.log")
        self.start_pcscd()

    def renew(self) -> None:
        """As it was at first, for another test."""
        is_reader_empty = not self.card.state.is_present
        self.card.renew()
        if self._pcscd is None:
            self.start_pcscd()
        elif is_reader_empty:
            self._await_reader("present")
        self.journal.unlink(missing_ok=True)
        self.set_pin_file(PIN)

    def _await_reader(self, state: str) -> None:
        self.run(sys.executable, "-P", str(Path(__file__).with_name("reader_state.py")), state)

    def stop(self) -> None:
        """End pcscd and the card; with the last of them their namespaces go."""
        if self._pcscd is not None:
            self.kill_pcscd()
        if self._card_process is not None:
            assert self._card_process.stdin is not None
            self._card_process.stdin.close()
            self._card_process.kill()
            self._card_process.wait()


@contextlib.contextmanager
def card_lab(
    *, layout: dict[int, str] | None = None, twin: tuple[str, ...] = (), is_recorded: bool = False
) -> Iterator[CardLab]:
    """A card in a reader: skips on a laptop that cannot have one, fails in CI.

    Args:
        layout: Kind of key by slot, where other than usual.
        twin: Have a serial reader with libccid's driver instead of vpcd's; `lab.piv`'s options for it.
        is_recorded: Whether all that the card hears and says is written down.
    """
    need(programs=("pcscd", "unshare", "nsenter", "setpriv", "ip", "pkcs11-tool"))
    module = _installed(os.environ.get("OPENSC_MODULE", ""), *_MODULES)
    _installed(_TWIN if twin else _VPCD)
    if subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False).returncode:
        absent("namespaces need root, and a container that may make them")
    # Not pytest's tmp_path: a unix socket's path has 108 bytes at most.
    with tempfile.TemporaryDirectory(prefix="privyseal-card-") as name:
        lab = CardLab(
            Path(name), module=module, layout=DEFAULT_LAYOUT | (layout or {}), twin=twin, is_recorded=is_recorded
        )
        try:
            lab.start()
            yield lab
        finally:
            lab.stop()


def _installed(*places: str) -> str:
    found = next((place for place in places if place and Path(place).is_file()), "")
    if not found:
        absent(f"not installed: {places[-1]}")
    return found


@cache
def _key_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="privyseal-card-keys-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _keys(slot: int, kind: str) -> bytes:
    return load_or_make_keys(_key_directory(), {slot: kind})[slot].certificate


def _await_listener(path: Path, log: Path) -> None:
    """Wait for what gives no event: that another process listens on its socket."""
    end_s = time.monotonic() + _START_SECONDS
    while not _is_listening(path):
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(0.01)


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        return link.connect_ex(str(path)) == 0
