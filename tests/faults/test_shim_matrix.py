# SPDX-License-Identifier: Apache-2.0
"""Each function of the module hangs, then crashes: `WorkerToken` says so within its deadline, and works again."""

import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from lab.fault_shim import FaultyToken, around
from privyseal.errors import TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.cryptoki_types import PROTOTYPES
from privyseal.tokens.discovery import look_at
from privyseal.tokens.factory import open_token
from privyseal.tokens.places import FoundModule
from privyseal.tokens.supervisor import WorkerToken
from privyseal.tokens.testca import make_test_ca
from softhsm import EC_ID, fresh_softhsm

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALL_SECONDS = 0.8
#: For C_Sign and C_GenerateKeyPair; the longer, so that a call which is cut short by the other one shows.
LONG_SECONDS = 1.2
CLOSE_SECONDS = 0.5
#: Starting Python is in it.
START_SECONDS = 2.5
#: How much later than its deadline a call may fail: its worker is killed in this time, or started before it.
LATEST_SECONDS = 1.0

CODES = {"hang": "token.timeout", "abort": "token.crashed"}
BOTH = pytest.mark.parametrize("fault", CODES)

Operation = Callable[[WorkerToken], Coroutine[Any, Any, None]]


async def sign(token: WorkerToken) -> None:
    assert await token.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=bytes(32))


async def info(token: WorkerToken) -> None:
    assert (await token.info()).label


async def keys(token: WorkerToken) -> None:
    assert len(await token.keys()) == 3


async def make_key(token: WorkerToken) -> None:
    number = len(await token.keys())
    assert (await token.generate_key(kind="p256", key_id=b"", label=f"key {number}")).spki


async def store(token: WorkerToken) -> None:
    """Store a certificate that the token cannot have."""
    now = datetime.now(UTC).replace(microsecond=0)
    spki = next(key.spki for key in await token.keys() if key.key_id == EC_ID)
    ca = make_test_ca(not_before=now, not_after=now + timedelta(days=2))
    leaf, _ = ca.issue_code_signing(spki=spki, common_name="Lab", not_before=now, not_after=now + timedelta(days=1))
    await token.store_certificates(key_id=EC_ID, chain=(leaf,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How a function is reached.

    Attributes:
        is_fresh: In a worker without a session; else in one that has signed already.
        also: Orders without which the function would not be called.
    """

    operation: Operation
    is_fresh: bool = False
    also: tuple[str, ...] = ()
    deadline_seconds: float = CALL_SECONDS


CASES = {
    "C_Initialize": Case(operation=sign, is_fresh=True, deadline_seconds=START_SECONDS),
    # A search that finds nothing is repeated after C_Finalize.
    "C_Finalize": Case(operation=info, is_fresh=True, also=("C_GetSlotList empty",)),
    "C_GetSlotList": Case(operation=sign, is_fresh=True),
    # Asked of what is not SoftHSM2 only.
    "C_GetSlotInfo": Case(operation=info, also=("C_GetTokenInfo maker Lab",)),
    "C_GetTokenInfo": Case(operation=info),
    "C_OpenSession": Case(operation=sign, is_fresh=True),
    "C_CloseSession": Case(operation=store),
    "C_Login": Case(operation=sign, is_fresh=True),
    "C_CreateObject": Case(operation=store),
    "C_GetAttributeValue": Case(operation=keys),
    "C_FindObjectsInit": Case(operation=keys),
    "C_FindObjects": Case(operation=keys),
    "C_FindObjectsFinal": Case(operation=keys),
    "C_SignInit": Case(operation=sign),
    "C_Sign": Case(operation=sign, deadline_seconds=LONG_SECONDS),
    "C_GenerateKeyPair": Case(operation=make_key, deadline_seconds=LONG_SECONDS),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> FaultyToken:
    return around(fresh_softhsm(tmp_path_factory.mktemp("matrix")))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def token(faulty: FaultyToken) -> AsyncIterator[WorkerToken]:
    """One for all cases: the worker that shows that a case is healed is the one that the next case breaks."""
    opened = open_token(
        faulty.config(
            start_seconds=START_SECONDS,
            call_seconds=CALL_SECONDS,
            sign_seconds=LONG_SECONDS,
            generate_seconds=LONG_SECONDS,
        )
    )
    yield opened
    faulty.heal()
    await opened.close()


async def timed(work: Coroutine[Any, Any, None]) -> tuple[TokenError | None, float]:
    started_s = time.monotonic()
    try:
        await work
    except TokenError as error:
        return error, time.monotonic() - started_s
    return None, time.monotonic() - started_s


async def ready(token: WorkerToken, *, is_fresh: bool) -> None:
    await sign(token)
    if is_fresh:
        await token.recycle()


async def test_no_function_is_left_out() -> None:
    """C_SetPIN needs longer deadlines, as its PINs are journalled before and after: test_pin_change_faults.py."""
    assert set(CASES) | {"C_GetInfo", "C_SetPIN"} == set(PROTOTYPES)


@BOTH
@pytest.mark.parametrize("function", CASES)
async def test_a_call_that_a_function_never_answers_ends_in_time_and_the_next_one_works(
    faulty: FaultyToken, token: WorkerToken, function: str, fault: str
) -> None:
    case = CASES[function]
    await ready(token, is_fresh=case.is_fresh)
    calls = faulty.calls(function), faulty.calls("C_Sign")
    faulty.break_with(*case.also, f"{function} {fault}")

    error, seconds = await timed(case.operation(token))

    faulty.heal()
    assert error is not None
    assert (error.code, error.begun) == (CODES[fault], function == "C_Sign")
    assert error.begun == (faulty.calls("C_Sign") > calls[1])
    assert faulty.calls(function) == calls[0] + 1, "it was this function, and nothing was tried again"
    earliest_seconds = case.deadline_seconds if fault == "hang" else 0.0
    assert earliest_seconds <= seconds <= case.deadline_seconds + LATEST_SECONDS
    await case.operation(token)


@BOTH
async def test_a_module_that_does_not_finalize_is_closed_in_time(faulty: FaultyToken, fault: str) -> None:
    token = open_token(faulty.config(close_seconds=CLOSE_SECONDS))
    await sign(token)
    calls = faulty.calls("C_Finalize")
    faulty.break_with(f"C_Finalize {fault}")

    _, seconds = await timed(token.close())

    faulty.heal()
    assert faulty.calls("C_Finalize") == calls + 1
    assert seconds <= CLOSE_SECONDS + LATEST_SECONDS


@BOTH
async def test_a_look_at_a_module_that_does_not_say_what_it_is_ends_in_time(faulty: FaultyToken, fault: str) -> None:
    module = FoundModule(path=faulty.library, product="")
    faulty.break_with(f"C_GetInfo {fault}")
    started_s = time.monotonic()

    looked = await look_at(module, environment=faulty.environment, seconds=START_SECONDS)

    seconds = time.monotonic() - started_s
    faulty.heal()
    assert looked.problem is not None
    assert (looked.problem.code, looked.problem.begun) == (CODES[fault], False)
    assert seconds <= START_SECONDS + LATEST_SECONDS
    assert (await look_at(module, environment=faulty.environment)).contents is not None
