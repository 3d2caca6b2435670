# SPDX-License-Identifier: Apache-2.0
"""A signature that waits at the worker while another one is made: it begins only behind one that went well."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path

import pytest

from lab.fault_shim import FaultyToken, around
from lab.shim_orders import aborts, delays, first, hangs, returns
from privyseal.agent.ladder import Rung
from privyseal.agent.recovery import RecoveringToken
from privyseal.errors import PrivysealError, TokenError
from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.tokens.ckr import Rv
from privyseal.tokens.factory import open_token
from privyseal.tokens.frames import SignCall
from privyseal.tokens.process import WorkerProcess
from privyseal.tokens.supervisor import WorkerToken
from softhsm import EC_ID, fresh_softhsm

DIGESTS = (b"\x01" * 32, b"\x02" * 32)
#: Long enough for the second call to be sent while the first is made.
SIGN_MS = 50


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


@pytest.fixture
async def token(faulty: FaultyToken) -> AsyncIterator[WorkerToken]:
    opened = open_token(faulty.config(call_seconds=20.0, sign_seconds=0.5))
    await opened.keys()
    yield opened
    faulty.heal()
    await opened.close()


async def both(token: WorkerToken | RecoveringToken) -> list[bytes | TokenError]:
    """Two signatures, the second asked for while the first is made."""
    calls = (token.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=digest) for digest in DIGESTS)
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(end, bytes | TokenError) for end in ends)
    return ends  # type: ignore[return-value]


def ended(ends: Sequence[bytes | TokenError]) -> list[tuple[str, bool]]:
    return [(end.code, end.begun) if isinstance(end, TokenError) else ("signed", True) for end in ends]


async def test_both_are_signed_each_over_its_own_digest(faulty: FaultyToken, token: WorkerToken) -> None:
    (key,) = (key for key in await token.keys() if key.key_id == EC_ID)
    faulty.break_with(delays("C_Sign", SIGN_MS))
    ends = await both(token)
    for end, digest in zip(ends, DIGESTS, strict=True):
        assert isinstance(end, bytes)
        verify_digest(key.spki, Mechanism.ECDSA_SHA256, digest, end)
    assert faulty.calls("C_Sign") == 2


async def test_the_second_waits_at_the_worker_and_no_third_does(
    faulty: FaultyToken, token: WorkerToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    send_ahead = WorkerProcess.send_ahead

    def noted(worker: WorkerProcess, call: SignCall) -> None:
        sent.append(call.digest)
        send_ahead(worker, call)

    monkeypatch.setattr(WorkerProcess, "send_ahead", noted)
    faulty.break_with(delays("C_Sign", SIGN_MS))
    signs = [asyncio.create_task(sign(token, 0))]
    await until_signing(token)
    signs += [asyncio.create_task(sign(token, 1)) for _ in range(2)]
    await signs[0]
    assert sent == [DIGESTS[1]]
    await asyncio.gather(*signs)
    assert faulty.calls("C_Sign") == 3


@pytest.mark.parametrize(
    ("order", "end"),
    [
        (returns("C_SignInit", Rv.FUNCTION_FAILED), ("token.failed", False)),
        (returns("C_Sign", Rv.DEVICE_ERROR), ("token.failed", True)),
        (aborts("C_SignInit"), ("token.crashed", False)),
        (aborts("C_Sign"), ("token.crashed", True)),
        (hangs("C_Sign"), ("token.timeout", True)),
    ],
)
async def test_behind_one_that_fails_it_does_not_begin(
    faulty: FaultyToken, token: WorkerToken, order: str, end: tuple[str, bool]
) -> None:
    faulty.break_with(order)
    begun = faulty.calls("C_SignInit")
    first_one = asyncio.create_task(sign(token, 0))
    await until_signing(token)
    second = await refusal(sign(token, 1))
    assert ended([await refusal(first_one)]) == [end]
    assert ended([second]) == [("token.skipped", False)]
    assert faulty.calls("C_SignInit") == begun + 1
    faulty.heal()
    assert await sign(token, 1)


async def test_one_that_began_behind_an_answer_that_came_too_late_may_have_signed(
    faulty: FaultyToken, token: WorkerToken
) -> None:
    """The first is given up at its deadline; what its worker said meanwhile tells that the second had begun."""
    faulty.break_with(delays("C_Sign", 450))
    first_one = asyncio.create_task(sign(token, 0))
    await until_signing(token)
    second = asyncio.create_task(sign(token, 1))
    assert token._worker is not None
    while token._worker.function != "C_Sign":  # noqa: ASYNC110 - what the worker says has no event of its own
        await asyncio.sleep(0)
    time.sleep(0.7)  # noqa: ASYNC251 - the loop is held up: deadline and answer pass meanwhile
    assert faulty.calls("C_Sign") == 2
    assert ended([await refusal(first_one), await refusal(second)]) == [
        ("token.timeout", True),
        ("token.crashed", True),
    ]


@pytest.mark.parametrize(
    ("order", "ends", "steps"),
    [
        (returns("C_SignInit", Rv.SESSION_CLOSED, first(1)), ["signed", "signed"], [Rung.SESSION]),
        (returns("C_Sign", Rv.DEVICE_ERROR, first(1)), ["token.failed", "signed"], [Rung.SESSION]),
        (aborts("C_Sign", first(1)), ["token.crashed", "signed"], [Rung.WORKER]),
    ],
)
async def test_the_steps_that_the_first_calls_for_come_before_the_second(
    faulty: FaultyToken, token: WorkerToken, order: str, ends: list[str], steps: list[Rung]
) -> None:
    said: list[Rung | str] = []

    async def told(rung: Rung, error: PrivysealError, outcome: str) -> None:
        said.append(rung)

    recovering = RecoveringToken(token, told=told, pause_seconds=0.001)
    faulty.break_with(order)
    first_one = asyncio.create_task(sign(recovering, 0))
    await until_signing(token)
    second = asyncio.create_task(sign(recovering, 1))
    second.add_done_callback(lambda _: said.append("second"))
    found = await asyncio.gather(first_one, second, return_exceptions=True)
    assert [end.code if isinstance(end, TokenError) else "signed" for end in found] == ends
    assert said == [*steps, "second"]
    assert recovering.signing.signatures == ends.count("signed")


async def sign(token: WorkerToken | RecoveringToken, number: int) -> bytes:
    return await token.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=DIGESTS[number])


async def until_signing(token: WorkerToken) -> None:
    """Wait until a signature is at the worker: what is asked for now is sent ahead."""
    while not token._is_signing:  # noqa: ASYNC110 - the call has no event of its own
        await asyncio.sleep(0)


async def refusal(call: Awaitable[bytes]) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await call
    return caught.value
