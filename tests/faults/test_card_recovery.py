# SPDX-License-Identifier: Apache-2.0
"""A card that leaves its reader and a pcscd that dies: what the caller is told, and that nobody has to come.

What OpenSC 0.23 with pcscd 1.9.9 needs, measured here (`same worker` is the test's word for it):

- Card removed and put back, idle: C_SignInit succeeds without asking the card, C_Sign says CKR_DEVICE_REMOVED for
  ever on the old session. A new session with its C_Login works at once, in the same process.
- Card lost in the middle of a command: C_Sign says CKR_GENERAL_ERROR or CKR_DEVICE_REMOVED. Before pcscd has noticed
  the empty reader, C_GetTokenInfo and C_OpenSession still succeed, and the next C_GetTokenInfo waits for ever for a
  mutex that OpenSC left locked itself: then only a new process helps. C_Finalize and C_Initialize at once after the
  error avoid it: C_GetSlotList then says that no token is there. Nothing was begun by any of them.
- pcscd killed and started again: C_Sign says CKR_GENERAL_ERROR for ever on the old session. C_CloseSession (which
  succeeds), C_GetSlotList, C_OpenSession and C_Login work in the same process, without C_Finalize.
- Called while pcscd is dead, C_GetSlotList shows no token, before and after C_Finalize and C_Initialize (which
  succeed). The same process works as soon as pcscd is there, by C_GetSlotList alone.
- Card that hangs: pcscd has no deadline for it, and OpenSC in a new process hangs in C_Initialize already. Only the
  card's own end of it helps: an answer, or its removal.
- A card that another program has reset: C_Sign says CKR_USER_NOT_LOGGED_IN, a new session works.

No error of C_Sign tells whether the card was asked at all, so each is `begun`.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest

from card_calls import Outcome, sign, worker_pid
from lab.card_lab import CardLab, card_lab
from lab.piv.apdu import Ins
from lab.piv.orders import Fault
from privyseal.tokens.factory import open_token
from privyseal.tokens.supervisor import WorkerToken

pytestmark = pytest.mark.interop

SIGNED = Outcome(code="signed")
NOT_FOUND = Outcome(code="token.not_found")


@pytest.fixture(scope="module")
def started() -> Iterator[CardLab]:
    with card_lab() as lab:
        yield lab


@pytest.fixture
def lab(started: CardLab) -> CardLab:
    started.renew()
    return started


@pytest.fixture
async def token(lab: CardLab) -> AsyncIterator[WorkerToken]:
    """A token that has signed once already."""
    opened = open_token(lab.config(call_seconds=20.0, sign_seconds=20.0))
    assert await sign(lab, opened) == SIGNED
    yield opened
    await opened.close()


def failed_in_c_sign(code: str) -> Outcome:
    return Outcome(code=code, function="C_Sign", begun=True)


async def test_a_card_put_back_while_idle_costs_one_call(lab: CardLab, token: WorkerToken) -> None:
    worker = worker_pid(token)
    lab.remove_card()
    lab.insert_card()

    outcomes = [await sign(lab, token) for _ in range(3)]

    assert outcomes == [failed_in_c_sign("token.not_found"), SIGNED, SIGNED]
    assert worker_pid(token) == worker, "same worker"
    state = lab.card.state
    assert (state.operations, state.pins_arrived) == (3, 2)


async def test_without_a_card_calls_say_so_and_with_it_they_work(lab: CardLab, token: WorkerToken) -> None:
    worker = worker_pid(token)
    lab.remove_card()

    outcomes = [await sign(lab, token) for _ in range(3)]
    lab.insert_card()
    outcomes += [await sign(lab, token)]

    assert outcomes == [failed_in_c_sign("token.not_found"), NOT_FOUND, NOT_FOUND, SIGNED]
    assert worker_pid(token) == worker, "same worker"


@pytest.mark.parametrize("after", [False, True], ids=["before-its-effect", "after-its-effect"])
async def test_a_card_removed_while_it_signs_may_have_signed_and_works_when_it_is_back(
    lab: CardLab, token: WorkerToken, *, after: bool
) -> None:
    lab.card.break_with(Fault(ins=Ins.GENERAL_AUTHENTICATE, act="leave", after=after))

    lost = await sign(lab, token)
    lab.insert_card()
    outcomes = [await sign(lab, token) for _ in range(2)]

    assert lost in (failed_in_c_sign("token.failed"), failed_in_c_sign("token.not_found"))
    assert outcomes == [SIGNED, SIGNED]
    assert lab.card.state.operations == 3 + after


async def test_a_call_at_once_after_the_card_was_lost_ends_at_its_deadline_at_the_latest(lab: CardLab) -> None:
    token = open_token(lab.config(call_seconds=1.5))
    assert await sign(lab, token) == SIGNED
    lab.card.break_with(Fault(ins=Ins.GENERAL_AUTHENTICATE, act="leave"))

    lost, at_once = await sign(lab, token), await sign(lab, token)
    lab.insert_card()
    back = await sign(lab, token)
    await token.close()

    assert lost.begun
    assert at_once in (Outcome(code="token.timeout"), NOT_FOUND)
    assert back == SIGNED


async def test_a_pcscd_started_again_while_idle_costs_one_call(lab: CardLab, token: WorkerToken) -> None:
    worker = worker_pid(token)
    lab.kill_pcscd()
    lab.start_pcscd()

    outcomes = [await sign(lab, token) for _ in range(3)]

    assert outcomes == [failed_in_c_sign("token.failed"), SIGNED, SIGNED]
    assert worker_pid(token) == worker, "same worker"
    assert lab.card.state.operations == 3


async def test_without_pcscd_calls_say_that_no_token_is_there_and_with_it_they_work(
    lab: CardLab, token: WorkerToken
) -> None:
    worker = worker_pid(token)
    lab.kill_pcscd()

    outcomes = [await sign(lab, token) for _ in range(3)]
    lab.start_pcscd()
    outcomes += [await sign(lab, token)]

    assert outcomes == [failed_in_c_sign("token.failed"), NOT_FOUND, NOT_FOUND, SIGNED]
    assert worker_pid(token) == worker, "same worker"


async def test_a_pcscd_that_dies_under_a_signature_leaves_it_begun(lab: CardLab, token: WorkerToken) -> None:
    worker = worker_pid(token)
    lab.card.break_with(Fault(ins=Ins.GENERAL_AUTHENTICATE, act="stall"))
    call = asyncio.create_task(sign(lab, token))
    await asyncio.to_thread(lab.card.until, "stalls", 1)
    lab.kill_pcscd()

    assert await call == failed_in_c_sign("token.failed")

    lab.card.release()
    lab.card.until("operations", 2)
    lab.start_pcscd()
    assert [await sign(lab, token) for _ in range(2)] == [SIGNED, SIGNED]
    assert worker_pid(token) == worker, "same worker"
    assert lab.card.state.operations == 4, "the lost one has run after all"


async def test_a_hang_of_the_card_ends_the_worker_and_the_next_one_waits_for_the_card(lab: CardLab) -> None:
    """pcscd has no deadline for a card: until it answers or leaves, OpenSC hangs in C_Initialize already."""
    token = open_token(lab.config(start_seconds=1.0, call_seconds=1.5, sign_seconds=0.5))
    assert await sign(lab, token) == SIGNED
    lab.card.break_with(Fault(ins=Ins.GENERAL_AUTHENTICATE, act="stall"))

    hung, blocked = await sign(lab, token), await sign(lab, token)
    lab.remove_card()
    lab.insert_card()
    back = await sign(lab, token)
    await token.close()

    assert hung == failed_in_c_sign("token.timeout")
    assert (blocked.code, blocked.begun) == ("token.timeout", False)
    assert back == SIGNED
    assert lab.card.state.operations == 2


async def test_a_card_that_another_program_has_reset_costs_one_call(lab: CardLab, token: WorkerToken) -> None:
    lab.run("opensc-tool", "--reset")

    outcomes = [await sign(lab, token) for _ in range(2)]

    assert outcomes == [failed_in_c_sign("token.session_lost"), SIGNED]
    state = lab.card.state
    assert (state.operations, state.pins_arrived) == (2, 2)


async def test_with_lock_login_no_other_program_gets_at_the_card(lab: CardLab) -> None:
    token = open_token(lab.config(environment=lab.locking_environment))
    assert await sign(lab, token) == SIGNED

    with pytest.raises(subprocess.TimeoutExpired):
        lab.run("opensc-tool", "--reset", seconds=0.5)

    assert await sign(lab, token) == SIGNED
    await token.close()
    assert lab.card.state.pins_arrived == 1
