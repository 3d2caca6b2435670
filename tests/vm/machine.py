# SPDX-License-Identifier: Apache-2.0
"""A virtual machine that runs one program of tests/vm/guest and ends: QEMU without acceleration, one processor."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from interop_tools import require_program

__all__ = ["CARD_PIN", "Outcome", "image", "new_card", "run_machine"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: The NSS database's password, which QEMU's card takes as its PIN; at most 8 characters.
CARD_PIN = "77777777"
_BUILD_SECONDS = 1200
_RUN_SECONDS = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a machine left behind: its evidence by check, and the folder with its files."""

    checks: dict[str, dict[str, object]]
    results: Path


def image() -> Path:
    """The folder with kernel, initramfs and root file system; made if need be."""
    for program in ("qemu-system-x86_64", "debootstrap", "busybox", "cpio", "certutil"):
        require_program(program)
    done = subprocess.run([HERE / "build_image.sh"], stdout=subprocess.PIPE, timeout=_BUILD_SECONDS, check=False)
    if done.returncode:
        reason = "the machine's image cannot be made: tests/vm/build_image.sh says why"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(done.stdout.decode().strip())


def new_card(folder: Path) -> Path:
    """An NSS database with three keys, which QEMU makes a card of; the folder of cert1.pem, too."""
    folder.mkdir()
    pin, noise, store = folder / "pin", folder / "noise", f"sql:{folder}"
    pin.write_text(CARD_PIN)
    noise.write_bytes(os.urandom(64))

    def certutil(*arguments: str) -> bytes:
        command = ["certutil", *arguments, "-d", store, "-f", str(pin)]
        return subprocess.run(command, capture_output=True, timeout=60, check=True).stdout

    certutil("-N")
    for number in ("1", "2", "3"):
        certutil(
            *("-S", "-s", f"CN=card {number}", "-n", f"cert{number}", "-t", "CTu,Cu,CTu", "-x", "-m", number),
            *("-k", "rsa", "-g", "2048", "-v", "120", "-z", str(noise)),
        )
    (folder / "cert1.pem").write_bytes(certutil("-L", "-n", "cert1", "-a"))
    return folder


def run_machine(made: Path, *, program: str, devices: Sequence[str], results: Path) -> Outcome:
    """Start the machine, have it run a program of tests/vm/guest, wait for its end.

    Args:
        made: What `image` gave.
        program: File name in tests/vm/guest; it writes /results/checks.json.
        devices: QEMU arguments.
        results: An empty folder: /results there.
    """
    console = results / "console"
    shares = {"guest": HERE / "guest", "source": ROOT / "src", "deploy": ROOT / "deploy" / "systemd"}
    kernel = f"console=ttyS0 quiet loglevel=4 mitigations=off tsc=reliable nokaslr panic=-1 checks={program}"
    command = [
        *("qemu-system-x86_64", "-accel", "tcg,tb-size=256", "-machine", "q35", "-cpu", "Nehalem", "-smp", "1"),
        *("-m", "512", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(made / "vmlinuz"), "-initrd", str(made / "initramfs.gz"), "-append", kernel),
        *("-serial", f"file:{console}", "-device", "virtio-rng-pci"),
        *("-drive", f"file={made / 'root.img'},if=none,id=root,format=raw,readonly=on,file.locking=off"),
        *("-device", "virtio-blk-pci,drive=root"),
    ]
    for tag, path in shares.items():
        command += ["-virtfs", f"local,path={path},mount_tag={tag},security_model=none,readonly=on"]
    command += ["-virtfs", f"local,path={results},mount_tag=results,security_model=none", *devices]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=_RUN_SECONDS, check=True)
    finally:
        said = console.read_text(errors="replace") if console.exists() else ""
        written = results / "checks.json"
        if not written.exists():
            pytest.fail(f"the machine ended without results; its console:\n{said[-8000:]}")
    return Outcome(checks=json.loads(written.read_text()), results=results)
