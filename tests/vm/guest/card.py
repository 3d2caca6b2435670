# SPDX-License-Identifier: Apache-2.0
"""In the virtual machine: pcscd and OpenSC on QEMU's reader and card, which nobody here wrote."""

import os
import subprocess
import time
from pathlib import Path

__all__ = ["MESSAGE", "pcscd_pid", "sign", "start_pcscd", "stop_pcscd"]

MESSAGE = b"signed in the virtual machine"
RESULTS = Path("/results")
_SECONDS = 60
_MODULE = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"


def start_pcscd(*, ignored: str = "no such reader") -> None:
    """Start pcscd, until its card answers; OpenSC does not look at readers whose name has `ignored` in it."""
    # QEMU's reader says that it has a PIN pad, and has none.
    Path("/run/opensc.conf").write_text(
        f'app default {{ ignored_readers = "{ignored}"; reader_driver pcsc {{ enable_pinpad = false; }} }}\n'
    )
    os.environ["OPENSC_CONF"] = "/run/opensc.conf"
    Path("/run/message").write_bytes(MESSAGE)
    subprocess.run(["pcscd"], check=True, timeout=_SECONDS)
    until = time.monotonic() + _SECONDS
    while subprocess.run(["opensc-tool", "--atr"], capture_output=True, timeout=_SECONDS, check=False).returncode:
        assert time.monotonic() < until, "pcscd sees no card"
        time.sleep(0.2)


def pcscd_pid() -> int:
    return int(Path("/run/pcscd/pcscd.pid").read_text().strip("\0\n"))


def stop_pcscd() -> None:
    pid = pcscd_pid()
    os.kill(pid, 15)
    subprocess.run(["tail", f"--pid={pid}", "-f", "/dev/null"], check=True, timeout=_SECONDS)


def sign(name: str, *, key_id: str = "0001", pin: str = "") -> dict[str, str | int | float]:
    """One signature by a new process; the host judges what lies in the results then."""
    began = time.monotonic()
    done = subprocess.run(
        [
            *("pkcs11-tool", "--module", _MODULE, "--login", "--pin", pin or os.environ["CARD_PIN"]),
            *("--id", key_id),
            *("--sign", "--mechanism", "SHA256-RSA-PKCS"),
            *("--input-file", "/run/message", "--output-file", f"/results/{name}.sig"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_SECONDS,
        check=False,
    )
    return {
        "status": done.returncode,
        "said": done.stdout.decode(errors="replace"),
        "pcscd": pcscd_pid(),
        "seconds": time.monotonic() - began,
    }
