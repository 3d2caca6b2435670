# SPDX-License-Identifier: Apache-2.0
"""The kernel's own news of devices that come and go (netlink, NETLINK_KOBJECT_UEVENT).

sysfs tells inotify nothing, and udev need not run. News only wake a reader, who looks into sysfs for what is true;
where this socket cannot be had, time wakes the reader.
"""

import asyncio
import contextlib
import socket
from typing import Final, Protocol

__all__ = ["Changes", "KernelChanges", "Uevent", "changes", "parse_uevent"]

_NETLINK_KOBJECT_UEVENT: Final = 15
#: The kernel's group; 2 is udev's.
_KERNEL_GROUP: Final = 1
#: The kernel's own bound is 2 KiB of properties and the path before them.
_MESSAGE_BYTES: Final = 8192
_PROPERTIES: Final = 64


class Changes(Protocol):
    """Wakes whoever waits for a device. Opened before what makes the change, so that nothing is missed."""

    async def wait(self, seconds: float) -> None:
        """Return at the next change that was not waited for yet, at the latest after `seconds`."""

    def close(self) -> None:
        """Give back what is held."""


class Uevent(dict[str, str]):
    """Properties of one event, such as ACTION, DEVPATH and SUBSYSTEM."""


def parse_uevent(message: bytes) -> Uevent | None:
    """Read a message: `ACTION@DEVPATH`, then properties `NAME=VALUE`, each ended by a zero byte.

    Returns:
        None for what is not the kernel's form.
    """
    head, *rest = message[:_MESSAGE_BYTES].split(b"\0")
    action, at, path = head.partition(b"@")
    if not (action.isalpha() and at and path.startswith(b"/")):
        return None
    event = Uevent()
    for line in rest[:_PROPERTIES]:
        name, equals, value = line.partition(b"=")
        if name and equals:
            event.setdefault(name.decode("ascii", "replace"), value.decode("utf-8", "replace"))
    return event


class KernelChanges:
    """USB devices of this host, by the kernel's socket; with no socket, only time wakes."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):  # not in every container
            self._socket = _kernel_socket()
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._receive)

    @property
    def is_told(self) -> bool:
        """Whether the kernel's events arrive here."""
        return self._socket is not None

    async def wait(self, seconds: float) -> None:
        """Return at the next event of a USB device, at the latest after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _receive(self) -> None:
        if self._socket is None:
            return
        try:
            message, (sender, _) = self._socket.recvfrom(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: events were lost, so that one of them may have been ours
            self._news.set()
            return
        # Other processes of this host can send to the socket, too; the kernel's number is 0.
        event = parse_uevent(message) if sender == 0 else None
        if event is not None and event.get("SUBSYSTEM") == "usb":
            self._news.set()


def _kernel_socket() -> socket.socket:
    made = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, _NETLINK_KOBJECT_UEVENT
    )
    try:
        made.bind((0, _KERNEL_GROUP))
    except OSError:
        made.close()
        raise
    return made


def changes() -> Changes:
    """What this host's kernel tells of its USB devices."""
    return KernelChanges()
