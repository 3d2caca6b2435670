# SPDX-License-Identifier: Apache-2.0
"""The hub without its sockets: services over one store, and whether it may still sign."""

import secrets
from typing import Final

import structlog

from privyseal.errors import LogIntegrityError, PrivysealError, VerificationError
from privyseal.hub.config import HubConfig
from privyseal.hub.services.audit import Audit
from privyseal.hub.services.dispatch import Dispatch
from privyseal.hub.services.enrol import Enrolments, TlsAuthority
from privyseal.hub.services.lane import LaneServices
from privyseal.hub.services.submit import Requests
from privyseal.hub.services.timestamps import Timestamps
from privyseal.hub.tsa_http import TsaClient
from privyseal.identity.bundle import TrustBundle
from privyseal.ports.clock import Clock
from privyseal.ports.store import Store, Tx
from privyseal.tlog.entry import Admin, encode_entry
from privyseal.tlog.proof import verify_consistency

__all__ = ["Hub"]

_LOG: Final = structlog.get_logger("privyseal.hub")


class Hub:
    """What every route of a hub works with."""

    def __init__(
        self, *, config: HubConfig, bundle: TrustBundle, store: Store, authority: TlsAuthority, clock: Clock
    ) -> None:
        self.config = config
        self.bundle = bundle
        self.store = store
        self._broken: PrivysealError | None = None
        self.audit = Audit(store)
        self.enrolments = Enrolments(store=store, bundle=bundle, authority=authority, clock=clock)
        self.dispatch = Dispatch(
            LaneServices(
                store=store,
                audit=self.audit,
                holder=secrets.token_hex(8),
                changed=self._changed,
                failed=self.fail,
            )
        )
        self.requests = Requests(store=store, dispatch=self.dispatch, audit=self.audit, bundle=bundle, clock=clock)
        self._tsa_client = TsaClient()
        self.timestamps = Timestamps(store=store, tables=config.tsa, ask=self._tsa_client.ask, clock=clock)

    def _changed(self, request_id: str) -> None:
        self.requests.changed(request_id)

    def fail(self, error: BaseException) -> None:
        """Nothing more is signed by this process; reads go on and say why."""
        _LOG.critical("signing stopped", reason=str(error), exc_info=error)
        if not isinstance(error, PrivysealError):
            error = LogIntegrityError("hub.internal", "a lane failed; the hub's own log says why")
        self._broken = error

    @property
    def unready_reason(self) -> str:
        """Why nothing can be signed, or empty."""
        return "" if self._broken is None else str(self._broken)

    def ensure_signing(self) -> None:
        """Refuse new requests once the log cannot be trusted any more.

        Raises:
            PrivysealError: what went wrong.
        """
        if self._broken is not None:
            raise self._broken

    async def check_agent_head(self, size: int, root: bytes) -> None:
        """Hold the checkpoint that an agent has seen against the log (DESIGN §5: restored backups).

        Raises:
            LogIntegrityError: `log.rollback` or `log.fork`; nothing is signed from then on.
        """
        if size > 0:
            try:
                await self._check_extends(size, root)
            except LogIntegrityError as error:
                self.fail(error)
                raise

    async def _check_extends(self, size: int, root: bytes) -> None:
        head = self.store.head
        if size > head.size:
            raise LogIntegrityError(
                "log.rollback",
                f"the agent has seen a log of {size} entries, this database holds {head.size}",
                hint="the database was restored from an old backup: bring the newer one back",
            )
        proofs = await self.audit.job_proofs((), size)
        try:
            verify_consistency(
                old_size=size,
                old_root=root,
                new_size=proofs.head.size,
                new_root=proofs.head.root,
                proof=proofs.consistency,
            )
        except VerificationError as error:
            raise LogIntegrityError(
                "log.fork", f"the agent's checkpoint of {size} entries is not a prefix of this log"
            ) from error

    async def start(self) -> None:
        """Open the log if it is new, start the lanes."""
        if self.store.head.size == 0:
            await self.store.write(self._genesis)
        await self.dispatch.start()

    async def _genesis(self, tx: Tx) -> None:
        entry = Admin(ts=await tx.now_ms(), action="genesis", bundle=self.bundle.sha256.hex())
        await tx.append(encode_entry(entry))

    async def stop(self) -> None:
        """End the lanes, close the store."""
        await self.dispatch.stop()
        await self._tsa_client.close()
        await self.store.close()
