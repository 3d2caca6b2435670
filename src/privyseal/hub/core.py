# SPDX-License-Identifier: Apache-2.0
"""The hub without its sockets: services over one store, and whether it may still sign."""

import asyncio
import secrets
from contextlib import suppress
from typing import Final

import structlog

from privyseal.errors import ConflictError, LogIntegrityError, PrivysealError, UnavailableError
from privyseal.hub.agreement import Agreement
from privyseal.hub.config import HubConfig, parse_interval
from privyseal.hub.guarded_store import GuardedStore
from privyseal.hub.hosts import SameHost, same_host
from privyseal.hub.services.agent_events import AgentEvents
from privyseal.hub.services.anchors import Anchors
from privyseal.hub.services.audit import Audit
from privyseal.hub.services.certificates import CertificateWatch
from privyseal.hub.services.denials import Denials
from privyseal.hub.services.devices import Devices
from privyseal.hub.services.dispatch import Dispatch
from privyseal.hub.services.enrol import Enrolments, TlsAuthority
from privyseal.hub.services.hearing import Hearing
from privyseal.hub.services.lane_parts import LaneServices
from privyseal.hub.services.observer import Observer
from privyseal.hub.services.pools import Pools
from privyseal.hub.services.publication import Publication
from privyseal.hub.services.queue_board import QueueBoard
from privyseal.hub.services.queue_orders import QueueOrders
from privyseal.hub.services.queue_views import QueueViews
from privyseal.hub.services.relays import Relays
from privyseal.hub.services.settling import Settler
from privyseal.hub.services.submit import Requests
from privyseal.hub.services.timestamps import Timestamps
from privyseal.hub.services.token_board import TokenBoard
from privyseal.hub.services.unlocks import Unlocks
from privyseal.hub.services.views import RequestViews
from privyseal.hub.services.withdrawing import Withdrawals
from privyseal.hub.services.witnesses import Witnesses
from privyseal.hub.tsa_http import TsaClient
from privyseal.hub.witness_http import WitnessClient
from privyseal.identity.bundle import TrustBundle, open_successor
from privyseal.identity.trust import PinnedTrust
from privyseal.ports.clock import Clock
from privyseal.ports.store import Store, Tx
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.entry import Admin, encode_entry
from privyseal.wire.link import TrustChanged

__all__ = ["Hub"]

_LOG: Final = structlog.get_logger("privyseal.hub")
_SWEEP_SECONDS: Final = 1.0
#: Another process of the same database may have ended a standing.
_REMEMBER_MS: Final = 5_000


class Hub:
    """What every route of a hub works with."""

    def __init__(
        self,
        *,
        config: HubConfig,
        trust: PinnedTrust,
        store: Store,
        authority: TlsAuthority,
        log_cosigner: Cosigner,
        clock: Clock,
        is_here: SameHost = same_host,
    ) -> None:
        self.config = config
        self.clock = clock
        self.store = GuardedStore(store, clock=clock, on_agreement=self._begin_writing, failed=self.fail)
        self.is_here = is_here
        self._trust = trust
        self._broken: PrivysealError | None = None
        self._in_doubt = asyncio.Event()
        self._keys_may_differ = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.audit = Audit(self.store)
        self.publication = Publication(store=self.store, cosigner=log_cosigner)
        self.enrolments = Enrolments(
            store=self.store,
            trust=trust,
            authority=authority,
            clock=clock,
            remember_ms=_REMEMBER_MS if config.database else None,
            ordered=lambda signed: QueueOrders(self.withdrawals).carry_out(signed),
        )
        self.denials = Denials(self.store)
        self.observer = Observer(clock)
        continues = bool(trust.bundle.statement.former)
        self.agent_events = AgentEvents(self.store, self.observer.recorded, continues=continues)
        self.token_board = TokenBoard(self.observer.token)
        self.unlocks = Unlocks(trust=trust, links=lambda: self.dispatch.links, clock=clock)
        self.relays = Relays(store=self.store, clock=clock)
        self._make_signing(self.store, trust, clock)
        self._make_timestamping(self.store, clock)

    def _make_signing(self, store: Store, trust: PinnedTrust, clock: Clock) -> None:
        self.witnesses = Witnesses(
            store=store,
            audit=self.audit,
            trust=trust,
            links=lambda: self.dispatch.links,
            client=WitnessClient(is_here=self.is_here),
        )
        self.agreement = Agreement(
            store=self.store, audit=self.audit, witnesses=self.witnesses, trust=trust, failed=self.fail
        )
        pools = Pools(self.config.pool)
        self.board = QueueBoard(self.config.queue, self.config.team, pools.rollovers)
        settler = Settler(
            store=store,
            board=self.board,
            witnesses=self.witnesses,
            observer=self.observer,
            changed=self._changed,
        )
        self.dispatch = Dispatch(
            LaneServices(
                store=store,
                audit=self.audit,
                witnesses=self.witnesses,
                observer=self.observer,
                board=self.board,
                settler=settler,
                clock=clock,
                holder=secrets.token_hex(8),
                lease_ms=int(self.config.queue.lease_seconds * 1000),
                alone=not self.config.database,
                changed=self._changed,
                failed=self.fail,
            ),
            pools,
        )
        self._make_queue(store, trust, clock)

    def _make_queue(self, store: Store, trust: PinnedTrust, clock: Clock) -> None:
        self.requests = Requests(
            store=store,
            dispatch=self.dispatch,
            board=self.board,
            witnesses=self.witnesses,
            denials=self.denials,
            observer=self.observer,
            trust=trust,
            clock=clock,
        )
        self.views = RequestViews(
            store=store, dispatch=self.dispatch, board=self.board, audit=self.audit, witnesses=self.witnesses
        )
        self.queue_views = QueueViews(
            store=store, dispatch=self.dispatch, board=self.board, witnesses=self.witnesses, views=self.views
        )
        self.devices = Devices(store=store, dispatch=self.dispatch, board=self.board, recent=self.observer.recent)
        self.withdrawals = Withdrawals(
            store=store,
            dispatch=self.dispatch,
            board=self.board,
            observer=self.observer,
            clock=clock,
            changed=self._changed,
        )
        self.hearing = Hearing(
            store=store,
            board=self.board,
            dispatch=self.dispatch,
            changed=self.views.changed,
            changed_all=self.views.changed_all,
        )
        self.certificates = CertificateWatch(profiles=self.dispatch.rows, clock=clock, told=self.observer.certificate)
        self.dispatch.announced = self._announced
        self.witnesses.published = self.publication.add
        self.witnesses.stored = self.views.changed_all

    def _make_timestamping(self, store: Store, clock: Clock) -> None:
        self._tsa_client = TsaClient()
        self.timestamps = Timestamps(
            store=store,
            denials=self.denials,
            tables=self.config.tsa,
            ask=self._tsa_client.ask,
            clock=clock,
        )
        self.anchors = Anchors(
            store=store,
            timestamps=self.timestamps,
            clock=clock,
            every_seconds=parse_interval(self.config.anchor.every),
        )

    @property
    def bundle(self) -> TrustBundle:
        """The trust bundle in force."""
        return self._trust.bundle

    async def change_trust(self, envelope: bytes) -> TrustBundle:
        """Put another trust bundle in its place: on record first, then for this hub and its agents.

        Raises:
            VerificationError: `bundle.successor`. MalformedInputError: as `open_successor`.
            ConflictError: `bundle.offline` if it changes what cannot be changed while the hub runs.
            ConfigError: `witness.here`.
        """
        bundle = open_successor(envelope, self.bundle)
        if _fixed(bundle) != _fixed(self.bundle):
            raise ConflictError("bundle.offline", "the CA and the log's keys are not changed while the hub runs")
        await self.witnesses.refuse_here(bundle.witnesses)

        async def write(tx: Tx) -> None:
            entry = Admin(ts=await tx.now_ms(), action="bundle", bundle=bundle.sha256.hex())
            await tx.append(encode_entry(entry))

        await self.store.write(write)
        self._trust.pin(bundle)
        for link in tuple(self.dispatch.links.values()):
            with suppress(UnavailableError):
                await link.send(TrustChanged(bundle=bundle.envelope))
        return bundle

    async def revoked(self, role: str, name: str) -> None:
        """A member has no standing any more, from now on."""
        self.relays.end_member(role, name)
        if role == "agent":
            self.dispatch.drop(name)
            self.token_board.forget(name)
            await self.dispatch.give_up_lost()
        else:
            self.observer.stream.end(name)

    def _changed(self, request_id: str) -> None:
        self.views.changed(request_id)

    def _announced(self) -> None:
        self.certificates.look()
        self._keys_may_differ.set()

    def fail(self, error: BaseException) -> None:
        """Nothing more is signed by this process; reads go on and say why. What came first is the reason."""
        if self._broken is not None:
            return
        _LOG.critical("signing stopped", reason=str(error), exc_info=error)
        if not isinstance(error, PrivysealError):
            error = LogIntegrityError("hub.internal", "a lane failed; the hub's own log says why")
        self._broken = error
        if error.code == "store.commit_unknown":
            self._in_doubt.set()

    async def wait(self, stop: asyncio.Event) -> None:
        """Return when asked to stop.

        Raises:
            UnavailableError: `hub.store` if only another start learns what the database holds. What else is wrong with
                the log needs a person: then reads go on and say why.
        """
        waiting = [asyncio.create_task(one.wait()) for one in (stop, self._in_doubt)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if not stop.is_set():
            raise UnavailableError(
                "hub.store",
                f"the hub stops, as it cannot know what its database holds: {self._broken}",
                hint="start it again: it reads from the database what became of the last commit",
            )

    @property
    def broken(self) -> PrivysealError | None:
        """Why this process signs nothing any more, if that is so."""
        return self._broken

    @property
    def refusal(self) -> PrivysealError | None:
        """Why nothing can be signed, or None."""
        if self._broken is None and not self.store.agreed:
            return self.store.refusal()
        return self._broken

    def ensure_signing(self) -> None:
        """Refuse new requests once the log cannot be trusted any more.

        Raises:
            PrivysealError: what went wrong.
        """
        if (refusal := self.refusal) is not None:
            raise refusal

    async def start(self, confirmed_size: int | None = None) -> None:
        """Open the log if it is new, start the lanes; what is written waits until somebody knows this log.

        Args:
            confirmed_size: How many entries the newest log has, as the operator knows from elsewhere.

        Raises:
            LogIntegrityError: `log.rollback` if the operator or a witness knows a newer one.
        """
        await self.agreement.wait_for(confirmed_size)
        await self.dispatch.start()
        works = {
            "witnesses": self.witnesses.run(),
            "certificates": self.certificates.run(),
            "queue": self._sweep(),
            "relays": self.relays.run(),
        }
        if self.config.database:
            self.hearing.listen()
            works["hearing"] = self.hearing.run()
        for name, work in works.items():
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    async def _sweep(self) -> None:
        """Requests whose turn cannot come any more are told so when it is so."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP_SECONDS):
                    await self._keys_may_differ.wait()
            self._keys_may_differ.clear()
            try:
                await self.withdrawals.refuse_late()
                await self.withdrawals.refuse_orphans()
            except UnavailableError as error:
                _LOG.warning("requests not refused", code=error.code, reason=error.message)

    def _begin_writing(self) -> None:
        self.anchors.start()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def stop(self) -> None:
        """End the lanes, close the store."""
        await self.anchors.stop()
        await self.relays.stop()
        await self.dispatch.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.witnesses.close()
        await self._tsa_client.close()
        await self.denials.stop()
        await self.store.close()


def _fixed(bundle: TrustBundle) -> tuple[str, str, str]:
    """What a bundle cannot change while the hub runs."""
    return bundle.statement.ca, bundle.statement.log_key, bundle.statement.log_mldsa_key
