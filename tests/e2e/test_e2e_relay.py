# SPDX-License-Identifier: Apache-2.0
"""The stream of a USB lease through a real hub: who may have which end, and what becomes of it when something ends."""

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from api_client import api_of, web_of
from channels import Lease, ended
from installation import Site, free_port
from privyseal.client.channels import ClientChannels, relay_addresses
from privyseal.client.hub import HubClient
from privyseal.errors import PrivysealError
from privyseal.hub.config import load_hub_config
from privyseal.relay.direct import dial_direct
from privyseal.relay.limits import ChannelLimits
from privyseal.relay.socket import dial_relay
from programs import succeeded
from queue_site import QueueSite, queue_site
from relay_site import QUICK, agent_tls, agents_of, heard, leased, under_way


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueSite]:
    with queue_site(tmp_path_factory.mktemp("relay")) as made:
        path = made.site.hub_directory / "hub.toml"
        path.write_text(f'listen_proxied = "127.0.0.1:{free_port()}"\n' + path.read_text())
        made.site.running["hub"].stop()
        made.site.start_hub()
        made.site.until_online("release")
        yield made


@pytest.fixture
def slow(queue: QueueSite) -> Iterator[QueueSite]:
    with queue.slow():
        yield queue


def metric(site: Site, name: str) -> float:
    web = web_of(site.client())
    try:
        body = web("GET", "/metrics").body.decode()
    finally:
        web.close()
    (value,) = re.findall(rf"(?m)^{re.escape(name)} (\S+)$", body)
    return float(value)


async def test_client_and_agent_meet_at_the_hub(slow: QueueSite) -> None:
    lease = Lease(request_id=under_way(slow))
    agent, client = await leased(slow, lease)

    await client.write(b"SUBMIT" * 20_000)
    assert await heard(agent, 120_000) == b"SUBMIT" * 20_000
    await agent.write(b"RET")
    assert await heard(client, 3) == b"RET"
    await client.end("usb.detached", "enough")
    assert await agent.read() == b""
    await agent.end("usb.ended", "given back", b"counts")
    assert await client.read() == b""
    assert client.ended is not None
    assert client.ended.summary == b"counts"
    await asyncio.gather(agent.finished(), client.finished())


async def test_who_may_have_which_end(slow: QueueSite) -> None:
    site, request_id = slow.site, under_way(slow)
    over = slow.queued("night-1", 1, "nightly")
    HubClient(site.client("night-1")).cancel(over)
    (url,) = site.client().hub_urls
    agents, other = agent_tls(site), relay_addresses(site.client("ci-7"))[0].tls
    mine = relay_addresses(site.client())[0].tls

    def client_end(one: str) -> str:
        return f"{url}/v1/requests/{one}/relay"

    def agent_end(one: str) -> str:
        return f"{url}/v1/agents/relays/{one}"

    async def code(address: str, tls: ssl.SSLContext) -> str:
        with pytest.raises(PrivysealError) as caught:
            await dial_relay(address, tls)
        return caught.value.code

    assert await code(client_end(request_id), other) == "request.unknown"
    assert await code(client_end("00" * 32), mine) == "request.unknown"
    assert await code(client_end(request_id), agents) == "identity.role"
    assert await code(agent_end(request_id), mine) == "identity.role"
    assert await code(agent_end("00" * 32), agents) == "relay.not_here"
    slow.until_done("night-1", over)
    own = relay_addresses(site.client("night-1"))[0].tls
    assert await code(agent_end(over), agents) == "relay.not_here"
    assert await code(client_end(over), own) == "relay.not_open"


async def test_an_address_that_is_asked_without_a_websocket(slow: QueueSite) -> None:
    request_id = under_way(slow)
    api = api_of(slow.site.client())
    assert api("GET", f"/v1/requests/{request_id}/relay").problem == (422, "relay.upgrade")
    api.close()


async def test_a_second_connection_takes_the_place_of_the_first(slow: QueueSite) -> None:
    request_id = under_way(slow)
    (address,) = relay_addresses(slow.site.client())
    url = f"{address.url}/v1/requests/{request_id}/relay"
    first = await dial_relay(url, address.tls)
    second = await dial_relay(url, address.tls)

    with pytest.raises(ConnectionError, match="another connection of the client took its place"):
        await first.receive()
    for pipe in (first, second):
        pipe.close()
        await pipe.closed()


@pytest.mark.parametrize("side", ["agent", "client"])
async def test_when_one_end_is_gone_the_other_is_told(slow: QueueSite, side: str) -> None:
    lease = Lease(request_id=under_way(slow))
    agent, client = await leased(slow, lease)
    gone, left = (agent, client) if side == "agent" else (client, agent)
    gone._running.cancel()

    with pytest.raises(ConnectionError, match=f"the {side} is gone"):
        await left.read()
    await asyncio.gather(agent.finished(), client.finished())


async def test_a_client_that_is_revoked_has_no_stream_left(slow: QueueSite) -> None:
    slow.site.add_client("leaving")
    lease = Lease(request_id=under_way(slow, "leaving"))
    agent, client = await leased(slow, lease, client="leaving")
    await client.write(b"still there")
    assert await heard(agent, 11) == b"still there"

    await asyncio.to_thread(revoke, slow.site, "leaving")
    for channel in (agent, client):
        with pytest.raises(ConnectionError, match="the standing of this client has ended"):
            await channel.read()
    await asyncio.gather(agent.finished(), client.finished())


def revoke(site: Site, name: str) -> None:
    succeeded(site.administer("hub", "revoke", "client", name))


async def test_the_hub_counts_what_it_carries(slow: QueueSite) -> None:
    before = metric(slow.site, 'privyseal_relay_bytes_total{direction="to-agent"}')
    lease = Lease(request_id=under_way(slow))
    agent, client = await leased(slow, lease)
    await client.write(bytes(50_000))
    await heard(agent, 50_000)

    assert metric(slow.site, 'privyseal_relays{state="paired"}') == 1
    assert metric(slow.site, 'privyseal_relay_bytes_total{direction="to-agent"}') - before > 50_000
    await ended(agent, client)


async def test_through_the_proxied_listener(slow: QueueSite) -> None:
    """Each request is signed, and what stands in between reads and changes nothing."""
    site = slow.site
    lease = Lease(request_id=under_way(slow))
    config = replace(site.client(), proxied=True, hub_ca=site.directory / "hub-ca.pem")
    (site.directory / "hub-ca.pem").write_text(site.client().load_bundle().statement.ca)
    (address,) = relay_addresses(config)
    plain = f"http://{load_hub_config(site.hub_directory).listen_proxied}"
    clients = ClientChannels((replace(address, url=plain),), dial_relay)

    agent, client = await asyncio.gather(
        agents_of(site).open(lease.of_agent, QUICK, seconds=20), clients.open(lease.of_client, QUICK)
    )
    await client.write(b"through")
    assert await heard(agent, 7) == b"through"
    await ended(agent, client)

    async def dial(path: str, proof: Callable[[], dict[str, str]]) -> str:
        with pytest.raises(PrivysealError) as caught:
            await dial_relay(plain + path, address.tls, proof)
        return caught.value.code

    path = f"/v1/requests/{lease.request_id}/relay"
    assert await dial(path, dict) == "proof.missing"
    assert await dial(path, lambda: dict(address.proof("/v1/status"))) == "proof.signature"
    assert await dial(f"/v1/agents/relays/{lease.request_id}", lambda: dict(address.proof(path))) == "http.not_found"


async def test_an_agent_listens_where_it_is_told_to(queue: QueueSite) -> None:
    port = free_port()
    path = queue.site.agent_directory / "agent.toml"
    await asyncio.to_thread(queue.site.running["agent"].stop)
    path.write_text(path.read_text() + f'\n[usb]\nlisten = "127.0.0.1:{port}"\n')
    await asyncio.to_thread(queue.site.start_agent)
    await asyncio.to_thread(queue.site.until_online, "release")

    stranger = await dial_direct("127.0.0.1", port, "no request")
    assert await stranger.receive() == b""
    stranger.close()
    await stranger.closed()


async def test_a_lease_with_a_grace_outlives_the_hub(slow: QueueSite) -> None:
    """The hub is stopped and started again in the midst of a stream; nothing is lost or comes twice."""
    limits = ChannelLimits(heartbeat_seconds=0.1, silent_seconds=5.0, grace_seconds=30.0, again_seconds=0.1)
    lease = Lease(request_id=under_way(slow))
    agent, client = await leased(slow, lease, limits)
    await client.write(b"before")
    assert await heard(agent, 6) == b"before"

    await asyncio.to_thread(slow.site.running["hub"].stop)
    await client.write(b"while the hub was away")
    await asyncio.to_thread(slow.site.start_hub)
    assert await heard(agent, 22) == b"while the hub was away"
    await agent.write(b"after")
    assert await heard(client, 5) == b"after"
    assert (agent.statistics.reconnected, client.statistics.reconnected) != (0, 0)
    await ended(agent, client)
    slow.site.until_online("release")
