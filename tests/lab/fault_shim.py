# SPDX-License-Identifier: Apache-2.0
"""Builds the shim (`pkcs11_fault_*.c`) and puts it around a SoftHSM2 token."""

import asyncio
import atexit
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from privyseal.tokens.config import TokenConfig
from softhsm import SoftHsm, need

_SOURCES = tuple(sorted(Path(__file__).parent.glob("pkcs11_fault_*.c")))
_FLAGS = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-shared", "-fPIC")


@cache
def _library() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="privyseal-shim-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    library = directory / "pkcs11_fault_shim.so"
    subprocess.run(["cc", *_FLAGS, "-o", library, *_SOURCES, "-ldl"], check=True)
    return library


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultyToken:
    """A SoftHSM2 token behind the shim."""

    hsm: SoftHsm
    library: Path

    @property
    def _control(self) -> Path:
        return self.hsm.directory / "shim.control"

    @property
    def _log(self) -> Path:
        return self.hsm.directory / "shim.log"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs that loads `library` by itself."""
        return self.hsm.environment | {
            "PRIVYSEAL_SHIM_MODULE": self.hsm.module,
            "PRIVYSEAL_SHIM_CONTROL": str(self._control),
            "PRIVYSEAL_SHIM_LOG": str(self._log),
            "PRIVYSEAL_SHIM_STATE": str(self.hsm.directory / "shim.state"),
        }

    def config(self, **changes: Any) -> TokenConfig:
        return self.hsm.config(module=str(self.library), environment=self.environment, **changes)

    def break_with(self, *orders: str) -> None:
        """From now on, in whatever process: lines of `shim_orders`, or `C_Sign hang`, `C_SignInit rv b3`, ..."""
        fresh = self._control.with_suffix(".new")
        fresh.write_text("".join(order + "\n" for order in orders))
        fresh.replace(self._control)

    def heal(self) -> None:
        self._control.unlink(missing_ok=True)

    def _words(self) -> list[str]:
        return self._log.read_text().split() if self._log.exists() else []

    def calls(self, function: str) -> int:
        """How often a function has reached the module."""
        return self._words().count(function)

    def begun(self) -> Counter[str]:
        """How often C_Sign has reached the module for each digest (the last 32 bytes of its data, hexadecimal)."""
        return self._after("data=")

    def order(self) -> list[str]:
        """The digests with which C_Sign has reached the module, as `begun` names them, one after the other."""
        return [word.removeprefix("data=") for word in self._words() if word.startswith("data=")]

    def signed(self) -> Counter[str]:
        """How often the token itself has signed each digest, whatever became of the answer."""
        return self._after("signed=")

    def _after(self, mark: str) -> Counter[str]:
        return Counter(word.removeprefix(mark) for word in self._words() if word.startswith(mark))

    async def until_begun(self, digest: str) -> None:
        """Wait until C_Sign has reached the module with a digest."""
        async with asyncio.timeout(10):
            while digest not in self.begun():  # noqa: ASYNC110 - another process writes the log
                await asyncio.sleep(0.02)

    async def until_called(self, function: str) -> None:
        """Wait until a function has reached the module; its log is a file, which gives no event to wait for."""
        async with asyncio.timeout(10):
            while self.calls(function) == 0:  # noqa: ASYNC110 - another process writes the log
                await asyncio.sleep(0.02)


def around(hsm: SoftHsm) -> FaultyToken:
    """The shim around a token; skips without a C compiler on a laptop, fails in CI."""
    need(programs=("cc",))
    return FaultyToken(hsm=hsm, library=_library())
