# SPDX-License-Identifier: Apache-2.0
"""Fresh SoftHSM2 tokens for tests: made once by programs that we did not write, then copied for each test."""

import atexit
import datetime as dt
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from privyseal.tokens.config import TokenConfig
from privyseal.tokens.testca import make_test_ca

LABEL = "hub"
#: Long enough not to turn up anywhere by chance.
PIN = b"canary-731946"
RSA_ID = b"\x01"
EC_ID = b"\x02"
#: An RSA key with CKA_ALWAYS_AUTHENTICATE and no certificate.
ALWAYS_ID = b"\x03"

_PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
_DAY = dt.timedelta(days=1)


def need(*, programs: tuple[str, ...]) -> None:
    """Skip without these programs on a laptop; fail in CI."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        absent(f"not installed: {', '.join(missing)}")


def absent(reason: str) -> None:
    """Skip on a laptop, fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI must run this")
    pytest.skip(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftHsm:
    """One SoftHSM2 token in a directory of its own."""

    directory: Path
    module: str

    @property
    def environment(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.directory / "softhsm2.conf")}

    @property
    def pin_file(self) -> Path:
        return self.directory / "pin"

    @property
    def journal(self) -> Path:
        return self.directory / "pin.journal"

    def config(self, **changes: Any) -> TokenConfig:
        settings: dict[str, Any] = {
            "name": "lab",
            "kind": "pkcs11",
            "module": self.module,
            "token_label": LABEL,
            "pin_file": str(self.pin_file),
            "journal": str(self.journal),
            "environment": self.environment,
            "respawn_seconds": 0.0,
        }
        return TokenConfig(**(settings | changes))

    def run(self, program: str, *arguments: str) -> bytes:
        """Run a program against this token; whatever it prints is in the error if it fails."""
        done = subprocess.run(
            [program, *arguments],
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pkcs11_tool(self, *arguments: str) -> bytes:
        login = ("--login", "--pin", PIN.decode())
        return self.run("pkcs11-tool", "--module", self.module, "--token-label", LABEL, *login, *arguments)

    def set_pin_file(self, pin: bytes) -> None:
        self.pin_file.write_bytes(pin)
        self.pin_file.chmod(0o600)


def _module() -> str:
    found = next((place for place in (os.environ.get("SOFTHSM2_MODULE", ""), *_PLACES) if Path(place).is_file()), "")
    if not found:
        absent("SoftHSM2 is not installed")
    return found


def _at(directory: Path, module: str) -> SoftHsm:
    hsm = SoftHsm(directory=directory, module=module)
    (directory / "softhsm2.conf").write_text(
        f"directories.tokendir = {directory / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    hsm.set_pin_file(PIN + b"\n")
    return hsm


@cache
def _template(module: str) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="privyseal-softhsm-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    (directory / "tokens").mkdir()
    hsm = _at(directory, module)
    hsm.run("softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN.decode(), "--so-pin", "87654321")
    keys = (
        (RSA_ID, "rsa:3072", "release", ()),
        (EC_ID, "EC:prime256v1", "release ec", ()),
        (ALWAYS_ID, "rsa:3072", "careful", ("--always-auth",)),
    )
    for key_id, kind, label, more in keys:
        chosen = ("--id", key_id.hex(), "--label", label)
        hsm.pkcs11_tool("--keypairgen", "--key-type", kind, *chosen, "--usage-sign", *more)
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    ca = make_test_ca(not_before=now - _DAY, not_after=now + 30 * _DAY)
    for key_id in (RSA_ID, EC_ID):
        spki = hsm.pkcs11_tool("--read-object", "--type", "pubkey", "--id", key_id.hex())
        leaf, root = ca.issue_code_signing(
            spki=spki, common_name="Lab", not_before=now - _DAY, not_after=now + 20 * _DAY
        )
        (directory / "leaf.der").write_bytes(leaf)
        (directory / "root.der").write_bytes(root)
        hsm.pkcs11_tool("--write-object", str(directory / "leaf.der"), "--type", "cert", "--id", key_id.hex())
    hsm.pkcs11_tool("--write-object", str(directory / "root.der"), "--type", "cert", "--id", "ff")
    return directory


def fresh_softhsm(directory: Path) -> SoftHsm:
    """A SoftHSM2 token of one's own under `directory`, with keys RSA_ID, EC_ID and ALWAYS_ID."""
    need(programs=("softhsm2-util", "pkcs11-tool"))
    module = _module()
    shutil.copytree(_template(module) / "tokens", directory / "tokens")
    return _at(directory, module)
