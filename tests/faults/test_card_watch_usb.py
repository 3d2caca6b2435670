# SPDX-License-Identifier: Apache-2.0
"""The audit between a USB host and a USB token, both driven by a USB/IP implementation that we did not write."""

import struct
from collections.abc import Iterator
from typing import Any

import pytest
import usbip

from lab.piv.apdu import Ins
from lab.piv.ccid import BULK_IN, BULK_OUT, PRODUCT, VENDOR, CcidToken
from lab.piv.keys import load_or_make_keys
from lab.piv.orders import Fault, Set
from lab.piv.station import Station
from piv_script import PIN, SELECT, run, script, sign_ec, verify
from privyseal.usbip.card_events import AnswerInstead, EndLease, LeaseRules
from privyseal.usbip.card_watch import CardWatch
from privyseal.usbip.ccid import ExchangeLevel, read_class_descriptor

POWER_ON, TRANSFER = 0x62, 0x6F
GENERATE = bytes.fromhex("0047009A05AC03800107")


class AuditedHost:
    """A host whose bulk transfers pass the audit: what it does not let pass, the token never has."""

    def __init__(self, handle: Any, *, packets: int, rules: LeaseRules) -> None:
        self._handle = handle
        self._packets = packets
        self._sequence = 0
        found = read_class_descriptor(handle.control(0x80, 6, 0x0200, 0, 255))
        assert found is not None
        assert found.level is ExchangeLevel.EXTENDED_APDU
        self.watch = CardWatch(found, packet_bytes=64, rules=rules)

    def ask(self, kind: int, data: bytes = b"") -> bytes:
        self._sequence = (self._sequence + 1) % 256
        raw = struct.pack("<BIBBxxx", kind, len(data), 0, self._sequence) + data
        size = self._packets * 64
        for at in range(0, len(raw), size):
            verdict = self.watch.command(raw[at : at + size])
            assert not isinstance(verdict, EndLease)
            if isinstance(verdict, AnswerInstead):
                return verdict.payload[10:]
            self._handle.bulk_out(BULK_OUT, raw[at : at + size])
        answer = b""
        while len(answer) < 10 or len(answer) < 10 + int.from_bytes(answer[1:5], "little"):
            part = self._handle.bulk_in(BULK_IN, size)
            self.watch.answer(part)
            answer += part
        return answer[10:]

    def transmit(self, apdu: bytes) -> bytes:
        return self.ask(TRANSFER, apdu)


@pytest.fixture
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, Any]]:
    keys = load_or_make_keys(tmp_path_factory.mktemp("keys"), {0x9A: "rsa2048", 0x9C: "p256"})
    loopback = usbip.Loopback()
    token = CcidToken(Station(keys, pin=PIN.decode()), loopback)
    handle = usbip.open(VENDOR, PRODUCT, transport=loopback)
    yield token.station, handle
    handle.close()
    token.unplug()


@pytest.mark.parametrize("packets", [1, 2, 50])
@pytest.mark.parametrize("chained", ["chained", "extended"])
def test_it_counts_what_the_token_counts(token: tuple[Station, Any], packets: int, chained: str) -> None:
    station, handle = token
    host = AuditedHost(handle, packets=packets, rules=LeaseRules())
    host.ask(POWER_ON)

    run(host.transmit, script(chained=chained == "chained"))
    station.obey(Set(faults=(Fault(ins=Ins.GENERAL_AUTHENTICATE, act="leave", after=True),)))
    run(host.transmit, [verify(PIN)])
    assert host.transmit(sign_ec()) == b""
    host.watch.finish()

    counts, state = host.watch.counts, station.state
    assert state.operations == 5
    assert counts.total("private-key-operation", "ok") == 4
    assert counts.total("private-key-operation", "unknown") == 1
    assert counts.total("pin-verification", "accepted", "refused") == state.pins_judged
    assert counts.unproven == ()


def test_a_token_never_has_what_the_rules_refuse(token: tuple[Station, Any]) -> None:
    station, handle = token
    host = AuditedHost(handle, packets=50, rules=LeaseRules(refuse_key_generation=True))
    host.ask(POWER_ON)

    assert [answer.hex() for answer in map(host.transmit, [SELECT[:-1], GENERATE])][1] == "6982"
    assert run(host.transmit, [verify(PIN), sign_ec()]) == [0x9000, 0x9000]
    assert [command.ins for command in station.state.commands] == [Ins.SELECT, Ins.VERIFY, Ins.GENERAL_AUTHENTICATE]
