# SPDX-License-Identifier: Apache-2.0
"""Whether a token may be in another place than the one on record. Pure: what was seen is an argument.

Four signals, none of them proof: docs/custody.md says what each is worth and where its bounds come from.
"""

import statistics
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

import msgspec

from privyseal.agent.custody_spans import Reason
from privyseal.usb.topology import UsbPlace

__all__ = [
    "ROUND_SAMPLES",
    "SIGNALS",
    "Network",
    "PlaceRecord",
    "Sight",
    "Timing",
    "is_settled",
    "saw",
]

#: The weightiest first: custody names one reason.
SIGNALS: Final = (Reason.USB_IMPORTED, Reason.USB_PORT, Reason.CARD_TIMING, Reason.NETWORK)

#: Round trips that are measured at a time. The shortest is compared: a busy host delays many, a relay all.
ROUND_SAMPLES: Final = 16
_ROUNDS_LEARNT: Final = 4
#: What a relay must add at least: a full-speed bus has frames of 1 ms, so that ordinary noise is up to that.
_LEAST_ADDED_US: Final = 1_500
_SPREADS: Final = 2

#: A signal that one look could show by chance stands when so many of the last looks show it.
_WINDOW: Final = 5
_ENOUGH: Final = 4


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Round trips of a harmless command, in microseconds.

    Attributes:
        low_us: The shortest.
        median_us: Their median.
    """

    low_us: int
    median_us: int

    @classmethod
    def of(cls, round_trips_us: tuple[int, ...]) -> "Timing":
        """That of at least one round trip."""
        return cls(low_us=min(round_trips_us), median_us=round(statistics.median(round_trips_us)))

    @property
    def spread_us(self) -> int:
        """From the shortest to the median: the upper half says more of the host than of the card."""
        return self.median_us - self.low_us

    @property
    def bound_us(self) -> int:
        """A round whose shortest is above this takes longer than this card does by itself."""
        return self.low_us + max(_LEAST_ADDED_US, _SPREADS * self.spread_us)


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent's host sees of its network, each as a keyed hash; empty if it sees nothing of the kind.

    Attributes:
        gateway: MAC address of the default gateway.
        domain: Search domains, as DHCP gives them.
        subnets: Networks behind the same interface.
    """

    gateway: str = ""
    domain: str = ""
    subnets: str = ""


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What one look showed.

    Attributes:
        place: Where the token's USB device hangs; None if that was not looked for, or could not be seen.
        is_hidden: Whether it was looked for and is not attached, while the token answers.
        round_trips_us: Of a harmless command to the card; empty if none was measured.
        network: None if it was not looked at, or there is none.
    """

    place: UsbPlace | None = None
    is_hidden: bool = False
    round_trips_us: tuple[int, ...] = ()
    network: Network | None = None


class PlaceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The place on record, and what stands against it.

    Attributes:
        place, timing, network: As they were when they were first seen or accepted; None until then.
        learnt_us: Round trips of which `timing` is made when there are enough.
        may_be_imported: Whether a person has accepted the place: a device attached over the network is then taken as
            it is, otherwise it is a signal from the first look on.
        windows: Of each signal, whether the last looks showed it, the oldest first.
        standing: Signals that stand, the weightiest first.
    """

    place: UsbPlace | None = None
    timing: Timing | None = None
    network: Network | None = None
    learnt_us: tuple[int, ...] = ()
    may_be_imported: bool = False
    windows: dict[Reason, tuple[bool, ...]] = {}
    standing: tuple[Reason, ...] = ()


class _Verdict(Enum):
    """What one look says of one signal."""

    AS_EVER = (False,)
    OTHER = (True,)
    SURELY_AS_EVER = (False,) * _WINDOW
    SURELY_OTHER = (True,) * _WINDOW


def saw(record: PlaceRecord, sight: Sight, *, is_sticky: bool) -> PlaceRecord:
    """Hold what was seen against the record; what was not on record yet is learnt while nothing stands against it.

    Args:
        record: The record before.
        sight: What was seen.
        is_sticky: Whether a signal stands until a person has accepted the place, even if it is not seen any more.
    """
    windows = dict(record.windows)
    for signal, verdict in _verdicts(record, sight).items():
        windows[signal] = (windows.get(signal, ()) + verdict.value)[-_WINDOW:]
    standing = tuple(
        signal
        for signal in SIGNALS
        if _stands(windows.get(signal, ()), before=signal in record.standing, is_sticky=is_sticky)
    )
    held = msgspec.structs.replace(record, windows=windows, standing=standing)
    return held if standing else _learn(held, sight)


def is_settled(record: PlaceRecord, signal: Reason) -> bool:
    """Whether another look at this is no more urgent than ever: the last one said what the ones before it did."""
    window = record.windows.get(signal, ())
    if signal is Reason.CARD_TIMING and record.timing is None and not record.standing:
        return False
    return not window or window[-1] == (signal in record.standing)


def _stands(window: tuple[bool, ...], *, before: bool, is_sticky: bool) -> bool:
    """Between the two bounds it stays as it was."""
    if sum(window) >= _ENOUGH:
        return True
    is_over = len(window) - sum(window) >= _ENOUGH
    return before and (is_sticky or not is_over)


def _verdicts(record: PlaceRecord, sight: Sight) -> Mapping[Reason, _Verdict]:
    found: dict[Reason, _Verdict] = {}
    if sight.place is not None:
        found[Reason.USB_IMPORTED] = _sure(sight.place.is_imported and not _is_import_known(record))
    if record.place is not None:
        if sight.is_hidden:
            found[Reason.USB_PORT] = _Verdict.OTHER  # it may have been pulled out this very moment
        elif sight.place is not None:
            found[Reason.USB_PORT] = _sure(_is_elsewhere(record.place, sight.place))
    if record.timing is not None and sight.round_trips_us:
        is_slow = Timing.of(sight.round_trips_us).low_us > record.timing.bound_us
        found[Reason.CARD_TIMING] = _Verdict.OTHER if is_slow else _Verdict.AS_EVER
    if record.network is not None and sight.network is not None:
        is_other = _is_other_network(record.network, sight.network)
        found[Reason.NETWORK] = _Verdict.OTHER if is_other else _Verdict.AS_EVER
    return MappingProxyType(found)


def _sure(is_other: bool) -> _Verdict:  # noqa: FBT001 - the one thing that it is about
    return _Verdict.SURELY_OTHER if is_other else _Verdict.SURELY_AS_EVER


def _is_import_known(record: PlaceRecord) -> bool:
    return record.may_be_imported if record.place is None else record.place.is_imported


def _is_elsewhere(before: UsbPlace, now: UsbPlace) -> bool:
    if now.is_imported:  # said by a signal of its own; and ports of vhci_hcd are given out as they come
        return False
    return now != before


def _is_other_network(before: Network, now: Network) -> bool:
    """What is not seen on either side says nothing."""
    pairs = ((before.gateway, now.gateway), (before.domain, now.domain), (before.subnets, now.subnets))
    return any(one and other and one != other for one, other in pairs)


def _learn(record: PlaceRecord, sight: Sight) -> PlaceRecord:
    learnt_us, timing = record.learnt_us, record.timing
    if timing is None and sight.round_trips_us:
        learnt_us += sight.round_trips_us
        if len(learnt_us) >= _ROUNDS_LEARNT * ROUND_SAMPLES:
            learnt_us, timing = (), Timing.of(learnt_us)
    network = record.network
    if network is None and sight.network is not None and sight.network.gateway:
        network = sight.network
    return msgspec.structs.replace(
        record, place=record.place or sight.place, timing=timing, network=network, learnt_us=learnt_us
    )
