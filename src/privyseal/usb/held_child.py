# SPDX-License-Identifier: Apache-2.0
"""What is done to a held device in a child process, which has inherited its open node: each of it may hang.

The kernel remembers the claim by the open node, not by the process: the parent goes on with what a child has claimed.
"""

import contextlib
import errno
import struct
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["VERBS"]

_RESET: Final = ord("U") << 8 | 20
_CONNECT: Final = ord("U") << 8 | 23
_INTERFACE: Final = struct.Struct("@I")
_SETTING: Final = struct.Struct("@II")  # struct usbdevfs_setinterface
_CLAIM_FORM: Final = struct.Struct("@II256s")  # struct usbdevfs_disconnect_claim
_IOCTL_FORM: Final = struct.Struct("@iiP")  # struct usbdevfs_ioctl
#: Take it from any driver but this one: that is another program's claim.
_EXCEPT_DRIVER: Final = 2
_PROGRAMS: Final = b"usbfs"


def _read(number: int, size: int) -> int:
    return 2 << 30 | size << 16 | ord("U") << 8 | number


_SET_INTERFACE: Final = _read(4, _SETTING.size)
_RELEASE: Final = _read(16, _INTERFACE.size)
_CLEAR_HALT: Final = _read(21, _INTERFACE.size)
_CLAIM: Final = _read(27, _CLAIM_FORM.size)
_IOCTL: Final = 3 << 30 | _IOCTL_FORM.size << 16 | ord("U") << 8 | 18


def _ioctl(descriptor: int, request: int, argument: bytes | int = 0) -> None:
    import fcntl  # noqa: PLC0415 - only Linux gets here

    fcntl.ioctl(descriptor, request, argument)


def _numbers(texts: Sequence[str]) -> list[int]:
    return [int(text) for text in texts]


def claim(descriptor: str, *interfaces: str) -> None:
    """Claim interfaces, from drivers of the kernel but not from other programs: all of them, or none."""
    held = int(descriptor)
    claimed: list[str] = []
    try:
        for number in interfaces:
            _ioctl(held, _CLAIM, _CLAIM_FORM.pack(int(number), _EXCEPT_DRIVER, _PROGRAMS))
            claimed.append(number)
    except OSError:
        release(descriptor, *claimed)
        raise


def release(descriptor: str, *interfaces: str) -> None:
    """Give interfaces up, and let the kernel look for their drivers."""
    held = int(descriptor)
    for number in _numbers(interfaces):
        with contextlib.suppress(OSError):  # a reset has given it up before
            _ioctl(held, _RELEASE, _INTERFACE.pack(number))
        with contextlib.suppress(OSError):  # it has its driver already, or there is none
            _ioctl(held, _IOCTL, _IOCTL_FORM.pack(number, _CONNECT, 0))


def give_back(descriptor: str, *interfaces: str) -> None:
    """Reset the device while it is still claimed, so that nobody finds it as it was left; then release it."""
    try:
        _ioctl(int(descriptor), _RESET)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT):
            raise
    finally:
        release(descriptor, *interfaces)


def set_interface(descriptor: str, number: str, alternate: str) -> None:
    """Choose an alternate setting."""
    _ioctl(int(descriptor), _SET_INTERFACE, _SETTING.pack(int(number), int(alternate)))


def clear_halt(descriptor: str, address: str) -> None:
    """End the halt of an endpoint, at both ends."""
    _ioctl(int(descriptor), _CLEAR_HALT, _INTERFACE.pack(int(address)))


VERBS: Final[dict[str, Callable[..., None]]] = {
    "claim": claim,
    "give_back": give_back,
    "release": release,
    "set_interface": set_interface,
    "clear_halt": clear_halt,
}
