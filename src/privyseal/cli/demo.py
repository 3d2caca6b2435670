# SPDX-License-Identifier: Apache-2.0
"""`privyseal demo`: the whole path on a real Windows program, one step after the other, in a temporary directory."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from privyseal.cli.render import say
from privyseal.errors import ConfigError, UnavailableError, VerificationError

__all__ = ["demo"]

#: Windows launchers that well-known packages carry; real programs, made by others.
_LAUNCHERS: Final = (
    ("distlib", "t64.exe"),
    ("setuptools", "cli-64.exe"),
    ("pip", "_vendor/distlib/t64.exe"),
)


def demo(file: Path | None = None, /) -> None:
    """Start hub, agent and a software token in a temporary directory, sign a real EXE, verify everything, clean up.

    Parameters
    ----------
    file
        A Windows program to sign a copy of (default: a launcher out of an installed Python package).
    """
    program = _program(file)
    with tempfile.TemporaryDirectory(prefix="privyseal-demo-") as name:
        directory = Path(name)
        target = directory / "app.exe"
        shutil.copyfile(program, target)
        _tell(f"1. A Windows program: {program} ({target.stat().st_size:,} bytes), copied to {target}")
        with _installation(directory / "up") as ready:
            _walk(target, ready)
    _tell("\nDone. Everything was in that directory, and it is gone.")


def _walk(target: Path, ready: dict[str, Any]) -> None:
    environment = {**os.environ, "PRIVYSEAL_CONFIG": ready["client_config"]}
    base = Path(ready["client_config"]).parent
    _tell(f"2. Hub, agent and software token run: {ready['url']}")
    _tell("   Proved: the client joined over TLS pinned by a join code; the key is in another process, encrypted.")

    _tell("\n3. privyseal sign --key demo app.exe")
    _privyseal(["sign", "--key", "demo", str(target)], environment)
    _tell("   Proved: INTENT was in the log before the key was used, RESULT before the signature came back;")
    _tell("   the agent checked both the log and the request itself.")

    _tell("\n4. privyseal verify app.exe")
    _privyseal(["verify", str(target)], environment)
    _tell("   Proved: digest, signature and chain hold, and today's log extends the one in the receipt.")

    _osslsigncode(target, base / "test-root.pem")

    receipt = target.with_name(target.name + ".tlog-proof")
    _tell(f"\n6. The receipt, {receipt.name}:")
    for line in receipt.read_text("utf-8").splitlines():
        _tell("   " + (line if len(line) <= 100 else line[:97] + "..."))

    _tell("\n7. privyseal verify --offline app.exe")
    _privyseal(["verify", "--offline", str(target)], environment)
    _tell("   Proved: with the pinned log key alone, no server asked.")

    _tell("\n8. privyseal log verify")
    _privyseal(["log", "verify"], environment)
    _tell("   Proved: every entry, every pair of intent and result, and the root, recomputed from the first entry.")

    _tell("\n9. One byte of the program changed:")
    _tamper(target, environment)


def _tell(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _program(file: Path | None) -> Path:
    if file is not None:
        if not file.is_file():
            raise ConfigError("demo.no_program", f"{file} is not a file")
        return file
    for package, member in _LAUNCHERS:
        spec = importlib.util.find_spec(package)
        for place in () if spec is None else spec.submodule_search_locations or ():
            candidate = Path(place) / member
            if candidate.is_file():
                return candidate
    raise ConfigError(
        "demo.no_program",
        "no Windows program found in the installed Python packages",
        hint="name one: privyseal demo FILE.exe; or pip install 'privyseal[demo]'",
    )


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "privyseal.cli.main", *arguments]


@contextlib.contextmanager
def _installation(directory: Path) -> Iterator[dict[str, Any]]:
    log = directory.with_suffix(".log")
    with log.open("wb") as errors:
        process = subprocess.Popen(_command(["up", "--dir", str(directory)]), stdout=subprocess.PIPE, stderr=errors)
    try:
        line = b"" if process.stdout is None else process.stdout.readline()
        if not line:
            say(log.read_text("utf-8"))
            raise UnavailableError("demo.not_started", "`privyseal up` ended before it was ready; its words are above")
        yield json.loads(line)
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _privyseal(arguments: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(_command(arguments), env=environment, stdout=subprocess.PIPE, check=False)
    for line in done.stdout.decode("utf-8").splitlines():
        _tell("   " + line)
    if done.returncode != 0:
        raise VerificationError("demo.failed", f"privyseal {arguments[0]} ended with exit code {done.returncode}")


def _osslsigncode(target: Path, root: Path) -> None:
    _tell("\n5. osslsigncode verify, a verifier that we did not write")
    program = shutil.which("osslsigncode")
    if program is None:
        _tell("   not installed here; apt-get install osslsigncode and run the demo again to see it")
        return
    done = subprocess.run(
        [program, "verify", "-CAfile", str(root), "-TSA-CAfile", str(root), "-in", str(target)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    text = done.stdout.decode("utf-8", "replace")
    for line in text.splitlines():
        if line.startswith(("Signature verification", "Number of verified", "Succeeded", "Failed")):
            _tell("   " + line)
    if done.returncode != 0 or "Signature verification: ok" not in text:
        raise VerificationError("demo.failed", f"osslsigncode refuses {target}:\n{text}")
    _tell("   Proved: a stranger's verifier agrees.")


def _tamper(target: Path, environment: dict[str, str]) -> None:
    data = bytearray(target.read_bytes())
    data[len(data) // 3] ^= 1
    target.write_bytes(data)
    done = subprocess.run(
        _command(["verify", "--offline", str(target)]), env=environment, capture_output=True, check=False
    )
    for line in (done.stdout + done.stderr).decode("utf-8").splitlines():
        _tell("   " + line)
    if done.returncode != VerificationError.exit_status:
        raise VerificationError("demo.failed", f"a changed program was not refused (exit code {done.returncode})")
    _tell("   Proved: it is refused, with exit code 3.")
