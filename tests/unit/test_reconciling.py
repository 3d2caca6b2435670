# SPDX-License-Identifier: Apache-2.0
"""`results <= now - enrolled <= results + unknowns`, over every history of uses and of looks at them."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from log_samples import intent_at, sha
from privyseal.agent.reconciling import MATCH, MISMATCH, Counted, count_uses, enrol, verdict
from privyseal.ports.journal import JournalUse, OutcomeState
from privyseal.tlog.entry import encode_entry

KEY, OTHER = sha(3), sha(4)
OURS = frozenset((KEY,))


def use(number: int, state: OutcomeState, key: int = 3) -> JournalUse:
    return JournalUse(number=number, entry=encode_entry(intent_at(1, number, key=key)), state=state)


def counted(results: int, unknowns: int, enrolled: int = 100) -> Counted:
    return Counted(enrolled=enrolled, through=results + unknowns, results=results, open=tuple(range(1, unknowns + 1)))


@pytest.mark.parametrize(
    ("results", "unknowns", "now", "found"),
    [
        (0, 0, 100, MATCH),
        (5, 0, 105, MATCH),
        (5, 0, 104, MISMATCH),
        (5, 0, 106, MISMATCH),
        (5, 2, 105, MATCH),
        (5, 2, 107, MATCH),
        (5, 2, 108, MISMATCH),
        (0, 1, 99, MISMATCH),
        (0, 0, 0, MISMATCH),
    ],
)
def test_the_verdict_by_its_bounds(results: int, unknowns: int, now: int, found: str) -> None:
    assert verdict(counted(results, unknowns), now) == found


def test_a_counter_of_24_bits_that_ran_over_does_not_match() -> None:
    assert verdict(counted(4, 0, enrolled=0xFFFFFE), 2) == MISMATCH


@dataclass
class Token:
    """A card that counts, a journal beside it, and somebody who may use the card without either."""

    keys: tuple[int, ...] = (3,)
    count: int = 7
    strange: int = 0
    states: list[tuple[OutcomeState, int]] = field(default_factory=list)

    def act(self, step: str, key: int) -> None:
        if step == "begin":
            self.states.append((OutcomeState.BEGUN, key))
        elif step == "strange":
            self.count += key in self.keys
            self.strange += key in self.keys
        else:
            self._end(step)

    def _end(self, step: str) -> None:
        """The oldest one that is open ends; `lost` is carried out, and nobody hears of it."""
        for place, (state, key) in enumerate(self.states):
            if state is OutcomeState.BEGUN:
                self.count += step in {"sign", "lost"} and key in self.keys
                ends = {"sign": OutcomeState.SIGNED, "fail": OutcomeState.FAILED, "lost": OutcomeState.BEGUN}
                self.states[place] = (ends[step], key)
                return

    def uses(self) -> tuple[JournalUse, ...]:
        return tuple(use(number, state, key) for number, (state, key) in enumerate(self.states, 1))


STEPS = st.tuples(st.sampled_from(["begin", "sign", "fail", "look"]), st.sampled_from([3, 4]))


@given(st.lists(STEPS, max_size=25), st.lists(STEPS, max_size=25))
def test_no_honest_history_is_a_mismatch(before: list[tuple[str, int]], after: list[tuple[str, int]]) -> None:
    """Whatever was begun before the enrolment may end after it: a job that was prepared."""
    token = Token()
    for step, key in before:
        token.act(step, key) if step != "look" else None
    seen = enrol(token.count, len(token.states), token.uses(), OURS)
    for step, key in after:
        if step == "look":
            seen = count_uses(seen, token.uses(), OURS)
            assert verdict(seen, token.count) == MATCH
        else:
            token.act(step, key)

    assert verdict(count_uses(seen, token.uses(), OURS), token.count) == MATCH


@given(st.lists(STEPS, max_size=25), st.integers(1, 5), st.data())
def test_a_strange_use_is_found_once_all_of_ours_have_ended(
    steps: list[tuple[str, int]], strange: int, data: st.DataObject
) -> None:
    token = Token()
    seen = enrol(token.count, 0, (), OURS)
    places = {data.draw(st.integers(0, len(steps))) for _ in range(strange)}
    for place, (step, key) in enumerate([*steps, ("look", 3)]):
        if place in places:
            token.act("strange", 3)
        if step == "look":
            seen = count_uses(seen, token.uses(), OURS)
        else:
            token.act(step, key)
    while any(state is OutcomeState.BEGUN for state, _ in token.states):
        token.act("sign", 3)

    assert verdict(count_uses(seen, token.uses(), OURS), token.count) == MISMATCH


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8), st.integers(0, 8))
def test_as_many_strange_uses_as_unknowns_stay_unseen_and_one_more_does_not(
    signed: int, carried_out: int, not_carried_out: int, strange: int
) -> None:
    """What the arithmetic cannot tell, as docs/custody.md says."""
    states = [*[OutcomeState.SIGNED] * signed, *[OutcomeState.BEGUN] * (carried_out + not_carried_out)]
    uses = tuple(use(number, state) for number, state in enumerate(states, 1))
    seen = count_uses(Counted(enrolled=7, through=0), uses, OURS)

    found = verdict(seen, 7 + signed + carried_out + strange)

    assert seen.unknowns == carried_out + not_carried_out
    assert found == (MATCH if strange <= not_carried_out else MISMATCH)


def test_a_counter_that_several_keys_share_is_held_against_all_of_them() -> None:
    """An OpenPGP card's counts its signature key alone; a card that counted every key would need this."""
    uses = (use(1, OutcomeState.SIGNED), use(2, OutcomeState.SIGNED, key=4), use(3, OutcomeState.BEGUN, key=4))
    begin = Counted(enrolled=0, through=0)

    together = count_uses(begin, uses, frozenset((KEY, OTHER)))

    assert (together.results, together.unknowns) == (2, 1)
    assert verdict(together, 2) == MATCH
    assert verdict(count_uses(begin, uses, OURS), 2) == MISMATCH


def test_what_is_read_again_is_counted_once() -> None:
    uses = (use(1, OutcomeState.SIGNED), use(2, OutcomeState.BEGUN), use(3, OutcomeState.FAILED))
    once = count_uses(Counted(enrolled=0, through=0), uses, OURS)

    again = count_uses(once, uses, OURS)
    later = count_uses(again, (use(2, OutcomeState.SIGNED),), OURS)

    assert once == again == Counted(enrolled=0, through=3, results=1, open=(2,))
    assert later == Counted(enrolled=0, through=3, results=2)
