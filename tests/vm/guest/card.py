# SPDX-License-Identifier: Apache-2.0
"""In the virtual machine: pcscd and OpenSC on QEMU's reader and card, which nobody here wrote."""

import os
import subprocess
from pathlib import Path

__all__ = ["MESSAGE", "pcscd_pid", "sign", "start_pcscd"]

MESSAGE = b"signed in the virtual machine"
RESULTS = Path("/results")
_SECONDS = 60
_MODULE = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"


def start_pcscd() -> None:
    # QEMU's reader says that it has a PIN pad, and has none.
    Path("/run/opensc.conf").write_text("app default { reader_driver pcsc { enable_pinpad = false; } }\n")
    os.environ["OPENSC_CONF"] = "/run/opensc.conf"
    Path("/run/message").write_bytes(MESSAGE)
    subprocess.run(["pcscd"], check=True, timeout=_SECONDS)


def pcscd_pid() -> int:
    return int(Path("/run/pcscd/pcscd.pid").read_text().strip("\0\n"))


def sign(name: str) -> dict[str, str | int]:
    """One signature by a new process; the host judges what lies in the results then."""
    done = subprocess.run(
        [
            *("pkcs11-tool", "--module", _MODULE, "--login", "--pin", os.environ["CARD_PIN"], "--id", "0001"),
            *("--sign", "--mechanism", "SHA256-RSA-PKCS"),
            *("--input-file", "/run/message", "--output-file", f"/results/{name}.sig"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_SECONDS,
        check=False,
    )
    return {"status": done.returncode, "said": done.stdout.decode(errors="replace"), "pcscd": pcscd_pid()}
