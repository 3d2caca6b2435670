# SPDX-License-Identifier: Apache-2.0
"""Custody as a log tells it: what nobody told of or somebody contradicted is unproven, and all of it is verified."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from log_samples import GrownLog, genesis, intent_at, sha
from privyseal.client.custody_timeline import coverage, timeline
from privyseal.client.log_custody import KeyCustody, report_custody
from privyseal.client.log_uses import Interval
from privyseal.errors import ConfigError, LogIntegrityError
from privyseal.tlog.entry import Custody, Entry, Freeze, KeyEntry, Reconcile

KEY, OTHER, PI, PC = sha(3), sha(4), sha(1), sha(2)
LATE = 1_000_000


def key_entry(ts: int, key: str = KEY, profile: str = "release", token: str = "0001") -> KeyEntry:
    return KeyEntry(
        ts=ts,
        profile=profile,
        agent=PI,
        key=key,
        certificate=sha(9),
        level="traced",
        opaque=(),
        token=token,
        hardware=True,
        witness="off",
        test=False,
    )


def told(since: int, until: int, reason: str = "", *, agent: str = PI, **changes: Any) -> Custody:
    entry = Custody(
        ts=LATE,
        agent=agent,
        seq=0,
        at=until,
        token="0001",
        key=KEY,
        since=since,
        until=until,
        state="unproven" if reason else "proven",
        reason=reason,
    )
    return replace(entry, **changes)


def reconciled(enrolled: int, now: int, results: int, verdict: str = "match", at: int = 0) -> Reconcile:
    return Reconcile(
        ts=LATE,
        agent=PI,
        seq=0,
        at=at,
        token="0001",
        key=KEY,
        enrolled=enrolled,
        now=now,
        results=results,
        unknowns=0,
        verdict=verdict,
    )


def freeze(frozen: bool) -> Freeze:  # noqa: FBT001 - what it says
    return Freeze(ts=LATE, agent=PI, seq=0, at=5, token="0001", key=KEY, frozen=frozen, code="token.counter_mismatch")


def log(*entries: Entry) -> GrownLog:
    """The entries, each agent's numbered, after the genesis."""
    numbers = {agent: itertools.count(1) for agent in (PI, PC)}
    grown = GrownLog()
    grown.commit(
        genesis(),
        *(
            replace(entry, seq=next(numbers[entry.agent])) if isinstance(entry, Custody | Reconcile | Freeze) else entry
            for entry in entries
        ),
    )
    return grown


def one_key(grown: GrownLog, interval: Interval | None = None) -> KeyCustody:
    (found,) = report_custody(grown.public(), "release", interval or Interval()).keys
    return found


def parts(found: KeyCustody) -> list[tuple[int, int, str]]:
    return [(part.since_ms, part.until_ms, " ".join(part.reasons)) for part in found.stretches]


def test_time_that_nobody_told_of_is_unproven() -> None:
    found = one_key(log(key_entry(100), told(100, 400), told(500, 800), intent_at(LATE, 1)))

    assert parts(found) == [(100, 400, ""), (400, 500, "untold"), (500, 800, ""), (800, LATE, "untold")]
    assert found.coverage == pytest.approx(100 * 600 / (LATE - 100))


def test_what_is_contradicted_is_unproven() -> None:
    found = one_key(log(key_entry(100), told(100, 900), told(300, 500, "shared"), told(400, 600, "clock")))

    assert parts(found)[:5] == [
        (100, 300, ""),
        (300, 400, "shared"),
        (400, 500, "clock shared"),
        (500, 600, "clock"),
        (600, 900, ""),
    ]


def test_an_agent_without_the_token_does_not_contradict_the_one_that_has_it() -> None:
    away = told(300, 900, "absent")
    here = told(400, 900, agent=PC)

    assert parts(one_key(log(key_entry(100), told(100, 300), away, here)))[:3] == [
        (100, 300, ""),
        (300, 400, "absent"),
        (400, 900, ""),
    ]
    contradicted = replace(here, agent=PI)
    assert parts(one_key(log(key_entry(100), away, contradicted)))[1] == (300, 900, "absent")


def test_the_same_key_on_another_token_has_a_custody_of_its_own() -> None:
    clone = told(100, LATE, agent=PC, token="0002")
    report = report_custody(log(key_entry(100), told(100, 500), clone).public(), KEY, Interval())

    assert [(one.token, one.coverage) for one in report.keys] == [
        ("0001", pytest.approx(100 * 400 / (LATE - 100))),
        ("0002", 0.0),
    ]


def test_what_an_agent_tells_of_the_future_is_not_told_yet() -> None:
    ahead = told(100, 10 * LATE, ts=200_000)

    found = one_key(log(key_entry(100), ahead, intent_at(LATE, 1)))

    assert parts(found) == [(100, 260_000, ""), (260_000, LATE, "untold")]


@pytest.mark.parametrize(("state", "reason"), [("proven", "shared"), ("unproven", ""), ("splendid", "")])
def test_only_proven_without_a_reason_is_proven(state: str, reason: str) -> None:
    found = one_key(log(key_entry(100), told(100, 900, state=state, reason=reason)))

    assert parts(found)[0] == (100, 900, reason or "unproven")


def test_an_interval_is_cut_out() -> None:
    grown = log(key_entry(100), told(100, 400), told(400, 800, "shared"), intent_at(LATE, 1))

    assert parts(one_key(grown, Interval(start=300, end=600))) == [(300, 400, ""), (400, 600, "shared")]
    assert parts(one_key(grown, Interval(end=50))) == []
    assert one_key(grown, Interval(end=50)).coverage == 0


def test_counters_and_freezes_are_told_in_their_order() -> None:
    found = one_key(
        log(
            key_entry(100),
            reconciled(10, 10, 0),
            reconciled(10, 12, 1, "mismatch"),
            freeze(frozen=True),
            freeze(frozen=False),
            reconciled(12, 12, 0),
            reconciled(20, 20, 0),
        )
    )

    assert [(one.index, one.anew, one.accepted) for one in found.counts] == [
        (2, False, False),
        (3, False, False),
        (6, True, True),
        (7, True, False),
    ]
    assert [index for index, _ in found.freezes] == [4, 5]
    assert not found.is_frozen
    assert one_key(log(key_entry(100), freeze(frozen=True))).is_frozen


def test_all_keys_are_told_of_if_none_is_named() -> None:
    grown = log(key_entry(100), key_entry(200, key=OTHER, profile="nightly"), told(100, 300))

    assert [one.key for one in report_custody(grown.public(), "", Interval()).keys] == [KEY, OTHER]
    assert [one.profiles for one in report_custody(grown.public(), OTHER, Interval()).keys] == [("nightly",)]


def test_a_key_that_the_log_does_not_know_is_no_answer() -> None:
    with pytest.raises(ConfigError) as caught:
        report_custody(log(key_entry(100)).public(), "relase", Interval())

    assert caught.value.code == "report.unknown_key"


def test_an_event_that_was_left_out_ends_it() -> None:
    grown = GrownLog()
    grown.commit(genesis(), key_entry(100), told(100, 200, seq=1), told(300, 400, seq=3))

    with pytest.raises(LogIntegrityError, match=f"entry 3: agent {PI} tells event 3 after 1"):
        report_custody(grown.public(), "", Interval())


SPANS = st.tuples(st.integers(0, 40), st.integers(0, 40), st.sampled_from(["", "", "shared", "absent"]))


@given(st.lists(st.tuples(SPANS, st.sampled_from([PI, PC])), max_size=12))
def test_the_timeline_is_whole_and_says_of_each_moment_what_was_told(
    spans: list[tuple[tuple[int, int, str], str]],
) -> None:
    claims = [told(min(a, b), max(a, b), reason, agent=agent) for (a, b, reason), agent in spans]

    stretches = timeline(claims, 5, 35)

    assert (stretches[0].since_ms, stretches[-1].until_ms) == (5, 35)
    assert all(one.until_ms == other.since_ms for one, other in itertools.pairwise(stretches))
    assert all(one.reasons != other.reasons for one, other in itertools.pairwise(stretches))
    proven = 0
    for moment in range(5, 35):
        here = [one for one in claims if one.since <= moment < one.until]
        holders = {one.agent for one in here if not one.reason}
        against = [
            one for one in here if one.reason == "shared" or (one.reason == "absent" and not holders - {one.agent})
        ]
        (stretch,) = (one for one in stretches if one.since_ms <= moment < one.until_ms)
        assert (stretch.state == "proven") == (bool(holders) and not against)
        proven += stretch.state == "proven"
    assert coverage(stretches) == pytest.approx(100 * proven / 30)
