# SPDX-License-Identifier: Apache-2.0
"""The stream of a USB lease: bytes both ways, notices, ends, and what becomes of it when the other side is gone."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from channels import Lease, ended
from memory_pipes import BOUND_BYTES, MemoryPipe, pipe_pair
from privyseal.errors import MalformedInputError
from privyseal.ports.pipe import Pipe
from privyseal.relay.channel import Channel
from privyseal.relay.limits import ChannelLimits
from privyseal.relay.numbered import RESERVE_BYTES
from privyseal.wire.relay import Data, End, Message, Notice, Ping, Progress, Resume, encode

WINDOW = 262_144
QUICK = ChannelLimits(heartbeat_seconds=0.01, silent_seconds=0.05)
LASTING = ChannelLimits(heartbeat_seconds=0.01, silent_seconds=0.05, grace_seconds=30.0, again_seconds=0.001)


@asynccontextmanager
async def channels(limits: ChannelLimits | None = None) -> AsyncIterator[tuple[Channel, Channel]]:
    """An agent's and a client's side, over a pinned pipe in memory."""
    agent_pipe, client_pipe = await Lease().pinned(*pipe_pair())
    agent, client = Channel(agent_pipe, limits), Channel(client_pipe, limits)
    try:
        yield agent, client
    finally:
        await ended(agent, client)


async def read_all(channel: Channel) -> bytes:
    """Everything to the end."""
    found = bytearray()
    while data := await channel.read():
        assert len(data) <= 65_536
        found += data
    return bytes(found)


async def heartbeats(count: int, *channels: Channel) -> None:
    """Until so many were answered on each side."""
    while any(len(channel._rtts) < count for channel in channels):  # noqa: ASYNC110 - they are measured inside
        await asyncio.sleep(0)


async def test_bytes_go_both_ways_at_once() -> None:
    sent = {name: random.Random(name).randbytes(3_000_001) for name in ("agent", "client")}

    async def say(channel: Channel, data: bytes) -> None:
        await channel.write(data)
        await channel.end("usb.done", "that was all")

    async with channels() as (agent, client):
        async with asyncio.TaskGroup() as group:
            got = [group.create_task(read_all(channel)) for channel in (client, agent)]
            group.create_task(say(agent, sent["agent"]))
            group.create_task(say(client, sent["client"]))
        await asyncio.gather(agent.finished(), client.finished())

        assert [one.result() for one in got] == [sent["agent"], sent["client"]]
        assert (agent.lost, client.lost) == ("", "")
        assert client.statistics.received_bytes == agent.statistics.sent_bytes == 3_000_001


async def test_a_client_ends_and_hears_what_the_agent_has_counted() -> None:
    async with channels() as (agent, client):
        await client.write(b"last words")
        await client.end("usb.detached", "detached by its user")
        assert await agent.read() == b"last words"
        assert await agent.read() == b""
        assert agent.ended == End("usb.detached", "detached by its user")

        await agent.write(b"an answer that was under way")
        await agent.end("usb.ended", "given back", b"7 signatures")
        assert await read_all(client) == b"an answer that was under way"
        assert client.ended == End("usb.ended", "given back", b"7 signatures")
        await asyncio.gather(agent.finished(), client.finished())
        with pytest.raises(ConnectionError, match="has ended"):
            await client.write(b"more")


async def test_a_notice_comes_in_between() -> None:
    heard: asyncio.Queue[Notice] = asyncio.Queue()
    agent_pipe, client_pipe = await Lease().pinned(*pipe_pair())
    agent, client = Channel(agent_pipe), Channel(client_pipe, noticed=heard.put_nowait)

    await agent.notice("usb.others_wait", "two requests wait: please finish")
    assert await heard.get() == Notice("usb.others_wait", "two requests wait: please finish")
    with pytest.raises(MalformedInputError):
        await agent.notice("Not A Code", "")
    await agent.write(b"and it goes on")
    assert await client.read() == b"and it goes on"
    await ended(agent, client)


async def test_closing_tells_the_other_side() -> None:
    async with channels() as (agent, client):
        await client.write(b"before")
        client.close()
        client.close()
        assert await read_all(agent) == b"before"
        assert agent.ended is not None
        assert agent.ended.code == "closed"
        assert agent.lost == ""
        agent.close()
        await asyncio.gather(agent.finished(), client.finished())
        assert await client.read() == b""


async def test_closing_while_the_other_side_writes_without_end() -> None:
    async with channels() as (agent, client):

        async def flood() -> None:
            while True:
                await agent.write(bytes(65_536))

        flooding = asyncio.create_task(flood())
        await client.read()
        client.close()
        assert await read_all(agent) == b""
        agent.close()
        with pytest.raises(ConnectionError):
            await flooding
        await asyncio.gather(agent.finished(), client.finished())
        assert client.held_bytes <= WINDOW + RESERVE_BYTES


async def test_closing_makes_room_for_a_writer_that_waits() -> None:
    """The other side writes all that it has before it reads: it must not wait for a reader who is gone."""
    async with channels() as (agent, client):
        writing = asyncio.create_task(agent.write(bytes(2_000_000)))
        await client.read()
        client.close()
        await writing
        assert await agent.read() == b""
        agent.close()
        await asyncio.gather(agent.finished(), client.finished())
        assert agent.lost == ""


async def test_a_slow_reader_makes_the_writer_wait_and_holds_no_more_than_the_window() -> None:
    agent_end, client_end = pipe_pair()
    agent_pipe, client_pipe = await Lease().pinned(agent_end, client_end)
    agent, client = Channel(agent_pipe), Channel(client_pipe)
    writing = asyncio.create_task(agent.write(bytes(10_000_000)))
    written = 0
    while agent.held_bytes + client.held_bytes != written or not written:  # until nothing moves any more
        written = agent.held_bytes + client.held_bytes
        for _ in range(200):
            await asyncio.sleep(0)

    assert not writing.done()
    assert agent.held_bytes <= WINDOW
    assert client.held_bytes <= WINDOW
    assert max(agent_end.out.most_held, agent_end.back.most_held) <= BOUND_BYTES + 65_536

    got = 0
    while got < 10_000_000:
        got += len(await client.read())
    await writing
    await ended(agent, client)


async def test_a_slow_reader_is_not_taken_for_a_silent_peer() -> None:
    """It reads nothing for many heartbeats; both sides stay, as each hears the other."""
    async with channels(QUICK) as (agent, client):
        writing = asyncio.create_task(agent.write(bytes(1_000_000)))
        before = client.statistics
        await heartbeats(30, agent, client)
        assert not writing.done()
        assert (agent.lost, client.lost) == ("", "")
        assert client.statistics.received_bytes == before.received_bytes == 0
        got = 0
        while got < 1_000_000:
            got += len(await client.read())
        await writing


async def test_both_sides_notice_a_peer_that_is_silent() -> None:
    """Frames go nowhere, and no connection breaks: as with a cable that was pulled."""
    agent_end, client_end = pipe_pair()
    agent_pipe, client_pipe = await Lease().pinned(agent_end, client_end)
    agent, client = Channel(agent_pipe, QUICK), Channel(client_pipe, QUICK)
    await client.write(b"one")
    assert await agent.read() == b"one"

    agent_end.out.frozen = client_end.out.frozen = True
    for channel in (agent, client):
        with pytest.raises(ConnectionError, match=r"nothing came from the other side for 0\.05 s"):
            await channel.read()
        with pytest.raises(ConnectionError, match="nothing came"):
            await channel.write(b"more")
    await asyncio.gather(agent.finished(), client.finished())


async def test_heartbeats_measure_the_round_trip() -> None:
    async with channels(QUICK) as (agent, client):
        await heartbeats(5, agent, client)
        for channel in (agent, client):
            told = channel.statistics
            assert told.rtt_min_seconds is not None
            assert told.rtt_p50_seconds is not None
            assert 0 < told.rtt_min_seconds <= told.rtt_p50_seconds < 1


@pytest.mark.parametrize("how", ["cut", "changed"])
async def test_without_grace_a_lost_connection_is_the_end(how: str) -> None:
    agent_end, client_end = pipe_pair()
    agent_pipe, client_pipe = await Lease().pinned(agent_end, client_end)
    agent, client = Channel(agent_pipe), Channel(client_pipe)
    await client.write(b"one")
    assert await agent.read() == b"one"

    if how == "cut":
        await agent_end.cut()
    else:
        client_end.out.change = lambda piece: piece[:-1] + bytes([piece[-1] ^ 1])
        await client.write(b"two")
    with pytest.raises(ConnectionError):
        await agent.read()
    with pytest.raises(ConnectionError):
        await client.read()
    await asyncio.gather(agent.finished(), client.finished())


# -- connections that take each other's place ---------------------------------------------------------------------


class Meeting:
    """Where both sides find each other again; `Channel.reconnect` of each."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._waiting: asyncio.Future[Pipe] | None = None
        self.ends: list[MemoryPipe] = []
        self.refused = 0

    async def agent(self) -> Pipe:
        if self.refused:
            self.refused -= 1
            raise ConnectionRefusedError("nobody there")
        self._waiting = asyncio.get_running_loop().create_future()
        return await self._waiting

    async def client(self) -> Pipe:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            raise ConnectionRefusedError("nobody there")
        agent_end, client_end = pipe_pair()
        self.ends = [agent_end, client_end]
        agent_pipe, client_pipe = await self._lease.pinned(agent_end, client_end)
        waiting.set_result(agent_pipe)
        return client_pipe


async def test_a_lease_outlives_its_connections() -> None:
    """They are cut twenty times in the midst of two streams, of which every byte arrives, once."""
    lease, chance = Lease(), random.Random(7)
    meeting = Meeting(lease)
    meeting.refused = 3
    meeting.ends = list(pipe_pair())
    agent_pipe, client_pipe = await lease.pinned(*meeting.ends)
    agent = Channel(agent_pipe, LASTING, reconnect=meeting.agent)
    client = Channel(client_pipe, LASTING, reconnect=meeting.client)
    sent = [chance.randbytes(12_000_000) for _ in range(2)]

    async def say(channel: Channel, data: bytes) -> None:
        for start in range(0, len(data), 40_000):
            await channel.write(data[start : start + 40_000])
        await channel.end("usb.done", "")

    async with asyncio.TaskGroup() as group:
        got = [group.create_task(read_all(channel)) for channel in (client, agent)]
        saying = [group.create_task(say(agent, sent[0])), group.create_task(say(client, sent[1]))]
        cuts = 0
        while cuts < 20 and not all(one.done() for one in saying):
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0)
            if agent.statistics.reconnected == cuts == client.statistics.reconnected:
                await meeting.ends[0].cut()
                cuts += 1
    assert [one.result() for one in got] == sent
    assert cuts == 20
    assert agent.statistics.reconnected == 20
    await asyncio.gather(agent.finished(), client.finished())
    assert (agent.lost, client.lost) == ("", "")


async def test_when_nobody_comes_back_the_grace_ends() -> None:
    limits = ChannelLimits(grace_seconds=0.05, again_seconds=0.01)

    async def nobody() -> Pipe:
        raise ConnectionRefusedError("nobody there")

    agent_end, client_end = pipe_pair()
    agent_pipe, client_pipe = await Lease().pinned(agent_end, client_end)
    agent, client = Channel(agent_pipe, limits, reconnect=nobody), Channel(client_pipe)
    await client_end.cut()
    with pytest.raises(ConnectionError):
        await agent.read()
    assert agent.lost
    await ended(agent, client)


async def test_closing_ends_the_wait_for_another_connection() -> None:
    waits = asyncio.Event()

    async def never() -> Pipe:
        waits.set()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    agent_end, client_end = pipe_pair()
    agent_pipe, client_pipe = await Lease().pinned(agent_end, client_end)
    agent, client = Channel(agent_pipe, LASTING, reconnect=never), Channel(client_pipe)
    await agent_end.cut()
    await waits.wait()
    agent.close()
    await agent.finished()
    await ended(client)


# -- a peer that is the right one, and misbehaves -----------------------------------------------------------------

NOTHING = Progress(0, 0)


@pytest.mark.parametrize(
    "messages",
    [
        [Data(b"x")],
        [Resume(Progress(9, 0))],
        [Resume(NOTHING), Resume(NOTHING)],
        [Resume(NOTHING), Ping(1, Progress(10**6, 0))],
        [Resume(NOTHING), Ping(1, Progress(0, 1))],
        [Resume(NOTHING), End("a", ""), Data(b"x")],
        [Resume(NOTHING), *[Data(bytes(65_536))] * 7],
    ],
    ids=["no-resume", "never-sent", "resume-twice", "ack-never-sent", "consumed-more", "after-end", "no-room"],
)
async def test_what_a_peer_must_not_send_ends_the_channel(messages: list[Message]) -> None:
    ours, theirs = pipe_pair()
    channel = Channel(ours, LASTING, reconnect=lambda: asyncio.get_running_loop().create_future())
    for message in messages:
        await theirs.send(encode(message)[:65_536])
        if rest := encode(message)[65_536:]:
            await theirs.send(rest)
    await channel.finished()

    assert "must not" in channel.lost or channel.ended
    assert channel.held_bytes <= WINDOW + RESERVE_BYTES + 65_536
