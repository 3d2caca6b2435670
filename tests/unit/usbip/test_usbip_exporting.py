# SPDX-License-Identifier: Apache-2.0
"""The exporter's state machine: who asked for what, what is in flight, how an unlink is answered."""

import errno
import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from privyseal.errors import MalformedInputError
from privyseal.usbip.exporting import Cancel, Exporting, Limits, Stage
from privyseal.usbip.importing import Importing
from privyseal.usbip.in_flight import Unlinked
from privyseal.usbip.urb import CmdSubmit, CmdUnlink, Direction, RetSubmit
from privyseal.usbip.wire import (
    DeviceRecord,
    DevlistRequest,
    ImportAnswer,
    ImportRequest,
    InterfaceRecord,
    ListedDevice,
    OpStatus,
    Speed,
)

TOKEN = DeviceRecord(
    path="/sys/bus/usb/devices/1-1",
    bus_id="1-1",
    bus_number=1,
    device_number=7,
    speed=Speed.FULL,
    vendor_id=0x0529,
    product_id=0x0620,
    device_version=0x0100,
    device_class=0,
    subclass=0,
    protocol=0,
    configuration_value=1,
    configurations=1,
    interfaces=1,
)
LISTED = ListedDevice(device=TOKEN, interfaces=(InterfaceRecord(interface_class=11, subclass=0, protocol=0),))


class Pair:
    """An exporter and a client, with the wire between them in the test's hand."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.exporter, self.client = Exporting(limits), Importing()

    def imported(self) -> "Pair":
        self.client.import_device("1-1")
        assert self.to_exporter() == [ImportRequest(bus_id="1-1")]
        self.exporter.accept(TOKEN)
        assert self.to_client() == [ImportAnswer(device=TOKEN)]
        return self

    def to_exporter(self) -> list[object]:
        self.exporter.feed(self.client.output())
        return list(iter(self.exporter.take, None))

    def to_client(self) -> list[object]:
        self.client.feed(self.exporter.output())
        return list(iter(self.client.take, None))


def test_a_list_is_asked_for_and_given() -> None:
    pair = Pair()
    pair.client.list()
    assert pair.to_exporter() == [DevlistRequest()]

    pair.exporter.show((LISTED,))

    (answer,) = pair.to_client()
    assert answer.devices == (LISTED,)  # type: ignore[attr-defined]
    assert pair.exporter.stage is Stage.ENDED


@pytest.mark.parametrize("status", list(OpStatus)[1:])
def test_an_import_is_refused_with_its_reason(status: OpStatus) -> None:
    pair = Pair()
    pair.client.import_device("1-1")
    pair.to_exporter()

    pair.exporter.refuse(status)

    assert pair.to_client() == [ImportAnswer(status=status)]
    assert pair.client.device is None
    pair.exporter.feed(b"anything")
    assert pair.exporter.take() is None


def test_a_list_is_refused_too() -> None:
    pair = Pair()
    pair.client.list()
    pair.to_exporter()

    pair.exporter.refuse(OpStatus.ERROR)

    (answer,) = pair.to_client()
    assert answer.status is OpStatus.ERROR  # type: ignore[attr-defined]


def test_transfers_both_ways_and_a_stall() -> None:
    pair = Pair().imported()
    out = pair.client.submit(Direction.OUT, 2, b"command")
    into = pair.client.submit(Direction.IN, 1, 64)
    stalled = pair.client.submit(Direction.IN, 0, 18, setup=bytes.fromhex("8006000100001200"))
    commands = pair.to_exporter()
    assert [(one.address, one.data) for one in commands if isinstance(one, CmdSubmit)] == [
        (0x02, b"command"),
        (0x81, b""),
        (0x80, b""),
    ]

    pair.exporter.complete(into, 0, data=b"answer")
    pair.exporter.complete(stalled, -errno.EPIPE)
    pair.exporter.complete(out, 0, actual_length=7)

    assert pair.to_client() == [
        RetSubmit(seqnum=into, status=0, actual_length=6, data=b"answer"),
        RetSubmit(seqnum=stalled, status=-errno.EPIPE, actual_length=0),
        RetSubmit(seqnum=out, status=0, actual_length=7),
    ]
    assert pair.exporter.in_flight == pair.client.in_flight == ()


@pytest.mark.parametrize("given", [-errno.ENOENT, -errno.ECONNRESET])
def test_an_urb_that_is_cancelled_gets_one_answer(given: int) -> None:
    pair = Pair().imported()
    seqnum = pair.client.submit(Direction.IN, 1, 64)
    pair.to_exporter()
    pair.client.unlink(seqnum)
    assert pair.to_exporter() == [Cancel(seqnum=seqnum)]

    pair.exporter.complete(seqnum, given)

    assert pair.to_client() == [Unlinked(seqnum=seqnum, status=-errno.ECONNRESET, was_answered=False)]


def test_an_urb_that_is_done_before_its_cancelling_loses_no_data() -> None:
    pair = Pair().imported()
    seqnum = pair.client.submit(Direction.IN, 1, 64)
    pair.to_exporter()
    pair.client.unlink(seqnum)
    pair.to_exporter()

    pair.exporter.complete(seqnum, 0, data=b"late")

    assert pair.to_client() == [
        RetSubmit(seqnum=seqnum, status=0, actual_length=4, data=b"late"),
        Unlinked(seqnum=seqnum, status=0, was_answered=True),
    ]


def test_an_unlink_that_crosses_its_answer() -> None:
    pair = Pair().imported()
    seqnum = pair.client.submit(Direction.IN, 1, 64)
    pair.to_exporter()
    pair.exporter.complete(seqnum, 0, data=b"first")
    pair.client.unlink(seqnum)

    assert pair.to_exporter() == []
    answered, unlinked = pair.to_client()
    assert isinstance(answered, RetSubmit)
    assert unlinked == Unlinked(seqnum=seqnum, status=0, was_answered=True)


def raw(exporter: Exporting, *commands: CmdSubmit | CmdUnlink) -> list[object]:
    exporter.feed(b"".join(command.encode() for command in commands))
    return list(iter(exporter.take, None))


def submit(seqnum: int, *, device_id: int = TOKEN.device_id, length: int = 64) -> CmdSubmit:
    return CmdSubmit(seqnum=seqnum, device_id=device_id, direction=Direction.IN, endpoint=1, length=length)


def unlink(seqnum: int, target: int) -> CmdUnlink:
    return CmdUnlink(seqnum=seqnum, device_id=TOKEN.device_id, target=target)


@pytest.mark.parametrize(
    ("commands", "told"),
    [
        ((submit(1), submit(1)), "seqnum 1 is in use twice"),
        ((submit(1), unlink(1, 1)), "seqnum 1 is in use twice"),
        ((submit(1), unlink(2, 1), submit(2)), "seqnum 2 is in use twice"),
        ((submit(1), unlink(2, 1), unlink(3, 1)), "URB 1 is unlinked twice"),
        ((submit(1, device_id=TOKEN.device_id + 1),), "is for device 0x10008, which is not imported"),
    ],
)
def test_what_no_client_does_ends_the_connection(commands: tuple[CmdSubmit | CmdUnlink, ...], told: str) -> None:
    exporter = Pair().imported().exporter

    with pytest.raises(MalformedInputError, match=told):
        raw(exporter, *commands)

    assert exporter.stage is Stage.ENDED
    in_flight = exporter.in_flight
    exporter.abandon()
    assert len(exporter.output()) == 48 * len(in_flight)
    assert exporter.in_flight == ()


def test_a_seqnum_is_free_again_once_it_is_answered() -> None:
    exporter = Pair().imported().exporter
    raw(exporter, submit(1), unlink(2, 1))
    exporter.complete(1, -errno.ENOENT)

    assert raw(exporter, submit(1), submit(2)) == [submit(1), submit(2)]


@pytest.mark.parametrize(
    ("limits", "lengths"),
    [
        (Limits(urbs=3), (64, 64, 64, 64)),
        (Limits(bytes_in_flight=1000), (400, 400, 100, 101)),
    ],
)
def test_one_urb_too_many_is_answered_and_the_others_go_on(limits: Limits, lengths: tuple[int, ...]) -> None:
    pair = Pair(limits).imported()
    seqnums = [pair.client.submit(Direction.IN, 1, length) for length in lengths]

    assert len(pair.to_exporter()) == 3
    assert pair.to_client() == [RetSubmit(seqnum=seqnums[-1], status=-errno.ENOMEM, actual_length=0)]

    pair.exporter.complete(seqnums[0], 0)
    again = pair.client.submit(Direction.IN, 1, 300)
    assert [one.seqnum for one in pair.to_exporter()] == [again]  # type: ignore[attr-defined]


def test_urbs_that_come_before_their_import_is_answered_wait_and_not_without_end() -> None:
    exporter = Exporting(Limits(transfer_bytes=1000))
    exporter.feed(ImportRequest(bus_id="1-1").encode() + submit(1).encode())
    assert exporter.take() == ImportRequest(bus_id="1-1")
    assert exporter.take() is None
    with pytest.raises(MalformedInputError, match="before its import is answered"):
        exporter.feed(bytes(1001))

    other = Exporting()
    other.feed(ImportRequest(bus_id="1-1").encode() + submit(1).encode())
    other.take()
    other.accept(TOKEN)
    assert other.take() == submit(1)


def test_what_is_in_flight_at_the_end_is_answered() -> None:
    pair = Pair().imported()
    first, second = (pair.client.submit(Direction.IN, 1, 64) for _ in range(2))
    pair.client.unlink(second)
    pair.to_exporter()

    pair.exporter.abandon()

    assert pair.to_client() == [
        RetSubmit(seqnum=first, status=-errno.ESHUTDOWN, actual_length=0),
        Unlinked(seqnum=second, status=-errno.ECONNRESET, was_answered=False),
    ]


def test_what_the_device_gives_must_fit() -> None:
    exporter = Pair().imported().exporter
    raw(exporter, submit(1, length=4))

    for data, actual in ((b"12345", None), (b"", 5), (b"12", 1)):
        with pytest.raises(ValueError, match="whose buffer has 4"):
            exporter.complete(1, 0, data=data, actual_length=actual)
    with pytest.raises(ValueError, match="not in flight"):
        exporter.complete(2, 0)
    with pytest.raises(ValueError, match="no such request"):
        exporter.accept(TOKEN)


class Wire(RuleBasedStateMachine):
    """Any order of submits, unlinks, completions and deliveries: each URB is answered once, each unlink once."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair(Limits(urbs=5)).imported()
        self.counter = itertools.count()
        self.open: set[int] = set()
        self.cancelling: set[int] = set()
        self.answered: set[int] = set()
        self.unlinked: set[int] = set()
        self.wanted: set[int] = set()

    urbs = Bundle("urbs")

    @rule(target=urbs, direction=st.sampled_from(Direction), size=st.integers(0, 32))
    def submit(self, direction: Direction, size: int) -> int:
        return self.pair.client.submit(direction, 1, size if direction is Direction.IN else bytes(size))

    @rule(seqnum=consumes(urbs))
    def unlink(self, seqnum: int) -> None:
        if seqnum in self.pair.client.in_flight:
            self.pair.client.unlink(seqnum)
            self.wanted.add(seqnum)

    @rule()
    def deliver_to_exporter(self) -> None:
        for event in self.pair.to_exporter():
            if isinstance(event, Cancel):
                self.cancelling.add(event.seqnum)

    @rule()
    def deliver_to_client(self) -> None:
        for arrived in self.pair.to_client():
            if isinstance(arrived, RetSubmit):
                assert arrived.seqnum not in self.answered | self.unlinked
                self.answered.add(arrived.seqnum)
            elif isinstance(arrived, Unlinked):
                assert arrived.seqnum in self.wanted - self.unlinked
                assert arrived.was_answered is (arrived.seqnum in self.answered)
                assert arrived.status == (0 if arrived.was_answered else -errno.ECONNRESET)
                self.unlinked.add(arrived.seqnum)

    @rule(choice=st.integers(0, 100), is_cancelled=st.booleans())
    def complete(self, choice: int, is_cancelled: bool) -> None:  # noqa: FBT001 - a rule's argument
        in_flight = self.pair.exporter.in_flight
        if in_flight:
            seqnum = in_flight[choice % len(in_flight)]
            self.pair.exporter.complete(seqnum, -errno.ENOENT if is_cancelled and seqnum in self.cancelling else 0)

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.pair.exporter.in_flight) <= 5

    def teardown(self) -> None:
        self.deliver_to_exporter()
        self.pair.exporter.abandon()
        self.deliver_to_client()
        assert self.pair.client.in_flight == ()
        assert self.unlinked == self.wanted


TestWire = Wire.TestCase
TestWire.settings = settings(max_examples=80, deadline=None)
