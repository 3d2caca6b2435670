# SPDX-License-Identifier: Apache-2.0
"""A kernel that is described by files: /sys/bus/usb/devices and /dev/bus/usb below a folder, and the calls on them."""

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from privyseal.usb.host import UsbHost

PER_PORT, GANGED, NO_SWITCH = 1, 0, 2


def hub_descriptor(*, ports: int = 4, mode: int = PER_PORT, kind: int = 0x29) -> bytes:
    return bytes([9, kind, ports, mode, 0, 50, 100, 0, 0xFF])


class UsbTree:
    """The files. A device lies below its host, and links lead to it, as in the real sysfs."""

    def __init__(self, folder: Path) -> None:
        self.sysfs, self.nodes, self._real = folder / "sys", folder / "dev", folder / "devices"
        for place in (self.sysfs, self.nodes, self._real):
            place.mkdir()

    def attach(
        self,
        bus_id: str,
        *,
        number: int = 5,
        ids: str = "0529:0620",
        serial: str | bytes | None = "0123",
        product: str | bytes | None = "Token JC",
        classes: Sequence[int] = (0x0B,),
        device_class: int = 0,
        host: str = "pci0000:00/0000:00:14.0",
        hub_ids: str = "05e3:0610",
    ) -> Path:
        """Attach a device, with the hubs on the way to it (`hub_ids`); its folder."""
        bus, _, ports = bus_id.partition("-")
        place = self._real / host / f"usb{bus}"
        _identify(place, "1d6b:0002")
        steps = ports.split(".")
        for end in range(1, len(steps)):
            place /= f"{bus}-{'.'.join(steps[:end])}"
            _identify(place, hub_ids)
        place /= bus_id
        place.mkdir(parents=True, exist_ok=True)  # a hub may be on another device's way already
        vendor, product_id = ids.split(":")
        values = {"busnum": bus, "devnum": number, "idVendor": vendor, "idProduct": product_id}
        for name, value in (values | {"bDeviceClass": f"{device_class:02x}"}).items():
            (place / name).write_text(f"{value}\n")
        for name, text in (("serial", serial), ("product", product)):
            if text is not None:
                (place / name).write_bytes((text if isinstance(text, bytes) else text.encode()) + b"\n")
        for index, code in enumerate(classes):
            (place / f"{bus_id}:1.{index}").mkdir()
            (place / f"{bus_id}:1.{index}" / "bInterfaceClass").write_text(f"{code:02x}\n")
        node = self.nodes / f"{int(bus):03d}" / f"{number:03d}"
        node.parent.mkdir(exist_ok=True)
        node.touch()
        (self.sysfs / bus_id).symlink_to(place)
        return place

    def detach(self, bus_id: str) -> None:
        """Take it out."""
        place = (self.sysfs / bus_id).resolve()
        number = int((place / "devnum").read_text())
        (self.nodes / f"{int(bus_id.partition('-')[0]):03d}" / f"{number:03d}").unlink()
        (self.sysfs / bus_id).unlink()
        shutil.rmtree(place)

    def port(self, interface: str, name: str) -> Path:
        """Give a hub's port the kernel's switch; its file."""
        place = self.sysfs / interface / name
        place.mkdir(parents=True)
        (place / "disable").write_text("0\n")
        return place / "disable"


def _identify(hub: Path, ids: str) -> None:
    """What a hub on the way says of itself; one that was attached as a device says so already."""
    hub.mkdir(parents=True, exist_ok=True)
    for name, value in zip(("idVendor", "idProduct"), ids.split(":"), strict=True):
        if not (hub / name).exists():
            (hub / name).write_text(f"{value}\n")


@dataclass(kw_only=True)
class DescribedKernel:
    """Calls and news of a kernel whose doings a test has written down.

    Attributes:
        errors: What a verb fails with, once.
        descriptor: What each hub says of itself.
        doing: What a verb does to the tree.
        then: What happens after a call, one step with each look that is waited for.
        asked: The calls, in order.
        open_news: How many news are open.
    """

    errors: dict[str, Exception] = field(default_factory=dict)
    descriptor: bytes = field(default_factory=hub_descriptor)
    doing: dict[str, Callable[[], object]] = field(default_factory=dict)
    then: list[Callable[[], object]] = field(default_factory=list)
    asked: list[tuple[object, ...]] = field(default_factory=list)
    open_news: int = 0

    def host(self, tree: UsbTree) -> UsbHost:
        return UsbHost(sysfs=tree.sysfs, nodes=tree.nodes, calls=self, changes=self._opened)

    async def reset(self, node: Path, *, seconds: float) -> None:
        self._ask("reset", node)

    async def describe(self, node: Path, *, seconds: float) -> bytes:
        self._ask("describe", node)
        return self.descriptor

    async def cycle_by_kernel(self, attributes: Sequence[Path], *, off_seconds: float, seconds: float) -> None:
        self._ask("cycle_by_kernel", *attributes, off_seconds)

    async def cycle_by_hub(
        self, node: Path, port: int, *, is_superspeed: bool, off_seconds: float, seconds: float
    ) -> None:
        self._ask("cycle_by_hub", node, port, is_superspeed, off_seconds)

    def _ask(self, verb: str, *rest: object) -> None:
        assert self.open_news, "a change could be missed"
        self.asked.append((verb, *rest))
        self.doing.get(verb, lambda: None)()
        if verb in self.errors:
            raise self.errors.pop(verb)

    def _opened(self) -> "DescribedKernel":
        self.open_news += 1
        return self

    async def wait(self, seconds: float) -> None:
        if self.then:
            self.then.pop(0)()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.Event().wait()

    def close(self) -> None:
        self.open_news -= 1
