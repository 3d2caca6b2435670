# SPDX-License-Identifier: Apache-2.0
"""Which TSA the hub asks next: health, budget, circuit breaker, hedging; on a clock that the test owns."""

from hypothesis import given
from hypothesis import strategies as st

from privyseal.hub.services.tsa_choice import (
    Tsa,
    answered,
    asked,
    failed,
    may_ask,
    outrun,
    ranked,
    state_of,
    until_next_ms,
)

NOW = 1_700_000_000_000
MINUTE = 60_000
A, B, C = Tsa(url="a"), Tsa(url="b"), Tsa(url="c")


def order(*tsas: Tsa, at: int = NOW) -> str:
    return "".join(tsa.url for tsa in ranked(tsas, at))


def broken(tsa: Tsa = A, at: int = NOW, times: int = 3) -> Tsa:
    for _ in range(times):
        tsa = failed(tsa, at, "down")
    return tsa


def test_the_operators_order_holds_among_equals() -> None:
    assert order(A, B, C) == "abc"
    assert order(C, A, B) == "cab"


def test_who_failed_comes_last_and_comes_back() -> None:
    weak = failed(A, NOW, "down")

    assert order(weak, B, C) == "bca"
    assert order(weak, B, C, at=NOW + MINUTE) == "bca"
    assert order(weak, B, C, at=NOW + 5 * MINUTE) == "abc"


def test_who_fails_more_often_comes_later() -> None:
    assert order(broken(A, times=2), failed(B, NOW, "down"), C) == "cba"


def test_a_good_answer_outweighs_a_bad_one_in_time() -> None:
    weak = failed(A, NOW, "down")
    for _ in range(5):
        weak = answered(weak, NOW)

    assert order(weak, B) == "ab"
    assert weak.problem == ""


def test_who_is_slow_gives_way() -> None:
    assert order(outrun(A, NOW), B) == "ba"
    assert state_of(broken(outrun(A, NOW), times=2), NOW) == "ready"  # it did not fail


def test_the_breaker_opens_after_three_failures_in_a_row() -> None:
    assert state_of(broken(times=2), NOW) == "ready"
    assert state_of(failed(answered(broken(times=2), NOW), NOW, "down"), NOW) == "ready"
    assert state_of(broken(), NOW) == "open"
    assert order(broken(), B) == "b"
    assert broken().problem == "down"


def test_a_half_open_breaker_lets_one_question_through() -> None:
    after = NOW + 30_000

    assert not may_ask(broken(), after - 1)
    assert may_ask(broken(), after)
    probe = asked(broken(), after)
    assert not may_ask(probe, after)
    assert may_ask(answered(probe, after), after)
    assert may_ask(asked(answered(probe, after), after), after)
    assert may_ask(outrun(probe, after), after)  # nobody knows; the next one may ask


def test_the_pause_doubles_with_each_failed_probe_up_to_a_bound() -> None:
    tsa, moment, pauses = broken(), NOW, []
    for _ in range(8):
        pauses.append(tsa.open_until_ms - moment)
        moment = tsa.open_until_ms
        tsa = failed(asked(tsa, moment), moment, "down")

    assert pauses == [30_000 * factor for factor in (1, 2, 4, 8, 16, 32, 32, 32)]


def test_a_budget_holds_in_any_minute() -> None:
    tsa = Tsa(url="a", per_minute=2)
    tsa = asked(asked(tsa, NOW), NOW + 30_000)

    assert state_of(tsa, NOW + 59_999) == "resting"
    assert not may_ask(tsa, NOW + 59_999)
    assert may_ask(tsa, NOW + 60_000)
    assert not may_ask(asked(tsa, NOW + 60_000), NOW + 89_999)


@given(st.lists(st.integers(0, 20_000), max_size=60), st.integers(1, 5))
def test_no_minute_sees_more_than_the_budget(steps: list[int], budget: int) -> None:
    tsa, moment, times = Tsa(url="a", per_minute=budget), NOW, []
    for step in steps:
        moment += step
        if may_ask(tsa, moment):
            tsa = asked(tsa, moment)
            times.append(moment)

    assert all(sum(1 for one in times if begin <= one < begin + MINUTE) <= budget for begin in times)
    assert len(tsa.asked_ms) <= budget


def test_patience_that_was_asked_for_is_kept() -> None:
    busy = failed(A, NOW, "busy", patience_ms=90_000)

    assert state_of(busy, NOW + 89_999) == "resting"
    assert may_ask(busy, NOW + 90_000)
    assert state_of(failed(busy, NOW, "busy", patience_ms=1), NOW + 89_999) == "resting"


def test_one_at_a_time_and_a_second_beside_a_slow_one() -> None:
    assert until_next_ms(0, 0, 2000) == 0
    assert until_next_ms(1, 0, 2000) == 2000
    assert until_next_ms(1, 1999, 2000) == 1
    assert until_next_ms(1, 5000, 2000) == 0
    assert until_next_ms(2, 5000, 2000) is None
