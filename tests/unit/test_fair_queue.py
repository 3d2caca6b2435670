# SPDX-License-Identifier: Apache-2.0
"""Who is next: classes, aging, fair shares, places."""

import random
from collections import Counter
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError
from privyseal.policy.fair_queue import FairQueue, Pick, Priority, Shares, Waiting, priority_named

AGING_MS = 60_000
_SEQ = count(1)


def waiting(
    share: str, *, items: int = 1, priority: Priority = Priority.NORMAL, queued_ms: int = 0, seq: int = 0
) -> Waiting:
    place = seq or next(_SEQ)
    return Waiting(
        request_id=f"{share}-{place}", share=share, priority=priority, seq=place, queued_ms=queued_ms, items=items
    )


def queue(**weights: float) -> FairQueue:
    return FairQueue(Shares(weights), aging_ms=AGING_MS)


def served(picks: tuple[Pick, ...]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for pick in picks:
        counted[pick.waiting.share] += pick.items
    return counted


def drain(line: FairQueue, *, room: int, now_ms: int = 0) -> list[Pick]:
    found: list[Pick] = []
    while picks := line.take(now_ms, room):
        found.extend(picks)
    return found


def test_the_highest_class_goes_first_however_many_wait_in_a_lower_one() -> None:
    line = queue()
    for _ in range(5_000):
        line.put(waiting("night", priority=Priority.NIGHTLY))
    line.put(waiting("ci"))
    line.put(waiting("boss", priority=Priority.NEXT))
    line.put(waiting("release", priority=Priority.RELEASE))

    order = [pick.waiting.share for pick in drain(line, room=64)[:4]]

    assert order == ["boss", "release", "ci", "night"]


def test_one_claim_is_of_one_class() -> None:
    line = queue()
    line.put(waiting("night", items=10, priority=Priority.NIGHTLY))
    line.put(waiting("release", items=2, priority=Priority.RELEASE))
    assert served(line.take(0, 64)) == {"release": 2}
    assert served(line.take(0, 64)) == {"night": 10}


def test_in_a_share_the_oldest_goes_first_even_if_it_comes_back() -> None:
    line = queue()
    first, second = waiting("ci"), waiting("ci")
    line.put(second)
    line.put(first)
    assert [pick.waiting for pick in drain(line, room=1)] == [first, second]


def test_a_client_with_thousands_waits_for_each_item_of_one_with_few() -> None:
    line = queue()
    line.put(waiting("big", items=5_000))
    line.put(waiting("small", items=40))
    assert served(line.take(0, 64)) == {"big": 32, "small": 32}
    assert served(line.take(0, 64)) == {"big": 56, "small": 8}


@pytest.mark.parametrize("room", [1, 7, 64])
def test_shares_get_as_much_as_they_weigh(room: int) -> None:
    line = queue(heavy=3.0)
    for _ in range(600):
        line.put(waiting("heavy"))
        line.put(waiting("light"))
    counted: Counter[str] = Counter()
    while sum(counted.values()) < 400:
        counted += served(line.take(0, room))
    assert 2.5 < counted["heavy"] / counted["light"] < 3.5


def test_who_was_away_has_saved_nothing_up() -> None:
    line = queue()
    for _ in range(100):
        line.put(waiting("busy"))
        line.take(0, 1)
    for _ in range(20):
        line.put(waiting("busy"))
        line.put(waiting("back"))
    counted = served(tuple(pick for _ in range(20) for pick in line.take(0, 1)))
    assert abs(counted["busy"] - counted["back"]) <= 2


def test_who_was_served_in_advance_waits_until_the_others_have_had_as_much() -> None:
    line = queue()
    line.put(waiting("ahead", items=64))
    line.put(waiting("other", items=300))
    line.take(0, 2)
    for _ in range(3):
        line.take(0, 1)
    line.put(waiting("ahead"))
    assert sum(served(line.take(0, 1))["ahead"] for _ in range(4)) <= 2


def test_what_has_waited_long_enough_counts_for_the_class_above_and_no_higher_than_release() -> None:
    line = queue()
    line.put(waiting("night", priority=Priority.NIGHTLY))
    assert line.best(AGING_MS - 1) is Priority.NIGHTLY
    assert line.best(AGING_MS) is Priority.NORMAL
    assert line.best(2 * AGING_MS - 1) is Priority.NORMAL
    assert line.best(2 * AGING_MS) is Priority.RELEASE
    assert line.best(100 * AGING_MS) is Priority.RELEASE


def test_no_class_starves_another() -> None:
    line = queue()
    line.put(waiting("night", items=3, priority=Priority.NIGHTLY))
    now_ms = 0
    found: Counter[str] = Counter()
    for _ in range(1_000):
        line.put(waiting("release", priority=Priority.RELEASE, queued_ms=now_ms))
        found += served(line.take(now_ms, 1))
        now_ms += AGING_MS // 100
    assert found["night"] == 3


def test_without_aging_nothing_rises() -> None:
    line = FairQueue(Shares({}), aging_ms=0)
    line.put(waiting("night", priority=Priority.NIGHTLY))
    assert line.best(10**15) is Priority.NIGHTLY


def test_a_place_is_what_is_served_before() -> None:
    chance = random.Random(7)
    for _ in range(50):
        line = queue(b=2.0)
        requests = [
            waiting(chance.choice("abcd"), items=chance.randint(1, 9), priority=chance.choice((*Priority,)))
            for _ in range(12)
        ]
        for one in requests:
            line.put(one)
        said = {one.request_id: line.before(one.request_id) for one in requests}
        begun: dict[str, int] = {}
        total = 0
        for pick in drain(line, room=1):
            begun.setdefault(pick.waiting.request_id, total)
            total += pick.items
        for name, place in begun.items():
            assert abs(said[name] - place) <= 6, (name, said[name], place)


def test_the_first_requests_are_listed_in_their_order_with_their_places() -> None:
    chance = random.Random(11)
    for limit in (1, 3, 7, 40):
        line = queue(b=2.0)
        for _ in range(20):
            line.put(waiting(chance.choice("abcd"), items=chance.randint(1, 9), priority=chance.choice((*Priority,))))
        line.take(0, 5)
        found = line.first(limit)
        every = line.first(100)

        assert found == every[:limit]
        assert len(every) == len(line)
        assert [one.before for one in every] == [line.before(one.waiting.request_id) for one in every]
        assert [one.priority for one in every] == sorted((one.priority for one in every), reverse=True)
        assert sum(line.items_in(one) for one in Priority) == line.items


def test_what_is_left_of_a_request_counts_once_for_those_behind_it() -> None:
    line = queue()
    line.put(waiting("a", items=5))
    behind = waiting("a")
    line.put(behind)
    line.take(0, 2)
    assert line.before(behind.request_id) == 3
    assert [one.before for one in line.first(9)] == [0, 3]


def test_the_first_of_all_has_nothing_before_it() -> None:
    line = queue()
    line.put(waiting("a", items=5))
    one = waiting("a")
    line.put(one)
    assert line.before(one.request_id) == 5
    line.take(0, 5)
    assert line.before(one.request_id) == 0


def test_put_again_it_waits_as_it_is_now_and_removed_not_at_all() -> None:
    line = queue()
    one = waiting("a", items=5, priority=Priority.NIGHTLY)
    line.put(one)
    line.put(replace(one, items=2, priority=Priority.RELEASE))
    assert (len(line), line.items, line.best(0)) == (1, 2, Priority.RELEASE)
    line.remove(one.request_id)
    line.remove(one.request_id)
    assert (len(line), line.items, line.best(0), line.take(0, 9)) == (0, 0, None, ())
    line.put(replace(one, items=0))
    assert one.request_id not in line


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.integers(1, 20),
            st.sampled_from(Priority),
            st.integers(0, 3 * AGING_MS),
            st.sampled_from(("put", "take", "remove")),
        ),
        max_size=60,
    ),
    st.integers(1, 64),
)
def test_every_item_is_handed_out_once(steps: list[tuple[str, int, Priority, int, str]], room: int) -> None:
    line = queue(a=2.0)
    left: Counter[str] = Counter()
    names: list[Waiting] = []
    for share, items, priority, now_ms, act in steps:
        if act == "put":
            names.append(waiting(share, items=items, priority=priority, queued_ms=now_ms))
            line.put(names[-1])
            left[names[-1].request_id] = items
        elif act == "remove" and names:
            line.remove(names[-1].request_id)
            left[names[-1].request_id] = 0
        else:
            picks = line.take(now_ms, room)
            assert sum(pick.items for pick in picks) <= room
            assert len({pick.priority for pick in picks}) <= 1
            named = {pick.waiting.request_id: pick.items for pick in picks}
            assert len(named) == len(picks)
            left.subtract(named)
    for pick in drain(line, room=room, now_ms=4 * AGING_MS):
        left[pick.waiting.request_id] -= pick.items
    assert not +left
    assert not -left
    assert line.items == len(line) == 0


@pytest.mark.parametrize("name", ["", "urgent", "Release ", "0"])
def test_a_class_that_nobody_knows_is_refused(name: str) -> None:
    with pytest.raises(MalformedInputError) as raised:
        priority_named(name)
    assert raised.value.code == "request.priority"
    assert "release" in raised.value.hint


def test_classes_have_names() -> None:
    assert [priority_named(one.name.lower()) for one in Priority] == list(Priority)
