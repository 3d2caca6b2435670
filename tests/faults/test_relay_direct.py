# SPDX-License-Identifier: Apache-2.0
"""A lease without a hub in its way: who gets to the one that waits, and what strangers cost."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from channels import REQUEST_ID, Lease, ended
from privyseal.agent.channels import AgentChannels
from privyseal.client.channels import ClientChannels
from privyseal.errors import ConfigError, PrivysealError, UnavailableError
from privyseal.identity.channel import client_context
from privyseal.identity.pinned_pipe import PinnedPipe
from privyseal.ports.pipe import Pipe
from privyseal.relay.direct import DirectListener, StreamPipe, dial_direct


async def no_relay(url: str, tls: ssl.SSLContext, proof: Callable[[], Mapping[str, str]]) -> Pipe:
    raise ConnectionRefusedError("there is no hub here")


@pytest.fixture
async def listener() -> AsyncIterator[DirectListener]:
    made = DirectListener(first_seconds=0.05)
    yield made
    await made.stop()


async def hung_up_on(pipe: StreamPipe) -> bool:
    try:
        return await pipe.receive() == b""
    except OSError:
        return True


async def test_client_and_agent_meet_at_the_agents_port(listener: DirectListener) -> None:
    port = await listener.start("127.0.0.1", 0)
    lease = Lease()
    agents, clients = AgentChannels({}, listener), ClientChannels((), no_relay)

    agent, client = await asyncio.gather(
        agents.open(lease.of_agent, seconds=10), clients.open(lease.of_client, direct=("127.0.0.1", port))
    )
    await client.write(b"SUBMIT" * 10_000)
    got = b""
    while len(got) < 60_000:
        got += await agent.read()
    assert got == b"SUBMIT" * 10_000
    await ended(agent, client)


async def test_a_stranger_in_between_does_not_keep_the_client_away(listener: DirectListener) -> None:
    """Others name the same request, say nothing or have other keys; the right one still comes through."""
    port = await listener.start("127.0.0.1", 0)
    lease, other = Lease(), Lease()
    agents, clients = AgentChannels({}, listener), ClientChannels((), no_relay)
    opening = asyncio.create_task(agents.open(lease.of_agent, seconds=10))
    silent = await dial_direct("127.0.0.1", port, REQUEST_ID)
    with pytest.raises(PrivysealError):
        await clients.open(other.of_client, direct=("127.0.0.1", port))

    client = await clients.open(lease.of_client, direct=("127.0.0.1", port))
    agent = await opening
    assert await hung_up_on(silent), "nobody else is waited for once the client is there"
    silent.close()
    await ended(agent, client)


async def test_a_way_that_the_client_has_given_up_is_not_taken(listener: DirectListener) -> None:
    """It shook hands and hung up, as whoever has found another way: the agent goes on waiting for that one."""
    port = await listener.start("127.0.0.1", 0)
    lease = Lease()
    opening = asyncio.create_task(AgentChannels({}, listener).open(lease.of_agent, seconds=10))
    given_up = await dial_direct("127.0.0.1", port, REQUEST_ID)
    await given_up.send(b"privyseal-usb/1\n" + lease.client_key.certificate)
    inside = PinnedPipe(given_up, client_context(lease.client_key), server_side=False)
    await inside.shake_hands()
    assert len(await inside.receive()) == 32
    inside.close()
    await inside.closed()

    client = await ClientChannels((), no_relay).open(lease.of_client, direct=("127.0.0.1", port))
    agent = await opening
    await client.write(b"here")
    assert await agent.read() == b"here"
    await ended(agent, client)


async def test_whoever_is_not_expected_is_hung_up_on(listener: DirectListener) -> None:
    port = await listener.start("127.0.0.1", 0)
    with listener.expecting("00" * 32):
        unknown = await dial_direct("127.0.0.1", port, "11" * 32)
        assert await hung_up_on(unknown)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await hung_up_on(StreamPipe(reader, writer))
        writer.close()
        silent = StreamPipe(*await asyncio.open_connection("127.0.0.1", port))
        assert await hung_up_on(silent), "it had so long to say what it wants"
        nonsense = await dial_direct("127.0.0.1", port, "G" * 64)
        assert await hung_up_on(nonsense)
        for pipe in (unknown, silent, nonsense):
            pipe.close()
    assert listener.refused == {"unknown": 1, "late": 3}


async def test_strangers_are_few(listener: DirectListener) -> None:
    """The thirty-third is not heard, and those before it end by themselves."""
    port = await listener.start("127.0.0.1", 0)
    strangers = [StreamPipe(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(40)]
    assert all(await asyncio.gather(*map(hung_up_on, strangers)))
    assert listener.refused["many"] >= 1
    assert listener.refused.total() == 40
    for stranger in strangers:
        stranger.close()


async def test_connections_that_nobody_takes_are_few_and_closed_at_the_end(listener: DirectListener) -> None:
    port = await listener.start("127.0.0.1", 0)
    with listener.expecting(REQUEST_ID) as arriving:
        pipes = [await dial_direct("127.0.0.1", port, REQUEST_ID) for _ in range(6)]
        await asyncio.gather(*(hung_up_on(pipe) for pipe in pipes[4:]))
        assert arriving.full()
    assert all(await asyncio.gather(*map(hung_up_on, pipes)))
    for pipe in pipes:
        pipe.close()


@pytest.mark.parametrize(
    "head", [b"\x00\x00\x00\x00", b"\x00\x01\x00\x01", b"\xff\xff\xff\xff"], ids=["none", "long", "most"]
)
async def test_a_piece_of_no_length_or_too_much_is_refused(listener: DirectListener, head: bytes) -> None:
    port = await listener.start("127.0.0.1", 0)
    with listener.expecting(REQUEST_ID) as arriving:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x00\x00\x00\x40" + REQUEST_ID.encode() + head + b"x")
        pipe = await arriving.get()
        with pytest.raises(ConnectionError, match="was announced"):
            await pipe.receive()
        pipe.close()
        writer.close()
        assert await reader.read() == b""


async def test_a_client_that_does_not_come(listener: DirectListener) -> None:
    await listener.start("127.0.0.1", 0)
    with pytest.raises(UnavailableError, match=r"did not come within 0\.02 s") as caught:
        await AgentChannels({}, listener).open(Lease().of_agent, seconds=0.02)
    assert caught.value.code == "channel.no_client"


async def test_a_port_that_is_taken(listener: DirectListener) -> None:
    port = await listener.start("127.0.0.1", 0)
    with pytest.raises(ConfigError, match="cannot listen"):
        await DirectListener().start("127.0.0.1", port)
