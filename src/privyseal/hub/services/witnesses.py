# SPDX-License-Identifier: Apache-2.0
"""Cosignatures of witnesses: asked for in rounds, one checkpoint before all of them, until the quorum is met.

A round starts when somebody wants a checkpoint cosigned that none of the last rounds covers; whatever else is wanted
meanwhile shares the next one. A witness that is slow or lies holds nobody up as long as the others are the quorum.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import structlog

from privyseal.errors import ConfigError, LogIntegrityError, PrivysealError, UnavailableError
from privyseal.hub.links import AgentLink
from privyseal.hub.services.audit import Audit
from privyseal.hub.services.witness_asking import AskedWitness, cosigned_note
from privyseal.hub.witness_http import WitnessClient
from privyseal.identity.trust import PinnedTrust
from privyseal.ports.store import LogHead, ProfileRow, ReadTx, Store
from privyseal.tlog.note import NoteSignature, parse_note
from privyseal.tlog.quorum import QuorumPolicy, cosigned_by
from privyseal.wire.names import agent_witness_name

__all__ = ["BEFORE_RELEASE", "Witnesses"]

#: Levels at which a signature is not released before witnesses have cosigned its RESULT.
BEFORE_RELEASE: Final = frozenset({"before-release", "before-use"})

_LOG: Final = structlog.get_logger("privyseal.hub.witnesses")
_ROUND_SECONDS: Final = 10.0
#: Until the next round after one without a quorum: while somebody waits, and while nobody does.
_AGAIN_SECONDS: Final = 1.0
_LATER_SECONDS: Final = 10.0
#: How long an intent, or a finished signature, waits for the quorum.
_QUORUM_SECONDS: Final = 20.0
#: Checkpoints whose cosignatures are at hand.
_KEPT: Final = 16
#: Of the cosigned checkpoints that cover an entry: how many are looked at for one that meets the quorum.
_LOOKED_AT: Final = 8


@dataclass(slots=True, kw_only=True)
class _Cosigned:
    """A checkpoint, and the cosignatures on it by name of the witness."""

    head: LogHead
    lines: dict[str, NoteSignature] = field(default_factory=dict)

    @property
    def note(self) -> str:
        return cosigned_note(self.head.note, tuple(self.lines.values())).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demand:
    """Somebody wants a cosigned checkpoint that covers an entry.

    Attributes:
        without: Name of the witness that does not count here: the agent's own.
    """

    index: int
    without: str


@lru_cache(maxsize=64)
def _cosigners(note: str, policy: QuorumPolicy) -> tuple[tuple[str, str], ...]:
    """Who cosigned a stored checkpoint: name in the policy, and name of the key."""
    return tuple((name, one.key.name) for name, one in cosigned_by(parse_note(note), policy))


class Witnesses:
    """What the witnesses of the trust bundle's policy have cosigned."""

    def __init__(
        self,
        *,
        store: Store,
        audit: Audit,
        trust: PinnedTrust,
        links: Callable[[], Mapping[str, AgentLink]],
        client: WitnessClient,
    ) -> None:
        self._store: Final = store
        self._audit: Final = audit
        self._trust: Final = trust
        self._links: Final = links
        self._client: Final = client
        self._asked: dict[str, AskedWitness] = {}
        self._cosigned: list[_Cosigned] = []
        self._demands: set[_Demand] = set()
        #: By `without`: the newest entry that is to be covered although nobody waits here.
        self._wishes: dict[str, int] = {}
        self._wanted = asyncio.Event()
        self._progress = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Called with a checkpoint and its cosignature lines whenever one is added, and once one is stored.
        self.published: Callable[[str, tuple[NoteSignature, ...]], None] = lambda _note, _lines: None
        self.stored: Callable[[], None] = lambda: None

    @property
    def policy(self) -> QuorumPolicy:
        """The policy in force."""
        return self._trust.bundle.witnesses

    def ensure_possible(self, profile: ProfileRow) -> None:
        """Refuse what would wait for witnesses that nobody has named.

        Raises:
            UnavailableError: `witness.none`.
        """
        if profile.witness in BEFORE_RELEASE and not self.policy.wants_witnesses:
            raise UnavailableError(
                "witness.none",
                f"key profile {profile.name!r} wants witnesses ({profile.witness}), and the trust bundle names none",
                hint="an administrator names them: privyseal hub trust --witnesses FILE",
            )

    async def refuse_here(self, policy: QuorumPolicy) -> None:
        """Refuse a policy with a witness on the hub's own host, as far as the hub can see where they are.

        Raises:
            ConfigError: `witness.here`.
        """
        for witness in policy.witnesses:
            here = any(link.here and link.witness == witness.key.vkey for link in self._links().values())
            if witness.url and not here:
                with suppress(UnavailableError):  # a name without an address: it is told when it is asked
                    here = await self._client.is_here(witness.url)
            if here:
                raise ConfigError(
                    "witness.here",
                    f"witness {witness.name} runs on the hub's own host, where it proves nothing",
                    hint="leave it out of the policy, or run it on another machine",
                )

    def want(self, profile: ProfileRow, index: int) -> None:
        """Have a checkpoint cosigned that covers an entry, without waiting for it."""
        demand = self._demand(profile, index)
        if self.policy.wants_witnesses and self._find(demand) is None:
            self._wishes[demand.without] = max(index, self._wishes.get(demand.without, -1))
            self._wanted.set()

    async def vouch(self) -> bool:
        """Whether a witness that has a URL cosigns the newest checkpoint: then it has seen no newer one.

        Raises:
            LogIntegrityError: `log.rollback` if one has.
        """
        head = self._store.head
        for asked in self.status():
            if not asked.witness.url:
                continue
            try:
                await self._line(asked, head)
            except PrivysealError as error:
                if asked.size > head.size:
                    raise LogIntegrityError(
                        "log.rollback",
                        f"witness {asked.witness.name} has cosigned a log of {asked.size} entries; this database holds"
                        f" {head.size}",
                        hint="the database was restored from an old backup: bring the newer one back; if it is lost,"
                        " privyseal log reopen",
                    ) from error
                asked.failed(error)
            else:
                return True
        return False

    def somebody_came(self) -> None:
        """An agent has dialled in: perhaps the witness that was missing."""
        if self._unmet():
            self._wanted.set()

    async def cosigned(self, profile: ProfileRow, index: int) -> str:
        """A checkpoint that covers an entry, with the quorum's cosignatures but the profile's own agent's.

        Raises:
            UnavailableError: `witness.none`, `witness.quorum`.
        """
        self.ensure_possible(profile)
        demand = self._demand(profile, index)
        self._demands.add(demand)
        try:
            async with asyncio.timeout(_QUORUM_SECONDS):
                while (found := self._find(demand)) is None:
                    self._wanted.set()
                    await self._progress.wait()
        except TimeoutError as error:
            raise self._not_met(profile) from error
        finally:
            self._demands.discard(demand)
        return found.note

    async def released(self, tx: ReadTx, profile: ProfileRow | None, index: int) -> str | None:
        """The cosigned checkpoint under which a RESULT may be shown, empty if it needs none; None if it may not yet.

        Args:
            tx: Reads.
            profile: The key profile that signed; None if it is not known any more, and nobody can say what it needs.
            index: Of the RESULT.
        """
        if profile is None:
            return None
        if profile.witness not in BEFORE_RELEASE:
            return ""
        own = agent_witness_name(self._trust.bundle.hub, profile.agent)
        for text in await tx.cosigned(index, _LOOKED_AT):
            found = _cosigners(text, self.policy)
            if self.policy.is_met(frozenset(name for name, key_name in found if key_name != own)):
                return text
        return None

    def status(self) -> tuple[AskedWitness, ...]:
        """The policy's witnesses and what is known of them, in the policy's order."""
        return tuple(self._known(name) for name in self._names())

    def _names(self) -> tuple[str, ...]:
        return tuple(witness.name for witness in self.policy.witnesses)

    def _known(self, name: str) -> AskedWitness:
        witness = next(one for one in self.policy.witnesses if one.name == name)
        known = self._asked.get(name)
        if known is None or known.witness != witness:
            known = self._asked[name] = AskedWitness(witness, self._audit)
        return known

    def _demand(self, profile: ProfileRow, index: int) -> _Demand:
        own = agent_witness_name(self._trust.bundle.hub, profile.agent)
        without = next((one.name for one in self.policy.witnesses if one.key.name == own), "")
        return _Demand(index=index, without=without)

    def _find(self, demand: _Demand) -> _Cosigned | None:
        for one in self._cosigned:
            if one.head.size > demand.index and self.policy.is_met(frozenset(one.lines) - {demand.without}):
                return one
        return None

    def _not_met(self, profile: ProfileRow) -> UnavailableError:
        problems = "; ".join(f"{one.witness.name}: {one.problem}" for one in self.status() if one.problem)
        return UnavailableError(
            "witness.quorum",
            f"the witnesses that key profile {profile.name!r} waits for have not cosigned within"
            f" {_QUORUM_SECONDS:.0f} s ({problems or 'their quorum is not met'})",
            hint="privyseal status shows each witness; the request can be made again",
        )

    # -- rounds -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Have checkpoints cosigned as they are wanted, until cancelled."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                one = _Cosigned(head=self._store.head)
                self._cosigned = [one, *self._cosigned][:_KEPT]
                await self._round(one)
                if self._unmet():
                    await self._rest(one)
                    self._wanted.set()
        finally:
            for task in tuple(self._tasks):
                task.cancel()

    async def close(self) -> None:
        """Close the connections to witnesses."""
        await self._client.close()

    def _unmet(self) -> tuple[_Demand, ...]:
        """What is still to be cosigned."""
        wishes = {_Demand(index=index, without=without) for without, index in self._wishes.items()}
        met = {wish for wish in wishes if self._find(wish) is not None}
        for wish in met:
            del self._wishes[wish.without]
        return tuple(one for one in (wishes - met) | self._demands if self._find(one) is None)

    async def _rest(self, last: _Cosigned) -> None:
        """Leave witnesses in peace that did not cosign; what the last round could not cover has its turn at once."""
        if any(demand.index >= last.head.size for demand in self._unmet()):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_SECONDS if self._demands else _LATER_SECONDS):
                await self._wanted.wait()

    async def _round(self, one: _Cosigned) -> None:
        """Ask everybody who is not still busy with an earlier checkpoint; stop waiting once the quorum is met."""
        tasks = {self._spawn(self._ask(self._known(name), one)) for name in self._names() if not self._known(name).busy}
        loop = asyncio.get_running_loop()
        end_s = loop.time() + _ROUND_SECONDS
        while tasks and not self._satisfied(one) and (rest_s := end_s - loop.time()) > 0:
            _, tasks = await asyncio.wait(tasks, timeout=rest_s, return_when=asyncio.FIRST_COMPLETED)
        if self.policy.is_met(frozenset(one.lines)):
            await self._keep(one)

    def _satisfied(self, one: _Cosigned) -> bool:
        names = frozenset(one.lines)
        without = {demand.without for demand in self._demands if demand.index < one.head.size} | set(self._wishes)
        return all(self.policy.is_met(names - {name}) for name in without or {""})

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _ask(self, asked: AskedWitness, one: _Cosigned) -> None:
        asked.busy = True
        try:
            line = await self._line(asked, one.head)
        except PrivysealError as error:
            if error.message != asked.problem:
                _LOG.warning("not cosigned", witness=asked.witness.name, code=error.code, reason=error.message)
            asked.failed(error)
            return
        finally:
            asked.busy = False
        asked.problem = ""
        one.lines[asked.witness.name] = line
        self.published(one.head.note, tuple(one.lines.values()))
        self._progress.set()
        self._progress = asyncio.Event()

    async def _line(self, asked: AskedWitness, head: LogHead) -> NoteSignature:
        link = next((one for one in self._links().values() if one.witness == asked.witness.key.vkey), None)
        if link is not None:
            if link.here:
                raise ConfigError("witness.here", "it runs on the hub's own host, where it does not count")
            return await asked.ask_agent(link, head)
        if not asked.witness.url:
            raise UnavailableError("witness.no_link", "it is an agent without a link to this hub, or has no URL")
        if await self._client.is_here(asked.witness.url):
            raise ConfigError("witness.here", "it runs on the hub's own host, where it does not count")
        return await asked.ask_url(self._client, head)

    async def _keep(self, one: _Cosigned) -> None:
        """Store it, so that receipts under it come out the same after a restart."""
        size, note = one.head.size, one.note
        try:
            await self._store.write(lambda tx: tx.put_cosigned(size, note))
        except (UnavailableError, LogIntegrityError) as error:
            _LOG.warning("cosigned checkpoint not stored", code=error.code, reason=error.message)
            return
        self.stored()
