# SPDX-License-Identifier: Apache-2.0
"""What the stream of a USB lease costs: round trips and throughput, direct and through a hub, and channels at rest.

Run by `make bench`; `python bench/usb_relay.py` alone. Both ends of a channel are tasks of this process, the hub is a
program of its own, all on loopback. Nothing here asserts: it prints figures.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from channels import Lease, ended
from privyseal.agent.channels import AgentChannels
from privyseal.client.channels import ClientChannels
from privyseal.relay.channel import Channel
from privyseal.relay.direct import DirectListener
from privyseal.relay.limits import ChannelLimits
from privyseal.relay.socket import dial_relay
from programs import Running
from queue_site import QueueSite, queue_site
from relay_site import leased, under_way

ROUNDS = int(os.environ.get("ROUNDS", "5000"))
#: A CCID command of a token and its URB's head.
URB_BYTES = 48 + 64
BULK_BYTES = 50_000_000
IDLE = 50
IDLE_SECONDS = 20.0


async def echo(agent: Channel) -> None:
    """An exporter that answers at once."""
    while data := await agent.read():
        await agent.write(data)


async def measure(name: str, agent: Channel, client: Channel) -> None:
    answering = asyncio.create_task(echo(agent))
    took_ms = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await client.write(bytes(URB_BYTES))
        await client.read()
        took_ms.append((time.perf_counter() - began) * 1000)
    took_ms.sort()
    print(
        f"{name}: round trip of {URB_BYTES} bytes, {ROUNDS} times: p50 {statistics.median(took_ms):.3f} ms,"
        f" p99 {took_ms[int(ROUNDS * 0.99)]:.3f} ms"
    )

    async def pour() -> None:
        await client.write(bytes(BULK_BYTES))

    began, left = time.perf_counter(), BULK_BYTES
    pouring = asyncio.create_task(pour())
    while left:
        left -= len(await client.read())
    seconds = time.perf_counter() - began
    await pouring
    print(f"{name}: {BULK_BYTES / 1e6:.0f} MB there and back at {BULK_BYTES / 1e6 / seconds:.0f} MB/s each way")
    await ended(agent, client)
    await answering


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[AgentChannels, tuple[str, int]]]:
    listener = DirectListener()
    port = await listener.start("127.0.0.1", 0)
    yield AgentChannels({}, listener), ("127.0.0.1", port)
    await listener.stop()


async def direct_pair(agents: AgentChannels, place: tuple[str, int], lease: Lease) -> tuple[Channel, Channel]:
    clients = ClientChannels((), dial_relay)
    return await asyncio.gather(agents.open(lease.of_agent, seconds=10), clients.open(lease.of_client, direct=place))


async def bench_direct() -> None:
    async with listening() as (agents, place):
        began = time.perf_counter()
        pair = await direct_pair(agents, place, Lease())
        print(f"direct: from nothing to a channel in {(time.perf_counter() - began) * 1000:.1f} ms")
        await measure("direct", *pair)


async def bench_idle() -> None:
    async with listening() as (agents, place):
        pairs = [await direct_pair(agents, place, Lease(request_id=f"{number:064x}")) for number in range(IDLE)]
        began = time.process_time()
        await asyncio.sleep(IDLE_SECONDS)
        share = (time.process_time() - began) / IDLE_SECONDS
        print(f"{IDLE} idle channels, both ends: {share * 100:.2f} % of a core")
        await ended(*(channel for pair in pairs for channel in pair))


def cpu_seconds(running: Running) -> float:
    fields = Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def site_with_request() -> Iterator[tuple[QueueSite, str]]:
    """An installation with a request that is at its token as long as this takes."""
    with tempfile.TemporaryDirectory() as directory, queue_site(Path(directory)) as queue, queue.slow():
        yield queue, under_way(queue, items=60)


async def bench_hub(queue: QueueSite, request_id: str) -> None:
    began = time.perf_counter()
    pair = await leased(queue, Lease(request_id=request_id), ChannelLimits())
    print(f"through the hub: from nothing to a channel in {(time.perf_counter() - began) * 1000:.1f} ms")
    hub = queue.site.running["hub"]
    before = cpu_seconds(hub)
    await measure("through the hub", *pair)
    print(f"through the hub: the hub's own CPU for all of that: {cpu_seconds(hub) - before:.1f} s")


def main() -> None:
    asyncio.run(bench_direct())
    asyncio.run(bench_idle())
    with site_with_request() as (queue, request_id):
        asyncio.run(bench_hub(queue, request_id))


if __name__ == "__main__":
    main()
