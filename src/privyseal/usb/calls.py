# SPDX-License-Identifier: Apache-2.0
"""The calls into the kernel that change a device, each in a child process with a deadline, as errors of ours."""

import errno
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from privyseal.errors import UsbError
from privyseal.usb.command import Ended, run_to_end

__all__ = ["CallError", "HeldCalls", "KernelCalls", "KernelHeldCalls", "UsbCalls"]

#: What Python and this package need to be found.
_KEPT_VARIABLES: Final = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH")
#: A power cycle that was interrupted has this long to give the power back.
_GRACE_SECONDS: Final = 5.0


class CallError(OSError):
    """The kernel refused a call.

    Attributes:
        step: In which part of it: `open`, `reset`, `describe`, `off`, `hold`, `on`; the verb of a held device.
    """

    def __init__(self, number: int, step: str) -> None:
        super().__init__(number, os.strerror(number))
        self.step = step


class UsbCalls(Protocol):
    """What is asked of the kernel. Every call ends within its seconds.

    All of them raise CallError with what the kernel said, and UsbError: `usb.no_answer` if a call did not end in time,
    `usb.call_failed` if it could not be made.
    """

    async def reset(self, node: Path, *, seconds: float) -> None:
        """Reset the device at this node."""

    async def describe(self, node: Path, *, seconds: float) -> bytes:
        """The hub descriptor of the hub at this node."""

    async def cycle_by_kernel(self, attributes: Sequence[Path], *, off_seconds: float, seconds: float) -> None:
        """Switch ports off and on again by their `disable` attributes."""

    async def cycle_by_hub(
        self, node: Path, port: int, *, is_superspeed: bool, off_seconds: float, seconds: float
    ) -> None:
        """Switch a port off and on again by requests to the hub at this node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCalls:
    """This host's kernel. One of its children that hangs inside the kernel is left behind; the agent can still end."""

    async def reset(self, node: Path, *, seconds: float) -> None:
        """Reset the device at this node."""
        await _call(f"reset of {node}", ("reset", str(node)), seconds)

    async def describe(self, node: Path, *, seconds: float) -> bytes:
        """The hub descriptor of the hub at this node."""
        return await _call(f"question to the hub at {node}", ("describe", str(node)), seconds)

    async def cycle_by_kernel(self, attributes: Sequence[Path], *, off_seconds: float, seconds: float) -> None:
        """Switch ports off and on again by their `disable` attributes."""
        name = f"power cycle by {attributes[0]}"
        call = ("cycle_by_kernel", str(off_seconds), *map(str, attributes))
        await _call(name, call, seconds + off_seconds, grace_seconds=_GRACE_SECONDS)

    async def cycle_by_hub(
        self, node: Path, port: int, *, is_superspeed: bool, off_seconds: float, seconds: float
    ) -> None:
        """Switch a port off and on again by requests to the hub at this node."""
        call = ("cycle_by_hub", str(off_seconds), str(node), str(port), str(int(is_superspeed)))
        name = f"power cycle of port {port} by the hub at {node}"
        await _call(name, call, seconds + off_seconds, grace_seconds=_GRACE_SECONDS)


class HeldCalls(Protocol):
    """What is asked of the kernel for a device whose node is open. Every call ends within its seconds."""

    async def on_held(self, descriptor: int, verb: str, numbers: Sequence[int], *, seconds: float) -> None:
        """Do one of `held_child.VERBS`.

        Raises:
            CallError: The kernel refused.
            UsbError: `usb.no_answer`, `usb.call_failed`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelHeldCalls:
    """This host's kernel."""

    async def on_held(self, descriptor: int, verb: str, numbers: Sequence[int], *, seconds: float) -> None:
        """Do one of `held_child.VERBS`."""
        name = f"{verb.replace('_', ' ')} of a held device"
        await _call(name, (verb, str(descriptor), *map(str, numbers)), seconds, inherited=(descriptor,))


async def _call(
    name: str,
    arguments: Sequence[str],
    seconds: float,
    *,
    grace_seconds: float = 0.0,
    inherited: Sequence[int] = (),
) -> bytes:
    command = (sys.executable, "-P", "-m", "privyseal.usb.child", *arguments)
    environment = {key: os.environ[key] for key in _KEPT_VARIABLES if key in os.environ}
    try:
        ended = await run_to_end(
            command,
            deadline_seconds=seconds,
            environment=environment,
            grace_seconds=grace_seconds,
            inherited=inherited,
        )
    except OSError as error:
        raise UsbError("usb.call_failed", f"{name} cannot be tried: {error.strerror}") from error
    if not ended.in_time:
        state = "" if ended.status is not None else "; it still waits inside the kernel"
        raise UsbError(
            "usb.no_answer",
            f"{name} did not end within {seconds:g} s{state}",
            hint="take the device out and insert it again; if that does not help, restart the host",
        )
    return _answer(name, ended)


def _answer(name: str, ended: Ended) -> bytes:
    try:
        answer = json.loads(ended.last_line or "{}") if ended.status == 0 else {}
        if "errno" not in answer:
            return bytes.fromhex(answer["data"])
        number, step = int(answer["errno"]), str(answer["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsbError(
            "usb.call_failed", f"{name} ended with status {ended.status} and no answer: {ended.last_line}"
        ) from error
    raise CallError(number or errno.EIO, step)
