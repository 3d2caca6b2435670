# SPDX-License-Identifier: Apache-2.0
"""USB/IP 1.1.1 before the first URB: which devices there are, and the import of one.

Layouts: Documentation/usb/usbip_protocol.rst of Linux. All numbers are big-endian.
"""

import re
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NoReturn

from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.usbip.framing import Parts

__all__ = [
    "BUS_ID_BYTES",
    "MAX_DEVICES",
    "VERSION",
    "DeviceRecord",
    "DevlistAnswer",
    "DevlistRequest",
    "ImportAnswer",
    "ImportRequest",
    "InterfaceRecord",
    "ListedDevice",
    "OpStatus",
    "Speed",
    "malformed",
    "read_devlist_answer",
    "read_import_answer",
    "read_request",
]

VERSION: Final = 0x0111
#: More than any host exports; a list that claims more is refused before it is read.
MAX_DEVICES: Final = 256
#: Including the zero byte that ends it.
BUS_ID_BYTES: Final = 32

_PATH_BYTES: Final = 256
_REQUEST_DEVLIST, _REQUEST_IMPORT = 0x8005, 0x8003
_ANSWER_DEVLIST, _ANSWER_IMPORT = 0x0005, 0x0003
_HEAD: Final = struct.Struct(">HHI")
_COUNT: Final = struct.Struct(">I")
_DEVICE: Final = struct.Struct(f">{_PATH_BYTES}s{BUS_ID_BYTES}sIIIHHHBBBBBB")
_INTERFACE: Final = struct.Struct(">BBBx")
_BUS_ID: Final = re.compile(r"[!-~]{1,31}", re.ASCII)
_SHOWABLE: Final = re.compile(r"[ -~]*", re.ASCII)


class OpStatus(IntEnum):
    """How a request ended (`ST_*` of Linux's usbip)."""

    OK = 0
    NOT_AVAILABLE = 1
    BUSY = 2
    DEVICE_ERROR = 3
    NO_DEVICE = 4
    ERROR = 5


class Speed(IntEnum):
    """How fast a device is (`enum usb_device_speed` of Linux)."""

    UNKNOWN = 0
    LOW = 1
    FULL = 2
    HIGH = 3
    WIRELESS = 4
    SUPER = 5
    SUPER_PLUS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceRecord:
    """What a list says of one interface; each 0 to 255."""

    interface_class: int
    subclass: int
    protocol: int

    def encode(self) -> bytes:
        """Its 4 bytes."""
        return _INTERFACE.pack(self.interface_class, self.subclass, self.protocol)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """A device as its exporter describes it.

    Attributes:
        path: Where the exporter has it; for people. At most 255 printable ASCII characters.
        bus_id: What an import names; 1 to 31 printable ASCII characters without spaces.
        bus_number, device_number: At the exporter; 0 to 65535.
        speed: How fast it is.
        vendor_id, product_id, device_version: 0 to 65535.
        device_class, subclass, protocol: Of the device; 0 if its interfaces tell.
        configuration_value: The configuration that is set; 0 for none.
        configurations: How many there are.
        interfaces: How many the configuration that is set has.
    """

    path: str
    bus_id: str
    bus_number: int
    device_number: int
    speed: Speed
    vendor_id: int
    product_id: int
    device_version: int
    device_class: int
    subclass: int
    protocol: int
    configuration_value: int
    configurations: int
    interfaces: int

    @property
    def device_id(self) -> int:
        """What URBs name it by."""
        return self.bus_number << 16 | self.device_number

    def encode(self) -> bytes:
        """Its 312 bytes.

        Raises:
            ValueError: An attribute is not as it should be.
        """
        if not _BUS_ID.fullmatch(self.bus_id):
            raise ValueError(f"{self.bus_id!r} is no bus id")
        if len(self.path) >= _PATH_BYTES or not _SHOWABLE.fullmatch(self.path):
            raise ValueError(f"{self.path!r} is no path")
        if self.bus_number > 0xFFFF or self.device_number > 0xFFFF:
            raise ValueError("bus and device number have 16 bits each")
        try:
            return self._packed()
        except struct.error as error:
            raise ValueError(f"a number of {self.bus_id} is out of its range: {error}") from error

    def _packed(self) -> bytes:
        return _DEVICE.pack(
            self.path.encode("ascii"),
            self.bus_id.encode("ascii"),
            *(self.bus_number, self.device_number, self.speed),
            *(self.vendor_id, self.product_id, self.device_version),
            *(self.device_class, self.subclass, self.protocol),
            *(self.configuration_value, self.configurations, self.interfaces),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDevice:
    """A device in a list, with its interfaces: as many as the record says."""

    device: DeviceRecord
    interfaces: tuple[InterfaceRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevlistRequest:
    """Which devices are exported?"""

    def encode(self) -> bytes:
        """OP_REQ_DEVLIST."""
        return _HEAD.pack(VERSION, _REQUEST_DEVLIST, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """Give me this one."""

    bus_id: str

    def encode(self) -> bytes:
        """OP_REQ_IMPORT.

        Raises:
            ValueError: The bus id is none.
        """
        if not _BUS_ID.fullmatch(self.bus_id):
            raise ValueError(f"{self.bus_id!r} is no bus id")
        return _HEAD.pack(VERSION, _REQUEST_IMPORT, 0) + self.bus_id.encode("ascii").ljust(BUS_ID_BYTES, b"\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class DevlistAnswer:
    """The devices; none unless the status is OK."""

    status: OpStatus = OpStatus.OK
    devices: tuple[ListedDevice, ...] = ()

    def encode(self) -> bytes:
        """OP_REP_DEVLIST.

        Raises:
            ValueError: Too many devices, or one that cannot be written.
        """
        head = _HEAD.pack(VERSION, _ANSWER_DEVLIST, self.status)
        if self.status is not OpStatus.OK:
            return head
        if len(self.devices) > MAX_DEVICES:
            raise ValueError(f"{len(self.devices)} devices; {MAX_DEVICES} are the most")
        return head + _COUNT.pack(len(self.devices)) + b"".join(map(_encode_listed, self.devices))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportAnswer:
    """The device that is handed over; None unless the status is OK."""

    status: OpStatus = OpStatus.OK
    device: DeviceRecord | None = None

    def encode(self) -> bytes:
        """OP_REP_IMPORT.

        Raises:
            ValueError: A device is missing, or cannot be written.
        """
        head = _HEAD.pack(VERSION, _ANSWER_IMPORT, self.status)
        if (self.status is OpStatus.OK) is (self.device is None):
            raise ValueError("a device belongs to the status OK, and to no other")
        return head + (self.device.encode() if self.device is not None else b"")


def _encode_listed(listed: ListedDevice) -> bytes:
    if len(listed.interfaces) != listed.device.interfaces:
        raise ValueError(f"{listed.device.bus_id} does not have {len(listed.interfaces)} interfaces")
    return listed.device.encode() + b"".join(interface.encode() for interface in listed.interfaces)


def malformed(message: str) -> MalformedInputError:
    """The error of bytes that break the protocol."""
    return MalformedInputError("usbip.malformed", message, hint="look whether the other side speaks USB/IP 1.1.1")


def read_request() -> Parts[DevlistRequest | ImportRequest]:
    """Read a client's request.

    Raises:
        MalformedInputError: `usbip.malformed`.
        UnsupportedInputError: `usbip.version`, `usbip.request`.
    """
    code, status = _head((yield _HEAD.size))
    if status:
        raise malformed(f"a request with status {status}")
    if code == _REQUEST_DEVLIST:
        return DevlistRequest()
    if code == _REQUEST_IMPORT:
        return ImportRequest(bus_id=_bus_id((yield BUS_ID_BYTES)))
    raise UnsupportedInputError(
        "usbip.request",
        f"the request {code:#06x} is not known",
        hint="devices are listed (0x8005) and imported (0x8003); nothing else is offered",
    )


def read_devlist_answer() -> Parts[DevlistAnswer]:
    """Read an exporter's list.

    Raises:
        MalformedInputError: `usbip.malformed`.
        UnsupportedInputError: `usbip.version`.
    """
    status = _answered((yield _HEAD.size), _ANSWER_DEVLIST)
    if status is not OpStatus.OK:
        return DevlistAnswer(status=status)
    (count,) = _COUNT.unpack((yield _COUNT.size))
    if count > MAX_DEVICES:
        raise malformed(f"a list of {count} devices; {MAX_DEVICES} are the most")
    devices = []
    for _ in range(count):
        device = _device((yield _DEVICE.size))
        described = (yield _INTERFACE.size * device.interfaces) if device.interfaces else b""
        devices.append(ListedDevice(device=device, interfaces=_interfaces(described)))
    return DevlistAnswer(devices=tuple(devices))


def read_import_answer() -> Parts[ImportAnswer]:
    """Read what an exporter says to an import.

    Raises:
        MalformedInputError: `usbip.malformed`.
        UnsupportedInputError: `usbip.version`.
    """
    status = _answered((yield _HEAD.size), _ANSWER_IMPORT)
    if status is not OpStatus.OK:
        return ImportAnswer(status=status)
    return ImportAnswer(device=_device((yield _DEVICE.size)))


def _head(data: bytes) -> tuple[int, int]:
    version, code, status = _HEAD.unpack(data)
    if version != VERSION:
        raise UnsupportedInputError(
            "usbip.version",
            f"the other side speaks version {version:#06x} of USB/IP, or something else",
            hint="use a program that speaks USB/IP 1.1.1, as that of Linux",
        )
    return code, status


def _answered(data: bytes, expected: int) -> OpStatus:
    code, status = _head(data)
    if code != expected:
        raise malformed(f"{code:#06x} where {expected:#06x} was expected")
    try:
        return OpStatus(status)
    except ValueError:  # whatever it is, it is a refusal
        return OpStatus.ERROR


def _device(data: bytes) -> DeviceRecord:
    path, bus_id, bus_number, device_number, speed, *numbers = _DEVICE.unpack(data)
    if bus_number > 0xFFFF or device_number > 0xFFFF:
        raise malformed(f"a device with number {bus_number}, {device_number}")
    if speed > Speed.SUPER_PLUS:
        raise malformed(f"a device of the speed {speed}")
    vendor_id, product_id, version, device_class, subclass, protocol, value, configurations, interfaces = numbers
    return DeviceRecord(
        path=_path(path),
        bus_id=_bus_id(bus_id),
        bus_number=bus_number,
        device_number=device_number,
        speed=Speed(speed),
        vendor_id=vendor_id,
        product_id=product_id,
        device_version=version,
        device_class=device_class,
        subclass=subclass,
        protocol=protocol,
        configuration_value=value,
        configurations=configurations,
        interfaces=interfaces,
    )


def _interfaces(data: bytes) -> tuple[InterfaceRecord, ...]:
    return tuple(
        InterfaceRecord(interface_class=code, subclass=subclass, protocol=protocol)
        for code, subclass, protocol in _INTERFACE.iter_unpack(data)
    )


def _path(field: bytes) -> str:
    text, end, _ = field.partition(b"\0")
    path = text.decode("latin-1")
    return path if end and _SHOWABLE.fullmatch(path) else _refused_text("path")


def _bus_id(field: bytes) -> str:
    text, end, _ = field.partition(b"\0")
    bus_id = text.decode("latin-1")
    return bus_id if end and _BUS_ID.fullmatch(bus_id) else _refused_text("bus id")


def _refused_text(name: str) -> NoReturn:
    raise malformed(f"a {name} that is empty, not printable, or not ended")
