# SPDX-License-Identifier: Apache-2.0
"""What programs that others wrote sent to each other: each side is read by its state machine, byte for byte."""

import errno
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privyseal.usbip.exporting import Cancel, Exporting, Stage
from privyseal.usbip.framing import Frames
from privyseal.usbip.importing import Importing
from privyseal.usbip.urb import Answer, CmdSubmit, CmdUnlink, Expected, RetSubmit, answer_frames, command_frames
from privyseal.usbip.wire import DevlistAnswer, DevlistRequest, ImportAnswer, ImportRequest, read_request
from usbip_samples import CAPTURES, Captured, connections, split

ALL = [(path, captured) for path in CAPTURES for captured in connections(path)]


def test_there_are_captures_of_three_kinds() -> None:
    assert len(CAPTURES) == 3
    assert len(ALL) >= 7


def exchanged(captured: Captured) -> tuple[list[Any], list[Any]]:
    """What the exporter's and the client's machine make of it, while both hear the whole of the connection."""
    requests = Frames(read_request)
    requests.feed(captured.from_client)
    asked = requests.take()
    commands = command_frames()
    commands.feed(requests.rest())
    sent: list[Any] = [asked]
    while (command := commands.take()) is not None:
        sent.append(command)
    assert commands.is_between
    submitted = {
        one.seqnum: Expected(direction=one.direction, length=one.length) for one in sent if isinstance(one, CmdSubmit)
    }

    client = Importing()
    client.import_device(asked.bus_id) if isinstance(asked, ImportRequest) else client.list()
    client.feed(b"".join(data for is_clients, data in captured.runs if not is_clients))
    arrived: list[Any] = [client.take()]
    answers = answer_frames(submitted.get)
    answers.feed(client.rest())
    while (answer := answers.take()) is not None:
        arrived.append(answer)
    assert answers.is_between
    return sent, arrived


@pytest.mark.parametrize(("path", "captured"), ALL, ids=lambda value: getattr(value, "stem", None))
def test_each_capture_is_read_to_its_end_and_means_one_thing(path: Path, captured: Captured) -> None:
    sent, arrived = exchanged(captured)

    # Requests and commands are written as they were.
    assert b"".join(one.encode() for one in sent) == captured.from_client
    if isinstance(sent[0], DevlistRequest):
        (listed,) = arrived
        assert isinstance(listed, DevlistAnswer)
        assert listed.encode() == captured.runs[-1][1]
        assert [device.device.bus_id for device in listed.devices] in (["1-1"], ["1-1.1"])
        return
    imported = arrived[0]
    assert isinstance(imported, ImportAnswer)
    if imported.device is not None:
        named = (imported.device.vendor_id, imported.device.bus_id)
        assert named in ((0x0529, "1-1"), (0x08E6, "1-1.1"))
        assert all(one.device_id == imported.device.device_id for one in sent[1:])
        unlinked = {one.target for one in sent if isinstance(one, CmdUnlink)}
        assert {one.seqnum for one in arrived[1:]} == {one.seqnum for one in sent[1:]} - unlinked


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(ALL), st.lists(st.integers(0, 10**6), max_size=40))
def test_a_client_is_understood_however_its_bytes_arrive(case: tuple[Path, Captured], cuts: list[int]) -> None:
    _, captured = case
    _, arrived = exchanged(captured)
    answers = {one.seqnum: one for one in arrived if isinstance(one, RetSubmit)}
    exporter, events = Exporting(), []
    for part in split(captured.from_client, cuts):
        exporter.feed(part)
        while (event := exporter.take()) is not None:
            events.append(event)
            if isinstance(event, Cancel):
                exporter.complete(event.seqnum, -errno.ENOENT)
            elif isinstance(event, CmdSubmit) and event.seqnum in answers:
                answer = answers[event.seqnum]
                exporter.complete(event.seqnum, answer.status, data=answer.data, actual_length=answer.actual_length)
            elif isinstance(event, ImportRequest):
                assert isinstance(arrived[0], ImportAnswer)
                if arrived[0].device is None:
                    exporter.refuse(arrived[0].status)
                else:
                    exporter.accept(arrived[0].device)

    assert len(events) == len(exchanged(captured)[0])
    assert exporter.in_flight == ()


LINUX = [captured for path, captured in ALL if path.stem.startswith("linux")]


@pytest.mark.parametrize("captured", LINUX, ids=["list", "import"])
def test_our_exporter_writes_what_linuxs_wrote(captured: Captured) -> None:
    """Byte for byte, where the device gives what it gave there: also of an unlinked URB."""
    _, (first, *_) = exchanged(captured)
    exporter = Exporting()
    asked: list[Any] = []
    answers = answer_frames({one.seqnum: expected(one) for one in exchanged(captured)[0] if submits(one)}.get)
    for is_clients, data in captured.runs:
        if is_clients:
            exporter.feed(data)
            asked += iter(exporter.take, None)
            continue
        if isinstance(first, DevlistAnswer):
            exporter.show(first.devices)
        elif exporter.stage is not Stage.IMPORTED:
            exporter.accept(first.device)
        else:
            answers.feed(data)
            while (answer := answers.take()) is not None:
                complete(exporter, asked, answer)
        assert exporter.output() == data


def submits(one: object) -> bool:
    return isinstance(one, CmdSubmit)


def expected(one: CmdSubmit) -> Expected:
    return Expected(direction=one.direction, length=one.length)


def complete(exporter: Exporting, asked: list[Any], answer: Answer) -> None:
    if isinstance(answer, RetSubmit):
        exporter.complete(answer.seqnum, answer.status, data=answer.data, actual_length=answer.actual_length)
    else:
        (cancel,) = (one for one in asked if isinstance(one, Cancel))
        exporter.complete(cancel.seqnum, -errno.ENOENT)
        asked.remove(cancel)
