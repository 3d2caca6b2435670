# SPDX-License-Identifier: Apache-2.0
"""What passes between an exporter and a kernel: what Linux sends, whole, and nothing that does not belong there."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError, PrivysealError
from privyseal.usbip.passing import Passing
from privyseal.usbip.urb import CmdSubmit, CmdUnlink, Direction, RetSubmit, RetUnlink
from usbip_samples import CAPTURES, Captured, connections, split

IMPORTS = [captured for path in CAPTURES for captured in connections(path) if len(captured.runs) > 2]
LINUX = [captured for captured in IMPORTS if b"1-1.1" in captured.from_client]
DEVICE = 0x10002


def submit(seqnum: int) -> CmdSubmit:
    return CmdSubmit(seqnum=seqnum, device_id=DEVICE, direction=Direction.IN, endpoint=1, length=64)


@settings(max_examples=50)
@given(st.sampled_from(LINUX), st.lists(st.integers(0, 10**6), max_size=10))
def test_what_linux_sends_passes_unchanged(captured: Captured, cuts: list[int]) -> None:
    passing = Passing(int.from_bytes(captured.from_client[48:52]))
    (_, request), (_, answer), *urbs = captured.runs
    assert len(request) == 40
    assert len(answer) == 320
    for is_clients, data in urbs:
        let_through = passing.commands if is_clients else passing.answers
        assert b"".join(map(let_through, split(data, cuts))) == data


def test_there_is_something_of_linux() -> None:
    assert len(LINUX) == 1


def test_nothing_passes_before_it_is_whole() -> None:
    passing, command = Passing(DEVICE), submit(1).encode()
    assert passing.commands(command[:47]) == b""
    assert passing.commands(command[47:]) == command


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([RetSubmit(seqnum=2, status=0, actual_length=0)], "not submitted"),
        ([RetSubmit(seqnum=1, status=0, actual_length=65, data=bytes(65))], "whose buffer has 64"),
        ([RetSubmit(seqnum=1, status=0, actual_length=0)] * 2, "not submitted"),
        ([RetUnlink(seqnum=1, status=0)], "not sent"),
        ([RetSubmit(seqnum=1, status=1, actual_length=0)], "status 1"),
        ([RetUnlink(seqnum=9, status=-4096)], "status -4096"),
        ([RetUnlink(seqnum=9, status=-errno.ECONNRESET), RetSubmit(seqnum=1, status=0, actual_length=0)], "submitted"),
        ([RetUnlink(seqnum=9, status=0)] * 2, "not sent"),
    ],
)
def test_answers_to_nothing_do_not_pass(answers: list[RetSubmit | RetUnlink], told: str) -> None:
    passing = Passing(DEVICE)
    unlink = CmdUnlink(seqnum=9, device_id=DEVICE, target=1)
    passing.commands(submit(1).encode() + unlink.encode())

    sent = b"".join(answer.encode() for answer in answers)
    with pytest.raises(MalformedInputError, match=told):
        passing.answers(sent)


@pytest.mark.parametrize(
    "commands",
    [
        [submit(1), submit(1)],
        [submit(1), CmdUnlink(seqnum=1, device_id=DEVICE, target=1)],
        [CmdSubmit(seqnum=1, device_id=DEVICE + 1, direction=Direction.IN, endpoint=1, length=1)],
        [submit(seqnum) for seqnum in range(4097)],
    ],
)
def test_commands_that_no_kernel_sends(commands: list[CmdSubmit | CmdUnlink]) -> None:
    passing = Passing(DEVICE)
    sent = b"".join(command.encode() for command in commands)
    with pytest.raises(MalformedInputError):
        passing.commands(sent)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=120)), max_size=8))
def test_hostile_bytes_are_an_error_and_stay_one(runs: list[tuple[bool, bytes]]) -> None:
    passing = Passing(DEVICE)
    passing.commands(submit(1).encode())
    for is_clients, data in runs:
        let_through = passing.commands if is_clients else passing.answers
        try:
            let_through(data)
        except PrivysealError:
            with pytest.raises(PrivysealError):
                let_through(b"")
            return
