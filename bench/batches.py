# SPDX-License-Identifier: Apache-2.0
"""A release of 1,000 programs, beside osslsigncode called for each file, two at a time, on the same SoftHSM2 token.

Run by `make bench`. Nothing here asserts: it prints figures and ratios. Needs softhsm2, opensc and, for the comparison,
osslsigncode with Debian's libengine-pkcs11-openssl.
"""

import datetime as dt
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from privyseal.client.config import load_client_config
from privyseal.client.signing import Plan, Progress, Signer, Work
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.pin_journal import PinJournal
from privyseal.tokens.pin_supply import PinSupply
from privyseal.tokens.pkcs11 import Pkcs11Driver
from privyseal.tokens.testca import make_test_ca

FILES = 1000
PROGRAM_BYTES = 74 * 1024
PIN = "bench-pin"
MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PEERS = (("sign", ", per file, 2 at a time"), ("verify", ", per file"))
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PRIVYSEAL = [sys.executable, "-m", "privyseal.cli.main"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A token, an installation that signs with it, and the programs."""

    directory: Path
    environment: dict[str, str]
    pid: int

    @property
    def chain(self) -> Path:
        return self.directory / "chain.pem"

    @property
    def root(self) -> Path:
        return self.directory / "root.pem"


def quiet(*command: str | Path, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command[0]}: {done.stdout.decode()} {done.stderr.decode()}")


def make_token(directory: Path) -> dict[str, str]:
    """A SoftHSM2 token with an RSA-3072 key and, in a file, a chain for it."""
    (directory / "objects").mkdir()
    configuration = directory / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {directory / 'objects'}\nobjectstore.backend = file\n")
    environment = {**os.environ, "SOFTHSM2_CONF": str(configuration)}
    init = ["softhsm2-util", "--init-token", "--free", "--label", "bench", "--pin", PIN, "--so-pin", PIN]
    quiet(*init, environment=environment)
    tool = ["pkcs11-tool", "--module", MODULE, "--login", "--pin", PIN]
    quiet(*tool, "--keypairgen", "--key-type", "rsa:3072", "--id", "01", "--label", "bench", environment=environment)
    public = directory / "public.der"
    quiet(*tool, "--read-object", "--type", "pubkey", "--id", "01", "-o", public, environment=environment)
    spki = load_der_public_key(public.read_bytes()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    ca = make_test_ca(not_before=now - day, not_after=now + 365 * day)
    chain = ca.issue_code_signing(spki=spki, common_name="Bench", not_before=now - day, not_after=now + 30 * day)
    pem = [x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in chain]
    (directory / "chain.pem").write_bytes(b"".join(pem))
    (directory / "root.pem").write_bytes(pem[-1])
    (directory / "pin").touch(mode=0o600)
    (directory / "pin").write_text(PIN)
    return environment


@contextmanager
def running(directory: Path) -> Iterator[tuple[dict[str, str], int]]:
    with (directory / "up.log").open("wb") as log:
        command = [*PRIVYSEAL, "up", "--dir", str(directory / "up")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        try:
            line = b"" if process.stdout is None else process.stdout.readline()
            if not line:
                sys.exit((directory / "up.log").read_text())
            yield {**os.environ, "PRIVYSEAL_CONFIG": json.loads(line)["client_config"]}, process.pid
        finally:
            process.terminate()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def installation(directory: Path) -> Iterator[Bench]:
    """`privyseal up` with the SoftHSM2 token as key profile `bench`."""
    make_token(directory)
    with running(directory):
        pass
    with (directory / "up" / "agent" / "agent.toml").open("a") as stream:
        stream.write(
            f'\n[[token]]\nname = "bench"\nkind = "pkcs11"\nmodule = "{MODULE}"\ntoken_label = "bench"\n'
            f'pin_file = "{directory / "pin"}"\n'
            f'environment = {{ SOFTHSM2_CONF = "{directory / "softhsm2.conf"}" }}\n'
            f'\n[[key]]\nprofile = "bench"\ntoken = "bench"\nid = "01"\nchain = "{directory / "chain.pem"}"\n'
        )
    with running(directory) as (environment, pid):
        yield Bench(directory=directory, environment=environment, pid=pid)


def cpu_seconds(pid: int) -> float:
    """CPU of a process and of those below it, so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    below = (Path(f"/proc/{pid}/task") / str(pid) / "children").read_text().split()
    tasks = [child for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS + sum(cpu_seconds(int(one)) for one in {*below, *tasks})


def token_cpu_seconds(directory: Path) -> float:
    """What one C_Sign costs in this process, PIN and session apart."""
    config = TokenConfig(
        name="bench",
        kind="pkcs11",
        module=MODULE,
        token_label="bench",
        pin_file=str(directory / "pin"),
        journal=str(directory / "bench-pin-journal"),
        environment={"SOFTHSM2_CONF": str(directory / "softhsm2.conf")},
    )
    os.environ |= config.environment
    driver = Pkcs11Driver(
        config,
        supply=PinSupply(config, prompted=None),
        journal=PinJournal(config.journal),
        progress=lambda _: None,
    )
    driver.open()
    driver.sign(key_id=b"\x01", mechanism=Mechanism.RSA_SHA256, digest=bytes(32))
    started = time.process_time()
    for _ in range(200):
        driver.sign(key_id=b"\x01", mechanism=Mechanism.RSA_SHA256, digest=bytes(32))
    used = (time.process_time() - started) / 200
    driver.close()
    return used


def program() -> bytes:
    """A program of 74 kB: one of Wine's with an overlay, as the tests fetch it; else one of distlib's, of 90 kB."""
    known = Path.home() / ".cache" / "privyseal" / "inputs" / "wine-cng.sys"
    if known.is_file():
        return known.read_bytes().ljust(PROGRAM_BYTES, b"\1")
    import distlib  # noqa: PLC0415 - the dev extra

    return (Path(distlib.__file__).parent / "w32.exe").read_bytes()


def make_release(folder: Path) -> list[Path]:
    """Programs that differ in their last bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    image = program()
    files = [folder / f"app{number:04}.exe" for number in range(FILES)]
    for number, file in enumerate(files):
        file.write_bytes(image + number.to_bytes(8, "little"))
    return files


def stages(bench: Bench) -> None:
    """Where the time of one batch goes."""
    files = make_release(bench.directory / "dist")
    os.environ |= bench.environment
    signer = Signer(load_client_config(), profile="bench")
    marks: dict[str, float] = {}

    def observe(progress: Progress) -> None:
        if progress.stage == "read":
            marks["read"] = time.perf_counter()
        elif progress.outcome is not None:
            marks.setdefault("first", time.perf_counter())

    client, service = time.process_time(), cpu_seconds(bench.pid)
    started = time.perf_counter()
    signer.sign_all(tuple(Work(path=file, target=file) for file in files), Plan(), observe)
    wall = time.perf_counter() - started
    client, service = time.process_time() - client, cpu_seconds(bench.pid) - service
    sign = token_cpu_seconds(bench.directory)
    print("\nWhere the time of one batch goes, per file")
    for name, seconds in (
        ("reading and hashing (wall)", marks["read"] - started),
        ("until the first file is in place (wall)", marks["first"] - marks["read"]),
        ("signing and putting into place, overlapped (wall)", started + wall - marks["first"]),
        ("client CPU", client),
        ("hub, agent and token CPU", service),
    ):
        print(f"  {name:52}{seconds / FILES * 1e3:7.2f} ms")
    beyond = service / FILES - sign
    print(f"  {'C_Sign alone':52}{sign * 1e3:7.2f} ms")
    print(f"  {'hub and agent CPU beyond C_Sign (aim: at most 2 ms)':52}{beyond * 1e3:7.2f} ms")
    sent, received = signer.sent_bytes / FILES / 1e3, signer.received_bytes / FILES / 1e3
    print(f"  {'sent per file':52}{sent:7.2f} kB")
    print(f"  {'received per file, with its receipt':52}{received:7.2f} kB")
    print(f"  {'both ways (aim: at most 8 kB)':52}{sent + received:7.2f} kB")


def timed(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"{command[:3]}: {done.stderr.decode()[-2000:]}")
    return time.perf_counter() - started


def engine() -> str:
    places = Path("/usr/lib").glob("*/engines-*/pkcs11.so")
    return next((str(place) for place in places), "")


def peer_script(bench: Bench, action: str) -> str:
    """osslsigncode for one file; on the same token two at a time fail now and then, and are started again."""
    if action == "verify":
        return f'exec osslsigncode verify -CAfile {bench.root} -in "$1"'
    return (
        f"sign() {{ osslsigncode sign -pkcs11engine {engine()} -pkcs11module {MODULE} -certs {bench.chain} "
        f"-key 'pkcs11:token=bench;id=%01;type=private' -readpass {bench.directory / 'pin'} "
        f'-h sha256 -in "$1" -out "$1.signed" 2> "$1.err"; }}\n'
        f'until sign "$1"; do echo "$1" >> {bench.directory / "failures"}; done\nmv "$1.signed" "$1"\n'
    )


def peer(bench: Bench, action: str) -> float:
    """osslsigncode for each file: signing two at a time, verifying one after the other."""
    script = bench.directory / f"{action}.sh"
    script.write_text(peer_script(bench, action))
    each = f"ls {bench.directory / 'dist'}/*.exe | xargs -P {2 if action == 'sign' else 1} -n 1 sh {script}"
    environment = {**bench.environment, "SOFTHSM2_CONF": str(bench.directory / "softhsm2.conf")}
    return timed(["sh", "-c", each], environment)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="privyseal-bench-") as name, installation(Path(name)) as bench:
        dist = str(bench.directory / "dist")
        rows: list[tuple[str, float]] = []
        if shutil.which("osslsigncode") is not None and engine():
            make_release(bench.directory / "dist")
            rows += [(f"osslsigncode {action}{how}", peer(bench, action)) for action, how in PEERS]
            failures = bench.directory / "failures"
            count = len(failures.read_text().splitlines()) if failures.exists() else 0
            print(f"osslsigncode failed {count} times because two used the token at once, and was started again")
        make_release(bench.directory / "dist")
        rows.append(
            (
                "privyseal sign DIR, receipts kept",
                timed([*PRIVYSEAL, "sign", "--key", "bench", dist], bench.environment),
            )
        )
        verify = [*PRIVYSEAL, "verify", "--offline", "--trust", str(bench.root), dist]
        rows.append(("privyseal verify DIR, with receipts", timed(verify, bench.environment)))
        print(f"\n{FILES} programs of {len(program()) // 1024} KiB, SoftHSM2 RSA-3072")
        figures = dict(rows)
        for row, seconds in rows:
            action = row.split()[1].rstrip(",")
            other = figures.get(f"osslsigncode {action}{dict(PEERS)[action]}")
            ratio = f"{other / seconds:6.2f} x osslsigncode" if other is not None else ""
            print(f"  {row:45}{seconds:8.2f} s{FILES / seconds:8.0f} files/s  {ratio}")
        stages(bench)
        print(f"  peak memory of this client: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
