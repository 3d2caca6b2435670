# SPDX-License-Identifier: Apache-2.0
"""USB/IP as values: every value comes back from its bytes, however they are cut; hostile bytes give an error, soon."""

import struct
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError, PrivysealError, UnsupportedInputError
from privyseal.usbip.descriptors import parse_descriptors
from privyseal.usbip.exporting import Cancel, Exporting, Limits
from privyseal.usbip.framing import Frames
from privyseal.usbip.importing import Importing
from privyseal.usbip.urb import CmdSubmit, Direction, Expected, RetSubmit, RetUnlink, answer_frames, command_frames
from privyseal.usbip.wire import (
    DeviceRecord,
    DevlistAnswer,
    DevlistRequest,
    ImportAnswer,
    ImportRequest,
    OpStatus,
    read_devlist_answer,
    read_import_answer,
    read_request,
)
from usbip_samples import (
    CAPTURES,
    bus_ids,
    connections,
    device_records,
    listed_devices,
    ret_submits,
    ret_unlinks,
    split,
    submits,
    unlinks,
)

cuts = st.lists(st.integers(0, 10**6), max_size=20)
STREAMS = [captured.from_client for path in CAPTURES for captured in connections(path)]
ANSWERS = [
    b"".join(data for is_clients, data in captured.runs if not is_clients)
    for path in CAPTURES
    for captured in connections(path)
]


def all_of(frames: Frames[Any], parts: list[bytes]) -> list[Any]:
    taken = []
    for part in parts:
        frames.feed(part)
        while (message := frames.take()) is not None:
            taken.append(message)
    return taken


@given(st.builds(ImportRequest, bus_id=bus_ids) | st.just(DevlistRequest()), cuts)
def test_requests_come_back(request: ImportRequest | DevlistRequest, places: list[int]) -> None:
    assert all_of(Frames(read_request), split(request.encode(), places)) == [request]


@settings(deadline=None)
@given(st.lists(listed_devices(), max_size=3).map(tuple), cuts)
def test_lists_come_back(devices: tuple[object, ...], places: list[int]) -> None:
    answer = DevlistAnswer(devices=devices)  # type: ignore[arg-type]

    assert all_of(Frames(read_devlist_answer), split(answer.encode(), places)) == [answer]


@given(
    st.builds(ImportAnswer, device=device_records())
    | st.builds(ImportAnswer, status=st.sampled_from(list(OpStatus)[1:])),
    cuts,
)
def test_answers_to_imports_come_back(answer: ImportAnswer, places: list[int]) -> None:
    assert all_of(Frames(read_import_answer), split(answer.encode(), places)) == [answer]


@given(st.lists(submits() | unlinks, max_size=6), cuts)
def test_commands_come_back(commands: list[CmdSubmit], places: list[int]) -> None:
    stream = b"".join(command.encode() for command in commands)

    assert all_of(command_frames(), split(stream, places)) == commands


@given(st.lists(ret_submits() | ret_unlinks, max_size=6), cuts)
def test_answers_come_back(answers: list[object], places: list[int]) -> None:
    plain = [answer if isinstance(answer, RetUnlink) else answer[0] for answer in answers]  # type: ignore[index]
    ways = [answer[1] for answer in answers if isinstance(answer, tuple)]

    def expected(_: int) -> Expected:
        return Expected(direction=ways.pop(0), length=2**31 - 1)

    assert all_of(answer_frames(expected), split(b"".join(one.encode() for one in plain), places)) == plain


@given(st.sampled_from(STREAMS), st.integers(0, 10**6))
def test_a_stream_that_is_cut_off_is_seen_to_be(stream: bytes, cut: int) -> None:
    exporter = Exporting()
    exporter.feed(stream[: cut % len(stream)])
    event = exporter.take()
    if isinstance(event, ImportRequest):
        exporter.accept(record(stream))
        whole = 40
        while whole < len(stream) and (step := 48 + out_length(stream[whole : whole + 48])) + whole <= cut % len(
            stream
        ):
            whole += step
        while (event := exporter.take()) is not None:
            assert isinstance(event, CmdSubmit)
            exporter.complete(event.seqnum, 0)
        assert exporter.is_between is (cut % len(stream) == whole)


def out_length(header: bytes) -> int:
    command, _, _, way = struct.unpack(">IIII", header[:16])
    return int(struct.unpack(">i", header[24:28])[0]) if command == 1 and way == 0 else 0


def record(stream: bytes) -> DeviceRecord:
    """A device as a client's stream names it in its first URB."""
    frames = Frames(read_import_answer)
    frames.feed(next(answer for answer in ANSWERS if answer[2:4] == b"\0\3" and len(answer) > 8))
    answer = frames.take()
    assert answer is not None
    assert answer.device is not None
    return replace(answer.device, bus_number=int.from_bytes(stream[48:50]), device_number=int.from_bytes(stream[50:52]))


@st.composite
def damaged(draw: st.DrawFn, streams: list[bytes]) -> bytes:
    """A stranger's stream with some bytes changed, taken out, or put in."""
    data = bytearray(draw(st.sampled_from(streams)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 2)):
            case 0:
                data[place : place + 1] = draw(st.binary(min_size=1, max_size=4))
            case 1:
                del data[place : place + draw(st.integers(1, 60))]
            case _:
                data[place:place] = draw(st.binary(max_size=60) | st.just(bytes(48)) | st.just(b"\xff" * 8))
    return bytes(data)


@settings(max_examples=300, deadline=None)
@given(damaged(STREAMS) | st.binary(max_size=400), cuts)
def test_a_hostile_client_gets_no_further_than_an_error(stream: bytes, places: list[int]) -> None:
    limits = Limits(transfer_bytes=4096, urbs=4, bytes_in_flight=8192)
    exporter = Exporting(limits)
    error: PrivysealError | None = None
    for part in split(stream, places):
        try:
            exporter.feed(part)
            while (event := exporter.take()) is not None:
                assert error is None
                if isinstance(event, ImportRequest):
                    exporter.accept(record(stream))
                elif isinstance(event, DevlistRequest):
                    exporter.show(())
                elif isinstance(event, Cancel):
                    exporter.complete(event.seqnum, -2)
                assert len(exporter.in_flight) <= limits.urbs
        except (MalformedInputError, UnsupportedInputError) as refusal:
            error = refusal
    exporter.abandon()

    assert error is None or error.code.startswith("usbip.")
    assert exporter.in_flight == ()
    assert len(exporter.output()) <= 320 + 48 * 3 * (len(stream) // 48 + 1)


@settings(max_examples=300, deadline=None)
@given(damaged(ANSWERS) | st.binary(max_size=400), cuts, st.sampled_from(["list", "import"]))
def test_a_hostile_exporter_gets_no_further_than_an_error(stream: bytes, places: list[int], asked: str) -> None:
    client = Importing()
    client.list() if asked == "list" else client.import_device("1-1")
    submitted = 0
    with suppress(MalformedInputError, UnsupportedInputError):
        for part in split(stream, places):
            client.feed(part)
            while (arrived := client.take()) is not None:
                if isinstance(arrived, (ImportAnswer, RetSubmit)) and client.device is not None and submitted < 20:
                    client.submit(Direction.IN, 1, 64)
                    submitted += 1


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=300)
    | damaged([bytes.fromhex("12010002000000402905200600010102030109025d00010100803209040000030b000000") + bytes(54)])
)
def test_descriptors_of_a_hostile_device(data: bytes) -> None:
    with suppress(MalformedInputError):
        found = parse_descriptors(data)
        assert sum(len(one.interfaces) for one in found.configurations) <= 8 * 256


@pytest.mark.parametrize("length", [-1, -(2**31), 4097, 2**31 - 1])
def test_the_size_of_a_transfer_is_judged_before_it_is_read(length: int) -> None:
    frames = command_frames(max_transfer_bytes=4096)
    frames.feed(struct.pack(">IIIIIIiiii8x", 1, 7, 0, 0, 2, 0, length, 0, 0, 0))

    with pytest.raises(MalformedInputError, match="URB 7 has a buffer") as caught:
        frames.take()

    assert caught.value.code == ("usbip.too_large" if length > 0 else "usbip.malformed")
    frames.feed(bytes(10_000))
    with pytest.raises(MalformedInputError):
        frames.take()


@pytest.mark.parametrize(
    ("read", "head"),
    [
        (read_devlist_answer, struct.pack(">HHII", 0x111, 5, 0, 257)),
        (read_devlist_answer, struct.pack(">HHII", 0x111, 5, 0, 2**32 - 1)),
    ],
)
def test_a_list_of_countless_devices_is_not_awaited(read: Any, head: bytes) -> None:
    frames: Frames[Any] = Frames(read)
    frames.feed(head)

    with pytest.raises(MalformedInputError, match="256 are the most"):
        frames.take()


@pytest.mark.parametrize("packets", [1, 32, 2**31 - 1, -2])
def test_isochronous_transfers_are_refused(packets: int) -> None:
    frames = command_frames()
    frames.feed(struct.pack(">IIIIIIiiii8x", 1, 7, 0, 1, 2, 0, 64, 0, packets, 0))

    with pytest.raises(UnsupportedInputError, match="isochronous") as caught:
        frames.take()

    assert caught.value.code == "usbip.isochronous"


@pytest.mark.parametrize("packets", [0, -1])
def test_both_ways_to_say_that_a_transfer_is_not_isochronous(packets: int) -> None:
    frames = command_frames()
    frames.feed(struct.pack(">IIIIIIiiii8x", 1, 7, 0, 1, 2, 0, 64, 0, packets, 0))

    assert frames.take() == CmdSubmit(seqnum=7, device_id=0, direction=Direction.IN, endpoint=2, length=64)


@pytest.mark.parametrize("actual", [-1, 65, 2**31 - 1])
def test_an_answer_larger_than_its_buffer_is_refused_unread(actual: int) -> None:
    frames = answer_frames(lambda _: Expected(direction=Direction.IN, length=64))
    frames.feed(struct.pack(">IIIIIiiiii8x", 3, 7, 0, 0, 0, 0, actual, 0, 0, 0))

    with pytest.raises(MalformedInputError, match="whose buffer has 64"):
        frames.take()
