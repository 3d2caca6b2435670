# SPDX-License-Identifier: Apache-2.0
"""What a test and a card say to each other: one JSON value a line, each order answered by the card's state."""

from typing import Literal

import msgspec

__all__ = ["Apdu", "Await", "Counter", "Fault", "Insert", "Order", "Release", "Remove", "Renew", "Set", "State"]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong with a command.

    Attributes:
        ins: Of which commands. Of VERIFY only those count that carry a PIN.
        act: `stall`: no answer until released, or until the card leaves; `answer`: `sw` and no data; `leave`: the
            card is out of its reader.
        after: After the command took effect, instead of before it could.
        sw: For `answer`.
        skip: How many such commands go well first.
        times: How many go wrong then.
    """

    ins: int
    act: Literal["stall", "answer", "leave"]
    after: bool = False
    sw: int = 0x6F00
    skip: int = 0
    times: int = 1


class Set(msgspec.Struct, frozen=True, kw_only=True, tag="set", forbid_unknown_fields=True):
    """Turn the knobs that are named; the others stay.

    Attributes:
        faults: In place of all earlier ones; the first that fits a command is used.
        delays_ms: Before a command takes effect, by INS.
        secure_frames: Whether the secure messaging look-alike is answered.
    """

    faults: tuple[Fault, ...] | None = None
    delays_ms: dict[int, int] | None = None
    pin: str | None = None
    tries_left: int | None = None
    secure_frames: bool | None = None


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """The card leaves its reader, at once."""


class Insert(msgspec.Struct, frozen=True, tag="insert"):
    """The card is put back, as soon as its reader has noticed that it was away."""


class Release(msgspec.Struct, frozen=True, tag="release"):
    """Commands that are stalled go on."""


class Renew(msgspec.Struct, frozen=True, tag="renew"):
    """Another card with the same keys, present, with its first PIN: nothing counted, nothing wrong with it."""


Counter = Literal["power_ons", "stalls", "pins_arrived", "pins_judged", "operations", "absences"]


class Await(msgspec.Struct, frozen=True, kw_only=True, tag="await", forbid_unknown_fields=True):
    """Answer as soon as a counter is this high, or after these seconds as it is."""

    counter: Counter
    at_least: int
    seconds: float


Order = Set | Remove | Insert | Release | Await | Renew


class Apdu(msgspec.Struct, frozen=True, kw_only=True):
    """A command that was answered; never its data."""

    ins: int
    p1: int
    p2: int
    sw: int


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A card, seen from outside. All counters run from the start of its process, across removals.

    Attributes:
        is_present: Whether it is in its reader.
        power_ons: How often its reader switched it on.
        absences: How often its reader had no card.
        stalls: How many commands were stalled so far.
        pins_arrived, pins_judged, pins_refused: VERIFY commands with a PIN: that came; that took effect; that were
            wrong.
        operations: Of private keys.
        commands: Whole ones, after command chaining and without GET RESPONSE.
    """

    is_present: bool
    power_ons: int
    absences: int
    stalls: int
    pins_arrived: int
    pins_judged: int
    pins_refused: int
    tries_left: int
    operations: int
    commands: tuple[Apdu, ...]
