# SPDX-License-Identifier: Apache-2.0
"""GET /v1/events on its socket: its form, who may listen, resuming, and readers that do not read."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api_client import api_of, web_of
from privyseal.client.transport import web_context
from privyseal.hub.http import sse
from privyseal.wire.events import AgentLinkEvent, TokenStateEvent
from witnessed import WitnessedSite, running_site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[WitnessedSite]:
    async with running_site(tmp_path, level="off") as running:
        yield running


def tls(site: WitnessedSite) -> ssl.SSLContext:
    identity = site.client.identity
    context = web_context(site.client.load_bundle().statement.ca)
    context.load_cert_chain(identity.tls_certificate, identity.tls_key)
    return context


@asynccontextmanager
async def stream(
    site: WitnessedSite, *headers: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which the events have been asked for."""
    place = urlsplit(site.client.hub_urls[0])
    reader, writer = await asyncio.open_connection(place.hostname, place.port, ssl=tls(site), limit=2**16)
    lines = ("GET /v1/events HTTP/1.1", f"Host: {place.netloc}", *headers, "", "")
    writer.write("\r\n".join(lines).encode())
    try:
        yield reader, writer
    finally:
        writer.close()


async def read_until(reader: asyncio.StreamReader, wanted: bytes) -> bytes:
    """What comes, until it has these bytes in it."""
    found = b""
    async with asyncio.timeout(15):
        while wanted not in found:
            piece = await reader.read(4096)
            assert piece, found
            found += piece
    return found


def said(number: int) -> AgentLinkEvent:
    return AgentLinkEvent(at=number, agent=f"pi-{number}", linked=True)


async def test_the_form_is_that_of_server_sent_events_and_a_comment_keeps_it(
    site: WitnessedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.5)
    hub_stream = site.hub.hub.observer.stream
    async with stream(site) as (reader, _):
        head = await read_until(reader, b"retry: 2000\n\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Type: text/event-stream\r\n" in head
        assert b"Cache-Control: no-store\r\n" in head
        hub_stream.publish(said(1))
        event = await read_until(reader, b"}\n\n")
        assert b"\nevent: agent\ndata: " in event
        assert b'"agent":"pi-1"' in event
        await read_until(reader, b":\n\n")
        assert hub_stream.subscribers == 1
    await site.until(lambda: hub_stream.subscribers == 0)
    assert hub_stream.dropped == 0


async def test_whoever_comes_back_gets_what_it_missed_and_after_a_restart_a_gap(site: WitnessedSite) -> None:
    hub_stream = site.hub.hub.observer.stream
    async with stream(site) as (reader, _):
        await read_until(reader, b"retry")
        hub_stream.publish(said(1))
        last = (await read_until(reader, b"}\n\n")).partition(b"id: ")[2].partition(b"\n")[0].decode()
    for number in (2, 3):
        hub_stream.publish(said(number))

    async with stream(site, f"Last-Event-ID: {last}") as (reader, _):
        found = await read_until(reader, b"pi-3")
    assert b"event: gap" not in found
    assert (found.count(b"pi-1"), found.count(b"pi-2")) == (0, 1)

    await site.hub.stop()
    await site.start_hub()
    async with stream(site, f"Last-Event-ID: {last}") as (reader, _):
        assert b"event: gap\ndata: " in await read_until(reader, b"event: gap")


async def test_only_clients_listen_on_their_own_listener(site: WitnessedSite) -> None:
    agent = api_of(site.client, site.directory / "signer")

    assert (await asyncio.to_thread(agent, "GET", "/v1/events")).problem == (401, "identity.role")
    assert (await asyncio.to_thread(web_of(site.client), "GET", "/v1/events")).status == 404


async def test_a_client_has_four_streams_at_most_and_gets_a_place_back_at_once(site: WitnessedSite) -> None:
    hub_stream = site.hub.hub.observer.stream
    async with stream(site), stream(site), stream(site), stream(site):
        await site.until(lambda: hub_stream.subscribers == 4)
        reply = await asyncio.to_thread(api_of(site.client), "GET", "/v1/events")
        assert reply.problem == (503, "events.too_many")
    await site.until(lambda: hub_stream.subscribers == 0)
    async with stream(site) as (reader, _):
        await read_until(reader, b"retry")


async def test_a_reader_that_does_not_read_holds_up_nobody_and_is_let_go(
    site: WitnessedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "_WRITE_SECONDS", 5.0)
    hub_stream = site.hub.hub.observer.stream
    long = TokenStateEvent(at=1, agent="pi", token="t", state="failed", pin_state="ok", problem="x" * 4000)
    async with stream(site) as (_, writer):
        await site.until(lambda: hub_stream.subscribers == 1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        (subscription,) = hub_stream._subscriptions
        taken = -1
        while subscription.number > taken:  # until all buffers on the way are full
            taken = subscription.number
            for _ in range(200):
                hub_stream.publish(long)
            await asyncio.sleep(0.1)
        (item,) = (await site.send(await site.ask())).document["items"]
        assert (item["state"], hub_stream.subscribers, hub_stream.dropped) == ("signed", 1, 0)
        await site.until(lambda: hub_stream.dropped == 1)
        assert hub_stream.subscribers == 0


async def test_open_streams_do_not_keep_the_hub_from_stopping(site: WitnessedSite) -> None:
    async with stream(site) as (reader, _):
        await read_until(reader, b"retry")
        async with asyncio.timeout(10):
            await site.hub.stop()
        await site.start_hub()
