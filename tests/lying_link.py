# SPDX-License-Identifier: Apache-2.0
"""The mtls listener of a hub that lies: each time the agent dials in, the next script plays the hub."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from aiohttp import WSMsgType, web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from lied_to_agent import KEY_ID, make_software_token
from lying_hub import PROFILE, Ask, Key, LyingHub, Trust, make_trust, raw_key
from privyseal.agent.config import hub_setting
from privyseal.agent.wiring import Agent, open_agent
from privyseal.identity.ca import issue_member, issue_server, member_uri, new_tls_key
from privyseal.identity.keyfile import save_private_key, write_public
from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.ports.clock import Clock, system_clock
from privyseal.tokens.software import set_certificates
from privyseal.tokens.testca import make_test_ca
from privyseal.wire.jobs import Answers, ItemDone, ItemRefused, Job
from privyseal.wire.link import (
    AgentMessage,
    Announce,
    Events,
    Hello,
    HubMessage,
    TokenReport,
    Welcome,
    decode_agent,
    encode,
)

M = TypeVar("M")
__all__ = ["LinkSite", "Peer", "open_link_site", "open_link_sites"]

#: Nothing here takes this long unless it never comes.
PATIENCE_SECONDS = 20.0


class Peer:
    """The hub's end of one link."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self._request = request
        self.socket = socket

    async def send(self, message: HubMessage) -> None:
        await self.socket.send_bytes(encode(message))

    async def hear(self, kind: type[M]) -> M:
        """The next message of a kind; others are passed over."""
        while True:
            frame = await self.socket.receive(PATIENCE_SECONDS)
            assert frame.type is WSMsgType.BINARY, frame
            message = decode_agent(frame.data)
            if isinstance(message, kind):
                return message

    async def receive(self) -> AgentMessage:
        """The next message but what the agent tells of its tokens by itself."""
        while isinstance(message := await self.hear(object), TokenReport | Events):
            pass
        return cast("AgentMessage", message)

    async def answer(self) -> ItemDone | ItemRefused:
        """What the agent says of one item."""
        said = await self.receive()
        assert isinstance(said, Answers), said
        (item,) = said.items
        return item

    async def until_gone(self) -> None:
        """Read on until the agent hangs up."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for _ in self.socket:
                pass

    def cut(self) -> None:
        """End the connection as a pulled cable would."""
        transport = self._request.transport
        assert transport is not None
        transport.abort()


Script = Callable[[Peer], Awaitable[None]]


@dataclass(kw_only=True)
class LinkSite:
    """An agent put together from its directory, and the hub that it dials."""

    hub: LyingHub
    agent: Agent
    spki: bytes
    dialled_at: list[float] = field(default_factory=list)
    scripts: asyncio.Queue[tuple[Script, asyncio.Future[None]]] = field(default_factory=asyncio.Queue)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Play the next script."""
        self.dialled_at.append(asyncio.get_running_loop().time())
        socket = web.WebSocketResponse(max_msg_size=0, compress=False)
        await socket.prepare(request)
        script, played = await self.scripts.get()
        try:
            await script(Peer(request, socket))
        except (AssertionError, TimeoutError, ConnectionError) as error:
            played.set_exception(error)
        else:
            played.set_result(None)
        await socket.close()
        return socket

    async def play(self, script: Script) -> None:
        """Wait for the agent to dial in, and play this script to its end."""
        played: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self.scripts.put((script, played))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await played

    async def greet(self, peer: Peer) -> None:
        """What an honest hub does when an agent dials in."""
        hello = await peer.receive()
        assert isinstance(hello, Hello)
        self.hub.held_size = hello.checkpoint_size
        assert hello.checkpoint_root == self.hub.log.root(hello.checkpoint_size)
        await peer.send(Welcome(name="agent", recorded=0))
        announced = await peer.receive()
        assert isinstance(announced, Announce)
        assert [(one.name, one.problem_code) for one in announced.profiles] == [(PROFILE, "")]

    def check_done(self, job: Job, said: ItemDone | ItemRefused) -> None:
        """The agent's answer is a signature that verifies."""
        assert isinstance(said, ItemDone), said
        digest = bytes.fromhex(self.hub.intent_of(job).digest)
        verify_digest(self.spki, Mechanism.ECDSA_SHA256, digest, said.signature)

    async def still_signs(self, ask: Ask) -> None:
        """The agent dials in again and signs an honest job."""

        async def script(peer: Peer) -> None:
            await self.greet(peer)
            job = self.hub.job(ask)
            await peer.send(job)
            self.check_done(job, await peer.answer())

        await self.play(script)


def _server_context(trust: Trust, directory: Path, now: dt.datetime) -> ssl.SSLContext:
    key = new_tls_key()
    certificate = issue_server(trust.ca, trust.ca_key, key.public_key(), ("127.0.0.1",), now)
    save_private_key(directory / "server.key", key)
    write_public(directory / "server.pem", certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=trust.bundle.statement.ca)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    return context


def _make_agent(directory: Path, trust: Trust, urls: tuple[str, ...], now: dt.datetime) -> Key:
    """An agent's directory, as joining leaves it, with a software token."""
    tls_key, request_key = new_tls_key(), Ed25519PrivateKey.generate()
    uri = member_uri(trust.bundle.hub, "agent", "agent")
    certificate = issue_member(trust.ca, trust.ca_key, tls_key.public_key(), uri, now)
    save_private_key(directory / "tls.key", tls_key)
    save_private_key(directory / "request.key", request_key)
    write_public(directory / "tls.pem", certificate.public_bytes(Encoding.PEM))
    write_public(directory / "bundle.json", trust.bundle.envelope)
    spki = make_software_token(directory)[1]
    ca = make_test_ca(not_before=now, not_after=now + dt.timedelta(days=2))
    chain = ca.issue_code_signing(spki=spki, common_name="Lab", not_before=now, not_after=now + dt.timedelta(days=1))
    set_certificates(directory / "token", key_id=KEY_ID, chain=chain)
    (directory / "agent.toml").write_text(
        f'name = "agent"\n{hub_setting(urls)}\nweb = "{urls[0]}"\n'
        '[[token]]\nname = "lab"\nkind = "software"\npath = "token"\npin_file = "pin"\n'
        f'[[key]]\nprofile = "{PROFILE}"\ntoken = "lab"\n'
    )
    return Key(spki=spki, agent=raw_key(request_key))


async def _listen(closing: AsyncExitStack, sites: list["LinkSite"], place: int, context: ssl.SSLContext) -> str:
    """A hub's listener; its URL."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await sites[place].handle(request)

    app = web.Application()
    app.router.add_get("/v1/agents/link", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    closing.push_async_callback(runner.cleanup)
    listener = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await listener.start()
    return f"https://127.0.0.1:{runner.addresses[0][1]}"


@asynccontextmanager
async def open_link_sites(directory: Path, count: int, clock: Clock = system_clock) -> AsyncIterator[list[LinkSite]]:
    """Listeners of as many processes of a hub, and one agent that dials them all."""
    now = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    trust = make_trust(now=now)
    sites: list[LinkSite] = []
    async with AsyncExitStack() as closing:
        context = _server_context(trust, directory, now)
        urls = [await _listen(closing, sites, place, context) for place in range(count)]
        key = _make_agent(directory, trust, tuple(urls), now)
        hub = LyingHub(trust, key, now_ms=system_clock())
        agent = await open_agent(directory, clock)
        closing.push_async_callback(agent.stop)
        sites += (LinkSite(hub=hub.beside(), agent=agent, spki=key.spki) for _ in urls)
        await agent.start()
        yield sites


@asynccontextmanager
async def open_link_site(directory: Path, clock: Clock = system_clock) -> AsyncIterator[LinkSite]:
    """A listener and an agent that dials it."""
    async with open_link_sites(directory, 1, clock) as (site,):
        yield site
