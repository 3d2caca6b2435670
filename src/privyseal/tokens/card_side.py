# SPDX-License-Identifier: Apache-2.0
"""What can be learnt of a token beside its module: its card's counters, and who else is connected to its reader."""

import time
from typing import Final

from privyseal.errors import TokenError
from privyseal.ports.token import KeyCounter, ReaderUse
from privyseal.tokens.counters import CounterKind, read_counters
from privyseal.tokens.pcsc import Card, Pcsc
from privyseal.tokens.pcsc_clients import connected, own_connections

__all__ = ["CardSide", "choose_reader"]

#: CK_SLOT_INFO cuts a reader's name there.
_SLOT_DESCRIPTION_BYTES: Final = 64
#: GET DATA of tag 0000, which ISO/IEC 7816-4 keeps free: every card refuses it at once, and selects nothing.
_GET_NO_DATA: Final = bytes.fromhex("00ca000000")
#: Between two of them: on a busy host commands without a pause all wait for the same other program.
_PAUSE_SECONDS: Final = 0.005


class CardSide:
    """The PC/SC side of one token. Its connection to pcscd is kept: one that came and went would look like a stranger.

    Args:
        counter: How the card's counters are read.
    """

    def __init__(self, counter: CounterKind) -> None:
        self._counter: Final = counter
        self._pcsc: Pcsc | None = None

    @property
    def is_reached(self) -> bool:
        """Whether the module reaches its token through pcscd."""
        return bool(own_connections())

    def counters(self, slot_description: str) -> tuple[KeyCounter, ...]:
        """See `Token.counters`."""
        if self._counter == "none":
            return ()
        pcsc = self._connected()
        with pcsc.card(choose_reader(pcsc.readers(), slot_description)) as card:
            return read_counters(card, self._counter)

    def reader_use(self, slot_description: str) -> ReaderUse | None:
        """See `Token.reader_use`."""
        if not self.is_reached:
            return None
        events = self._events(slot_description)
        own = own_connections()
        try:
            connections = connected(frozenset(own))
        except OSError:
            return None
        return ReaderUse(own=own.total(), connections=connections, card_events=events)

    def round_trips(self, slot_description: str, count: int) -> tuple[int, ...] | None:
        """See `Token.probe`."""
        try:
            pcsc = self._connected()
            with pcsc.card(choose_reader(pcsc.readers(), slot_description)) as card:
                return tuple(_round_trip_us(card) for _ in range(count))
        except TokenError:
            self.close()
            return None

    def close(self) -> None:
        """End the connection to pcscd."""
        if self._pcsc is not None:
            self._pcsc.close()
            self._pcsc = None

    def _events(self, slot_description: str) -> int | None:
        """How often a card came or went in the token's reader; None if it is not known which reader that is."""
        try:
            pcsc = self._connected()
            return pcsc.state(choose_reader(pcsc.readers(), slot_description)).events
        except TokenError:
            self.close()  # the next look begins anew, perhaps with another pcscd
            return None

    def _connected(self) -> Pcsc:
        if self._pcsc is None:
            self._pcsc = Pcsc()
        return self._pcsc


def _round_trip_us(card: Card) -> int:
    time.sleep(_PAUSE_SECONDS)
    since_ns = time.perf_counter_ns()
    card.ask(_GET_NO_DATA)
    return (time.perf_counter_ns() - since_ns) // 1000


def choose_reader(readers: tuple[str, ...], slot_description: str) -> str:
    """The reader that a module means by a slot: the one of that name, or the only one.

    Raises:
        TokenError: `token.reader`.
    """
    named = [one for one in readers if one.encode()[:_SLOT_DESCRIPTION_BYTES].rstrip() == slot_description.encode()]
    chosen = named or list(readers)
    if len(chosen) != 1:
        raise TokenError(
            "token.reader",
            f"pcscd has {len(readers)} readers; the module's slot {slot_description!r} is the name of {len(named)}",
            hint="leave one reader plugged in, or use a module that names its slots after readers, as OpenSC does",
        )
    return chosen[0]
