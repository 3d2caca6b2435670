# SPDX-License-Identifier: Apache-2.0
"""What a long life costs a worker: no memory, no descriptors, no sessions of the token."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.fault_shim import FaultyToken, around
from lab.shim_orders import every, returns, session_cap
from privyseal.errors import TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.factory import open_token
from privyseal.tokens.supervisor import WorkerToken
from softhsm import EC_ID, fresh_softhsm

PROC = Path("/proc")
needs_proc = pytest.mark.skipif(not (PROC / "self/statm").exists(), reason="needs Linux's /proc")

WARM_UP = 100
SIGNATURES = 2000
#: 128 bytes a signature; measured is nothing at all.
GROWTH_BYTES = 256 * 1024


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


@pytest.fixture
async def token(faulty: FaultyToken) -> AsyncIterator[WorkerToken]:
    opened = open_token(faulty.config())
    yield opened
    faulty.heal()
    await opened.close()


async def sign(token: WorkerToken, number: int) -> None:
    await token.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=number.to_bytes(32, "big"))


def resident_bytes(pid: int) -> int:
    return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int | None:
    """How many are open; None where nobody but root may look into a process that is not dumpable."""
    try:
        return len(list((PROC / str(pid) / "fd").iterdir()))
    except PermissionError:
        assert os.geteuid() != 0
        return None


@needs_proc
async def test_two_thousand_signatures_cost_no_memory_and_no_descriptor(token: WorkerToken) -> None:
    for number in range(WARM_UP):
        await sign(token, number)
    assert token._worker is not None
    pid = token._worker.pid
    before_bytes = resident_bytes(pid)
    before = descriptors(pid), descriptors(os.getpid())

    for number in range(SIGNATURES):
        await sign(token, number)

    assert token._worker.pid == pid, "it is the same worker"
    assert resident_bytes(pid) - before_bytes <= GROWTH_BYTES
    assert (descriptors(pid), descriptors(os.getpid())) == before


async def test_calls_that_fail_leave_no_session_open(faulty: FaultyToken, token: WorkerToken) -> None:
    """A token that has one session only says so at the first one that is left."""
    faulty.break_with(session_cap(1), returns("C_SignInit", 0x30, every(2)))
    refused = 0
    for number in range(20):
        try:
            await sign(token, number)
        except TokenError as error:
            assert (error.function, error.ckr) == ("C_SignInit", 0x30)  # noqa: PT017 - every second one fails so
            refused += 1

    assert refused == 10
    assert faulty.calls("C_OpenSession") == 10
