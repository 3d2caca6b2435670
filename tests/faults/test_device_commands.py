# SPDX-License-Identifier: Apache-2.0
"""`privyseal device`: its commands as programs against a hub and an agent that lends a virtual token."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from described_vhci import DescribedVhci
from device_site import DEVICE, SLOT, DeviceSite, device_site
from lab.piv.keys import CardKey, load_or_make_keys
from privyseal.cli.device_run import run_command
from privyseal.client.lease_request import LeaseWish
from privyseal.errors import ConfigError, UsbError
from privyseal.usb.vhci import Vhci
from programs import Outcome, Running, privyseal, refused, succeeded
from usb_tree import DescribedKernel, UsbTree

T = TypeVar("T")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CardKey]:
    return load_or_make_keys(tmp_path_factory.mktemp("keys"), {SLOT: "p256"})


@pytest.fixture
async def site(tmp_path: Path, keys: dict[int, CardKey]) -> AsyncIterator[DeviceSite]:
    async with device_site(tmp_path, keys) as made:
        yield made


async def beside(call: Callable[[], T]) -> T:
    return await asyncio.to_thread(call)


async def command(site: DeviceSite, *words: str, client: str = "client") -> Outcome:
    config = site.directory / f"{client}.toml"
    return await beside(lambda: privyseal("device", *words, config=config, cwd=site.directory))


class Attached:
    """`privyseal device attach --port 0` as a program, and the stranger's client at its port."""

    def __init__(self, site: DeviceSite, client: str, *words: str) -> None:
        self._site = site
        self.program = Running(
            "device", "attach", DEVICE, "--port", "0", "--json", *words,
            said=site.directory / f"attach-{client}", more={"PRIVYSEAL_CONFIG": str(site.directory / f"{client}.toml")},
        )  # fmt: skip
        self.handle: Any = None

    def _look(self, pattern: str) -> re.Match[str] | None:
        assert self.program.process.poll() is None, self.program.log
        return re.search(pattern, self.program.log)

    async def said(self, pattern: str) -> re.Match[str]:
        await self._site.until(lambda: self._look(pattern) is not None)
        found = self._look(pattern)
        assert found is not None
        return found

    async def connected(self) -> "Attached":
        port = int((await self.said(r"--tcp-port (\d+) attach -r 127.0.0.1 -b 1-1\n"))[1])
        self.handle = await self._site.opened_at(port)
        await self._site.until(lambda: any(one["event"] == "attached" for one in self.events))
        return self

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.program.out.read_text().splitlines()]

    async def ended(self) -> int:
        return await beside(lambda: self.program.process.wait(timeout=20))


async def test_attach_leases_and_ctrl_c(site: DeviceSite) -> None:
    first = await Attached(site, "client", "--for", "5m", "--reason", "release 7").connected()
    second = Attached(site, "other", "--reason", "next")
    await second.said(r"waiting for ev-usb: 1 before this; client client has it \(release 7\), until [0-9:]+Z at most")

    found = succeeded(await command(site, "leases", "--json")).document["leases"]
    assert [(one["client"], one["state"], one["reason"]) for one in found] == [
        ("client", "lent", "release 7"),
        ("other", "waiting", "next"),
    ]
    lines = succeeded(await command(site, "leases")).out.splitlines()
    assert re.fullmatch(r"ev-usb +client +lent +[0-9:]{8}Z +[0-9:]{8}Z +normal +release 7 +[0-9a-f]{16}", lines[1])
    assert re.fullmatch(r"ev-usb +other +waiting +[0-9:]{8}Z +for 10 min 00 s +normal +next +[0-9a-f]{16}", lines[2])
    listed = succeeded(await command(site, "list", "--json")).document
    assert [(one["name"], one["waiting"]) for one in listed["devices"]] == [(DEVICE, 1)]
    assert listed["hub_round_trip_ms"] > 0
    told = succeeded(await command(site, "list")).out
    assert re.search(r"ev-usb +pi +lent +client \(release 7\)", told)
    assert "about 100 round trips to its agent" in told
    refused(
        await command(site, "attach", DEVICE, "--port", "0", "--no-wait", "--json", client="other"), 8, "device.in_use"
    )

    first.program.signal(signal.SIGINT)
    assert await first.ended() == 0, first.program.log
    assert [one["event"] for one in first.events] == ["attached", "ended"]
    ended = first.events[-1]
    assert (ended["ended_by"], ended["problem"], ended["report"]["device"]) == ("holder", None, DEVICE)
    assert ended["receipt"].startswith("c2sp.org/tlog-proof@v1")
    await second.connected()
    second.program.signal(signal.SIGTERM)
    assert await second.ended() == 0


async def test_ctrl_c_while_waiting(site: DeviceSite) -> None:
    first = await Attached(site, "client").connected()
    second = Attached(site, "other")
    await second.said("waiting for ev-usb")
    second.program.signal(signal.SIGINT)
    assert await second.ended() == 130
    assert "Traceback" not in second.program.log
    assert [one.client for one in (await site.device()).leases] == ["client"]
    first.program.signal(signal.SIGINT)
    assert await first.ended() == 0


async def test_detach_from_another_shell(site: DeviceSite) -> None:
    refused(await command(site, "detach", DEVICE, "--json"), 2, "device.not_held")
    first = await Attached(site, "client").connected()
    refused(await command(site, "detach", DEVICE, client="other"), 2, "device.not_held")

    out = succeeded(await command(site, "detach", DEVICE)).out
    assert out == "asked client to give ev-usb back\n"
    assert await first.ended() == 8
    assert "[device.taken]" in first.program.log
    assert first.events[1]["ended_by"] == "taken"


async def test_kick(site: DeviceSite) -> None:
    refused(await command(site, "kick", DEVICE, "--reason", "x"), 2, "device.not_held")
    first = await Attached(site, "client", "--keep").connected()
    refused(await command(site, "kick", DEVICE), 2, "usage.arguments")
    out = succeeded(await command(site, "kick", DEVICE, "--reason", "the release goes first: Schlüssel")).out
    assert out == "asked client to give ev-usb back\n"

    await first.said(r"it was taken back \(it was asked back: the release goes first: Schlüssel\)")
    again = await first.said(r"it is asked for again in (\d+) s")
    assert 60 <= int(again[1]) <= 120
    first.program.signal(signal.SIGTERM)
    assert await first.ended() == 0


async def test_a_killed_client_leaves_the_device_to_the_next(site: DeviceSite) -> None:
    first = await Attached(site, "client").connected()
    second = Attached(site, "other")
    await second.said("waiting for ev-usb")
    first.program.kill()
    await second.connected()
    second.program.signal(signal.SIGINT)
    assert await second.ended() == 0


async def test_what_cannot_be_had(site: DeviceSite) -> None:
    refused(await command(site, "attach", "nothing", "--json"), 2, "device.unknown")
    refused(await command(site, "attach", DEVICE, "--json", client="stranger"), 4, "policy.profile")
    refused(await command(site, "attach", DEVICE, "--for", "soon"), 2, "device.duration")
    refused(await command(site, "run", DEVICE), 2, "usage.arguments")
    site.bus.stop()
    refused(await command(site, "attach", DEVICE, "--json", "--port", "0"), 8, "usb.not_found")
    await site.announce(UsbError("usb.not_found", "no USB device fits 0529:0620", hint="insert it"))
    told = succeeded(await command(site, "list")).out
    assert re.search(r"ev-usb +pi +not there", told)
    assert "  ev-usb: no USB device fits 0529:0620 [usb.not_found]\n    next: insert it" in told


async def test_status_and_doctor_tell_of_devices(site: DeviceSite) -> None:
    config = site.directory / "client.toml"
    status = succeeded(await beside(lambda: privyseal("status", config=config))).out
    assert re.search(r"DEVICE +AGENT +STATE.*\nev-usb +pi +free", status)
    assert "KEY PROFILE" not in status
    doctor = await beside(lambda: privyseal("doctor", config=config))
    assert re.search(r"device ev-usb.*free", doctor.out), doctor.out
    assert "key profiles" not in doctor.out
    exe = site.directory / "app.exe"
    exe.write_bytes(b"MZ")
    found = await beside(lambda: privyseal("sign", "--key", DEVICE, str(exe), config=config))
    assert found.code != 0
    assert "Traceback" not in found.err


class AttachingVhci(DescribedVhci):
    """A virtual controller whose kernel shows the device."""

    def __init__(self, folder: Path, tree: UsbTree, **device: Any) -> None:
        super().__init__(folder)
        self.tree, self.device = tree, device

    def write(self, path: Path, text: str) -> None:
        super().write(path, text)
        if path.name == "attach":
            self.tree.attach("3-1", number=9, host="platform/vhci_hcd.0", **self.device)


@pytest.fixture
def tree(tmp_path: Path) -> UsbTree:
    (tmp_path / "host").mkdir()
    return UsbTree(tmp_path / "host")


def described(tmp_path: Path, tree: UsbTree, **more: Any) -> Vhci:
    (tmp_path / "vhci").mkdir()
    return AttachingVhci(tmp_path / "vhci", tree, **more).vhci


async def test_run_a_command_while_the_device_is_there(site: DeviceSite, tmp_path: Path, tree: UsbTree) -> None:
    tree.attach("2-1", number=4, host="platform/vhci_hcd.0")  # the same kind of token, and not the one
    vhci, kernel, out = described(tmp_path, tree), DescribedKernel(), tmp_path / "out"
    reader = tree.sysfs / "3-1" / "3-1:1.0"
    kernel.then = [lambda: None] * 3

    async def pcscd() -> None:
        await site.until(reader.is_dir)
        (reader / "driver").symlink_to("../../../bus/usb/drivers/usbfs")

    words = ("sh", "-c", f'echo "$PRIVYSEAL_DEVICE $PRIVYSEAL_DEVICE_BUS_ID" > {out}; exit 3')
    taking = asyncio.create_task(pcscd())
    end, code = await run_command(site.devices(), LeaseWish(device=DEVICE), words, host=kernel.host(tree), vhci=vhci)
    await taking

    assert (code, out.read_text()) == (3, "ev-usb 3-1\n")
    assert end.ended_by == "holder"
    assert end.recorded is not None
    assert all(port.is_free for port in vhci.ports())
    assert not site.bus.is_held


async def test_run_where_the_kernel_shows_something_else(site: DeviceSite, tmp_path: Path, tree: UsbTree) -> None:
    vhci, kernel = described(tmp_path, tree, ids="1050:0407"), DescribedKernel()
    with pytest.raises(UsbError, match="does not show 0529:0620") as caught:
        await run_command(
            site.devices(),
            LeaseWish(device=DEVICE),
            ("true",),
            host=kernel.host(tree),
            vhci=vhci,
            seen_seconds=0.2,
        )
    assert caught.value.code == "device.not_seen"
    assert all(port.is_free for port in vhci.ports())
    await site.until(lambda: not site.bus.is_held)


async def test_run_what_is_no_command(site: DeviceSite, tmp_path: Path, tree: UsbTree) -> None:
    vhci, kernel = described(tmp_path, tree, classes=(0xFF,)), DescribedKernel()
    with pytest.raises(ConfigError, match="cannot run") as caught:
        await run_command(site.devices(), LeaseWish(device=DEVICE), ("/no/such",), host=kernel.host(tree), vhci=vhci)
    assert caught.value.code == "device.command"
    await site.until(lambda: not site.bus.is_held)


async def test_a_command_that_outlives_its_lease(
    site: DeviceSite, tmp_path: Path, tree: UsbTree, capsys: pytest.CaptureFixture[str]
) -> None:
    vhci, kernel = described(tmp_path, tree, classes=(0xFF,)), DescribedKernel()
    wait = ("sh", "-c", f"while ! test -e {tmp_path / 'over'}; do sleep 0.05; done")
    wish = LeaseWish(device=DEVICE, seconds=1)
    running = asyncio.create_task(run_command(site.devices(), wish, wait, host=kernel.host(tree), vhci=vhci))
    await site.until(
        lambda: site.bus.holds == 1 and not site.bus.is_held and all(port.is_free for port in vhci.ports())
    )
    (tmp_path / "over").touch()
    end, code = await running
    assert (end.ended_by, code) == ("time", 0)
    assert "the lease of ev-usb has ended; the command goes on without it" in capsys.readouterr().err


async def test_run_without_a_virtual_controller_asks_for_nothing(site: DeviceSite, tmp_path: Path) -> None:
    with pytest.raises(UsbError) as caught:
        await run_command(site.devices(), LeaseWish(device=DEVICE), ("true",), vhci=Vhci(folder=tmp_path / "none"))
    assert caught.value.code == "usb.no_vhci"
    assert site.holders == []
