# SPDX-License-Identifier: Apache-2.0
"""`cryptoki.Module` in a process of its own, asked one call at a time: what a module does, whatever we make of it."""

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.fault_shim import FaultyToken
from privyseal.tokens.cryptoki_types import Attribute, ObjectClass, ulong
from softhsm import EC_ID, PIN

_SERVER = Path(__file__).with_name("module_server.py")
_LONGEST_SECONDS = 10.0
_CKM_ECDSA = 0x1041


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a call came to: a value, or the CK_RV of the function that failed."""

    value: Any = None
    function: str = ""
    rv: int = 0


class ModuleProbe:
    """One process with the module loaded, and not yet initialised."""

    def __init__(self, faulty: FaultyToken) -> None:
        self._process = subprocess.Popen(
            [sys.executable, _SERVER, faulty.library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | faulty.environment,
        )

    def ask(self, method: str, *arguments: Any, seconds: float = _LONGEST_SECONDS) -> Answer:
        """Call a method of `Module` as `module_server` understands it.

        Raises:
            TimeoutError: It did not return.
            ChildProcessError: Its process ended; the argument is its status, negative for a signal.
        """
        calls, answers = self._process.stdin, self._process.stdout
        assert calls is not None
        assert answers is not None
        calls.write(json.dumps([method, *arguments]).encode() + b"\n")
        calls.flush()
        if not select.select([answers], [], [], seconds)[0]:
            raise TimeoutError(method)
        line = answers.readline()
        if not line:
            raise ChildProcessError(self._process.wait())
        return Answer(**json.loads(line))

    def value(self, method: str, *arguments: Any) -> Any:
        """The value of a call that must work."""
        answer = self.ask(method, *arguments)
        assert answer.rv == 0, answer
        return answer.value

    def rv(self, method: str, *arguments: Any) -> int:
        """The CK_RV of a call."""
        return self.ask(method, *arguments).rv

    def open(self) -> int:
        """A session with the only token."""
        return int(self.value("open_session", self.value("slots")[0]))

    def ready(self) -> tuple[int, int]:
        """A session of an initialised module, logged in, and the EC key's handle."""
        self.value("initialize")
        session = self.open()
        self.value("login", session, PIN.decode())
        keys = self.value("find", session, Attribute.ID, EC_ID.hex())
        private = self.value("find", session, Attribute.CLASS, ulong(ObjectClass.PRIVATE_KEY).hex())
        return session, next(key for key in keys if key in private)

    def sign(self, session: int, key: int, digest: bytes = bytes(32)) -> Answer:
        """C_SignInit and C_Sign; the answer of the first that fails."""
        began = self.ask("sign_init", session, _CKM_ECDSA, key)
        return began if began.rv else self.ask("sign", session, digest.hex())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def probing(faulty: FaultyToken) -> Iterator[ModuleProbe]:
    probe = ModuleProbe(faulty)
    try:
        yield probe
    finally:
        probe.close()
