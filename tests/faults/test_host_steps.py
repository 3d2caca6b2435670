# SPDX-License-Identifier: Apache-2.0
"""The steps of the token's host: only those that agent.toml names, each with real programs, and a reboot once a day."""

import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lab.fault_shim import FaultyToken, around
from privyseal.agent.config import RecoveryTable, TokenTable
from privyseal.agent.host_steps import host_steps
from privyseal.agent.ladder import Rung
from privyseal.agent.recovery import RecoveringToken
from privyseal.errors import ConfigError, PrivysealError, TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.factory import open_token
from privyseal.usb.host import UsbHost
from softhsm import EC_ID, fresh_softhsm


def table(**changes: object) -> TokenTable:
    return TokenTable(name="lab", kind="pkcs11", **changes)  # type: ignore[arg-type]


def touching(path: Path) -> tuple[str, ...]:
    """A command that leaves a line for each time it was run."""
    return (sys.executable, "-c", f"open({str(path)!r}, 'a').write('run\\n')")


def test_nothing_is_done_that_is_not_configured(tmp_path: Path) -> None:
    assert host_steps(table(), RecoveryTable(), tmp_path) == {}
    assert set(host_steps(table(usb="0529:0620"), RecoveryTable(), tmp_path)) == {Rung.USB_RESET}
    everything = RecoveryTable(restart_pcscd=("true",), reboot=("true",))
    assert set(host_steps(table(usb="1-1.4", port_power=True), everything, tmp_path)) == {
        Rung.USB_RESET,
        Rung.PORT_POWER,
        Rung.PCSCD,
        Rung.REBOOT,
    }


def test_a_device_that_nobody_can_mean_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        host_steps(table(usb="my token"), RecoveryTable(), tmp_path)

    assert caught.value.code == "usb.selector"


async def test_a_reboot_is_asked_for_once_a_day_also_over_reboots(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    recovery = RecoveryTable(reboot=touching(asked))
    await host_steps(table(), recovery, tmp_path)[Rung.REBOOT]()
    for _ in range(2):  # as after a reboot: nothing is in memory
        with pytest.raises(TokenError) as caught:
            await host_steps(table(), recovery, tmp_path)[Rung.REBOOT]()
        assert caught.value.code == "token.rebooted"
    assert asked.read_text() == "run\n"

    yesterday = time.time() - 90_000
    os.utime(tmp_path / "reboot.asked", (yesterday, yesterday))
    await host_steps(table(), recovery, tmp_path)[Rung.REBOOT]()

    assert asked.read_text() == "run\nrun\n"


async def test_a_reboot_that_cannot_be_remembered_is_not_asked_for(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    reboot = host_steps(table(), RecoveryTable(reboot=touching(asked)), tmp_path / "gone")[Rung.REBOOT]
    with pytest.raises(TokenError) as caught:
        await reboot()

    assert caught.value.code == "token.reboot_mark"
    assert not asked.exists()


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


@asynccontextmanager
async def recovering(faulty: FaultyToken, recovery: RecoveryTable, **usb: object) -> AsyncIterator[RecoveringToken]:
    taken: list[str] = []

    async def told(rung: Rung, error: PrivysealError, outcome: str) -> None:
        taken.append(f"{rung.value} {error.code} {outcome}")

    host = UsbHost(sysfs=faulty.hsm.directory / "usb", nodes=faulty.hsm.directory / "nodes")
    token = RecoveringToken(
        open_token(faulty.config()),
        told=told,
        steps=host_steps(table(**usb), recovery, faulty.hsm.directory, host),
        pause_seconds=0.001,
    )
    try:
        yield token
    finally:
        faulty.heal()
        await token.close()


async def test_pcscd_is_restarted_by_its_command_when_nothing_less_helps(faulty: FaultyToken, tmp_path: Path) -> None:
    runs, control = tmp_path / "runs", faulty.hsm.directory / "shim.control"
    heals = (sys.executable, "-c", f"import os; open({str(runs)!r}, 'a').write('run\\n'); os.unlink({str(control)!r})")
    async with recovering(faulty, RecoveryTable(restart_pcscd=heals)) as token:
        await token.keys()
        faulty.break_with("C_SignInit rv 30")

        assert await token.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=bytes(32))

        assert runs.read_text() == "run\n"
        assert token.signing.steps == {Rung.SESSION: 1, Rung.MODULE: 1, Rung.WORKER: 1, Rung.PCSCD: 1}


async def test_a_command_that_fails_is_a_step_that_failed(faulty: FaultyToken) -> None:
    async with recovering(faulty, RecoveryTable(restart_pcscd=(sys.executable, "-c", "exit(3)"))) as token:
        faulty.break_with("C_SignInit rv 30")
        with pytest.raises(TokenError) as caught:
            await token.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=bytes(32))

        assert (caught.value.ckr, caught.value.function) == (0x30, "C_SignInit"), "what is told is the token's failure"


async def test_a_device_that_is_not_attached_needs_no_reboot(faulty: FaultyToken, tmp_path: Path) -> None:
    (faulty.hsm.directory / "usb").mkdir()
    asked = tmp_path / "asked"
    recovery = RecoveryTable(restart_pcscd=touching(asked), reboot=touching(asked))
    async with recovering(faulty, recovery, usb="0529:0620") as token:
        faulty.break_with("C_SignInit rv 30")
        with pytest.raises(TokenError):
            await token.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=bytes(32))

        assert token.signing.steps[Rung.USB_RESET] == 1
        assert not asked.exists()
