# SPDX-License-Identifier: Apache-2.0
"""Power cycle of a device's port: off, a pause, on. What reset cannot cure, a cold start often does.

By the kernel's switch of the port (`disable`, from Linux 6.0 on), else by requests to the hub, as uhubctl makes them.
"""

import contextlib
import errno
from pathlib import Path

from privyseal.errors import UsbError
from privyseal.usb.calls import CallError
from privyseal.usb.devices import UsbDevice
from privyseal.usb.host import UsbHost, require_linux
from privyseal.usb.hubs import HubDescriptor, disable_attributes, parse_hub_descriptor
from privyseal.usb.reset import denied

__all__ = ["cycle_port"]


async def cycle_port(
    host: UsbHost,
    device: UsbDevice,
    *,
    off_seconds: float = 3.0,
    call_seconds: float = 30.0,
    return_seconds: float = 30.0,
    force: bool = False,
) -> UsbDevice:
    """Take a device's power away for a while, and wait until it is attached anew.

    Args:
        host: Where it is attached.
        device: As it was found, however long ago. If it is gone, the power may bring it back.
        off_seconds: How long its port stays without power.
        call_seconds: Deadline for switching, the pause not counted.
        return_seconds: How long the device may take to come back.
        force: Go on where the hub says that it switches all ports together, or none.

    Returns:
        The device as it is now, with another number and node.

    Raises:
        UsbError: `usb.not_linux`, `usb.other_device`, `usb.imported`, `usb.no_port_power`, `usb.denied`,
            `usb.power_failed`, `usb.power_off` if the port was left without power, `usb.not_back`, `usb.no_answer`,
            `usb.call_failed`.
    """
    require_linux()
    if device.is_imported:
        raise UsbError(
            "usb.imported",
            f"{device} is imported over the network: no port of this host gives it power",
            hint="power-cycle it where it is attached",
        )
    device = await host.current(device) or device
    hub_node = await _hub_node(host, device)
    with contextlib.closing(host.changes()) as news:
        try:
            hub = await _described(host, device, hub_node, seconds=call_seconds)
            if not force:
                _require_switch(device, hub)
            attributes = disable_attributes(host.sysfs, device.hub_bus_id, device.port)
            if attributes:
                await host.calls.cycle_by_kernel(attributes, off_seconds=off_seconds, seconds=call_seconds)
            else:
                await host.calls.cycle_by_hub(
                    hub_node,
                    device.port,
                    is_superspeed=hub.is_superspeed,
                    off_seconds=off_seconds,
                    seconds=call_seconds,
                )
        except CallError as error:
            raise _refused(device, hub_node, error) from error
        return await host.awaited(device, news, seconds=return_seconds, attached_anew=True)


async def _hub_node(host: UsbHost, device: UsbDevice) -> Path:
    """Node of the hub that a device hangs on; the host's own hub is always number 1 of its bus."""
    if device.hub_bus_id.startswith("usb"):
        return host.nodes / f"{device.bus_number:03d}" / "001"
    hub = await host.at(device.hub_bus_id)
    if hub is None:
        raise UsbError(
            "usb.power_failed",
            f"the hub {device.hub_bus_id}, on which {device} hangs, is gone",
            hint="look whether the hub has power",
        )
    return hub.node


async def _described(host: UsbHost, device: UsbDevice, hub_node: Path, *, seconds: float) -> HubDescriptor:
    data = await host.calls.describe(hub_node, seconds=seconds)
    try:
        return parse_hub_descriptor(data)
    except ValueError as error:
        raise UsbError(
            "usb.power_failed",
            f"the hub of {device} describes itself wrongly: {error}",
            hint="attach the token to another hub",
        ) from error


def _require_switch(device: UsbDevice, hub: HubDescriptor) -> None:
    if hub.switching == "each port":
        return
    told = "no port" if hub.switching == "none" else "all its ports only together"
    raise UsbError(
        "usb.no_port_power",
        f"the hub of {device} can switch the power of {told}",
        hint="attach the token to a hub with power switching for each port, or leave this step out",
    )


def _refused(device: UsbDevice, hub_node: Path, error: CallError) -> UsbError:
    if error.step == "on":
        return UsbError(
            "usb.power_off",
            f"the port of {device} was switched off, and could not be switched on again: {error.strerror}",
            hint="take the token out and insert it into another port, or restart the host",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return denied(f"switch the port of {device}", "the port's `disable`" if error.step == "off" else hub_node)
    return UsbError(
        "usb.power_failed",
        f"the port of {device} could not be switched: {error.strerror}",
        hint="look at `dmesg`; take the token out and insert it again",
    )
