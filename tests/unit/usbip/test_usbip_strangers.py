# SPDX-License-Identifier: Apache-2.0
"""Our client's side with the virtual devices of PyPI's `usbip`, which we did not write."""

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from usbip.transport import Loopback

from lab.piv.ccid import BULK_IN, BULK_OUT, INTERRUPT_IN, PRODUCT, VENDOR, CcidToken
from lab.piv.keys import CardKey, load_or_make_keys
from lab.piv.station import Station
from lab.piv.vpcd import ATR
from privyseal.usbip.descriptors import EndpointKind, parse_descriptors
from privyseal.usbip.importing import Arrived, Importing
from privyseal.usbip.in_flight import Unlinked
from privyseal.usbip.urb import Direction, RetSubmit
from privyseal.usbip.wire import DevlistAnswer, ImportAnswer, OpStatus

GET_DESCRIPTOR = 0x8006


class Client:
    """Our state machine on a blocking socket."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket, self.machine = connected, Importing()
        connected.settimeout(10)

    def next(self) -> Arrived:
        self.socket.sendall(self.machine.output())
        while (arrived := self.machine.take()) is None:
            data = self.socket.recv(65536)
            assert data, "the exporter ended the connection"
            self.machine.feed(data)
        return arrived

    def control_in(self, request: int, value: int, length: int) -> RetSubmit:
        setup = request.to_bytes(2, "big") + struct.pack("<HHH", value, 0, length)
        self.machine.submit(Direction.IN, 0, length, setup=setup)
        answer = self.next()
        assert isinstance(answer, RetSubmit)
        return answer


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CardKey]:
    return load_or_make_keys(tmp_path_factory.mktemp("keys"), {0x9A: "p256"})


@pytest.fixture
def wire(keys: dict[int, CardKey]) -> Iterator[Any]:
    transport = Loopback()
    token = CcidToken(Station(keys, pin="731946"), transport)
    yield transport
    token.unplug()


def imported(wire: Any) -> Client:
    client = Client(wire.connect())
    client.machine.import_device("1-1")
    answer = client.next()
    assert isinstance(answer, ImportAnswer)
    assert answer.device is not None
    assert (answer.device.vendor_id, answer.device.product_id) == (VENDOR, PRODUCT)
    return client


def test_its_list(wire: Any) -> None:
    client = Client(wire.connect())
    client.machine.list()
    answer = client.next()

    assert isinstance(answer, DevlistAnswer)
    (listed,) = answer.devices
    assert (listed.device.bus_id, listed.interfaces[0].interface_class) == ("1-1", 0x0B)


def test_its_refusal(wire: Any) -> None:
    client = Client(wire.connect())
    client.machine.import_device("9-9")

    assert client.next() == ImportAnswer(status=OpStatus.NOT_AVAILABLE)


def test_its_descriptors(wire: Any) -> None:
    client = imported(wire)
    device = client.control_in(GET_DESCRIPTOR, 0x0100, 18)
    configuration = client.control_in(GET_DESCRIPTOR, 0x0200, 4096)

    found = parse_descriptors(device.data + configuration.data)

    assert (found.device.vendor_id, found.device.configurations) == (VENDOR, 1)
    (reader,) = found.configurations[0].interfaces
    assert (reader.interface_class, [len(one) for one in reader.others]) == (0x0B, [54])
    assert {address: one.kind for address, one in found.configurations[0].endpoints().items()} == {
        BULK_OUT: EndpointKind.BULK,
        BULK_IN: EndpointKind.BULK,
        INTERRUPT_IN: EndpointKind.INTERRUPT,
    }


def test_a_card_answers_through_it_and_an_urb_is_unlinked(wire: Any) -> None:
    client = imported(wire)
    waiting = client.machine.submit(Direction.IN, INTERRUPT_IN & 15, 8, interval=16)
    client.machine.submit(Direction.OUT, BULK_OUT, struct.pack("<BIBBxxx", 0x62, 0, 0, 1))
    client.machine.submit(Direction.IN, BULK_IN & 15, 3082)

    out, into = client.next(), client.next()
    client.machine.unlink(waiting)
    unlinked = client.next()

    assert isinstance(out, RetSubmit)
    assert isinstance(into, RetSubmit)
    assert (out.actual_length, into.data[10:]) == (10, ATR)
    # This exporter says 0 of what it cancelled; Linux's says -ECONNRESET.
    assert unlinked == Unlinked(seqnum=waiting, status=0, was_answered=False)
    assert client.machine.in_flight == ()
    assert client.control_in(GET_DESCRIPTOR, 0x0600, 10).status == -32
