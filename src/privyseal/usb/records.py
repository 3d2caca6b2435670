# SPDX-License-Identifier: Apache-2.0
"""A device in sysfs as USB/IP describes it to importers."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.errors import MalformedInputError, UsbError
from privyseal.usb.devices import UsbDevice
from privyseal.usb.sysfs import read_attribute, read_number
from privyseal.usbip.descriptors import (
    MAX_DESCRIPTOR_BYTES,
    ConfigurationDescriptor,
    Descriptors,
    InterfaceDescriptor,
    parse_descriptors,
)
from privyseal.usbip.wire import DeviceRecord, InterfaceRecord, ListedDevice, Speed

__all__ = ["DescribedDevice", "describe"]

#: The kernel's `speed` in Mbit/s; what is not here is faster still.
_SPEEDS: Final = {
    b"1.5": Speed.LOW,
    b"12": Speed.FULL,
    b"480": Speed.HIGH,
    b"53.3-480": Speed.WIRELESS,
    b"5000": Speed.SUPER,
    b"10000": Speed.SUPER_PLUS,
    b"20000": Speed.SUPER_PLUS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedDevice:
    """A device with all that it says of itself.

    Attributes:
        listed: For importers.
        descriptors: Its own.
        configuration: The one that is set.
    """

    listed: ListedDevice
    descriptors: Descriptors
    configuration: ConfigurationDescriptor


def describe(sysfs: Path, device: UsbDevice) -> DescribedDevice:
    """Read a device's descriptors as the kernel keeps them; the device is not asked.

    Raises:
        UsbError: `usb.not_found` if it is gone, `usb.not_configured` if no configuration is set.
        MalformedInputError: `usb.descriptors`.
    """
    folder = sysfs / device.bus_id
    try:
        descriptors = parse_descriptors(_whole(folder / "descriptors"))
        speed = _SPEEDS.get(read_attribute(folder / "speed").strip(), Speed.UNKNOWN)
        value = read_number(folder / "bConfigurationValue", base=10, largest=255)
    except FileNotFoundError as error:
        raise UsbError(
            "usb.not_found", f"{device} is gone", hint="look whether it is inserted and has power"
        ) from error
    except (OSError, ValueError) as error:
        if isinstance(error, MalformedInputError):
            raise
        raise _not_configured(device) from error
    configuration = descriptors.configuration(value)
    if configuration is None or not configuration.interfaces:
        raise _not_configured(device)
    listed = _listed(device, folder, descriptors, configuration, speed)
    return DescribedDevice(listed=listed, descriptors=descriptors, configuration=configuration)


def _not_configured(device: UsbDevice) -> UsbError:
    return UsbError(
        "usb.not_configured",
        f"no configuration is set in {device}: it has no interfaces to use",
        hint="look at `dmesg`: its port may not give it enough power; take it out and insert it again",
    )


def _listed(
    device: UsbDevice, folder: Path, descriptors: Descriptors, configuration: ConfigurationDescriptor, speed: Speed
) -> ListedDevice:
    first: dict[int, InterfaceDescriptor] = {}
    for interface in configuration.interfaces:
        first.setdefault(interface.number, interface)
    own = descriptors.device
    record = DeviceRecord(
        path=str(folder)[-255:],
        bus_id=device.bus_id[:31],
        bus_number=device.bus_number,
        device_number=device.device_number,
        speed=speed,
        vendor_id=own.vendor_id,
        product_id=own.product_id,
        device_version=own.device_version,
        device_class=own.device_class,
        subclass=own.subclass,
        protocol=own.protocol,
        configuration_value=configuration.value,
        configurations=own.configurations,
        interfaces=len(first),
    )
    interfaces = (
        InterfaceRecord(interface_class=one.interface_class, subclass=one.subclass, protocol=one.protocol)
        for _, one in sorted(first.items())
    )
    return ListedDevice(device=record, interfaces=tuple(interfaces))


def _whole(path: Path) -> bytes:
    """A binary attribute: the kernel gives a page at a time."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        data = bytearray()
        while len(data) < MAX_DESCRIPTOR_BYTES and (part := os.read(descriptor, MAX_DESCRIPTOR_BYTES)):
            data += part
        return bytes(data)
    finally:
        os.close(descriptor)
