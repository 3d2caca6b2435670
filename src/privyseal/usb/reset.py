# SPDX-License-Identifier: Apache-2.0
"""Reset of a USB device: its port resets it, as if it had just been attached, and its power stays on.

A token forgets its logins. Programs that have it open, such as pcscd, keep it.
"""

import contextlib
import errno
from typing import Final

from privyseal.errors import UsbError
from privyseal.usb.calls import CallError
from privyseal.usb.devices import UsbDevice
from privyseal.usb.host import UsbHost, require_linux

__all__ = ["denied", "reset_device"]

#: The device went before or during the call; it may be on its way back.
_GONE: Final = frozenset({errno.ENODEV, errno.ENOENT, errno.ESHUTDOWN})


async def reset_device(
    host: UsbHost, device: UsbDevice, *, reset_seconds: float = 30.0, return_seconds: float = 15.0
) -> UsbDevice:
    """Reset a device, and wait until it is usable again.

    Args:
        host: Where it is attached.
        device: As it was found, however long ago. If it is gone, its return is awaited.
        reset_seconds: Deadline of the reset: the kernel tries a device that does not answer several times.
        return_seconds: How long the device may be away, if it goes.

    Returns:
        The device as it is now; it has another number and node if the kernel had to attach it anew.

    Raises:
        UsbError: `usb.not_linux`, `usb.other_device`, `usb.denied`, `usb.no_answer`, `usb.reset_failed`,
            `usb.not_back`, `usb.call_failed`.
    """
    require_linux()
    with contextlib.closing(host.changes()) as news:
        now = await host.current(device)
        try:
            if now is not None:  # by the node that it has now: another device may have the old one
                await host.calls.reset(now.node, seconds=reset_seconds)
        except CallError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise denied(f"reset {device}", device.node) from error
            if error.errno not in _GONE:
                raise UsbError(
                    "usb.reset_failed",
                    f"{device} could not be reset: {error.strerror}",
                    hint="power-cycle its port, or take it out and insert it again",
                ) from error
        return await host.awaited(device, news, seconds=return_seconds)


def denied(action: str, place: object) -> UsbError:
    """The error of an account that may not write to a device."""
    return UsbError(
        "usb.denied",
        f"this account may not {action}: it cannot write to {place}",
        hint="install deploy/systemd/71-privyseal-usb.rules and the unit's USB addition: see docs/systemd.md",
    )
