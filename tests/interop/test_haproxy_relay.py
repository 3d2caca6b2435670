# SPDX-License-Identifier: Apache-2.0
"""The stream of a USB lease with a real HAProxy between client and hub: TLS through it, or ended by it."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from channels import Lease, ended
from haproxy import HaProxy, running_haproxy
from installation import free_port
from privyseal.client.channels import ClientChannels, relay_addresses
from privyseal.client.config import ClientConfig
from privyseal.hub.config import load_hub_config
from privyseal.relay.socket import dial_relay
from queue_site import QueueSite, queue_site
from relay_site import QUICK, agents_of, heard, under_way

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueSite]:
    with queue_site(tmp_path_factory.mktemp("relay")) as made:
        path = made.site.hub_directory / "hub.toml"
        path.write_text(f'listen_proxied = "127.0.0.1:{free_port()}"\n' + path.read_text())
        made.site.running["hub"].stop()
        made.site.start_hub()
        made.site.until_online("release")
        yield made


@pytest.fixture(scope="module")
def haproxy(queue: QueueSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HaProxy]:
    hub, ca = load_hub_config(queue.site.hub_directory), queue.site.client().load_bundle().statement.ca
    with running_haproxy(tmp_path_factory.mktemp("balanced") / "haproxy", (hub,), ca) as proxy:
        yield proxy


def behind(config: ClientConfig, proxy: HaProxy, mode: str) -> ClientConfig:
    if mode == "tcp":
        return replace(config, hub_urls=(proxy.mtls,))
    return replace(config, hub_urls=(proxy.proxied,), proxied=True, hub_ca=Path(proxy.ca))


@pytest.mark.parametrize("mode", ["tcp", "http"])
async def test_a_lease_goes_through(queue: QueueSite, haproxy: HaProxy, mode: str) -> None:
    with queue.slow():
        lease = Lease(request_id=under_way(queue))
        addresses = relay_addresses(behind(queue.site.client(), haproxy, mode))
        agent, client = await asyncio.gather(
            agents_of(queue.site).open(lease.of_agent, QUICK, seconds=20),
            ClientChannels(addresses, dial_relay).open(lease.of_client, QUICK),
        )
        await client.write(b"SUBMIT" * 20_000)
        assert await heard(agent, 120_000) == b"SUBMIT" * 20_000
        await agent.write(b"RET" * 20_000)
        assert await heard(client, 60_000) == b"RET" * 20_000
        await ended(agent, client)
