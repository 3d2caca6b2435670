# SPDX-License-Identifier: Apache-2.0
"""Worker processes from outside: where a PIN must not show, and that nothing is left behind."""

import asyncio
import gc
import os
import signal
import sys
from pathlib import Path

import msgspec
import pytest

from lab.fault_shim import FaultyToken, around
from privyseal.errors import PrivysealError
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.factory import open_token
from privyseal.tokens.supervisor import WorkerToken
from softhsm import EC_ID, PIN, fresh_softhsm

PROC = Path("/proc")
needs_proc = pytest.mark.skipif(not (PROC / "self/environ").exists(), reason="needs Linux's /proc")

WRONG_PIN = b"canary-000000"


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


async def sign(token: WorkerToken) -> None:
    await token.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=bytes(32))


def worker_pid(token: WorkerToken) -> int:
    assert token._worker is not None
    return token._worker.pid


def has_ended(pid: int) -> bool:
    """Whether a process is gone; one that nobody has waited for yet counts as gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def until_ended(pid: int, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not has_ended(pid):  # noqa: ASYNC110 - not a child of this process
            await asyncio.sleep(0.02)


def seen_from_outside(pid: int) -> bytes:
    shown = [(PROC / str(pid) / "cmdline").read_bytes(), (PROC / str(os.getpid()) / "cmdline").read_bytes()]
    try:
        shown.append((PROC / str(pid) / "environ").read_bytes())
    except PermissionError:
        # Without privilege nobody may look: PR_SET_DUMPABLE is off.
        assert os.geteuid() != 0
    else:
        assert b"PRIVYSEAL_SHIM_LOG" in shown[-1], "it is the environment that was configured"
    return b"".join(shown)


@needs_proc
@pytest.mark.parametrize("pin", [PIN, WRONG_PIN], ids=["right", "wrong"])
@pytest.mark.parametrize("source", ["file", "typed"])
async def test_the_pin_shows_nowhere(
    faulty: FaultyToken,
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
    pin: bytes,
    source: str,
) -> None:
    request.getfixturevalue("monkeypatch").setenv("UNRELATED_SECRET", "canary-unrelated")
    caplog: pytest.LogCaptureFixture = request.getfixturevalue("caplog")
    faulty.hsm.set_pin_file(pin)
    token = open_token(faulty.config(pin_file="") if source == "typed" else faulty.config())
    if source == "typed":
        await token.unlock(bytearray(pin))
        faulty.hsm.pin_file.unlink()
    texts = [repr(token), repr(token.config), msgspec.json.encode(token.config).decode()]
    try:
        await sign(token)
    except PrivysealError as error:
        texts += [repr(error), error.hint]
    pid = worker_pid(token)
    shown = seen_from_outside(pid)
    limits = (PROC / str(pid) / "limits").read_text()
    await token.close()

    faulty.hsm.pin_file.unlink(missing_ok=True)
    files = [path.read_bytes() for path in faulty.hsm.directory.iterdir() if path.is_file()]
    captured = capfd.readouterr()
    everything = b"\n".join(
        [shown, *files, *(text.encode() for text in (*texts, captured.out, captured.err, caplog.text))]
    )
    assert b"canary" not in everything
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


@needs_proc
async def test_no_descriptor_and_no_process_is_left(faulty: FaultyToken) -> None:
    warm = open_token(faulty.config())
    await warm.info()
    await warm.close()
    gc.collect()  # what tests before have left open goes now, or later: it is not missed then
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as the kernel counts them
    pids = []

    for orders in ((), ("C_SignInit abort",), ("C_Finalize hang",)):
        faulty.break_with(*orders)
        token = open_token(faulty.config(close_seconds=0.5))
        await token.info()
        pids.append(worker_pid(token))
        try:
            await sign(token)
        except PrivysealError as error:
            assert error.code == "token.crashed"  # noqa: PT017 - only one of the three rounds may fail, and only so
        await token.close()

    assert [pid for pid in pids if not has_ended(pid)] == []
    assert set(os.listdir("/proc/self/fd")) - before == set()  # noqa: PTH208


SUPERVISOR = """
import asyncio, sys
import msgspec
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.factory import open_token

async def main():
    token = open_token(msgspec.json.decode(sys.argv[1], type=TokenConfig))
    await token.keys()
    print(token._worker.pid, flush=True)
    await token.sign(key_id=bytes.fromhex("02"), mechanism=Mechanism.ECDSA_SHA256, digest=bytes(32))
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@needs_proc
@pytest.mark.parametrize("orders", [(), ("C_Sign hang",)], ids=["idle", "hanging"])
async def test_a_worker_ends_when_its_supervisor_is_killed(faulty: FaultyToken, orders: tuple[str, ...]) -> None:
    faulty.break_with(*orders)
    config = msgspec.json.encode(faulty.config(close_seconds=0.5)).decode()
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISOR, config, stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    pid = int(await supervisor.stdout.readline())
    await faulty.until_called("C_Sign")
    supervisor.send_signal(signal.SIGKILL)
    await supervisor.wait()

    await until_ended(pid, seconds=10)


@needs_proc
async def test_a_worker_that_was_killed_in_between_is_replaced(faulty: FaultyToken) -> None:
    token = open_token(faulty.config())
    await token.info()
    pid = worker_pid(token)
    os.kill(pid, signal.SIGKILL)
    await until_ended(pid, seconds=10)

    codes = []
    for _ in range(2):
        try:
            codes.append((await token.info()).label)
        except PrivysealError as error:
            codes.append(error.code)
    await token.close()

    assert codes in (["token.crashed", "hub"], ["hub", "hub"])


async def test_a_signal_to_the_terminals_group_does_not_reach_the_worker(faulty: FaultyToken) -> None:
    token = open_token(faulty.config())
    await token.info()

    own_group = os.getpgid(worker_pid(token)) != os.getpgid(0)
    await token.close()

    assert own_group
