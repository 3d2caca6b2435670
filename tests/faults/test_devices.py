# SPDX-License-Identifier: Apache-2.0
"""A virtual token borrowed through a real hub by our client, and used by one that we did not write."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import usbip

from device_site import AGENT, DEVICE, PIN, SLOT, DeviceSite, device_site
from lab.piv.apdu import Ins
from lab.piv.keys import CardKey, load_or_make_keys
from lab.piv.tlv import encode
from privyseal.client.device_use import LoopbackUse, offer_at_port
from privyseal.client.devices import HeldLease, LeaseEnd, Turn
from privyseal.client.hub import HubClient
from privyseal.client.lease_request import LeaseWish, recorded_lease
from privyseal.errors import ConfigError, DeniedError, PrivysealError, UsbError, VerificationError
from privyseal.hub.wiring import open_hub
from privyseal.tlog.entry import Intent, Lease, Result
from privyseal.wire.leases import encode_report, read_report
from privyseal.wire.relay import Notice
from virtual_usb import SELECT, CcidHost

VERIFY = bytes.fromhex("0020008008") + PIN.encode().ljust(8, b"\xff")
SIGN_DATA = encode(0x7C, encode(0x82), encode(0x81, bytes(32)))
SIGN = bytes((0, Ins.GENERAL_AUTHENTICATE, 0x11, SLOT, len(SIGN_DATA))) + SIGN_DATA + b"\0"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CardKey]:
    return load_or_make_keys(tmp_path_factory.mktemp("keys"), {SLOT: "p256"})


@pytest.fixture
async def site(tmp_path: Path, keys: dict[int, CardKey]) -> AsyncIterator[DeviceSite]:
    async with device_site(tmp_path, keys) as made:
        yield made


async def borrowed(site: DeviceSite, name: str = "client", **wish: Any) -> tuple[HeldLease, LoopbackUse, Any]:
    """A lease, its use, and the stranger's client with the device."""
    held = await site.devices(name).borrow(LeaseWish(device=DEVICE, **wish))
    ports: asyncio.Queue[int] = asyncio.Queue()
    offering = asyncio.create_task(offer_at_port(held, 0, ports.put_nowait))
    opening = asyncio.create_task(site.opened_at(await ports.get(), held.bus_id))
    return held, await offering, await opening


async def finished(held: HeldLease, use: LoopbackUse) -> LeaseEnd:
    await use.detach()
    assert not held.channel._is_closing, "the agent has the last word"
    async with asyncio.timeout(20):
        return await held.finish()


def sign(handle: Any) -> None:
    host = CcidHost(handle)
    host.power_on()
    assert host.transmit(SELECT)[-2:] == b"\x90\0"
    assert host.transmit(VERIFY) == b"\x90\0"
    assert host.transmit(SIGN)[-2:] == b"\x90\0"


async def test_a_lease_is_used_and_what_was_counted_is_on_record(site: DeviceSite) -> None:
    held, use, handle = await borrowed(site, reason="new certificate", seconds=300)
    lent = (await site.device("other")).lent
    assert lent is not None
    assert (lent.client, lent.reason, lent.seconds) == ("client", "new certificate", 300)
    assert lent.since_ms is not None
    assert lent.until_ms == lent.since_ms + 300_000

    await asyncio.to_thread(sign, handle)
    end = await finished(held, use)

    assert (end.ended_by, end.problem) == ("holder", None)
    assert end.recorded is not None
    assert end.recorded.report.total("private-key-operation", "ok") == 1
    assert (end.recorded.report.unproven, end.recorded.report.clean) == ((), True)
    assert (await site.device()).leases == ()
    entries = await site.entries()
    (intent,) = [one for one in entries if isinstance(one, Intent)]
    (result,) = [one for one in entries if isinstance(one, Result)]
    assert entries[end.recorded.log_index] == result
    assert entries.index(intent) < entries.index(result)
    await site.until(lambda: site.hub.hub.store.head.size > len(entries) or any(isinstance(e, Lease) for e in entries))
    (lease,) = [one for one in await site.entries() if isinstance(one, Lease)]
    assert (lease.request, lease.operations) == (held.request_id, 1)


async def test_the_second_client_waits_and_then_gets_it(site: DeviceSite) -> None:
    held, use, _ = await borrowed(site)
    turns: list[Turn] = []
    wish = LeaseWish(device=DEVICE, reason="next")
    second = asyncio.create_task(site.devices("other").borrow(wish, waits=turns.append))
    await site.until(lambda: bool(turns))
    device = await site.device()
    assert [(one.client, one.state) for one in device.leases] == [("client", "lent"), ("other", "waiting")]
    assert device.waiting == 1
    assert turns[0].before == 1
    assert turns[0].device is not None
    assert turns[0].device.lent is not None
    assert turns[0].device.lent.client == "client"

    assert (await finished(held, use)).ended_by == "holder"
    async with asyncio.timeout(20):
        lease = await second
    assert (await lease.finish()).ended_by == "holder"


async def test_who_does_not_wait_is_told_who_has_it(site: DeviceSite) -> None:
    held, use, _ = await borrowed(site, reason="release 7")
    with pytest.raises(UsbError, match=r"client 'client' has it \(release 7\)") as caught:
        await site.devices("other").borrow(LeaseWish(device=DEVICE, wait_seconds=0))
    assert (caught.value.code, caught.value.exit_status) == ("device.in_use", 8)
    with pytest.raises(UsbError):
        await site.devices("other").borrow(LeaseWish(device=DEVICE, wait_seconds=0.5))
    assert [one.client for one in (await site.device()).leases] == ["client"], "nobody waits any more"
    await finished(held, use)


async def test_who_stops_waiting_leaves_the_queue(site: DeviceSite) -> None:
    held, use, _ = await borrowed(site)
    turns: list[Turn] = []
    second = asyncio.create_task(site.devices("other").borrow(LeaseWish(device=DEVICE), waits=turns.append))
    await site.until(lambda: bool(turns))
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert [one.client for one in (await site.device()).leases] == ["client"]
    await finished(held, use)


async def test_a_lease_ends_when_its_time_is_over(site: DeviceSite) -> None:
    held, use, handle = await borrowed(site, seconds=1)
    async with asyncio.timeout(20):
        await use.ended()
    with pytest.raises((usbip.USBError, OSError)):
        await asyncio.to_thread(CcidHost(handle).transmit, SELECT)
    end = await held.finish()
    assert (end.ended_by, end.reason) == ("time", "its 1 s are over")
    assert end.recorded is not None


async def test_an_administrator_takes_it_back(site: DeviceSite) -> None:
    held, use, _ = await borrowed(site)
    await asyncio.to_thread(site.desk().cancel_request, held.request_id)
    async with asyncio.timeout(20):
        await use.ended()
    end = await held.finish()
    assert end.ended_by == "taken"
    assert not site.bus.is_held


async def test_the_holder_ends_it_from_elsewhere(site: DeviceSite) -> None:
    held, use, _ = await borrowed(site)
    await asyncio.to_thread(HubClient(site.client()).cancel, held.request_id)
    async with asyncio.timeout(20):
        await use.ended()
    assert (await held.finish()).ended_by == "taken"


async def test_a_client_that_is_gone_loses_it(site: DeviceSite) -> None:
    held, use, _ = await borrowed(site)
    held.channel._running.cancel()  # as when its process was killed
    await site.until(lambda: not site.bus.is_held)
    async with asyncio.timeout(20):
        await use.ended()
    again, its_use, _ = await borrowed(site, "other")
    assert (await finished(again, its_use)).ended_by == "holder"


async def test_a_client_notices_by_itself_that_its_agent_is_silent(site: DeviceSite) -> None:
    held, use, _ = await borrowed(site)
    (holder,) = site.holders
    holder.channel._running.cancel()
    async with asyncio.timeout(10):
        await use.ended()
    assert held.channel.lost
    await site.until(lambda: not site.bus.is_held)


async def test_the_holder_is_told_that_others_wait(site: DeviceSite) -> None:
    told: list[Notice] = []
    held = await site.devices().borrow(LeaseWish(device=DEVICE, priority="normal"), noticed=told.append)
    site.lender.recall((held.request_id,), asks=True)
    await site.until(lambda: bool(told))
    assert told[0].code == "lease-finish"
    assert "others wait for ev-usb" in told[0].text
    await held.finish()


async def test_who_is_not_permitted_is_refused(site: DeviceSite) -> None:
    with pytest.raises(DeniedError) as caught:
        await site.devices("stranger").borrow(LeaseWish(device=DEVICE))
    assert caught.value.code == "policy.profile"


async def test_a_device_that_nobody_lends(site: DeviceSite) -> None:
    with pytest.raises(ConfigError, match="no agent lends a device 'ev-usc'") as caught:
        await site.devices().borrow(LeaseWish(device="ev-usc"))
    assert caught.value.hint == "devices: ev-usb"


async def test_a_device_that_was_pulled_out(site: DeviceSite) -> None:
    site.bus.stop()
    with pytest.raises(PrivysealError, match="no USB device fits 0529:0620") as caught:
        await site.devices().borrow(LeaseWish(device=DEVICE))
    assert caught.value.code == "usb.not_found"

    await site.announce(UsbError("usb.not_found", "no USB device fits 0529:0620", hint="insert it"))
    found = await site.device()
    assert (found.online, found.code, found.hint) == (False, "usb.not_found", "insert it")
    with pytest.raises(PrivysealError, match="no USB device fits") as caught:
        await site.devices().borrow(LeaseWish(device=DEVICE))
    assert (caught.value.code, caught.value.exit_status) == ("usb.not_found", 8)


async def test_a_device_is_no_key_profile(site: DeviceSite) -> None:
    hub = HubClient(site.client())
    status = await asyncio.to_thread(hub.status)
    assert (status.profiles, [one.name for one in status.devices]) == ((), [DEVICE])
    with pytest.raises(ConfigError, match="is a USB device") as caught:
        await asyncio.to_thread(hub.profile, DEVICE)
    assert caught.value.code == "profile.device"


async def test_what_a_hub_may_not_make_of_a_lease(site: DeviceSite) -> None:
    """Neither the hub's word nor another receipt is believed for what a lease was used for."""
    held, use, handle = await borrowed(site)
    await asyncio.to_thread(sign, handle)
    await finished(held, use)
    hub, request = HubClient(site.client()), held._request
    item = await asyncio.to_thread(lambda: hub.outcome(held.request_id, wait_seconds=5))
    assert item is not None
    said = item.signature
    assert recorded_lease(request, item, hub.bundle, said).report == read_report(said)

    fewer = encode_report(msgspec.structs.replace(read_report(said), tallies=()))
    lied = msgspec.structs.replace(item, signature=fewer)
    with pytest.raises(VerificationError) as caught:
        recorded_lease(request, lied, hub.bundle, fewer)
    assert caught.value.code == "receipt.mismatch"
    with pytest.raises(VerificationError) as caught:
        recorded_lease(request, item, hub.bundle, fewer)
    assert caught.value.code == "lease.other_report"

    again, its_use, _ = await borrowed(site)
    await finished(again, its_use)
    with pytest.raises(VerificationError) as caught:
        recorded_lease(again._request, item, hub.bundle, b"")
    assert caught.value.code == "receipt.mismatch"


async def test_an_agent_that_the_bundle_does_not_know_gets_nothing(site: DeviceSite) -> None:
    await asyncio.to_thread(lambda: site.desk().change_trust(agents={AGENT: None}))
    with pytest.raises(ConfigError, match="holds no sealing key of agent 'pi'") as caught:
        await site.devices().borrow(LeaseWish(device=DEVICE))
    assert caught.value.code == "channel.agent_key"
    assert (await site.device()).leases == ()


async def test_the_hub_is_away_while_somebody_waits(site: DeviceSite) -> None:
    """A turn is kept over a restart of the hub."""
    held, use, _ = await borrowed(site)
    turns: list[Turn] = []
    second = asyncio.create_task(site.devices("other").borrow(LeaseWish(device=DEVICE), waits=turns.append))
    await site.until(lambda: bool(turns))
    await site.hub.stop()
    site.hub = await open_hub(site.directory / "hub")
    await site.hub.start()
    async with asyncio.timeout(20):
        await use.ended()
        end = await held.finish()
        assert end.report is None or end.report.ended_by in ("lost", "holder")
        lease = await second
    assert (await lease.finish()).ended_by == "holder"


async def test_an_agent_that_stops_takes_its_device_back_first(site: DeviceSite) -> None:
    held, use, _ = await borrowed(site)
    async with asyncio.timeout(10):
        await site.agent.stop()
        assert not site.bus.is_held
        await use.ended()
    await site.start_agent()  # which tells the hub then what its journal has kept
    async with asyncio.timeout(20):
        end = await held.finish()
    assert (end.ended_by, end.reason) == ("taken", "it was asked back: its agent stops")
    assert end.recorded is not None


async def test_an_agent_that_stops_while_it_waits_for_its_client(site: DeviceSite) -> None:
    borrowing = asyncio.create_task(site.devices().borrow(LeaseWish(device=DEVICE)))
    await site.until(lambda: bool(site.lender.holder))
    async with asyncio.timeout(15):
        await site.agent.stop()
    borrowing.cancel()
    await asyncio.gather(borrowing, return_exceptions=True)
    relays = site.hub.hub.relays
    await site.until(lambda: not relays.waiting and not relays.relays)
    await site.start_agent()
