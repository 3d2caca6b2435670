# SPDX-License-Identifier: Apache-2.0
"""In the virtual machine: the USB steps of recovery on QEMU's devices. Writes what happened to /results/checks.json.

The reader hangs on port 1 of a hub that switches its ports; a mouse on the host's own hub, which does not.
"""

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from privyseal.usb import child
from privyseal.usb.command import run_command
from privyseal.usb.devices import UsbDevice
from privyseal.usb.host import UsbHost
from privyseal.usb.hubs import GET_PORT_STATUS, has_power
from privyseal.usb.power import cycle_port
from privyseal.usb.reset import reset_device
from privyseal.usb.selector import parse_selector
from privyseal.usb.uevents import KernelChanges
from vm.guest import card
from vm.guest.account import AS_ACCOUNT, add_account, add_rules
from vm.guest.checks import Evidence, awaited, refusal, run_checks

READER = "08e6:4433"
PORT = Path("/sys/bus/usb/devices/1-1:1.0/1-1-port1")

host = UsbHost()


def kernel_log() -> list[str]:
    lines = subprocess.run(["dmesg"], capture_output=True, check=True).stdout.decode(errors="replace").splitlines()
    return [line for line in lines if "usb" in line]


def shown(device: UsbDevice) -> Evidence:
    return dataclasses.asdict(device) | {"node": str(device.node), "is_reader": device.is_reader}


async def reader() -> UsbDevice:
    return await host.find(parse_selector(READER))


async def step(name: str, action: Callable[[UsbDevice], Awaitable[object]]) -> Evidence:
    """A step on the reader, and a signature after it."""
    before, log, began = await reader(), kernel_log(), time.monotonic()
    await action(before)
    seconds = time.monotonic() - began
    after = await reader()
    return {
        "before": shown(before),
        "after": shown(after),
        "log": kernel_log()[len(log) :],
        "seconds": seconds,
        "signature": card.sign(name),
    }


async def finds() -> Evidence:
    device = await reader()
    again = [await host.find(parse_selector(text)) for text in (device.bus_id, f"serial:{device.serial}")]
    return {
        "devices": [shown(one) for one in await host.devices()],
        "reader": shown(device),
        "agree": all(one == device for one in again),
        "hub": await refusal(host.find(parse_selector("1-1"))),
    }


async def signs() -> Evidence:
    card.start_pcscd()
    return {"signature": card.sign("signs")}


async def resets() -> Evidence:
    return await step("resets", lambda device: reset_device(host, device))


async def resets_what_a_frozen_pcscd_holds() -> Evidence:
    pid = card.pcscd_pid()

    async def reset_under_it(device: UsbDevice) -> None:
        os.kill(pid, 19)
        try:
            await reset_device(host, device)
        finally:
            os.kill(pid, 18)

    return await step("resets_what_a_frozen_pcscd_holds", reset_under_it)


async def cycles_by_the_kernel() -> Evidence:
    return await step("cycles_by_the_kernel", lambda device: cycle_port(host, device, off_seconds=1))


async def cycles_by_the_hub() -> Evidence:
    # As before Linux 6.0: the port has no `disable`.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(PORT.resolve())], check=True)
    without: list[float] = []
    try:
        evidence = await step("cycles_by_the_hub", lambda device: cycle_and_look(device, without))
        return evidence | {"seconds_without_power": without[-1] - without[0] if without else 0}
    finally:
        subprocess.run(["umount", str(PORT.resolve())], check=True)


async def cycle_and_look(device: UsbDevice, without: list[float]) -> None:
    """Power-cycle; the moments at which the hub says that the port has no power, as somebody else who asks hears it."""
    hub = os.open(f"/dev/bus/usb/001/{int(Path('/sys/bus/usb/devices/1-1/devnum').read_text()):03d}", os.O_RDWR)
    cycle = asyncio.create_task(cycle_port(host, device, off_seconds=1))
    while not cycle.done():
        status = child._control(hub, child.Request(*GET_PORT_STATUS, device.port, 4))
        if not has_power(status, is_superspeed=False):
            without.append(time.monotonic())
        await asyncio.wait({cycle}, timeout=0.02)
    os.close(hub)
    await cycle


async def refuses_a_hub_without_switches() -> Evidence:
    mouse = await host.find(parse_selector("1-2"))
    code = await refusal(cycle_port(host, mouse))
    return {"mouse": shown(mouse), "code": code, "after": shown(await host.find(parse_selector("1-2")))}


async def hears_of_devices() -> Evidence:
    news = KernelChanges()
    began = time.monotonic()
    cycle = asyncio.create_task(cycle_port(host, await reader(), off_seconds=0.2))
    await news.wait(50)
    told, seconds = news.is_told, time.monotonic() - began
    news.close()
    await cycle
    return {"is_told": told, "seconds": seconds}


async def restarts_pcscd() -> Evidence:
    return await step(
        "restarts_pcscd",
        lambda _: run_command(["/tests/vm/guest/restart_pcscd.sh"], name="restart pcscd", deadline_seconds=30),
    )


async def needs_its_rules() -> Evidence:
    add_account()
    without = as_account()
    add_rules()
    log = kernel_log()
    return {"without": without, "with": as_account(), "log": kernel_log()[len(log) :], "signature": card.sign("rules")}


def as_account() -> object:
    done = subprocess.run(
        [*AS_ACCOUNT, sys.executable, __file__, "as-account"],
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


async def account() -> None:
    """What the agent's account may do: to the reader, to another device, to a port."""
    mouse = await host.find(parse_selector("1-2"))
    codes = {
        "reset": await refusal(reset_device(host, await reader())),
        "reset_mouse": await refusal(reset_device(host, mouse)),
        "cycle": await refusal(cycle_port(host, await reader(), off_seconds=0.2)),
    }
    sys.stdout.write(json.dumps(codes))


CHECKS = (
    finds,
    signs,
    resets,
    resets_what_a_frozen_pcscd_holds,
    cycles_by_the_kernel,
    cycles_by_the_hub,
    refuses_a_hub_without_switches,
    hears_of_devices,
    restarts_pcscd,
    needs_its_rules,
)


async def main() -> None:
    await awaited(host, READER)
    await run_checks(CHECKS)


if __name__ == "__main__":
    asyncio.run(account() if sys.argv[1:] else main())
