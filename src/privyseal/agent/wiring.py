# SPDX-License-Identifier: Apache-2.0
"""An agent process put together: tokens, journal, executor, links."""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.agent.config import AgentConfig, AgentFiles, TokenTable, load_agent_config, token_config
from privyseal.agent.control import ControlSocket
from privyseal.agent.custody import Custodian, system_moment
from privyseal.agent.desk import Desk
from privyseal.agent.device_keeper import OpenedDevice
from privyseal.agent.device_wiring import DeviceLending
from privyseal.agent.executor import Executor
from privyseal.agent.host_load import HostLoad
from privyseal.agent.host_steps import host_steps
from privyseal.agent.joining import open_sealing_key
from privyseal.agent.keeper import TokenKeeper
from privyseal.agent.keys import OpenedProfile, ProfileOpener
from privyseal.agent.ladder import OF_HOST, OF_TOKEN, Tally
from privyseal.agent.link import LinkServices, dialer
from privyseal.agent.links import HubLinks
from privyseal.agent.network_place import NetworkFiles
from privyseal.agent.operations import journal_is_lost
from privyseal.agent.outbox import Outbox
from privyseal.agent.pins import TokenPins, TokenWithPin
from privyseal.agent.pool import KeptToken, TokenPool
from privyseal.agent.recovery import RecoveringToken
from privyseal.agent.relocation_watch import RelocationWatch
from privyseal.agent.tls import hub_tls
from privyseal.agent.token_commands import TokenCommands
from privyseal.agent.token_custody import TokenCustody
from privyseal.agent.token_record import TokenRecord
from privyseal.agent.turns import Turns
from privyseal.agent.witness import LinkWitness, agent_cosigner
from privyseal.errors import PrivysealError, UnavailableError
from privyseal.identity.keyfile import load_ed25519, save_private_key
from privyseal.identity.trust import PinnedTrust
from privyseal.ports.clock import Clock, system_clock
from privyseal.ports.journal import AgentJournal
from privyseal.ports.token import ReaderUse
from privyseal.storage.journal import SqliteJournal
from privyseal.tokens.factory import open_token
from privyseal.usb.host import UsbHost
from privyseal.wire.link import ProfileAnnouncement, TokenHealth

__all__ = ["Agent", "open_agent"]

_LOG: Final = structlog.get_logger("privyseal.agent")
#: How often counts of signatures go to the hub.
_REPORT_SECONDS: Final = 5.0


class Agent:
    """One agent process for one hub, or for several that share one log."""

    def __init__(
        self,
        *,
        config: AgentConfig,
        files: AgentFiles,
        trust: PinnedTrust,
        journal: AgentJournal,
        outbox: Outbox,
        custodians: Mapping[str, Custodian],
        clock: Clock,
        usb: UsbHost | None = None,
    ) -> None:
        self.config = config
        self._files = files
        self._journal = journal
        self.outbox = outbox
        self._tally: Final = Tally()
        self._report_now: Final = asyncio.Event()
        witness_key = _witness_key(files)
        self.executor = Executor(
            bundle=trust.bundle,
            request_key=load_ed25519(files.request_key).public_key().public_bytes_raw(),
            journal=journal,
            clock=clock,
            monotonic=time.monotonic,
            own_witness=witness_key.public_key().public_bytes_raw(),
            several_hubs=len(config.hubs) > 1,
        )
        self.keepers = {
            table.name: self._keeper(table, custodians[table.name], usb or UsbHost()) for table in config.token
        }
        self.executor.watch_tokens(lambda token, error: self.keepers[token].failed(error))
        self.links = self._links(trust, witness_key, clock)
        self.lending: Final = self._lending(trust, usb)
        self._announced: dict[tuple[str, str], ProfileAnnouncement] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def _lending(self, trust: PinnedTrust, usb: UsbHost | None) -> DeviceLending:
        return DeviceLending(
            self.config,
            self._files,
            trust=trust,
            keepers=self.keepers,
            journal=self._journal,
            outbox=self.outbox,
            changed=self._tokens_changed,
            host=usb,
        )

    def _links(self, trust: PinnedTrust, witness_key: Ed25519PrivateKey, clock: Clock) -> HubLinks:
        desk = self._take_commands(trust, clock)
        cosigner = agent_cosigner(trust.bundle.hub, self.config.name, witness_key)
        return HubLinks(
            {url: dialer(url, lambda: hub_tls(self._files, trust.bundle)) for url in self.config.hubs},
            LinkServices(
                trust=trust,
                executor=self.executor,
                witness=LinkWitness(cosigner=cosigner, executor=self.executor, clock=clock),
                outbox=self.outbox,
                unlocks=desk.answer,
                failed=self._failure_seen,
            ),
        )

    def _keeper(self, table: TokenTable, custodian: Custodian, usb: UsbHost) -> TokenKeeper:
        record = TokenRecord(table.name, self.outbox)
        token = self._token(table, record)
        opener = ProfileOpener(
            wanted=tuple(key for key in self.config.key if key.token == table.name),
            token=token,
            turns=Turns(table.workers),
            directory=self._files.directory,
        )
        return TokenKeeper(
            table,
            opener,
            token=token,
            record=record,
            journal=self._journal,
            custody=TokenCustody(
                custodian,
                token,
                turns=opener.turns,
                count_seconds=0.0 if table.counter == "none" else table.count_seconds,
                beside=lambda: self._uses_beside(table.name),
                place=RelocationWatch(
                    table,
                    token,
                    turns=opener.turns,
                    journal=self._journal,
                    usb=usb,
                    network=NetworkFiles().read,
                    is_busy=HostLoad().is_busy,
                ),
            ),
            changed=self._tokens_changed,
        )

    def _token(self, table: TokenTable, record: TokenRecord) -> KeptToken:
        tally = self._tally.sharing(OF_HOST)
        members = tuple(
            RecoveringToken(
                open_token(token_config(table, self._files.directory)),
                told=record.stepped,
                steps=host_steps(table, self.config.recovery, self._files.directory),
                tally=tally.sharing(OF_HOST | OF_TOKEN),
            )
            for _ in range(table.workers)
        )
        for member in members:
            member.trouble_changed = self._report_now.set
        return members[0] if len(members) == 1 else TokenPool(members)

    def _take_commands(self, trust: PinnedTrust, clock: Clock) -> Desk:
        """What people do with the tokens: on this host over a socket, and from a desk over the hub."""
        self.pins = self._pins(clock)
        commands = {**TokenCommands(self.keepers).commands, **self.pins.commands}
        self._control = ControlSocket(self._files.control, commands)
        key = open_sealing_key(self._files.sealing_key)
        return Desk(name=self.config.name, key=key, trust=trust, pins=self.pins, clock=clock)

    def _pins(self, clock: Clock) -> TokenPins:
        tokens = {
            table.name: TokenWithPin(
                token=self.keepers[table.name].token,
                glance=self.keepers[table.name].token.glance,
                config=token_config(table, self._files.directory),
                record=self.keepers[table.name].record,
                retry=self.keepers[table.name].retry,
            )
            for table in self.config.token
        }
        return TokenPins(tokens, directory=self._files.directory, clock=clock)

    def _uses_beside(self, name: str) -> list[ReaderUse]:
        """What the workers of the other tokens saw of pcscd."""
        others = (keeper.custody for other, keeper in self.keepers.items() if other != name)
        return [custody.use for custody in others if custody.use is not None]

    async def start(self) -> None:
        """Look at the tokens and dial out.

        Raises:
            ConfigError: `agent.socket`, `agent.socket_path`, `listen.failed`.
        """
        if not self.config.key and not self.config.device:
            _LOG.warning(
                "no key profile: nothing can be signed here", next="privyseal token add, or fill in agent.toml; restart"
            )
        self._control.open()
        await asyncio.gather(*(keeper.start() for keeper in self.keepers.values()))
        await self.lending.start()
        self._spawn(self.links.run(), "agent links")
        self._spawn(self._report(), "agent report")
        for name, keeper in self.keepers.items():
            self._spawn(keeper.run(), f"agent token {name}")
        if self.config.device:
            self._spawn(self.lending.keeper.run(), "agent devices")

    async def wait(self, stop: asyncio.Event) -> None:
        """Return when asked to stop.

        Raises:
            UnavailableError: `agent.journal` if the journal must be opened again; `agent.internal` if a part of the
                agent ended in a way that nobody foresaw.
            PrivysealError: what ended it, if that is known.
        """
        stopping = asyncio.create_task(stop.wait(), name="agent stop")
        await asyncio.wait((stopping, self._failure), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not self._failure.done():
            return
        error = self._failure.result()
        if journal_is_lost(error):
            raise UnavailableError(
                "agent.journal",
                f"the agent stops, as it cannot know what its journal holds: {error}",
                hint="start it again: it reads from the journal what became of the last commit",
            ) from error
        if isinstance(error, PrivysealError):
            raise error
        raise UnavailableError(
            "agent.internal",
            f"a part of the agent failed with {type(error).__name__}",
            hint="start it again; if it comes back, report it with the agent's log",
        ) from error

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure_seen(error)

    def _failure_seen(self, error: BaseException) -> None:
        _LOG.critical("agent failed", exc_info=error)
        if not self._failure.done():
            self._failure.set_result(error)

    async def _tokens_changed(self) -> None:
        """Serve and announce what the tokens can sign for now."""
        profiles: list[OpenedProfile | OpenedDevice] = [
            *(profile for keeper in self.keepers.values() for profile in keeper.profiles),
            *self.lending.keeper.profiles,
        ]
        for profile in profiles:
            found = profile.announcement
            if found == self._announced.get((found.name, found.token)):
                continue
            self._announced[found.name, found.token] = found
            if profile.served is None:
                _LOG.error(
                    "key profile not served",
                    profile=found.name,
                    token=found.token,
                    code=found.problem_code,
                    reason=found.problem,
                    next=found.problem_hint,
                )
            else:
                _LOG.info(
                    "key profile ready",
                    profile=found.name,
                    token=found.token,
                    level=found.level,
                    hardware=found.hardware,
                )
        self.executor.serve(tuple(profile.served for profile in profiles if profile.served is not None))
        await self.links.announce(tuple(profile.announcement for profile in profiles))
        await self.links.report(self._health())

    def _health(self) -> tuple[TokenHealth, ...]:
        return tuple(keeper.health() for keeper in self.keepers.values())

    async def _report(self) -> None:
        """Tell the hub how the tokens are, as often as that changes; at once if one makes no headway, or does again."""
        told: tuple[TokenHealth, ...] = ()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._report_now.wait(), _REPORT_SECONDS)
            self._report_now.clear()
            if (now := self._health()) != told:
                await self.links.report(now)
                told = now

    async def stop(self) -> None:
        """Hang up, let the tokens finish, close everything."""
        await self._control.close()
        self.executor.end_leases("its agent stops")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.lending.stop()
        await self.links.stop()
        await asyncio.gather(*(keeper.close() for keeper in self.keepers.values()))
        await self._journal.close()


def _witness_key(files: AgentFiles) -> Ed25519PrivateKey:
    """The agent's key as a witness, made at the first start."""
    if not files.witness_key.exists():
        save_private_key(files.witness_key, Ed25519PrivateKey.generate())
    return load_ed25519(files.witness_key)


async def open_agent(directory: Path, clock: Clock = system_clock, usb: UsbHost | None = None) -> Agent:
    """Open the agent in a directory; `start` makes it dial out.

    Raises:
        ConfigError: what is missing or malformed.
    """
    files = AgentFiles(directory)
    config = load_agent_config(directory)
    trust = PinnedTrust.load(files.bundle)
    journal = await SqliteJournal.open(files.journal, origin=trust.bundle.origin)
    request_key = load_ed25519(files.request_key).public_key().public_bytes_raw()
    outbox = Outbox(journal=journal, clock=clock, request_key=request_key)
    custodians = {
        table.name: await Custodian.open(name=table.name, journal=journal, outbox=outbox, clocks=system_moment)
        for table in config.token
    }
    return Agent(
        config=config,
        files=files,
        trust=trust,
        journal=journal,
        outbox=outbox,
        custodians=custodians,
        clock=clock,
        usb=usb,
    )
