# SPDX-License-Identifier: Apache-2.0
"""What one signature costs, beside openssl and osslsigncode on the same files in the same run.

Run by `make bench`. Nothing here asserts: it prints a table of figures and ratios.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from privyseal.client.config import load_client_config
from privyseal.client.hub import HubClient
from privyseal.client.signing import Signer
from privyseal.formats.model import SignOptions

ROUNDS = 200
RUNS = 5
LARGE_BYTES = 500 * 1024 * 1024
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One finished process: wall and CPU seconds, peak resident bytes."""

    wall: float
    cpu: float
    peak: int


def run(command: list[str], environment: dict[str, str] | None = None) -> Run:
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command} ended with exit code {process.returncode}")
    return Run(wall=wall, cpu=usage.ru_utime + usage.ru_stime, peak=usage.ru_maxrss * 1024)


def median(runs: list[Run]) -> Run:
    return Run(
        wall=statistics.median(one.wall for one in runs),
        cpu=statistics.median(one.cpu for one in runs),
        peak=max(one.peak for one in runs),
    )


@contextmanager
def installation(directory: Path) -> Iterator[tuple[dict[str, str], int]]:
    """A running `privyseal up`: environment for its client, process id."""
    with (directory / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "privyseal.cli.main", "up", "--dir", str(directory / "up")],
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            if process.stdout is None:
                sys.exit("no output of `privyseal up`")
            ready = json.loads(process.stdout.readline())
            yield {**os.environ, "PRIVYSEAL_CONFIG": ready["client_config"]}, process.pid
        finally:
            process.terminate()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def cpu_seconds(pid: int) -> float:
    """CPU of a process so far; its children, where the token lives, are not in it."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def token_seconds() -> float:
    """What the signature itself costs: RSA-3072 in this process, as the software token does it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    digest = bytes(32)
    times = []
    for _ in range(50):
        started = time.perf_counter()
        key.sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def one_signature(program: Path, environment: dict[str, str], pid: int) -> None:
    os.environ["PRIVYSEAL_CONFIG"] = environment["PRIVYSEAL_CONFIG"]
    signer = Signer(load_client_config(), profile="demo")
    target = program.with_name("bench-out.exe")
    signer.sign(program, target, SignOptions())
    times = []
    original = HubClient.sign

    def timed(self: HubClient, *arguments: object) -> object:
        started = time.perf_counter()
        views = list(original(self, *arguments))  # type: ignore[arg-type]
        times.append(time.perf_counter() - started)
        return iter(views)

    HubClient.sign = timed  # type: ignore[method-assign,assignment]
    before = cpu_seconds(pid)
    for _ in range(ROUNDS):
        signer.sign(program, target, SignOptions())
    cpu = (cpu_seconds(pid) - before) / ROUNDS
    HubClient.sign = original  # type: ignore[method-assign]
    token = token_seconds()
    times.sort()
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    print(f"\nOne signature at a time, {ROUNDS} of them, software token RSA-3072")
    print(f"  request to receipt       p50 {p50 * 1e3:6.1f} ms   p99 {p99 * 1e3:6.1f} ms")
    print(f"  the signature itself         {token * 1e3:6.1f} ms")
    print(f"  beyond the token         p50 {(p50 - token) * 1e3:6.1f} ms   (aim: at most 25 ms)")
    print(f"  CPU of hub and agent         {cpu * 1e3:6.1f} ms   (aim: at most 8 ms; the token's process is apart)")


def cold(program: Path, environment: dict[str, str]) -> None:
    version = median([run([sys.executable, "-m", "privyseal.cli.main", "--version"]) for _ in range(RUNS * 2)])
    entry = shutil.which("privyseal", path=str(Path(sys.executable).parent))
    if entry is not None:
        version = median([run([entry, "--version"]) for _ in range(RUNS * 2)])
    bare = median([run([sys.executable, "-c", "pass"]) for _ in range(RUNS * 2)])
    target = program.with_name("bench-cold.exe")
    command = [entry or "privyseal", "sign", "--key", "demo", str(program), "-o", str(target)]
    sign = median([run(command, environment) for _ in range(RUNS)])
    print("\nCold process")
    print(f"  python -c pass           {bare.wall * 1e3:6.0f} ms")
    print(f"  privyseal --version      {version.wall * 1e3:6.0f} ms   (aim: at most 40 ms)")
    print(
        f"  privyseal sign, small EXE{sign.wall * 1e3:6.0f} ms   "
        f"beyond the token {(sign.wall - token_seconds()) * 1e3:.0f} ms (aim: at most 500 ms)"
    )


def test_signer(directory: Path, environment: dict[str, str]) -> tuple[Path, Path]:
    """A key file and a certificate for osslsigncode: the same key size, made here."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    key_path, certificate_path = directory / "peer.key", directory / "peer.pem"
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    command = ["openssl", "req", "-x509", "-new", "-key", str(key_path), "-subj", "/CN=peer", "-days", "30"]
    run([*command, "-addext", "extendedKeyUsage=codeSigning", "-out", str(certificate_path)], environment)
    return key_path, certificate_path


def large(program: Path, directory: Path, environment: dict[str, str]) -> None:
    big = directory / "large.exe"
    shutil.copyfile(program, big)
    with big.open("ab") as stream:
        block = os.urandom(1024 * 1024)
        while stream.tell() < LARGE_BYTES:
            stream.write(block)
    rows: list[tuple[str, Run]] = []
    rows.append(("openssl dgst -sha256", median([run(["openssl", "dgst", "-sha256", str(big)]) for _ in range(3)])))
    if shutil.which("osslsigncode") is not None:
        key, certificate = test_signer(directory, environment)
        signed = directory / "peer.exe"
        command = ["osslsigncode", "sign", "-certs", str(certificate), "-key", str(key), "-h", "sha256"]
        command += ["-in", str(big), "-out", str(signed)]
        runs = []
        for _ in range(3):
            signed.unlink(missing_ok=True)
            runs.append(run(command, environment))
        rows.append(("osslsigncode sign", median(runs)))
        verify = ["osslsigncode", "verify", "-CAfile", str(certificate), "-in", str(signed)]
        rows.append(("osslsigncode verify", median([run(verify, environment) for _ in range(3)])))
        signed.unlink()
    privyseal = [sys.executable, "-m", "privyseal.cli.main"]
    runs = []
    for _ in range(3):
        target = directory / "ours.exe"
        shutil.copyfile(big, target)
        runs.append(run([*privyseal, "sign", "--key", "demo", str(target)], environment))
    rows.append(("privyseal sign, in place, verified", median(runs)))
    rows.append(("privyseal verify", median([run([*privyseal, "verify", str(target)], environment) for _ in range(3)])))
    reference = rows[0][1].wall
    peer = next((one.wall for name, one in rows if name == "osslsigncode sign"), None)
    print(f"\nA PE of {LARGE_BYTES // 1024**2} MiB (median of 3; peak memory is the largest)")
    print(f"  {'':36}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}{'x sha256':>10}{'x osslsigncode sign':>21}")
    for name, one in rows:
        ratio = "" if peer is None else f"{one.wall / peer:21.2f}"
        print(f"  {name:36}{one.wall:8.2f}{one.cpu:8.2f}{one.peak / 1e6:9.0f}{one.wall / reference:10.2f}{ratio}")


def main() -> None:
    import distlib  # noqa: PLC0415 - the dev extra

    with tempfile.TemporaryDirectory(prefix="privyseal-bench-") as name:
        directory = Path(name)
        program = directory / "app.exe"
        shutil.copyfile(Path(distlib.__file__).parent / "t64.exe", program)
        with installation(directory) as (environment, pid):
            one_signature(program, environment, pid)
            cold(program, environment)
            large(program, directory, environment)


if __name__ == "__main__":
    main()
