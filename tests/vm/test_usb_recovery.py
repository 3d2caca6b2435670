# SPDX-License-Identifier: Apache-2.0
"""The USB steps of recovery on a real kernel, and on a reader and a card that nobody here wrote.

One machine runs all checks in order (tests/vm/guest/usb_recovery.py); each test here judges the evidence of one, and
the signature that pcscd and OpenSC made after it.
"""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate

from vm.guest.card import MESSAGE
from vm.machine import CARD_PIN, Outcome, image, new_card, run_machine

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]


class Machine:
    """The outcome of the one run, and the card's public key."""

    def __init__(self, outcome: Outcome, key: rsa.RSAPublicKey) -> None:
        self._outcome, self._key = outcome, key

    def check(self, name: str) -> dict[str, Any]:
        evidence = self._outcome.checks[name]
        assert "failed" not in evidence, evidence["failed"]
        return evidence

    def signed(self, name: str, evidence: dict[str, Any]) -> None:
        assert evidence["signature"]["status"] == 0, evidence["signature"]["said"]
        signature = (self._outcome.results / f"{name}.sig").read_bytes()
        self._key.verify(signature, MESSAGE, padding.PKCS1v15(), SHA256())


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    made = image()
    folder = tmp_path_factory.mktemp("vm")
    card = new_card(folder / "card")
    results = folder / "results"
    results.mkdir()
    (results / "pin").write_text(CARD_PIN)
    devices = (
        *("-device", "piix3-usb-uhci,id=uhci", "-device", "usb-hub,bus=uhci.0,port=1,port-power=on"),
        *("-device", "usb-mouse,bus=uhci.0,port=2", "-device", "usb-ccid,bus=uhci.0,port=1.1"),
        *("-device", f"ccid-card-emulated,backend=certificates,cert1=cert1,cert2=cert2,cert3=cert3,db=sql:{card}"),
    )
    outcome = run_machine(made, program="usb_recovery.py", devices=devices, results=results)
    key = load_pem_x509_certificate((card / "cert1.pem").read_bytes()).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    return Machine(outcome, key)


def test_the_devices_are_found(machine: Machine) -> None:
    found = machine.check("finds")

    assert [device["bus_id"] for device in found["devices"]] == ["1-1", "1-1.1", "1-2"]
    assert [device["device_class"] for device in found["devices"]] == [9, 0, 0]
    assert (found["reader"]["product"], found["reader"]["is_reader"]) == ("QEMU USB CCID", True)
    assert found["reader"]["node"] == f"/dev/bus/usb/001/{found['reader']['device_number']:03d}"
    assert found["agree"]
    assert found["hub"] == "usb.is_hub"


def test_the_card_signs_at_all(machine: Machine) -> None:
    machine.signed("signs", machine.check("signs"))


@pytest.mark.parametrize("name", ["resets", "resets_what_a_frozen_pcscd_holds"])
def test_a_reset_under_a_running_pcscd(machine: Machine, name: str) -> None:
    found = machine.check(name)

    number = found["before"]["device_number"]
    assert any(f"usb 1-1.1: reset full-speed USB device number {number} " in line for line in found["log"])
    assert found["after"] == found["before"]
    assert found["signature"]["pcscd"] == machine.check("signs")["signature"]["pcscd"]
    machine.signed(name, found)


@pytest.mark.parametrize("name", ["cycles_by_the_kernel", "cycles_by_the_hub"])
def test_a_power_cycle_under_a_running_pcscd(machine: Machine, name: str) -> None:
    found = machine.check(name)

    gone, come = found["before"]["device_number"], found["after"]["device_number"]
    assert come != gone
    went = [line for line in found["log"] if f"usb 1-1.1: USB disconnect, device number {gone}" in line]
    came = [line for line in found["log"] if f"usb 1-1.1: new full-speed USB device number {come} " in line]
    assert len(went) == len(came) == 1
    # It stayed without power for the second that was asked for. QEMU's hub tells the kernel when the power is back.
    assert found.get("seconds_without_power", moment(came[0]) - moment(went[0])) >= 0.8
    machine.signed(name, found)


def moment(line: str) -> float:
    return float(line.partition("]")[0].strip("[ "))


def test_a_hub_without_switches_is_refused(machine: Machine) -> None:
    found = machine.check("refuses_a_hub_without_switches")

    assert found["code"] == "usb.no_port_power"
    assert found["after"] == found["mouse"]


def test_the_kernels_events_are_heard(machine: Machine) -> None:
    found = machine.check("hears_of_devices")

    assert found["is_told"]
    assert found["seconds"] < 20


def test_pcscd_is_restarted_by_a_configured_command(machine: Machine) -> None:
    found = machine.check("restarts_pcscd")

    assert found["signature"]["pcscd"] != machine.check("signs")["signature"]["pcscd"]
    machine.signed("restarts_pcscd", found)


def test_the_rules_let_the_agents_account_at_readers_and_ports_and_no_more(machine: Machine) -> None:
    found = machine.check("needs_its_rules")

    assert found["without"] == {"reset": "usb.denied", "reset_mouse": "usb.denied", "cycle": "usb.denied"}
    assert found["with"] == {"reset": "", "reset_mouse": "usb.denied", "cycle": ""}
    assert any("usb 1-1.1: reset full-speed" in line for line in found["log"])
    assert any("usb 1-1.1: USB disconnect" in line for line in found["log"])
    machine.signed("rules", found)
