# SPDX-License-Identifier: Apache-2.0
"""The agent's end of the link: dial out, say what is served, take jobs; come back after every loss.

Pauses between dials grow (`backoff.py`), and start again after a link that stood for a minute. WebSocket pings in both
directions notice a peer that is gone.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiohttp
import structlog

from privyseal.agent.backoff import Backoff
from privyseal.agent.executor import Executor, Shown
from privyseal.agent.operations import journal_is_lost
from privyseal.agent.outbox import Outbox
from privyseal.agent.witness import LinkWitness
from privyseal.errors import MalformedInputError, PrivysealError, UnavailableError
from privyseal.identity.trust import PinnedTrust
from privyseal.wire.jobs import Job, LeaseRenewed, OutcomeQuery, Recall
from privyseal.wire.link import (
    LINK_VERSION,
    MAX_MESSAGE_BYTES,
    AddCheckpoint,
    AgentMessage,
    Announce,
    EventsRecorded,
    Held,
    Hello,
    ProfileAnnouncement,
    Refused,
    TokenHealth,
    TokenReport,
    TrustChanged,
    UnlockAnswer,
    UnlockOrder,
    UnlockQuery,
    Welcome,
    decode_hub,
    encode,
)

__all__ = ["Dial", "HubLink", "LinkServices", "LinkSocket", "dialer"]

_LOG: Final = structlog.get_logger("privyseal.agent.link")
_HEARTBEAT_SECONDS: Final = 10.0
_STEADY_SECONDS: Final = 60.0
#: Status of a witness that cosigned another size last.
_CONFLICT: Final = 409


class LinkSocket(Protocol):
    """What the link needs of a WebSocket. Frames are iterated until the connection ends."""

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        ...

    async def send_bytes(self, data: bytes) -> None:
        """Send one binary frame.

        Raises:
            ConnectionError, aiohttp.ClientError: the connection is gone.
        """
        ...

    async def close(self) -> object:
        """End the connection, also while somebody waits for a frame."""
        ...

    def __aiter__(self) -> AsyncIterator[aiohttp.WSMessage]: ...


#: Opens a connection, which ends with the context.
Dial = Callable[[], AbstractAsyncContextManager[LinkSocket]]


def dialer(url: str, tls: Callable[[], ssl.SSLContext]) -> Dial:
    """Dials the mtls listener of the hub at this URL, each time by the trust bundle that is in force then."""
    url = url.rstrip("/") + "/v1/agents/link"

    @asynccontextmanager
    async def dial() -> AsyncIterator[LinkSocket]:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, connect=10.0)) as session,
            session.ws_connect(
                url, ssl=tls(), heartbeat=_HEARTBEAT_SECONDS, max_msg_size=MAX_MESSAGE_BYTES, compress=0
            ) as socket,
        ):
            yield socket

    return dial


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkServices:
    """What all links of an agent share.

    Attributes:
        trust: The pinned trust bundle; a hub may bring its successor.
        executor: Carries out jobs.
        witness: Cosigns checkpoints.
        outbox: What the agent wants on record.
        unlocks: Answers those who hand in a PIN from a desk.
        failed: Called when a job ended in a way that nobody foresaw: the hub has no answer to it.
    """

    trust: PinnedTrust
    executor: Executor
    witness: LinkWitness
    outbox: Outbox
    unlocks: Callable[[UnlockQuery | UnlockOrder], Awaitable[UnlockAnswer]]
    failed: Callable[[BaseException], None]


class HubLink:
    """Keeps one link to one hub.

    Attributes:
        url: Names the hub.
        linked: Set while the link stands.
    """

    def __init__(
        self, *, url: str, dial: Dial, services: LinkServices, trust_changed: "Callable[[HubLink], None]"
    ) -> None:
        """Keep a link.

        Args:
            url: Names the hub.
            dial: Opens a connection to it.
            services: What all links share.
            trust_changed: Called when this hub has brought another trust bundle: then every link is dialled anew.
        """
        self.url: Final = url
        self._dial: Final = dial
        self._trust: Final = services.trust
        self._executor: Final = services.executor
        self._witness: Final = services.witness
        self._outbox: Final = services.outbox
        self._unlocks: Final = services.unlocks
        self._failed: Final = services.failed
        self._trust_changed: Final = trust_changed
        self._dial_at_once = False
        self._announcements: tuple[ProfileAnnouncement, ...] = ()
        self._tokens: tuple[TokenHealth, ...] = ()
        self._socket: LinkSocket | None = None
        self._work: set[asyncio.Task[None]] = set()
        self._shown = Shown()
        self._told_size = 0
        self._telling = False
        self.linked = asyncio.Event()
        self._executor.watch(self._tell_held)

    async def report(self, tokens: tuple[TokenHealth, ...]) -> None:
        """Say how the tokens are, now and after each new link."""
        self._tokens = tokens
        if self.linked.is_set():
            await self._send(TokenReport(tokens=tokens))

    async def announce(self, announcements: tuple[ProfileAnnouncement, ...]) -> None:
        """Say what is served, now and after each new link."""
        self._announcements = announcements
        if self.linked.is_set():
            await self._send(Announce(profiles=announcements))

    async def run(self) -> None:
        """Stay linked until cancelled.

        Raises:
            LogIntegrityError: `journal.commit_unknown`: only a new start learns what the journal holds.
        """
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        while True:
            started = loop.time()
            try:
                await self._link()
                reason = "the hub closed the link"
            except (aiohttp.ClientError, OSError, PrivysealError) as error:
                if journal_is_lost(error):
                    raise
                reason = str(error)
            finally:
                self.linked.clear()
                self._outbox.unlinked(self)
                self._socket = None
            await self._leave_outbox()
            if self._dial_at_once:
                self._dial_at_once = False
                continue
            if loop.time() - started > _STEADY_SECONDS:
                backoff.begin_anew()
            pause = backoff.draw(random.random())  # noqa: S311 - jitter, not a secret
            _LOG.warning("no link to the hub", url=self.url, reason=reason, again_in_seconds=round(pause, 1))
            await asyncio.sleep(pause)

    def dial_anew(self) -> None:
        """End the link, if it stands, and dial at once: what was checked by the former trust bundle ends with it."""
        if self._socket is not None:
            self._dial_at_once = True
            self._spawn(_close(self._socket))

    async def stop(self) -> None:
        """Let jobs that the token is at work on end; their outcome is in the journal."""
        await asyncio.gather(*self._work, return_exceptions=True)

    async def _leave_outbox(self) -> None:
        """Another link goes on with what was under way over this one."""
        try:
            await self._outbox.flush()
        except UnavailableError as error:  # it stays in the journal
            _LOG.error("events not told yet", reason=error.message)

    async def _link(self) -> None:
        bundle = self._trust.bundle
        await self._executor.load()
        async with self._dial() as socket:
            self._socket = socket
            if self._trust.bundle is not bundle:  # this connection was checked by the former one
                self._dial_at_once = True
                return
            held = self._executor.held
            self._shown, self._told_size = Shown(link=self, size=held.size), held.size
            await self._send(
                Hello(
                    version=LINK_VERSION,
                    checkpoint_size=held.size,
                    checkpoint_root=held.root,
                    bundle=bundle.sha256,
                    witness=self._witness.vkey,
                )
            )
            async for frame in socket:
                if frame.type is not aiohttp.WSMsgType.BINARY:
                    raise MalformedInputError("link.malformed", f"the hub sent a {frame.type.name} frame")
                await self._take(frame.data)
                if self._dial_at_once:
                    return

    async def _take(self, data: bytes) -> None:
        message = decode_hub(data)
        match message:
            case Welcome():
                await self._welcomed(message)
            case Refused():
                raise UnavailableError(message.code, f"the hub refuses this agent: {message.message}")
            case TrustChanged():
                await self._take_trust(message.bundle)
            case AddCheckpoint():
                await self._add_checkpoint(message)
            case Job() | LeaseRenewed() | Recall() | OutcomeQuery():
                await self._take_work(message)
            case EventsRecorded():
                await self._outbox.recorded(self, message.through)
            case UnlockQuery() | UnlockOrder():
                self._spawn(self._unlock(message))

    async def _welcomed(self, welcome: Welcome) -> None:
        _LOG.info("linked", hub=self.url, name=welcome.name)
        await self._send(Announce(profiles=self._announcements))
        await self._send(TokenReport(tokens=self._tokens))
        self.linked.set()
        self._tell_held()
        await self._outbox.linked(self, welcome.recorded, self._send)

    async def _add_checkpoint(self, message: AddCheckpoint) -> None:
        answer = await self._witness.add_checkpoint(message.body, self._trust.bundle, self._shown)
        if answer.status == _CONFLICT and self._executor.several_hubs:
            await self._send(Held(size=self._executor.held.size))
        await self._send(answer)

    def _tell_held(self) -> None:
        """Have the hub know what is held, if another one has shown it."""
        if self.linked.is_set() and not self._telling and self._is_untold():
            self._telling = True
            self._spawn(self._keep_told())

    async def _keep_told(self) -> None:
        try:
            while self.linked.is_set() and self._is_untold():
                self._told_size = self._executor.held.size
                await self._send(Held(size=self._told_size))
        finally:
            self._telling = False

    def _is_untold(self) -> bool:
        return self._executor.held.size > max(self._told_size, self._shown.size)

    async def _take_work(self, message: Job | LeaseRenewed | Recall | OutcomeQuery) -> None:
        match message:
            case Job():
                rest = await self._executor.accept(message, self._send, self._shown)
                if rest is not None:
                    self._spawn(rest)
            case LeaseRenewed():
                await self._executor.renew(message, self._send)
            case Recall():
                await self._executor.recall(message)
            case OutcomeQuery():
                await self._send(await self._executor.outcome(message, self))

    async def _unlock(self, message: UnlockQuery | UnlockOrder) -> None:
        await self._send(await self._unlocks(message))

    async def _take_trust(self, envelope: bytes) -> None:
        """Go by the successor of the trust bundle, over new links: what the former one checked ends with them."""
        async with self._executor.checks:
            if envelope != self._trust.bundle.envelope:  # another hub may have brought it already
                bundle = self._trust.succeed(envelope)
                await self._executor.go_by(bundle)
                _LOG.warning("trust bundle changed by its authority keys", serial=bundle.statement.serial)
        self._dial_at_once = True
        self._trust_changed(self)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def _send(self, message: AgentMessage) -> None:
        """Send, or drop if the link is down: the hub asks again when it is back."""
        socket = self._socket
        if socket is None or socket.closed:
            return
        try:
            await socket.send_bytes(encode(message))
        except (ConnectionError, aiohttp.ClientError) as error:
            _LOG.warning("message to the hub dropped", reason=str(error))


async def _close(socket: LinkSocket) -> None:
    with suppress(OSError, aiohttp.ClientError):
        await socket.close()
