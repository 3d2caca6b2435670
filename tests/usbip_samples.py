# SPDX-License-Identifier: Apache-2.0
"""USB/IP values as hypothesis makes them, and what strangers sent: tests/vectors/usbip."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from privyseal.usbip.urb import CmdSubmit, CmdUnlink, Direction, RetSubmit, RetUnlink
from privyseal.usbip.wire import DeviceRecord, InterfaceRecord, ListedDevice, Speed

CAPTURES = sorted((Path(__file__).parent / "vectors" / "usbip").glob("*.txt"))

u32 = st.integers(0, 2**32 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
u16 = st.integers(0, 2**16 - 1)
u8 = st.integers(0, 255)
bus_ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=31)
paths = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=255)
interfaces = st.builds(InterfaceRecord, interface_class=u8, subclass=u8, protocol=u8)


def device_records(count: st.SearchStrategy[int] = u8) -> st.SearchStrategy[DeviceRecord]:
    return st.builds(
        DeviceRecord,
        path=paths,
        bus_id=bus_ids,
        bus_number=u16,
        device_number=u16,
        speed=st.sampled_from(Speed),
        vendor_id=u16,
        product_id=u16,
        device_version=u16,
        device_class=u8,
        subclass=u8,
        protocol=u8,
        configuration_value=u8,
        configurations=u8,
        interfaces=count,
    )


@st.composite
def listed_devices(draw: st.DrawFn) -> ListedDevice:
    held = draw(st.lists(interfaces, max_size=4))
    return ListedDevice(device=draw(device_records(st.just(len(held)))), interfaces=tuple(held))


@st.composite
def submits(draw: st.DrawFn, *, most_bytes: int = 200) -> CmdSubmit:
    direction = draw(st.sampled_from(Direction))
    data = draw(st.binary(max_size=most_bytes)) if direction is Direction.OUT else b""
    return CmdSubmit(
        seqnum=draw(u32),
        device_id=draw(u32),
        direction=direction,
        endpoint=draw(st.integers(0, 15)),
        length=len(data) if direction is Direction.OUT else draw(st.integers(0, most_bytes)),
        data=data,
        setup=draw(st.binary(min_size=8, max_size=8)),
        transfer_flags=draw(u32),
        interval=draw(i32),
    )


unlinks = st.builds(CmdUnlink, seqnum=u32, device_id=u32, target=u32)
ret_unlinks = st.builds(RetUnlink, seqnum=u32, status=i32)


@st.composite
def ret_submits(draw: st.DrawFn) -> tuple[RetSubmit, Direction]:
    """An answer, and the way of the data."""
    direction = draw(st.sampled_from(Direction))
    data = draw(st.binary(max_size=200)) if direction is Direction.IN else b""
    length = len(data) if direction is Direction.IN else draw(st.integers(0, 2**31 - 1))
    return RetSubmit(seqnum=draw(u32), status=draw(i32), actual_length=length, data=data), direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """One connection: each run of bytes with who sent it."""

    runs: tuple[tuple[bool, bytes], ...]

    @property
    def from_client(self) -> bytes:
        return b"".join(data for is_clients, data in self.runs if is_clients)


def connections(path: Path) -> list[Captured]:
    runs: dict[str, list[tuple[bool, bytes]]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            continue
        mark = ">" if ">" in line else "<"
        number, _, text = line.partition(mark)
        runs.setdefault(number, []).append((mark == ">", bytes.fromhex(text)))
    return [Captured(runs=tuple(each)) for each in runs.values()]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Data cut at places that lie in it, however the list is."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]
