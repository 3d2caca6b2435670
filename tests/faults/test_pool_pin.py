# SPDX-License-Identifier: Apache-2.0
"""The PIN of a token with several workers: all of them have what was handed in, one changes it, none is refused."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.fault_shim import FaultyToken, around
from lab.shim_orders import hangs, hangs_after
from privyseal.agent.ladder import Rung
from privyseal.agent.pool import TokenPool
from privyseal.agent.recovery import RecoveringToken
from privyseal.errors import PrivysealError, TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.factory import open_token
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_journal import PinJournal
from softhsm import EC_ID, PIN, fresh_softhsm

WORKERS = 3
NEW = b"fresh-canary-7716"
WRONG = b"wrong-canary-1180"


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


class Pool:
    """A pool, and each of its workers by itself."""

    def __init__(self, open_one: Callable[[], RecoveringToken]) -> None:
        self.members = tuple(open_one() for _ in range(WORKERS))
        self.token = TokenPool(self.members)

    async def all_sign(self) -> None:
        for member in self.members:
            assert await member.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=bytes(32))


@asynccontextmanager
async def pool(faulty: FaultyToken, steps: list[str], **changes: Any) -> AsyncIterator[Pool]:
    async def told(rung: Rung, _error: PrivysealError, _outcome: str) -> None:
        steps.append(rung.value)

    config = faulty.config(**({"call_seconds": 5.0, "close_seconds": 0.5} | changes))
    opened = Pool(lambda: RecoveringToken(open_token(config), told=told, pause_seconds=0.001))
    try:
        yield opened
    finally:
        faulty.heal()
        await opened.token.close()


def pin(value: bytes) -> PinBuffer:
    filled = PinBuffer()
    filled.fill(value)
    return filled


async def test_a_pin_that_is_handed_in_reaches_every_worker(faulty: FaultyToken) -> None:
    async with pool(faulty, [], pin_file="", pin_prompt=True) as opened:
        with pytest.raises(TokenError, match="pin_missing"):
            await opened.token.keys()
        await opened.token.unlock(PIN)

        await opened.all_sign()
        assert faulty.calls("C_Login") == WORKERS
        await opened.token.forget_pin()
        for member in opened.members:
            with pytest.raises(TokenError, match="pin_missing"):
                await member.keys()


@pytest.mark.parametrize("source", ["file", "prompt"])
async def test_one_worker_changes_the_pin_and_the_others_log_in_with_the_new_one(
    faulty: FaultyToken, source: str
) -> None:
    changes = {} if source == "file" else {"pin_file": "", "pin_prompt": True}
    async with pool(faulty, [], **changes) as opened:
        if source == "prompt":
            await opened.token.unlock(PIN)
        await opened.all_sign()

        await opened.token.change_pin(pin(NEW))

        assert faulty.calls("C_SetPIN") == 1
        await opened.all_sign()
        history = PinJournal(str(faulty.hsm.journal)).history((await opened.token.info()).serial)
        assert (history.unknown, history.blocked, history.changing) == (0, False, "")
        assert faulty.hsm.pin_file.read_bytes().strip() == (NEW if source == "file" else PIN)


@pytest.mark.parametrize("order", [hangs("C_SetPIN"), hangs_after("C_SetPIN")])
async def test_no_change_is_made_again_by_the_ladder(faulty: FaultyToken, order: str) -> None:
    steps: list[str] = []
    async with pool(faulty, steps, call_seconds=2.5) as opened:
        await opened.token.keys()
        faulty.break_with(order)
        with pytest.raises(TokenError, match=r"token\.timeout"):
            await opened.token.change_pin(pin(NEW))

        assert faulty.calls("C_SetPIN") == 1
        assert steps == []


async def test_what_one_worker_was_refused_is_forgotten_once_a_person_has_acted(faulty: FaultyToken) -> None:
    async with pool(faulty, []) as opened:
        await opened.token.keys()
        faulty.hsm.set_pin_file(WRONG)
        with pytest.raises(TokenError, match="pin_incorrect"):
            await opened.members[-1].keys()
        assert opened.members[-1].pin_error is not None
        faulty.hsm.set_pin_file(PIN)
        PinJournal(str(faulty.hsm.journal)).clear((await opened.token.info()).serial)

        await opened.token.forget_pin()

        assert opened.token.pin_error is None
        await opened.all_sign()
