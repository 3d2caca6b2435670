# SPDX-License-Identifier: Apache-2.0
"""The table of return values and the ladder that follows it: complete, upward only, and never a PIN again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.agent.ladder import BOUNDS, Bound, Climb, Rung, Tally, is_about_pin, is_unknown, span_for
from privyseal.errors import TokenError, UnavailableError
from privyseal.tokens.ckr import Ckr, LunaRv, NssRv, Rv
from privyseal.tokens.remedies import REMEDIES, Remedy, may_have_signed, remedy_for

ABOUT_PINS = {rv for rv in Rv if "PIN" in rv.name.split("_")} | {Rv.NEXT_OTP}
KNOWN = [int(rv) for group in (Rv, LunaRv, NssRv) for rv in group if rv != Rv.OK]
rungs = st.sets(st.sampled_from(Rung))
errors = st.one_of(
    st.builds(
        Ckr,
        st.sampled_from(["C_SignInit", "C_Login", "C_OpenSession", "C_Sign"]),
        st.one_of(st.sampled_from(KNOWN), st.integers(1, 2**32 - 1)),
        begun=st.booleans(),
    ),
    st.builds(
        TokenError,
        st.sampled_from(["token.timeout", "token.crashed", "token.not_found", "token.failed", "token.pin_blocked"]),
        st.just("failed"),
        begun=st.booleans(),
    ),
)


def test_the_table_has_every_code_and_no_other() -> None:
    assert sorted(REMEDIES) == sorted(KNOWN)


@pytest.mark.parametrize("rv", sorted(ABOUT_PINS), ids=lambda rv: rv.name)
def test_what_is_about_a_pin_is_never_tried_again(rv: Rv) -> None:
    for in_sign in (False, True):
        assert remedy_for(rv, in_sign=in_sign) is Remedy.NEVER
        assert span_for(Ckr("C_SignInit", rv, begun=in_sign)) is None


@pytest.mark.parametrize("code", ["token.pin_incorrect", "token.pin_locked", "token.pin_blocked", "token.pin_missing"])
def test_no_step_is_taken_because_of_a_pin(code: str) -> None:
    error = TokenError(code, "the PIN")
    assert is_about_pin(error)
    assert Climb(possible=frozenset(Rung)).next(error, Tally(), 0.0) is None


@given(st.integers(1, 2**32 - 1).filter(lambda rv: rv not in REMEDIES))
def test_an_unknown_code_gets_one_new_worker(rv: int) -> None:
    error, everything = Ckr("C_SignInit", rv), frozenset(Rung)

    first = Climb(possible=everything).next(error, Tally(), 0.0)

    assert first is Rung.WORKER
    assert Climb(possible=everything, climbed=first).next(error, Tally(), 0.0) is None


@given(st.sampled_from(KNOWN))
def test_in_c_sign_nothing_is_entered_again(rv: int) -> None:
    assert remedy_for(rv, in_sign=True) is not Remedy.RETRY
    error = Ckr("C_Sign", rv, begun=True)
    assert is_unknown(error) == may_have_signed(rv)
    assert is_unknown(error) == (span_for(error) is not None)


def test_only_c_sign_leaves_an_unknown_outcome() -> None:
    assert not is_unknown(Ckr("C_SignInit", Rv.DEVICE_ERROR))
    assert is_unknown(TokenError("token.timeout", "hung", begun=True))
    assert not is_unknown(UnavailableError("journal.closed", "closed"))


@given(errors, rungs)
def test_the_way_is_upward_and_ends(error: TokenError, possible: set[Rung]) -> None:
    order, climb = list(Rung), Climb(possible=possible)
    taken = []
    while (rung := climb.next(error, Tally(), 0.0)) is not None:
        assert rung in possible
        taken.append(order.index(rung))
        climb = Climb(possible=possible, climbed=rung)
        assert len(taken) <= len(order)

    assert taken == sorted(set(taken))


def test_a_step_too_many_is_left_out_until_its_time_has_passed() -> None:
    tally = Tally({**BOUNDS, Rung.WORKER: Bound(count=2, seconds=60.0)})
    for now_s in (0.0, 30.0):
        assert tally.allows(Rung.WORKER, now_s)
        tally.take(Rung.WORKER, now_s)
    error, climb = TokenError("token.crashed", "gone"), Climb(possible={Rung.WORKER, Rung.PCSCD})

    assert not tally.allows(Rung.WORKER, 59.0)
    assert climb.next(error, tally, 59.0) is Rung.PCSCD
    assert climb.next(error, tally, 60.0) is Rung.WORKER
