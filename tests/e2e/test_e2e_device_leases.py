# SPDX-License-Identifier: Apache-2.0
"""A device that is lent through the queue of its token: who waits for whom, what stands in the log, how it ends."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api_client import ask
from lab.piv.ccid import CcidToken
from lab.piv.keys import CardKey, load_or_make_keys
from lab.piv.station import Station
from lending_site import DEVICE, DeviceSite, running_devices
from pool_site import PROFILE
from privyseal.identity.channel import new_channel_key
from privyseal.tlog.entry import Intent, KeyEntry, Lease, Result
from privyseal.wire.leases import encode_report
from virtual_usb import SELECT, CcidHost, VirtualBus

PIN = "731946"
VERIFY = bytes.fromhex("0020008008") + PIN.encode().ljust(8, b"\xff")
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CardKey]:
    return load_or_make_keys(tmp_path_factory.mktemp("keys"), {0x9A: "p256"})


@pytest.fixture
def run(tmp_path: Path, keys: dict[int, CardKey]) -> Iterator[Run]:
    bus = VirtualBus()
    token = CcidToken(Station(keys, pin=PIN), bus)
    yield lambda **table: running_devices(tmp_path, bus, token, **table)
    if bus.plugged is not None:
        token.unplug()


def verify_pin(handle: Any) -> None:
    host = CcidHost(handle)
    host.power_on()
    assert host.transmit(SELECT)[-2:] == b"\x90\0"
    assert host.transmit(VERIFY) == b"\x90\0"


async def test_a_lease_and_signatures_share_one_queue_and_one_log(run: Run) -> None:
    """Promise 7: what is to be signed waits while the device is lent, and goes on when it is back."""
    async with run() as site:
        lent = await site.borrow()
        await asyncio.to_thread(verify_pin, await lent.opened())
        assert site.pool.agents["pi"].keepers["software"].state.value == "lent"
        waiting = await site.pool.queue()
        another = await site.queue(new_channel_key())
        (lane,) = site.pool.hub.hub.dispatch.lanes
        assert lane.is_lent
        assert {waiting, another.request_id} <= {one.request.id for one in site.pool.hub.hub.board.requests}

        await lent.give_back()
        report = await site.report(lent.request_id)
        assert (report.ended_by, report.total("pin-verification", "accepted")) == ("holder", 1)
        await (await site.take(another)).give_back()
        assert [item.state for item in (await site.pool.ended(waiting)).items] == ["signed"]
        assert (await site.report(another.request_id)).total("pin-verification") == 0

        entries = await site.pool.entries()
        intents = [one for one in entries if isinstance(one, Intent)]
        leases = [one for one in intents if one.format == "usb-lease"]
        assert {(one.key, one.mechanism, one.profile) for one in leases} == {("", "", DEVICE)}
        (told,) = (one for one in entries if isinstance(one, Lease) and one.request == lent.request_id)
        assert (told.pins, told.operations, told.clean, told.unproven) == (1, 0, True, ())
        results = {one.request: one for one in entries if isinstance(one, Result)}
        assert results[lent.request_id].signature == hashlib.sha256(encode_report(report)).hexdigest()
        (key,) = (one for one in entries if isinstance(one, KeyEntry) and one.profile == DEVICE)
        assert (key.key, key.certificate, key.opaque) == ("", "", ("usb-lease",))


async def test_the_intent_is_on_record_before_the_first_urb(run: Run) -> None:
    async with run() as site:
        lent = await site.borrow()
        assert site.bus.holds == 0, "nothing was imported yet"
        intents = [one for one in await site.pool.entries() if isinstance(one, Intent)]
        assert [one.request for one in intents] == [lent.request_id]
        await lent.opened()
        assert site.bus.holds == 1


async def test_a_lease_that_is_cancelled_ends(run: Run) -> None:
    async with run() as site:
        lent = await site.borrow()
        await lent.opened()
        reply = await site.pool.call("DELETE", f"/v1/signatures/{lent.request_id}")
        assert reply.status == 200, reply
        assert (await site.report(lent.request_id)).ended_by == "taken"
        assert not site.bus.is_held


async def test_a_release_asks_the_holder_to_finish(run: Run) -> None:
    async with run(finish_seconds=0.3) as site:
        lent = await site.borrow(priority="nightly")
        await lent.opened()
        waiting = await site.pool.queue()
        await site.until(lambda: [one.code for one in lent.notices] == ["lease-ready", "lease-finish"])
        assert [item.state for item in (await site.pool.ended(waiting)).items] == ["signed"]
        assert (await site.report(lent.request_id)).ended_by == "taken"


async def test_a_client_that_is_gone_frees_the_device(run: Run) -> None:
    async with run() as site:
        lent = await site.borrow()
        await lent.opened()
        lent.channel._pipe.close()
        assert (await site.report(lent.request_id)).ended_by == "lost"
        await site.pool.signed()


async def test_a_device_signs_nothing_and_a_key_is_not_lent(run: Run) -> None:
    async with run() as site:
        asked, _ = site.order(new_channel_key(), profile=PROFILE)
        assert (await site.pool.send(asked)).problem == (403, "policy.device")
        assert await refused_signature(site) == (403, "policy.device")


async def refused_signature(site: DeviceSite) -> tuple[int, str]:
    client = site.pool.client
    chain = site.pool.served.profile.chain
    asked = await asyncio.to_thread(lambda: ask(client, DEVICE, chain=chain))
    return (await site.pool.send(asked)).problem


async def test_a_device_that_is_pulled_out_takes_no_requests(run: Run) -> None:
    async with run() as site:
        site.tree.detach("1-1")
        await site.pool.agents["pi"].lending.keeper.look()
        await site.until(lambda: not site.pool.hub.hub.dispatch.profile(DEVICE).online)
        asked, _ = site.order(new_channel_key())
        reply = await site.pool.send(asked)
        assert (reply.status, reply.document["code"]) == (502, "usb.not_found")
        site.tree.attach("1-1", ids="0529:0620", serial="VT0001")
        await site.pool.agents["pi"].lending.keeper.look()
        await site.until(lambda: site.pool.hub.hub.dispatch.profile(DEVICE).online)
        await (await site.borrow()).give_back()


async def test_what_else_uses_the_device_lets_go_of_it_and_takes_it_back(run: Run, tmp_path: Path) -> None:
    note = tmp_path / "pcscd"
    commands = {name: ["/bin/sh", "-c", f"echo {name} >> {note}"] for name in ("release", "take_back")}
    async with run(**commands) as site:
        assert not note.exists()
        lent = await site.borrow()
        await lent.opened()
        assert note.read_text() == "release\n"
        await lent.give_back()
        await site.report(lent.request_id)
        assert note.read_text() == "release\ntake_back\n"


async def test_a_device_that_is_not_released_is_not_lent(run: Run) -> None:
    async with run(release=["/bin/false"]) as site:
        pins = await site.queue(new_channel_key())
        lent = await site.take(pins)
        (item,) = (await site.pool.ended(lent.request_id)).items
        assert (item.state, item.code) == ("failed", "command.failed")
        assert site.bus.holds == 0
        await site.pool.signed()
