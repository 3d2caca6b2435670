# SPDX-License-Identifier: Apache-2.0
"""No step of the recovery ladder is missing from the record, and a token that flaps does not fill it."""

from hypothesis import given
from hypothesis import strategies as st

from privyseal.agent.step_window import Step, StepWindow

steps = st.builds(
    Step,
    step=st.sampled_from(["session", "worker"]),
    code=st.sampled_from(["token.failed", "token.timeout"]),
    function=st.just("C_Sign"),
    ckr=st.just(-1),
    outcome=st.just("done"),
)
moments = st.lists(st.tuples(steps, st.floats(0.0, 20.0)), max_size=300)


def told_of(taken: list[tuple[Step, float]]) -> tuple[list[tuple[Step, int]], float]:
    """What is told of steps with pauses (in seconds) between them, and how long they took."""
    told: list[tuple[Step, int]] = []
    window, now_s = StepWindow(), 0.0
    for step, pause in taken:
        now_s += pause
        told += window.took(step, now_s)
    return [*told, *window.due(now_s + 60.0)], now_s


@given(moments)
def test_every_step_is_told_or_counted(taken: list[tuple[Step, float]]) -> None:
    told, _ = told_of(taken)
    for step in {one for one, _ in taken}:
        assert sum(count for one, count in told if one == step) == sum(one == step for one, _ in taken)


@given(moments)
def test_a_minute_has_few_entries(taken: list[tuple[Step, float]]) -> None:
    told, lasted_s = told_of(taken)
    assert len(told) <= (lasted_s // 60 + 1) * (30 + 4)


def test_the_first_ones_are_told_at_once() -> None:
    window = StepWindow()
    step = Step(step="worker", code="token.timeout", function="C_Sign", ckr=-1, outcome="done")
    told = [window.took(step, 0.01 * number) for number in range(100)]

    assert told == [((step, 1),)] * 30 + [()] * 70
    assert window.due(59.0) == ()
    assert window.due(60.0) == ((step, 70),)
    assert window.took(step, 61.0) == ((step, 1),)
