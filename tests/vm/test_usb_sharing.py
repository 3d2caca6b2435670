# SPDX-License-Identifier: Apache-2.0
"""Shared devices on a real kernel: exported from usbdevfs, attached to vhci_hcd, used by libccid, pcscd and OpenSC.

One machine runs all checks in order (tests/vm/guest/usb_sharing.py); each test here judges the evidence of one. With
CHECKS in the environment the machine runs the checks alone that it names.
"""

import asyncio
import hashlib
import json
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate

from lab.piv.ccid import CcidToken
from lab.piv.keys import load_or_make_keys
from lab.piv.station import Station
from privyseal.usb.exporter import EndedBy, Exporter, SessionReport
from privyseal.usb.streams import SocketStream
from virtual_usb import VirtualBus
from vm.guest.card import MESSAGE
from vm.machine import CARD_PIN, Outcome, image, new_card, run_machine

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

PIN = "731946"
DISK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """The outcome of the one run, the public keys of both cards, and what our exporter on this host told."""

    outcome: Outcome
    qemus_key: rsa.RSAPublicKey
    labs_key: rsa.RSAPublicKey
    reports: list[SessionReport]
    token: CcidToken

    def check(self, name: str) -> dict[str, Any]:
        evidence = self.outcome.checks[name]
        assert "failed" not in evidence, evidence["failed"]
        return evidence

    def signed(self, name: str, signature: dict[str, Any], *, key: rsa.RSAPublicKey | None = None) -> None:
        assert signature["status"] == 0, signature["said"]
        data = (self.outcome.results / f"{name}.sig").read_bytes()
        (key or self.qemus_key).verify(data, MESSAGE, padding.PKCS1v15(), SHA256())


@contextmanager
def exporting(bus: VirtualBus) -> Iterator[tuple[int, list[SessionReport]]]:
    """Export a virtual device on a port of this host, in a thread of its own."""
    loop = asyncio.new_event_loop()
    reports: list[SessionReport] = []

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reports.append(await Exporter(bus).serve(SocketStream(reader, writer)))

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(session, "127.0.0.1", 0), loop).result(10)
    try:
        yield server.sockets[0].getsockname()[1], reports
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sharing]:
    made = image()
    folder = tmp_path_factory.mktemp("vm")
    card = new_card(folder / "card")
    (folder / "keys").mkdir()
    keys = load_or_make_keys(folder / "keys", {0x9A: "rsa2048"})
    results = folder / "results"
    results.mkdir()
    disk = folder / "disk"
    (results / "pin").write_text(CARD_PIN)
    devices = (
        *("-device", "piix3-usb-uhci,id=uhci", "-device", "usb-hub,bus=uhci.0,port=1,port-power=on"),
        *("-device", "usb-ccid,bus=uhci.0,port=1.1"),
        *("-device", f"ccid-card-emulated,backend=certificates,cert1=cert1,cert2=cert2,cert3=cert3,db=sql:{card}"),
        *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"),
        *("-drive", f"file={disk},if=none,id=disk,format=raw", "-device", "usb-storage,bus=uhci.0,port=2,drive=disk"),
    )
    disk.write_bytes(random.Random(7).randbytes(DISK_BYTES))
    bus = VirtualBus()
    token = CcidToken(Station(keys, pin=PIN), bus)
    with exporting(bus) as (port, reports):
        (results / "given.json").write_text(
            json.dumps({"port": port, "pin": PIN, "checks": os.environ.get("CHECKS", "")})
        )
        outcome = run_machine(made, program="usb_sharing.py", devices=devices, results=results)
    yield Sharing(
        outcome=outcome,
        qemus_key=public_key(load_pem_x509_certificate((card / "cert1.pem").read_bytes()).public_key()),
        labs_key=public_key(keys[0x9A].private_key.public_key()),
        reports=reports,
        token=token,
    )
    token.unplug()


def public_key(key: object) -> rsa.RSAPublicKey:
    assert isinstance(key, rsa.RSAPublicKey)
    return key


def ended_well(report: dict[str, Any], by: EndedBy = EndedBy.CLIENT) -> None:
    assert report["ended_by"] == by, report
    assert (report["was_imported"], report["was_powered_off"], report["was_reset"]) == (True, True, True), report


def test_the_reader_signs_where_it_is(sharing: Sharing) -> None:
    sharing.signed("signs_where_it_is", sharing.check("signs_where_it_is")["signature"])


def test_a_device_that_pcscd_uses_is_not_taken_from_it(sharing: Sharing) -> None:
    found = sharing.check("is_refused_while_pcscd_has_it")

    assert found["said"] == {"code": "usb.export_busy"}
    assert "usb.in_use" in found["report"]["reason"]
    assert not found["report"]["was_imported"]
    for name in ("before", "after"):
        sharing.signed(name, found[name])
    assert found["before"]["pcscd"] == found["after"]["pcscd"]


def test_ours_to_ours_and_the_device_is_given_back(sharing: Sharing) -> None:
    found = sharing.check("signs_through_ours")

    sharing.signed("signs_through_ours", found["signature"])
    sharing.signed("given_back", found["local"])
    assert found["driver"] == "usbfs"
    # The exported device itself, when it is given back.
    assert any("usb 1-1.1: reset full-speed USB device" in line for line in found["log"])
    assert "127.0.0.1:3241/1-1.1" in found["listed"]
    ended_well(found["report"])
    assert found["report"]["errors"] == 0
    assert (found["detached"], found["records"], found["ports"]) == ({"did_the_stream_end": False}, [], [])


def test_the_stock_client_lists_attaches_detaches_and_attaches_again(sharing: Sharing) -> None:
    found = sharing.check("is_attached_by_the_stock_client")

    assert "1-1.1" in found["listed"]
    assert "08e6:4433" in found["listed"]
    assert not found["asked"]["was_imported"]
    for turn, evidence in enumerate(found["rounds"]):
        sharing.signed(f"stock_{turn}", evidence["signature"])
        ended_well(evidence["report"])
    assert found["ports"] == []


def test_our_client_attaches_from_the_kernels_server(sharing: Sharing) -> None:
    found = sharing.check("attaches_from_the_kernels_server")

    sharing.signed("from_the_kernels_server", found["signature"])
    sharing.signed("kernel_to_kernel", found["kernels"]["signature"])
    assert found["said"] == {"port": 0}
    assert (found["detached"], found["ports"]) == ({"did_the_stream_end": False}, [])
    assert found["our_urbs"]["count"] == found["urbs"]["count"] == 300
    ended_well(found["report"])


def test_of_two_clients_one_has_it(sharing: Sharing) -> None:
    found = sharing.check("two_clients_at_once")

    assert (found["said"], found["refused"]) == ({"port": 0}, {"code": "usb.export_busy"})
    assert "usb.in_use" in found["report"]["reason"]
    sharing.signed("two_clients", found["signature"])
    ended_well(found["last"])


def test_a_frozen_client_does_not_keep_a_device(sharing: Sharing) -> None:
    found = sharing.check("a_lease_ends_under_a_frozen_client")

    sharing.signed("during", found["during"])
    ended_well(found["report"], EndedBy.US)
    assert found["seconds"] < 15
    assert found["driver"] == ""
    assert (found["still"], found["ports"]) == ([0], [])
    assert found["detached"] == {"did_the_stream_end": True}
    sharing.signed("after_a_frozen_client", found["local"])


def test_a_frozen_exporter_does_not_keep_a_port(sharing: Sharing) -> None:
    found = sharing.check("a_client_detaches_from_a_frozen_exporter")

    assert found["detached"] == {"did_the_stream_end": False}
    assert found["seconds"] < 15
    assert found["ports"] == []
    ended_well(found["report"])


def test_a_killed_exporter_keeps_nothing(sharing: Sharing) -> None:
    found = sharing.check("the_exporter_is_killed")

    sharing.signed("before_a_kill", found["during"])
    assert (found["detached"], found["driver"], found["ports"]) == ({"did_the_stream_end": True}, "", [])
    sharing.signed("after_a_kill", found["local"])


def test_an_unplugged_device_ends_both_sides_and_is_attached_again(sharing: Sharing) -> None:
    found = sharing.check("is_unplugged")

    sharing.signed("before_unplugging", found["during"])
    assert (found["report"]["ended_by"], found["report"]["was_reset"]) == (EndedBy.DEVICE_GONE, False)
    assert found["detached"] == {"did_the_stream_end": True}
    sharing.signed("after_unplugging", found["signature"])
    ended_well(found["last"])


def test_a_kernel_signs_with_the_virtual_token_of_this_host(sharing: Sharing) -> None:
    found = sharing.check("signs_through_the_hosts_exporter")

    for name, evidence in zip(("virtual_ours", "virtual_stock"), found["rounds"], strict=True):
        sharing.signed(name, evidence["signature"], key=sharing.labs_key)
    assert [report.ended_by for report in sharing.reports] == [EndedBy.CLIENT] * 2
    assert all(report.was_powered_off and report.was_reset for report in sharing.reports)
    state = sharing.token.station.state
    assert (state.operations, state.pins_refused) == (4, 0)


def test_a_disk_is_read_and_written_and_given_back_to_its_driver(sharing: Sharing) -> None:
    found = sharing.check("moves_a_disk")
    before = random.Random(7).randbytes(DISK_BYTES)
    after = before[: 1 << 20] + b"written over USB/IP".ljust(1 << 20, b".") + before[2 << 20 :]

    assert found["read"] == hashlib.sha256(before).hexdigest()
    assert found["local"] == hashlib.sha256(after).hexdigest()
    assert (sharing.outcome.results.parent / "disk").read_bytes() == after
    assert found["drivers"] == ["usb-storage", "usbfs", "usb-storage"]
    report = found["report"]
    assert (report["ended_by"], report["was_reset"], report["was_powered_off"]) == (EndedBy.CLIENT, True, None)


def test_the_agents_account_exports_by_its_rules(sharing: Sharing) -> None:
    found = sharing.check("serves_as_the_agents_account")

    assert found["refused"] == {"code": "usb.export_failed"}
    assert "usb.denied" in found["denied"]["reason"]
    sharing.signed("as_the_account", found["signature"])
    ended_well(found["report"])
