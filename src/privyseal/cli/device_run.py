# SPDX-License-Identifier: Apache-2.0
"""A command that is run while its device is attached to this host."""

import asyncio
import contextlib
import os
import signal
from typing import Final

from privyseal.cli.device_session import Place, Session, until_stopped
from privyseal.cli.render import say
from privyseal.client.device_use import AttachedUse, DeviceUse
from privyseal.client.devices import DeviceClient, LeaseEnd
from privyseal.client.lease_request import LeaseWish
from privyseal.errors import ConfigError, PrivysealError
from privyseal.usb.arrival import SEEN_SECONDS, Arrival
from privyseal.usb.host import UsbHost
from privyseal.usb.vhci import Vhci

__all__ = ["run_command"]

#: As shells do it for what was ended by a signal.
_SIGNALLED: Final = 128


async def run_command(
    client: DeviceClient,
    wish: LeaseWish,
    command: tuple[str, ...],
    *,
    host: UsbHost | None = None,
    vhci: Vhci | None = None,
    seen_seconds: float = SEEN_SECONDS,
) -> tuple[LeaseEnd, int]:
    """Borrow a device, run a command, give the device back.

    Args:
        client: Borrows it.
        wish: What is wanted.
        command: Program and arguments; it finds the device's name in PRIVYSEAL_DEVICE, its bus id in
            PRIVYSEAL_DEVICE_BUS_ID.
        host: Where the device shows.
        vhci: What it is attached to.
        seen_seconds: How long the kernel may take to show it.

    Returns:
        How the lease ended, and the command's exit code.

    Raises:
        StopError: somebody wanted the end before the command was begun.
        PrivysealError: the device could not be had. ConfigError: `device.command`.
    """
    host, controller = host or UsbHost(), vhci or Vhci()
    controller.ports()  # nobody else has to wait for a device that cannot be attached here
    arrival = await Arrival.before(host)
    session = Session(client, wish, Place(vhci=controller))

    async def within(use: DeviceUse) -> int:
        if not isinstance(use, AttachedUse):
            raise TypeError("a command runs where the device is attached")
        device = await until_stopped(arrival.seen(use.device, seconds=seen_seconds), session.stop)
        await until_stopped(arrival.reader(device), session.stop)
        say(f"attached  {wish.device}: {device}, {use.where}")
        names = {"PRIVYSEAL_DEVICE": wish.device, "PRIVYSEAL_DEVICE_BUS_ID": device.bus_id}
        return await _run(command, names, use, wish.device, session)

    with session.listening():
        return await session.hold(within)


async def _run(command: tuple[str, ...], names: dict[str, str], use: DeviceUse, device: str, session: Session) -> int:
    """Run it to its end, whatever becomes of the device."""
    try:
        process = await asyncio.create_subprocess_exec(*command, env=os.environ | names)
    except OSError as error:
        raise ConfigError(
            "device.command", f"cannot run {command[0]}: {error.strerror}", hint="name a program that is there"
        ) from error
    beside = (asyncio.create_task(_tell_end(use, device)), asyncio.create_task(_pass_on(session, process)))
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        raise
    finally:
        for task in beside:
            task.cancel()
    return code if code >= 0 else _SIGNALLED - code


async def _tell_end(use: DeviceUse, device: str) -> None:
    with contextlib.suppress(PrivysealError):  # who gives it back meets it, too
        await use.ended()
    say(f"the lease of {device} has ended; the command goes on without it")


async def _pass_on(session: Session, process: asyncio.subprocess.Process) -> None:
    """A SIGTERM is the command's, too; a terminal's Ctrl-C reaches it by itself."""
    await session.stop.wait()
    if session.signalled == signal.SIGTERM:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
