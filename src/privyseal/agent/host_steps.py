# SPDX-License-Identifier: Apache-2.0
"""The upper rungs of the recovery ladder: what the token's host can do. Only what agent.toml names is done."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from privyseal.agent.config import RecoveryTable, TokenTable
from privyseal.agent.ladder import BOUNDS, Rung
from privyseal.agent.recovery import Step
from privyseal.errors import TokenError
from privyseal.usb.command import run_command
from privyseal.usb.host import UsbHost
from privyseal.usb.power import cycle_port
from privyseal.usb.reset import reset_device
from privyseal.usb.selector import UsbSelector, parse_selector

__all__ = ["host_steps"]

_REBOOT_MARK: Final = "reboot.asked"


def host_steps(
    table: TokenTable, recovery: RecoveryTable, directory: Path, host: UsbHost | None = None
) -> dict[Rung, Step]:
    """The steps that one token has.

    Args:
        table: The token: its USB device, and whether its port may be power-cycled.
        recovery: Commands of this host.
        directory: The agent's, where it remembers when it asked for a reboot.
        host: Its USB devices.

    Raises:
        ConfigError: `usb.selector`.
    """
    usb = host or UsbHost()
    steps: dict[Rung, Step] = {}
    if table.usb:
        selector = parse_selector(table.usb)
        steps[Rung.USB_RESET] = lambda: _reset(usb, selector)
        if table.port_power:
            steps[Rung.PORT_POWER] = lambda: _power(usb, selector)
    if recovery.restart_pcscd:
        steps[Rung.PCSCD] = lambda: _run(recovery, recovery.restart_pcscd, "restart pcscd")
    if recovery.reboot:
        steps[Rung.REBOOT] = lambda: _reboot(recovery, directory)
    return steps


async def _reset(usb: UsbHost, selector: UsbSelector) -> None:
    await reset_device(usb, await usb.find(selector))


async def _power(usb: UsbHost, selector: UsbSelector) -> None:
    await cycle_port(usb, await usb.find(selector))


async def _run(recovery: RecoveryTable, arguments: Sequence[str], name: str) -> None:
    await run_command(arguments, name=name, deadline_seconds=recovery.command_seconds)


async def _reboot(recovery: RecoveryTable, directory: Path) -> None:
    """Ask for a reboot, not more often than the ladder's bound: what counts in memory does not outlive one.

    Raises:
        TokenError: `token.rebooted`, `token.reboot_mark`. As `run_command`.
    """
    mark, now_s = directory / _REBOOT_MARK, time.time()
    try:
        before_s = mark.stat().st_mtime
    except FileNotFoundError:
        before_s = 0.0
    seconds = BOUNDS[Rung.REBOOT].seconds
    if abs(now_s - before_s) < seconds:
        raise TokenError(
            "token.rebooted",
            f"the host was rebooted for a token less than {seconds / 3600:.0f} hours ago, and that did not help",
            hint="look at the token: another reboot is not asked for before that time has passed",
        )
    try:
        _touch(mark)
    except OSError as error:
        raise TokenError(
            "token.reboot_mark",
            f"no reboot is asked for, as that cannot be remembered in {mark}: {error.strerror}",
            hint="make the agent's directory writable and give it space, or reboot the host by hand",
        ) from error
    await _run(recovery, recovery.reboot, "reboot the host")


def _touch(mark: Path) -> None:
    """Durable before the command is run."""
    for path, flags in ((mark, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), (mark.parent, os.O_RDONLY)):
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            if path is mark:
                os.write(descriptor, b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
