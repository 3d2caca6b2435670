# SPDX-License-Identifier: Apache-2.0
"""The lab's card as a USB token, driven by a USB/IP client that we did not write."""

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import usbip
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from lab.piv.apdu import Ins
from lab.piv.ccid import BULK_IN, BULK_OUT, INTERRUPT_IN, PRODUCT, VENDOR, CcidToken
from lab.piv.keys import CardKey, load_or_make_keys
from lab.piv.orders import Fault, Set
from lab.piv.station import Station
from lab.piv.tlv import decode, encode
from lab.piv.vpcd import ATR

PIN = b"731946"
SLOT = 0x9A
POWER_ON, POWER_OFF, SLOT_STATUS, TRANSFER = 0x62, 0x63, 0x65, 0x6F
SELECT = bytes.fromhex("00A4040009A0000003080000100000")
VERIFY = bytes.fromhex("0020008008") + PIN.ljust(8, b"\xff")


class CcidHost:
    """A host's CCID driver, as small as it gets."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self._sequence = 0

    def ask(self, kind: int, data: bytes = b"") -> tuple[int, int, bytes]:
        """bStatus, bError and data of the answer."""
        self._sequence += 1
        self.handle.bulk_out(BULK_OUT, struct.pack("<BIBBxxx", kind, len(data), 0, self._sequence) + data)
        return self.answer()

    def answer(self) -> tuple[int, int, bytes]:
        raw = self.handle.bulk_in(BULK_IN, 3072)
        _, length, _, sequence, status, error, _ = struct.unpack("<BIBBBBB", raw[:10])
        assert sequence == self._sequence
        assert len(raw) == 10 + length
        return status, error, raw[10:]

    def transmit(self, apdu: bytes) -> tuple[bytes, int]:
        status, error, answer = self.ask(TRANSFER, apdu)
        assert (status, error) == (0, 0)
        return answer[:-2], int.from_bytes(answer[-2:], "big")

    def changed(self) -> int:
        """The slot bits of the next notice: 1 present, 2 changed."""
        kind, bits = self.handle.interrupt_in(INTERRUPT_IN, 8)
        assert kind == 0x50
        return int(bits)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CardKey]:
    return load_or_make_keys(tmp_path_factory.mktemp("keys"), {SLOT: "p256"})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["in this process", "over TCP"])
def attached(keys: dict[int, CardKey], request: pytest.FixtureRequest) -> Iterator[tuple[CcidToken, CcidHost]]:
    """A token, and a host that has attached it."""
    if request.param == "over TCP":
        port = free_port()
        token = CcidToken(Station(keys, pin=PIN.decode()), usbip.USBIP("127.0.0.1", port))
        handle = usbip.attach("127.0.0.1", "1-1", port=port, vid=VENDOR, pid=PRODUCT)
    else:
        loopback = usbip.Loopback()
        token = CcidToken(Station(keys, pin=PIN.decode()), loopback)
        handle = usbip.open(VENDOR, PRODUCT, transport=loopback)
    yield token, CcidHost(handle)
    handle.close()
    token.unplug()


Attached = tuple[CcidToken, CcidHost]


def sign(host: CcidHost, digest: bytes) -> tuple[bytes, int]:
    data = encode(0x7C, encode(0x82), encode(0x81, digest))
    return host.transmit(bytes((0x00, Ins.GENERAL_AUTHENTICATE, 0x11, SLOT, len(data))) + data + b"\0")


def test_a_host_powers_it_on_and_signs(attached: Attached, keys: dict[int, CardKey]) -> None:
    token, host = attached
    assert host.ask(SLOT_STATUS) == (1, 0, b""), "present, not on"
    assert host.ask(POWER_ON) == (0, 0, ATR)
    assert host.transmit(SELECT)[1] == 0x9000
    assert sign(host, bytes(32)) == (b"", 0x6982), "not without the PIN"
    assert host.transmit(VERIFY) == (b"", 0x9000)

    answer, sw = sign(host, bytes(32))

    assert sw == 0x9000
    signature = decode(decode(answer)[0x7C])[0x82]
    public_key = keys[SLOT].private_key.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    public_key.verify(signature, bytes(32), ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    state = token.station.state
    assert (state.operations, state.pins_arrived) == (1, 1)


def test_power_off_forgets_the_pin(attached: Attached) -> None:
    _, host = attached
    host.ask(POWER_ON)
    for apdu in (SELECT, VERIFY):
        assert host.transmit(apdu)[1] == 0x9000

    assert host.ask(POWER_OFF) == (1, 0, b"")
    host.ask(POWER_ON)
    host.transmit(SELECT)

    assert sign(host, bytes(32)) == (b"", 0x6982)


def test_its_descriptors_are_those_of_a_ccid_reader(attached: Attached) -> None:
    _, host = attached
    configuration = host.handle.control(0x80, 6, 0x0200, 0, 255)

    blocks: dict[int, list[bytes]] = {}
    while configuration:
        block, configuration = configuration[: configuration[0]], configuration[configuration[0] :]
        blocks.setdefault(block[1], []).append(block)
    assert [block[5] for block in blocks[4]] == [0x0B]
    assert [len(block) for block in blocks[0x21]] == [54]
    assert [block[2] for block in blocks[5]] == [BULK_OUT, BULK_IN, INTERRUPT_IN]


def test_a_card_that_leaves_in_a_command_is_mute_then_absent_until_it_is_back(attached: Attached) -> None:
    token, host = attached
    host.ask(POWER_ON)
    token.station.obey(Set(faults=(Fault(ins=Ins.SELECT, act="leave"),)))

    assert host.ask(TRANSFER, SELECT) == (0x42, 0xFE, b"")
    assert host.changed() == 0b10
    assert host.ask(POWER_ON) == (0x42, 0xFE, b"")

    token.insert()
    assert host.changed() == 0b11
    assert host.ask(TRANSFER, SELECT) == (0x41, 0xFE, b""), "there, but not on"
    assert host.ask(POWER_ON) == (0, 0, ATR)
    assert host.transmit(SELECT)[1] == 0x9000


def test_a_stalled_endpoint_keeps_its_answer_until_the_halt_is_cleared(attached: Attached) -> None:
    token, host = attached
    host.ask(POWER_ON)
    token.stall_next()

    with pytest.raises(usbip.Stall):
        host.ask(TRANSFER, SELECT)
    with pytest.raises(usbip.Stall):
        host.answer()
    host.handle.clear_halt(BULK_IN)

    status, error, answer = host.answer()
    assert (status, error, answer[-2:]) == (0, 0, b"\x90\x00")
    assert host.ask(SLOT_STATUS) == (0, 0, b"")


def test_a_host_loses_a_token_that_is_unplugged(keys: dict[int, CardKey]) -> None:
    loopback = usbip.Loopback()
    token = CcidToken(Station(keys, pin=PIN.decode()), loopback)
    with usbip.open(VENDOR, PRODUCT, transport=loopback) as handle:
        host = CcidHost(handle)
        host.ask(POWER_ON)
        token.unplug()

        with pytest.raises((OSError, usbip.USBError)):
            host.ask(SLOT_STATUS)
