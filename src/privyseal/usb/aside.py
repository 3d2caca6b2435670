# SPDX-License-Identifier: Apache-2.0
"""Questions to the kernel that may wait for a lock, asked in a thread that nobody has to wait for."""

import asyncio
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from privyseal.errors import MalformedInputError, UsbError

__all__ = ["aside"]

#: The kernel answers at once, but for a device whose lock somebody else holds.
_READ_SECONDS: Final = 10.0

T = TypeVar("T")


async def aside(read: Callable[[], T], *, discard: Callable[[T], object] | None = None) -> T:
    """Do this in a thread that nobody has to wait for: sysfs reads wait while another holds the device's lock.

    Args:
        read: What is done; it may raise OSError, UsbError and MalformedInputError.
        discard: Gives back what comes when nobody waits for it any more.

    Raises:
        UsbError: `usb.no_answer` after 10 s; what `read` raises.
        OSError, MalformedInputError: What `read` raises.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(value: T) -> None:
        if not done.done():
            done.set_result(value)
        elif discard is not None:
            discard(value)

    def fail(error: Exception) -> None:
        if not done.done():
            done.set_exception(error)

    def run() -> None:
        try:
            value = read()
        except (OSError, UsbError, MalformedInputError) as error:
            told = error
            _tell(loop, lambda: fail(told))
        else:
            _tell(loop, lambda: finish(value))

    threading.Thread(target=run, name="usb-sysfs", daemon=True).start()
    try:
        async with asyncio.timeout(_READ_SECONDS):
            return await done
    except TimeoutError as error:
        raise UsbError(
            "usb.no_answer",
            f"the kernel did not answer within {_READ_SECONDS:g} s: another program holds a USB device",
            hint="look at `dmesg`; take the device out and insert it again",
        ) from error


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
        return
