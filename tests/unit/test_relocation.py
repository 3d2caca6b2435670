# SPDX-License-Identifier: Apache-2.0
"""Signals of a token in another place: a relay's delay is one, noise is none; what chance could show must recur."""

import itertools
import random
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.agent.custody_spans import Reason
from privyseal.agent.relocation import (
    ROUND_SAMPLES,
    Network,
    PlaceRecord,
    Sight,
    Timing,
    is_settled,
    saw,
)
from privyseal.usb.topology import UsbPlace

HOME = UsbPlace(controller="pci0000:00/0000:00:14.0", ports="1.4", hubs=("1d6b:0002", "05e3:0610"), is_imported=False)
FAR = replace(HOME, controller="platform/vhci_hcd.0", ports="1", is_imported=True)
OFFICE = Network(gateway="a", domain="b", subnets="c")


def after(*sights: Sight, record: PlaceRecord | None = None, is_sticky: bool = False) -> PlaceRecord:
    record = record or PlaceRecord()
    for sight in sights:
        record = saw(record, sight, is_sticky=is_sticky)
    return record


def at(place: UsbPlace) -> Sight:
    return Sight(place=place)


def in_network(network: Network) -> Sight:
    return Sight(network=network)


def took(*round_trips_us: int) -> Sight:
    return Sight(round_trips_us=round_trips_us)


#: A card of 12 ms on a full-speed bus: now and then a frame of 1 ms later.
def rounds(seed: int, count: int, *, added_us: int = 0, load: float = 0.0) -> list[Sight]:
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        trips = [12_000 + added_us + chance.choice((0, 0, 1000)) + round(chance.gauss(0, 60)) for _ in range(16)]
        found.append(took(*(one + round(chance.expovariate(1 / 4000)) * (chance.random() < load) for one in trips)))
    return found


@pytest.mark.parametrize(
    "place",
    [
        replace(HOME, ports="1.3"),
        replace(HOME, controller="pci0000:00/0000:00:1d.0"),
        replace(HOME, hubs=("1d6b:0002", "2109:2817")),
    ],
)
def test_another_port_hub_or_controller_is_a_signal_at_once_and_none_when_it_is_back(place: UsbPlace) -> None:
    record = after(at(HOME), at(place))
    assert record.standing == (Reason.USB_PORT,)

    assert after(at(HOME), record=record).standing == ()
    assert after(at(HOME), record=after(at(HOME), at(place), is_sticky=True), is_sticky=True).standing == (
        Reason.USB_PORT,
    )


def test_a_device_that_is_imported_is_a_signal_from_the_first_look_on() -> None:
    assert after(at(FAR)).standing == (Reason.USB_IMPORTED,)
    assert after(at(HOME), at(FAR)).standing == (Reason.USB_IMPORTED,)


def test_an_import_that_a_person_has_accepted_is_none_whatever_port_it_is_given() -> None:
    accepted = after(at(FAR), record=PlaceRecord(may_be_imported=True))

    assert after(at(replace(FAR, ports="3")), record=accepted).standing == ()
    assert after(at(HOME), record=accepted).standing == (Reason.USB_PORT,)
    brought_home = after(at(HOME), record=PlaceRecord(may_be_imported=True))
    assert after(at(FAR), record=brought_home).standing == (Reason.USB_IMPORTED,)


def test_a_token_that_answers_and_is_not_attached_is_a_signal_if_that_goes_on() -> None:
    hidden = Sight(is_hidden=True)

    assert after(hidden, hidden, hidden, hidden).standing == (), "nothing is on record"
    assert after(at(HOME), hidden, hidden, hidden).standing == ()
    assert after(at(HOME), hidden, hidden, hidden, hidden).standing == (Reason.USB_PORT,)


@pytest.mark.parametrize(
    "network", [Network(gateway="x", domain="b", subnets="c"), Network(domain="x"), Network(subnets="x")]
)
def test_another_network_is_a_signal_if_four_of_five_looks_show_it(network: Network) -> None:
    there, home = in_network(network), in_network(OFFICE)

    assert after(home, there, there, there, home, home, there, there, there).standing == ()
    away = after(home, there, there, home, there, there)
    assert away.standing == (Reason.NETWORK,)
    assert after(home, there, record=away).standing == (Reason.NETWORK,), "it stands until it is as clearly over"
    assert after(home, home, home, home, record=away).standing == ()


def test_what_is_not_seen_of_a_network_says_nothing() -> None:
    blind = [in_network(Network()), in_network(Network(gateway="a")), Sight()]

    assert after(in_network(OFFICE), *blind * 4).standing == ()
    assert after(*blind[:1] * 4).network is None, "a host without a network learns none"


@pytest.mark.parametrize(("added_us", "load"), [(3_000, 0.0), (20_000, 0.0), (5_000, 0.5)])
def test_a_relay_s_delay_is_noticed(added_us: int, load: float) -> None:
    for seed in range(50):
        record = after(*rounds(seed, 4))
        assert record.timing is not None
        assert after(*rounds(seed + 1, 4, added_us=added_us, load=load), record=record).standing == (
            Reason.CARD_TIMING,
        )


@pytest.mark.parametrize("load", [0.0, 0.2, 0.5])
def test_two_thousand_rounds_of_a_busy_host_are_none(load: float) -> None:
    record = after(*rounds(1, 4))
    for sight in rounds(2, 2_000, load=load):
        record = saw(record, sight, is_sticky=True)
        assert record.standing == ()


def test_what_is_a_little_slower_or_quicker_is_none() -> None:
    record = after(*rounds(1, 4))

    assert after(*rounds(2, 40, added_us=300), *rounds(3, 40, added_us=-9_000), record=record).standing == ()


def test_nothing_is_learnt_while_something_stands() -> None:
    record = after(at(FAR), *rounds(1, 8), in_network(OFFICE))

    assert (record.place, record.timing, record.network, record.learnt_us) == (None, None, None, ())


def test_the_card_is_measured_again_until_the_matter_is_decided() -> None:
    record = PlaceRecord()
    settled = []
    for sight in (*rounds(1, 4), *rounds(2, 1), *rounds(3, 4, added_us=9_000), *rounds(4, 4)):
        record = saw(record, sight, is_sticky=False)
        settled.append(is_settled(record, Reason.CARD_TIMING))

    learnt, slow, quick = [False, False, False, True], [False, False, False, True], [False, False, False, True]
    assert settled == [*learnt, True, *slow, *quick]


@given(
    sights=st.lists(
        st.builds(
            Sight,
            place=st.sampled_from((None, HOME, FAR, replace(HOME, ports="2"))),
            is_hidden=st.booleans(),
            round_trips_us=st.sampled_from(((), (9_000,) * ROUND_SAMPLES, (30_000,) * ROUND_SAMPLES)),
            network=st.sampled_from((None, OFFICE, Network(gateway="z"))),
        ),
        max_size=20,
    ),
    is_sticky=st.booleans(),
)
def test_the_record_outlives_a_restart_and_what_sticks_never_goes(sights: list[Sight], *, is_sticky: bool) -> None:
    record = PlaceRecord()
    for sight in sights:
        before = record
        kept = msgspec.json.decode(msgspec.json.encode(record), type=PlaceRecord)
        assert kept == record
        record = saw(kept, sight, is_sticky=is_sticky)
        if is_sticky:
            assert set(before.standing) <= set(record.standing)
        known = ((before.place, record.place), (before.timing, record.timing), (before.network, record.network))
        for one, other in known:
            assert one is None or one == other, "only a person's acceptance changes what is on record"
        assert all(len(window) <= 5 for window in record.windows.values())


@given(st.lists(st.integers(0, 100_000), min_size=ROUND_SAMPLES, max_size=64))
def test_half_of_what_is_learnt_is_within_the_bound(trips: list[int]) -> None:
    timing = Timing.of(tuple(trips))

    assert timing.low_us <= timing.median_us < timing.bound_us


def test_three_slow_rounds_among_any_five_are_chance() -> None:
    learnt = after(*rounds(1, 4))
    for order in itertools.product((0, 9_000), repeat=5):
        slow = sum(map(bool, order))
        found = after(*(rounds(index, 1, added_us=added)[0] for index, added in enumerate(order)), record=learnt)
        assert bool(found.standing) == (slow >= 4)
