# SPDX-License-Identifier: Apache-2.0
"""A card with everything that a test may do to it: the faults, the removal, and the record of its commands."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lab.piv.apdu import Answer, Command, Ins
from lab.piv.card import PivCard
from lab.piv.keys import CardKey
from lab.piv.orders import Apdu, Await, Fault, Insert, Order, Release, Remove, Renew, Set, State

__all__ = ["CardGoneError", "Station"]


#: Readers look for their card several times a second.
_NOTICE_SECONDS: Final = 10.0


class CardGoneError(Exception):
    """The card left its reader before it answered."""


class Station:
    """One card for one wire, and any number of threads that turn its knobs.

    Args:
        record: Where to write down all that the card hears (`>`) and says (`<`), and when it is switched on (`=`).
    """

    def __init__(self, keys: Mapping[int, CardKey], *, pin: str, record: Path | None = None) -> None:
        self._record = record
        self._keys = keys
        self._pin = pin
        self._changed = threading.Condition()
        self._releases = 0
        self._renew()

    def _renew(self) -> None:
        self.card = PivCard(self._keys, pin=self._pin, gate=self)
        self._is_present = True
        #: Whether its reader has noticed, since it left.
        self._is_missed = False
        self._faults: dict[Fault, int] = {}
        self._delays_ms: Mapping[int, int] = {}
        self._counters = {"power_ons": 0, "absences": 0, "stalls": 0, "pins_arrived": 0}
        self._commands: list[Apdu] = []
        self._releases += 1

    # For the wire

    @property
    def is_present(self) -> bool:
        return self._is_present

    def power_on(self) -> None:
        """The reader switches the card on, or off and on; nothing happens without a card."""
        if self._is_present:
            self._write("=", b"")
            self.card.reset()
            self._count("power_ons")

    def report_absence(self) -> None:
        """The wire has told its reader that no card is there."""
        with self._changed:
            self._is_missed = True
            self._count("absences")

    def transmit(self, raw: bytes) -> bytes:
        """The card's answer to one APDU.

        Raises:
            CardGoneError: If the card left before it could answer.
        """
        if not self._is_present:
            raise CardGoneError
        answer = self.card.transmit(raw)
        self._write(">", raw)
        self._write("<", answer)
        return answer

    # As the card's gate

    def before(self, command: Command) -> Answer | None:
        if command.has_pin:
            self._count("pins_arrived")
        time.sleep(self._delays_ms.get(command.ins, 0) / 1000)
        return self._go_wrong(command, after=False)

    def after(self, command: Command, answer: Answer) -> Answer:
        answer = self._go_wrong(command, after=True) or answer
        with self._changed:
            self._commands.append(Apdu(ins=command.ins, p1=command.p1, p2=command.p2, sw=answer.sw))
            self._changed.notify_all()
        return answer

    def _go_wrong(self, command: Command, *, after: bool) -> Answer | None:
        fault = self._fault(command, after=after)
        if fault is None:
            return None
        if fault.act == "answer":
            return Answer(sw=fault.sw)
        if fault.act == "leave":
            self.obey(Remove())
            raise CardGoneError
        with self._changed:
            release = self._releases + 1
            self._count("stalls")
            self._changed.wait_for(lambda: self._releases >= release or not self._is_present)
            if not self._is_present:
                raise CardGoneError
        return None

    def _fault(self, command: Command, *, after: bool) -> Fault | None:
        with self._changed:
            for fault, seen in self._faults.items():
                if fault.ins != command.ins or fault.after is not after:
                    continue
                if command.ins == Ins.VERIFY and not command.has_pin:
                    continue
                self._faults[fault] = seen + 1
                if fault.skip <= seen < fault.skip + fault.times:
                    return fault
        return None

    # For tests

    def obey(self, order: Order) -> State:
        """Do it, and say how the card is then."""
        with self._changed:
            match order:
                case Set():
                    self._turn(order)
                case Remove():
                    self._is_present = self._is_missed = False
                case Insert():
                    self._changed.wait_for(lambda: self._is_missed, _NOTICE_SECONDS)
                    self._is_present = True
                case Release():
                    self._releases += 1
                case Renew():
                    self._renew()
                case Await():
                    self._changed.wait_for(lambda: getattr(self.state, order.counter) >= order.at_least, order.seconds)
            self._changed.notify_all()
        return self.state

    @property
    def state(self) -> State:
        with self._changed:
            return State(
                is_present=self._is_present,
                pins_judged=self.card.pins_judged,
                pins_refused=self.card.pins_refused,
                tries_left=self.card.tries_left,
                operations=self.card.operations,
                commands=tuple(self._commands),
                **self._counters,
            )

    def _turn(self, knobs: Set) -> None:
        if knobs.faults is not None:
            self._faults = dict.fromkeys(knobs.faults, 0)
        if knobs.delays_ms is not None:
            self._delays_ms = knobs.delays_ms
        if knobs.pin is not None:
            self.card.set_pin(knobs.pin)
        if knobs.tries_left is not None:
            self.card.tries_left = knobs.tries_left
        if knobs.secure_frames is not None:
            self.card.has_secure_frames = knobs.secure_frames

    def _write(self, sign: str, data: bytes) -> None:
        if self._record is not None:
            with self._record.open("a") as lines:
                lines.write(f"{sign} {data.hex()}\n")

    def _count(self, counter: str) -> None:
        with self._changed:
            self._counters[counter] += 1
            self._changed.notify_all()
