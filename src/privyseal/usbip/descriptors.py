# SPDX-License-Identifier: Apache-2.0
"""What a USB device says of itself (USB 2.0, section 9.6): lenient, as devices are, and bounded."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from privyseal.errors import MalformedInputError

__all__ = [
    "MAX_DESCRIPTOR_BYTES",
    "ConfigurationDescriptor",
    "Descriptors",
    "DeviceDescriptor",
    "EndpointDescriptor",
    "EndpointKind",
    "InterfaceDescriptor",
    "parse_descriptors",
]

#: One configuration has at most 65,535 bytes; what lies beyond that is not read.
MAX_DESCRIPTOR_BYTES: Final = 65_535 + 18
_MAX_CONFIGURATIONS: Final = 8
#: Of one configuration, with alternates.
_MAX_INTERFACES: Final = 256
_MAX_ENDPOINTS: Final = 30

_DEVICE, _CONFIGURATION, _INTERFACE, _ENDPOINT = 1, 2, 4, 5
_DEVICE_FORM: Final = struct.Struct("<2xHBBBBHHH3xB")
_CONFIGURATION_FORM: Final = struct.Struct("<4xBB3x")
_INTERFACE_FORM: Final = struct.Struct("<2xBBxBBBx")
_ENDPOINT_FORM: Final = struct.Struct("<2xBBHB")


class EndpointKind(IntEnum):
    """How an endpoint transfers (the low bits of bmAttributes)."""

    CONTROL = 0
    ISOCHRONOUS = 1
    BULK = 2
    INTERRUPT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointDescriptor:
    """An endpoint.

    Attributes:
        address: Number, and 0x80 for IN.
        kind: How it transfers.
        max_packet_bytes: At full and high speed.
        interval: Of polling, in the unit of its speed.
    """

    address: int
    kind: EndpointKind
    max_packet_bytes: int
    interval: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceDescriptor:
    """An interface in one of its alternate settings.

    Attributes:
        number, alternate: 0 to 255.
        interface_class, subclass, protocol: 0 to 255 each.
        endpoints: Its own.
        others: Descriptors of its class, such as CCID's (0x21), whole and unread.
    """

    number: int
    alternate: int
    interface_class: int
    subclass: int
    protocol: int
    endpoints: tuple[EndpointDescriptor, ...]
    others: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationDescriptor:
    """A configuration.

    Attributes:
        value: What SET_CONFIGURATION names it by.
        interfaces: With their alternates, in the order of the bytes.
    """

    value: int
    interfaces: tuple[InterfaceDescriptor, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of its interfaces, in order."""
        return tuple(sorted({interface.number for interface in self.interfaces}))

    def endpoints(self, alternates: Mapping[int, int] | None = None) -> dict[int, EndpointDescriptor]:
        """The endpoints by address, with these alternates set; 0 for an interface that is not named."""
        chosen = alternates or {}
        return {
            endpoint.address: endpoint
            for interface in self.interfaces
            if interface.alternate == chosen.get(interface.number, 0)
            for endpoint in interface.endpoints
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDescriptor:
    """The device as a whole; numbers as they stand there."""

    usb_version: int
    device_class: int
    subclass: int
    protocol: int
    max_packet_bytes: int
    vendor_id: int
    product_id: int
    device_version: int
    configurations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptors:
    """All of a device."""

    device: DeviceDescriptor
    configurations: tuple[ConfigurationDescriptor, ...]

    def configuration(self, value: int) -> ConfigurationDescriptor | None:
        """The configuration of this value."""
        return next((one for one in self.configurations if one.value == value), None)


def parse_descriptors(data: bytes) -> Descriptors:
    """Read the device's descriptor and those of its configurations, one after the other, as sysfs and usbdevfs have it.

    What is cut off, of unknown type, or too much, is left out.

    Raises:
        MalformedInputError: `usb.descriptors` if there is no device descriptor.
    """
    each = list(_split(data[:MAX_DESCRIPTOR_BYTES]))
    if not each or each[0][1] != _DEVICE or len(each[0]) < _DEVICE_FORM.size:
        raise MalformedInputError(
            "usb.descriptors",
            f"{len(data)} bytes that begin with no device descriptor",
            hint="take the device out and insert it again",
        )
    version, *classes, packet, vendor_id, product_id, device_version, configurations = _DEVICE_FORM.unpack_from(each[0])
    device = DeviceDescriptor(
        usb_version=version,
        device_class=classes[0],
        subclass=classes[1],
        protocol=classes[2],
        max_packet_bytes=packet,
        vendor_id=vendor_id,
        product_id=product_id,
        device_version=device_version,
        configurations=configurations,
    )
    groups = _groups(each[1:], _CONFIGURATION, _CONFIGURATION_FORM.size)[:_MAX_CONFIGURATIONS]
    return Descriptors(device=device, configurations=tuple(map(_configuration, groups)))


def _split(data: bytes) -> Iterator[bytes]:
    place = 0
    while place + 2 <= len(data):
        length = data[place]
        if length < 2 or place + length > len(data):
            return
        yield data[place : place + length]
        place += length


def _groups(each: list[bytes], kind: int, least_bytes: int) -> list[list[bytes]]:
    """Runs that begin with a descriptor of this kind; what stands before the first is left out."""
    groups: list[list[bytes]] = []
    for descriptor in each:
        if descriptor[1] == kind and len(descriptor) >= least_bytes:
            groups.append([descriptor])
        elif groups:
            groups[-1].append(descriptor)
    return groups


def _configuration(group: list[bytes]) -> ConfigurationDescriptor:
    _, value = _CONFIGURATION_FORM.unpack_from(group[0])
    interfaces = _groups(group[1:], _INTERFACE, _INTERFACE_FORM.size)[:_MAX_INTERFACES]
    return ConfigurationDescriptor(value=value, interfaces=tuple(map(_interface, interfaces)))


def _interface(group: list[bytes]) -> InterfaceDescriptor:
    number, alternate, *classes = _INTERFACE_FORM.unpack_from(group[0])
    endpoints = [one for one in group[1:] if one[1] == _ENDPOINT and len(one) >= _ENDPOINT_FORM.size]
    return InterfaceDescriptor(
        number=number,
        alternate=alternate,
        interface_class=classes[0],
        subclass=classes[1],
        protocol=classes[2],
        endpoints=tuple(map(_endpoint, endpoints[:_MAX_ENDPOINTS])),
        others=tuple(one for one in group[1:] if one[1] != _ENDPOINT),
    )


def _endpoint(data: bytes) -> EndpointDescriptor:
    address, attributes, packet, interval = _ENDPOINT_FORM.unpack_from(data)
    return EndpointDescriptor(
        address=address & 0x8F,
        kind=EndpointKind(attributes & 0b11),
        max_packet_bytes=packet & 0x7FF,
        interval=interval,
    )
