# SPDX-License-Identifier: Apache-2.0
"""One schedule: hub, agent and clients under a seed's faults, then in peace, then before the judge."""

import asyncio
import contextlib
import logging
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lying_hub import HUB, NOW_MS
from privyseal.agent.executor import Executor
from privyseal.agent.link import LinkServices, LinkSocket
from privyseal.agent.links import HubLinks
from privyseal.agent.outbox import Outbox
from privyseal.agent.served import ServedKey
from privyseal.agent.turns import Turns
from privyseal.agent.witness import LinkWitness, agent_cosigner
from privyseal.errors import LogIntegrityError, PrivysealError, UnavailableError
from privyseal.hub.config import HubConfig
from privyseal.hub.core import Hub
from privyseal.hub.http.link import serve_link
from privyseal.hub.services.enrol import TlsAuthority
from privyseal.hub.services.views import Question
from privyseal.identity.trust import PinnedTrust
from privyseal.storage.journal import SqliteJournal
from privyseal.tlog.checkpoint import open_checkpoint
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.entry import TokenEvent
from privyseal.wire.api import RequestView
from privyseal.wire.link import UnlockAnswer, UnlockOrder, UnlockQuery
from simulated.chaos import Chaos
from simulated.disk import Database, HeadDisk
from simulated.judge import Judge
from simulated.loop import Process, SimLoop
from simulated.network import Link, Network
from simulated.site import CLIENTS, PROFILES, Asked, asked, first_day
from simulated.store import open_store
from simulated.token import Device, SimToken

__all__ = ["Report", "World", "run_schedule", "silence"]

_FAULTS_SECONDS = 90.0
_PEACE_SECONDS = 1200.0
_WATCH_SECONDS = 3.0
#: Longer than a request that was sent twice, or a token that hangs, takes.
_LATE_SECONDS = 150.0
_KEY_ID = b"\x01"


async def _no_pins(message: UnlockQuery | UnlockOrder) -> UnlockAnswer:
    return UnlockAnswer(ask=message.ask, branch="config", code="token.unknown", message="no PIN is simulated")


def _attached(at_ms: int, agent: str) -> TokenEvent:
    """What an agent puts on record in each of its lives."""
    return TokenEvent(ts=at_ms, agent=agent, seq=0, at=at_ms, token="simulated", event="attached")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a schedule.

    Attributes:
        signed: Items for which a signature was released.
        struck: The faults, in their order.
        steps: Callbacks that were run, and when the last of them was: the same for the same seed.
    """

    seed: int
    violations: tuple[str, ...]
    struck: tuple[str, ...]
    signed: int
    entries: int
    steps: tuple[int, float]


@dataclass(kw_only=True)
class _Running:
    """A hub or an agent in one of its lives."""

    process: Process
    hub: Hub | None = None
    link: Link | None = None


class World:
    """Everything of one schedule."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.choice = random.Random(seed)
        random.seed(seed)  # the link's jitter
        self.loop = SimLoop(self.choice)
        self.chaos = Chaos(choice=self.choice)
        self.network = Network(loop=self.loop, chaos=self.chaos)
        day = first_day()
        self.judge = Judge(trust=day.trust)
        self._day = day
        self._offsets_ms = {"hub": 0, "agent": 0}
        self.hub_database = Database(
            name="hub database", chaos=self.chaos, image=day.hub_image, committed=self.judge.committed
        )
        self.head_disk = HeadDisk(self.chaos)
        self.head_disk.restore(day.head_file)
        self.journal_database = Database(name="journal", chaos=self.chaos)
        self.device = Device(key=day.token_key, used=self.judge.used)
        self.hub: _Running | None = None
        self.agent: _Running | None = None
        self._clients: list[asyncio.Task[None]] = []
        self._wanted: list[Asked] = []
        self._profiles = PROFILES[: self.choice.choice((1, 1, 2))]

    def clock(self, role: str) -> Callable[[], int]:
        """The wall clock of a host, which may be set."""
        return lambda: NOW_MS + int(self.loop.time() * 1000) + self._offsets_ms[role]

    # -- the hub --------------------------------------------------------------------------------------------------

    def start_hub(self) -> None:
        process = Process(self.loop, "hub")
        self.hub = _Running(process=process)
        process.at_death.append(lambda: self._again(process, self.start_hub))
        process.spawn(self._run_hub(self.hub))

    async def _run_hub(self, running: _Running) -> None:
        try:
            store = open_store(
                self.hub_database,
                self.head_disk,
                running.process,
                origin=HUB,
                log_key=self._day.trust.log_key,
                clock=self.clock("hub"),
            )
        except (OSError, sqlite3.Error):
            running.process.kill()
            return
        trust = self._day.trust
        config = HubConfig(name=HUB, listen_mtls="a:1", listen_web="a:2", mtls_url="https://a:1", web_url="https://a:2")
        authority = TlsAuthority(certificate=trust.ca, key=trust.ca_key)
        hub = Hub(
            config=config,
            trust=PinnedTrust(Path("bundle.json"), trust.bundle),
            store=store,
            authority=authority,
            log_cosigner=Cosigner(name=HUB, key=trust.log_mldsa_key),
            clock=self.clock("hub"),
        )
        await hub.start()
        running.hub = hub
        while hub.broken is None:  # noqa: ASYNC110 - as whoever watches /readyz
            await asyncio.sleep(_WATCH_SECONDS)
        self.chaos.struck.append(f"(hub stopped: {hub.broken})")
        if "[store.commit_unknown]" not in str(hub.broken):  # no fault here gives it another reason
            self.judge.violated("unforeseen", f"hub: {hub.broken}")
        running.process.kill()  # who runs it starts it again, as the message says

    def _again(self, process: Process, start: Callable[[], None]) -> None:
        """A service manager starts again what has ended."""
        self.loop.world.call_at(self.loop.time() + 0.1 + self.loop.short_delay(), start)

    def hub_handler(
        self, handler: Callable[[Hub], Awaitable[RequestView]]
    ) -> tuple[Process, Callable[[], Awaitable[RequestView]]] | None:
        """Who answers a call that arrives now."""
        running = self.hub
        if running is None or running.hub is None or not running.process.alive:
            return None
        hub = running.hub
        return running.process, lambda: handler(hub)

    # -- the agent ------------------------------------------------------------------------------------------------

    def start_agent(self) -> None:
        process = Process(self.loop, "agent")
        self.agent = _Running(process=process)
        process.at_death.append(lambda: self._again(process, self.start_agent))
        process.spawn(self._run_agent(self.agent))

    async def _run_agent(self, running: _Running) -> None:
        day, process = self._day, running.process

        def failed(error: BaseException) -> None:
            self.chaos.struck.append(f"(agent stopped: {error})")
            if not isinstance(error, PrivysealError):
                self.loop.unforeseen.append(("agent", error))
            process.kill()

        try:
            journal = await SqliteJournal.open(":memory:", origin=HUB, connect=self.journal_database.open(process))
            if (await journal.state()).checkpoint_note is None:  # as it was when it joined
                shown = open_checkpoint(day.head_file, origin=HUB, verifiers=(day.trust.bundle.log_key,))
                await journal.see_checkpoint(day.head_file.decode(), shown.size, shown.root)
        except PrivysealError as error:
            failed(error)
            return
        executor = Executor(
            bundle=day.trust.bundle,
            request_key=day.agent.request_key,
            journal=journal,
            clock=self.clock("agent"),
            monotonic=self.loop.time,
        )
        cosigner = agent_cosigner(HUB, day.agent.name, Ed25519PrivateKey.from_private_bytes(b"w" * 32))
        outbox = Outbox(journal=journal, clock=self.clock("agent"), request_key=day.agent.request_key)
        services = LinkServices(
            trust=PinnedTrust(Path("bundle.json"), day.trust.bundle),
            executor=executor,
            witness=LinkWitness(cosigner=cosigner, executor=executor, clock=self.clock("agent")),
            outbox=outbox,
            unlocks=_no_pins,
            failed=failed,
        )
        links = HubLinks({"hub": lambda: self._dial(running)}, services)
        token, turns = SimToken(self.device, self.loop, self.chaos, process), Turns()
        served = [profile for profile in day.profiles if profile.name in self._profiles]
        executor.serve(
            tuple(ServedKey(profile=profile, token=token, key_id=_KEY_ID, turns=turns) for profile in served)
        )
        await links.announce(tuple(one for one in day.announcements if one.name in self._profiles))
        try:
            await outbox.tell(_attached)
            await links.run()
        except UnavailableError:  # the journal took nothing
            process.kill()
        except Exception as error:  # noqa: BLE001 - the process boundary
            failed(error)

    @contextlib.asynccontextmanager
    async def _dial(self, agent: _Running) -> AsyncIterator[LinkSocket]:
        await asyncio.sleep(self.loop.short_delay())
        running = self.hub
        if running is None or running.hub is None or not running.process.alive or self.chaos.strikes("no connection"):
            raise ConnectionRefusedError("no hub there")
        link = Link(self.loop, self.chaos, agent.process, running.process)
        agent.link = link
        running.process.spawn(self._serve(running.hub, link))
        try:
            yield link.agent
        finally:
            await link.agent.close()

    async def _serve(self, hub: Hub, link: Link) -> None:
        try:
            await serve_link(hub, self._day.agent, link.hub, here=False)
        finally:
            await link.hub.close()

    # -- clients --------------------------------------------------------------------------------------------------

    def start_clients(self) -> None:
        first = 0
        for client in range(self.choice.choice((1, 1, 2, CLIENTS))):
            wanted = []
            for _ in range(self.choice.choice((1, 1, 2))):
                count = self.choice.choice((1, 1, 2, 3))
                lives = self.choice.choice((3600, 3600, 3600, 30))
                wanted.append(asked(client, first, count, self.choice.choice(self._profiles), lives))
                first += count
            process = Process(self.loop, f"client {client}")
            self._wanted += wanted
            self._clients.append(process.spawn(self._run_client(process, wanted)))

    async def _run_client(self, process: Process, wanted: list[Asked]) -> None:
        for one in wanted:
            await asyncio.sleep(self.choice.random() * self.choice.choice((0.01, 1.0, 20.0)))
            if self.chaos.strikes("client vanishes"):
                process.spawn(self._ask(process, one))  # it was sent, and nobody waits for the answer
                continue
            view = await self._until_answered(process, one)
            if view is not None and self.choice.random() < 0.3:
                again = await self._until_answered(process, one)
                if again is not None and again.items != view.items:
                    self.judge.violated("P4", "asked again, the answer is another one")

    async def _until_answered(self, process: Process, one: Asked) -> RequestView | None:
        """Send the same request until it is answered for good; None if it was refused for good."""
        while True:
            try:
                view = await self._ask(process, one)
                if view.state == "done":
                    return view
            except ConnectionError:
                pass
            except PrivysealError as error:
                if not error.retryable and not isinstance(error, LogIntegrityError):
                    return None
            await asyncio.sleep(self.choice.random() * 10.0)

    async def _ask(self, process: Process, one: Asked) -> RequestView:
        caller = self._day.clients[one.client]
        enough = self.choice.choice((1, len(one.digests)))
        seconds = self.choice.choice((0.0, 60.0, 60.0))

        async def handler(hub: Hub) -> RequestView:
            hub.ensure_signing()
            accepted = await hub.requests.submit(caller, one.body)
            question = Question(request_id=accepted.request_id, enough=enough, seconds=seconds)
            view = await hub.views.wait(caller, question, fresh=accepted.fresh)
            self.judge.leaves(one, view)
            return view

        view = await self.network.call(process, lambda: self.hub_handler(handler))
        self.judge.told(one, view)
        return view

    # -- the schedule ---------------------------------------------------------------------------------------------

    def _disturb(self) -> None:
        """What happens between steps."""
        if not self.chaos.active:
            return
        if self.chaos.strikes("hub killed between steps") and self.hub is not None:
            self.hub.process.kill()
        if self.chaos.strikes("agent killed between steps") and self.agent is not None:
            self.agent.process.kill()
        if self.agent is not None and self.agent.link is not None and self.chaos.strikes("link cut"):
            self.agent.link.cut()
        if self.chaos.strikes("clock jumps"):
            host = self.choice.choice(("hub", "agent"))
            self._offsets_ms[host] += self.choice.choice((-3_600_000, -5_000, 5_000, 60_000, 7_200_000))
        pause = self.choice.random() * self.choice.choice((0.02, 0.5, 10.0))
        self.loop.world.call_at(self.loop.time() + pause, self._disturb)

    def _is_quiet(self) -> bool:
        waiting = "SELECT count(*) FROM job WHERE state IN ('queued', 'intent')"
        return all(task.done() for task in self._clients) and self.hub_database.count(waiting) == 0

    async def _last_questions(self) -> None:
        """After the faults: wait until all has ended, let what is late arrive, then ask for everything once more."""
        await asyncio.sleep(_FAULTS_SECONDS)
        self.chaos.active = False
        while not self._is_quiet():  # noqa: ASYNC110 - time is virtual
            await asyncio.sleep(_WATCH_SECONDS)
        await asyncio.sleep(_LATE_SECONDS)
        process = Process(self.loop, "last client")
        for one in self._wanted:
            await process.spawn(self._until_answered(process, one))

    def run(self) -> Report:
        """Run it."""
        try:
            return self._run()
        finally:
            self.loop.end()

    def _run(self) -> Report:
        self.start_hub()
        self.start_agent()
        self.start_clients()
        self.loop.world.call_at(0.0, self._disturb)
        questions = self.loop.world.spawn(self._last_questions())
        quiet = self.loop.run(questions.done, until=_FAULTS_SECONDS + _PEACE_SECONDS)
        for name, error in self.loop.unforeseen:
            self.judge.violated("unforeseen", f"{name}: {error!r}")
        if not quiet:
            self.judge.violated("end", f"not quiet {_PEACE_SECONDS:.0f} seconds after the last fault")
        else:
            questions.result()
        self.judge.at_rest(self.hub_database.image, self.journal_database.image)
        return Report(
            seed=self.seed,
            violations=tuple(self.judge.violations),
            struck=tuple(self.chaos.struck),
            signed=len(self.judge.released),
            entries=len(self.judge.log),
            steps=(self.loop.steps, self.loop.time()),
        )


def _nothing(_logger: Any, _method: str, _event: Any) -> NoReturn:
    raise structlog.DropEvent


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """What hub and agent log would take most of the time."""
    before = structlog.get_config()
    structlog.configure(processors=[_nothing], wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def run_schedule(seed: int) -> Report:
    """Run the schedule of a seed."""
    with silence():
        return World(seed).run()
