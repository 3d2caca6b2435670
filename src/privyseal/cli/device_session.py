# SPDX-License-Identifier: Apache-2.0
"""A device borrowed by a command: wait, attach, do something with it, give it back."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from privyseal.cli.moments import clock_text
from privyseal.cli.render import printable, say
from privyseal.client.device_use import DeviceUse, attach_here, offer_at_port
from privyseal.client.devices import DeviceClient, HeldLease, LeaseEnd, Turn
from privyseal.client.lease_request import LeaseWish
from privyseal.ports.clock import system_clock
from privyseal.usb.vhci import Vhci
from privyseal.wire.relay import Notice

__all__ = ["Place", "Session", "StopError", "until_stopped"]

T = TypeVar("T")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_ERASE_LINE: Final = "\r\x1b[K"


class StopError(Exception):
    """Somebody wants the command to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the device shall be.

    Attributes:
        port: Of 127.0.0.1, for one USB/IP client; 0 for any that is free, None to attach it to this host.
        vhci: The virtual controller of this host.
    """

    port: int | None = None
    vhci: Vhci = field(default_factory=Vhci)

    async def take(self, lease: HeldLease) -> DeviceUse:
        """Put it there. Raises PrivysealError: what is in the way."""
        if self.port is None:
            return await attach_here(lease, vhci=self.vhci)
        return await offer_at_port(lease, self.port, lambda port: _offer(port, lease.bus_id))


def _offer(port: int, bus_id: str) -> None:
    say(f"within 10 s: usbip --tcp-port {port} attach -r 127.0.0.1 -b {bus_id}")


class _Waiting:
    """Tells of what comes first: on a terminal in one line, else whenever it is something new."""

    def __init__(self, device: str) -> None:
        self._device: Final = device
        self._told = ""

    def show(self, turn: Turn) -> None:
        text = f"waiting for {self._device}: {turn.before} before this; {_who(turn)}"
        if text == self._told:
            return
        self._told = text
        if sys.stderr.isatty():
            sys.stderr.write(_ERASE_LINE + printable(text))
            sys.stderr.flush()
        else:
            say(text)

    def clear(self) -> None:
        if self._told and sys.stderr.isatty():
            sys.stderr.write(_ERASE_LINE)
            sys.stderr.flush()


def _who(turn: Turn) -> str:
    device = turn.device
    if device is None:
        return "the hub does not answer"
    if (lent := device.lent) is None:
        return "its token signs" if device.signing else "nobody knows how long"
    why = f" ({lent.reason})" if lent.reason else ""
    until = "" if lent.until_ms is None else f", until {clock_text(lent.until_ms, system_clock())} at most"
    return f"client {lent.client} has it{why}{until}"


async def until_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T:
    """What the work brings; it is cancelled when somebody wants the command to end.

    Raises:
        StopError: it was.
    """
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        raise StopError
    finally:
        stopping.cancel()
        working.cancel()


class Session:
    """Borrows one device."""

    def __init__(self, client: DeviceClient, wish: LeaseWish, place: Place) -> None:
        """`place` is where the device shall be while it is this client's."""
        self._client: Final = client
        self._wish: Final = wish
        self._place: Final = place
        self.stop: Final = asyncio.Event()
        #: By which signal; 0 if by none.
        self.signalled = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within this SIGINT and SIGTERM ask for the end, and do not end the program by themselves."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C is a KeyboardInterrupt there
            for number in _SIGNALS:
                loop.add_signal_handler(number, self._signalled, number)
        try:
            yield
        finally:
            with contextlib.suppress(NotImplementedError):
                for number in _SIGNALS:
                    loop.remove_signal_handler(number)

    def _signalled(self, number: int) -> None:
        self.signalled = number
        self.stop.set()

    async def hold(self, within: Callable[[DeviceUse], Awaitable[T]]) -> tuple[LeaseEnd, T]:
        """Have the device while something is done with it.

        Args:
            within: What is done; told where the device is.

        Returns:
            How the lease ended, and what was done.

        Raises:
            StopError: somebody wanted the end before the device was here.
            PrivysealError: the device could not be had; it is given back.
        """
        waiting = _Waiting(self._wish.device)
        try:
            borrowing = self._client.borrow(self._wish, waits=waiting.show, noticed=_tell)
            lease = await until_stopped(borrowing, self.stop)
        finally:
            waiting.clear()
        try:
            use = await until_stopped(self._place.take(lease), self.stop)
        except BaseException:
            await asyncio.shield(lease.finish())
            raise
        try:
            done = await within(use)
        except BaseException:
            await asyncio.shield(_given_back(use, lease))
            raise
        return await _given_back(use, lease), done


async def _given_back(use: DeviceUse, lease: HeldLease) -> LeaseEnd:
    try:
        await use.detach()
    finally:
        end = await lease.finish()
    return end


def _tell(notice: Notice) -> None:
    say(f"the agent says: {notice.text}")
