# SPDX-License-Identifier: Apache-2.0
"""Private-key operations counted at the card, against the signatures that our worker has released.

OpenSC 0.23 repeats a private-key operation by itself, once, whatever the card answered (it selects the application
again and signs again), unless `lock_login` is set in its configuration. A caller of C_Sign cannot tell. So one
signature may stand for two operations, and only with `lock_login` does the card's counter prove anything.
"""

import asyncio
import random
from collections.abc import Iterator

import pytest

from card_calls import Outcome, sign
from lab.card_lab import CardLab, card_lab
from lab.piv.apdu import Ins
from lab.piv.orders import Fault, Set
from privyseal.errors import TokenError
from privyseal.tokens.factory import open_token
from privyseal.tokens.supervisor import WorkerToken

pytestmark = pytest.mark.interop

SIGNED = Outcome(code="signed")
SIGNATURES = 200
SEED = 20260613


@pytest.fixture(scope="module")
def started() -> Iterator[CardLab]:
    with card_lab(layout={0x9A: "p256"}) as lab:
        yield lab


@pytest.fixture
def lab(started: CardLab) -> CardLab:
    started.renew()
    return started


def operation(act: str, *, after: bool = False, sw: int = 0x6F00) -> Fault:
    return Fault(ins=Ins.GENERAL_AUTHENTICATE, act=act, after=after, sw=sw)  # type: ignore[arg-type]


async def test_two_hundred_calls_under_faults_leave_as_many_operations_as_they_say(lab: CardLab) -> None:
    """Each call that ran on the card is a signature or an error that is `begun`; none ran that says it did not."""
    chance = random.Random(SEED)
    kinds = {
        "nothing": 100,
        "refused": 10,
        "lost answer": 10,
        "not logged in": 10,
        "slow": 10,
        "leaves before": 1,
        "leaves after": 1,
        "removed while idle": 1,
    }
    token = open_token(lab.config(environment=lab.locking_environment))
    drawn = chance.choices(list(kinds), list(kinds.values()), k=SIGNATURES)
    assert set(drawn) == set(kinds), "the seed has something of each"
    released = unreleased = 0
    for kind in drawn:
        before = lab.card.state.operations
        _break(lab, kind)
        outcome = await sign(lab, token)
        lab.card.turn(Set(faults=(), delays_ms={}))
        if not lab.card.state.is_present:
            lab.insert_card()
            await until_found(token)
        ran = lab.card.state.operations - before
        if outcome == SIGNED:
            assert ran == 1, kind
            released += 1
        else:
            # A card that came back a moment ago may not be found yet: then nothing ran, and the error says so.
            assert ran <= outcome.begun, (kind, outcome)
            unreleased += ran
    await token.close()

    state = lab.card.state
    assert state.operations == released + unreleased
    assert released > SIGNATURES // 2
    assert unreleased > 0, "some answer was lost"
    assert state.pins_refused == 0


async def until_found(token: WorkerToken) -> None:
    """Wait until the module sees a card that was put in; on a busy machine pcscd takes its time."""
    async with asyncio.timeout(30):
        while True:
            try:
                await token.info()
            except TokenError:
                await asyncio.sleep(0.02)
            else:
                return


def _break(lab: CardLab, kind: str) -> None:
    faults = {
        "refused": operation("answer"),
        "lost answer": operation("answer", after=True),
        "not logged in": operation("answer", sw=0x6982),
        "leaves before": operation("leave"),
        "leaves after": operation("leave", after=True),
    }
    if kind in faults:
        lab.card.break_with(faults[kind])
    elif kind == "slow":
        lab.card.turn(Set(delays_ms={Ins.GENERAL_AUTHENTICATE: 20}))
    elif kind == "removed while idle":
        lab.remove_card()
        lab.insert_card()


async def test_opensc_alone_repeats_an_operation_that_ran_and_with_lock_login_it_does_not(lab: CardLab) -> None:
    counted = {}
    for name, environment in (("as installed", lab.environment), ("lock_login", lab.locking_environment)):
        lab.renew()
        token = open_token(lab.config(environment=environment))
        await token.keys()
        lab.card.break_with(operation("answer", after=True))
        outcome = await sign(lab, token)
        await token.close()
        counted[name] = (outcome, lab.card.state.operations)

    assert counted == {
        "as installed": (SIGNED, 2),
        "lock_login": (Outcome(code="token.failed", function="C_Sign", begun=True), 1),
    }
