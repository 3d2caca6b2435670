# SPDX-License-Identifier: Apache-2.0
"""Calls into the kernel that may hang, one to a process: `python -m privyseal.usb.child VERB ARGUMENT...`.

They wait uninterruptibly for a device's lock; a thread that does so could never be left behind, and would keep the
whole agent from ending. Says one line of JSON: {"data": HEX}, or {"errno": N, "step": TEXT}.

A power cycle is one call, so that the power comes back when the agent dies in between: SIGTERM ends the pause early.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from privyseal.usb.held_child import VERBS as HELD_VERBS
from privyseal.usb.hubs import CLEAR_PORT_POWER, GET_PORT_STATUS, SET_PORT_POWER, has_power

__all__ = ["main"]

_CONTROL_FORM: Final = "@BBHHHIP"  # struct usbdevfs_ctrltransfer
_CONTROL: Final = 3 << 30 | struct.calcsize(_CONTROL_FORM) << 16 | ord("U") << 8
_RESET: Final = ord("U") << 8 | 20
_CONTROL_MS: Final = 2000
_GET_DESCRIPTOR: Final = 0x06
_DESCRIPTOR_BYTES: Final = 64
#: The kernel gives a port its power back when it sees that the device is gone; so it is taken again until the end.
_AGAIN_SECONDS: Final = 0.05


class Request(NamedTuple):
    """The set-up packet of a control transfer; `length` bytes are asked for."""

    kind: int
    request: int
    value: int
    port: int
    length: int = 0


class StepError(OSError):
    """A step failed; the power may be off if it was the one that gives it back."""

    def __init__(self, step: str, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror)
        self.step = step


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StepError(name, error) from error


def reset(node: str) -> None:
    """USBDEVFS_RESET: the port resets the device, which keeps its number and its configuration."""
    import fcntl  # noqa: PLC0415 - only Linux gets here

    descriptor = _opened(node)
    with _step("reset"):
        fcntl.ioctl(descriptor, _RESET, 0)


def describe(node: str) -> bytes:
    """The hub descriptor of a hub, up to USB 2 or from USB 3."""
    descriptor = _opened(node)
    with _step("describe"):
        try:
            return _control(descriptor, Request(0xA0, _GET_DESCRIPTOR, 0x29 << 8, 0, _DESCRIPTOR_BYTES))
        except OSError:
            return _control(descriptor, Request(0xA0, _GET_DESCRIPTOR, 0x2A << 8, 0, _DESCRIPTOR_BYTES))


def cycle_by_kernel(seconds: str, *attributes: str) -> None:
    """Write to the ports' `disable`: the kernel takes the device away, and its power if the hub can."""

    def write_all(text: bytes) -> None:
        for attribute in attributes:
            _write(attribute, text)

    _cycle(lambda: write_all(b"1"), lambda: _pause(float(seconds)), lambda: write_all(b"0"))


def cycle_by_hub(seconds: str, node: str, port: str, superspeed: str) -> None:
    """Ask the hub itself, past the kernel, which hears from the hub that the device went."""
    hub, number, is_superspeed = _opened(node), int(port), superspeed == "1"

    def off() -> None:
        _control(hub, Request(*CLEAR_PORT_POWER, number))

    def hold() -> None:
        until = time.monotonic() + float(seconds)
        while (left := until - time.monotonic()) > 0 and not _pause(min(left, _AGAIN_SECONDS)):
            if has_power(_control(hub, Request(*GET_PORT_STATUS, number, 4)), is_superspeed=is_superspeed):
                off()

    _cycle(off, hold, lambda: _control(hub, Request(*SET_PORT_POWER, number)))


def _cycle(off: Callable[[], object], hold: Callable[[], object], on: Callable[[], object]) -> None:
    try:
        with _step("off"):
            off()
    except StepError:
        with contextlib.suppress(OSError):  # it may have been done by half
            on()
        raise
    try:
        with _step("hold"):
            hold()
    finally:
        with _step("on"):
            on()


def _opened(node: str) -> int:
    with _step("open"):
        return os.open(node, os.O_RDWR | os.O_CLOEXEC)


def _control(descriptor: int, request: Request) -> bytes:
    import fcntl  # noqa: PLC0415 - only Linux gets here

    data = ctypes.create_string_buffer(max(request.length, 1))
    transfer = bytearray(struct.pack(_CONTROL_FORM, *request, _CONTROL_MS, ctypes.addressof(data)))
    count = fcntl.ioctl(descriptor, _CONTROL, transfer)
    return data.raw[:count]


def _write(attribute: str, text: bytes) -> None:
    descriptor = os.open(attribute, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)


def _pause(seconds: float) -> bool:
    """Wait; whether SIGTERM came, which ends this wait and all later ones."""
    if signal.SIGTERM in signal.sigpending():
        return True
    ended = signal.sigtimedwait({signal.SIGTERM}, seconds) is not None
    if ended:
        os.kill(os.getpid(), signal.SIGTERM)  # stays pending
    return ended


_VERBS: Final[dict[str, Callable[..., bytes | None]]] = {
    "reset": reset,
    "describe": describe,
    "cycle_by_kernel": cycle_by_kernel,
    "cycle_by_hub": cycle_by_hub,
}


def _done(verb: str, arguments: list[str]) -> bytes | None:
    if verb not in HELD_VERBS:
        return _VERBS[verb](*arguments)
    with _step(verb):
        HELD_VERBS[verb](*arguments)
    return None


def main(arguments: list[str]) -> int:
    """Do one call, say how it went."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    verb, *rest = arguments
    try:
        answer: dict[str, str | int] = {"data": (_done(verb, rest) or b"").hex()}
    except StepError as error:
        answer = {"errno": error.errno or errno.EIO, "step": error.step}
    except ValueError:  # a hub that answers with less than it was asked for
        answer = {"errno": errno.EPROTO, "step": "hold"}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
