# SPDX-License-Identifier: Apache-2.0
"""Whether this log is the newest (DESIGN §5: restored backups): what agents, witnesses and the operator have seen."""

from collections.abc import Callable
from typing import Final

import structlog

from privyseal.errors import LogIntegrityError, VerificationError
from privyseal.hub.guarded_store import GuardedStore
from privyseal.hub.services.audit import Audit
from privyseal.hub.services.genesis import write_genesis
from privyseal.hub.services.witnesses import Witnesses
from privyseal.identity.trust import PinnedTrust
from privyseal.ports.store import Tx
from privyseal.tlog.entry import Admin, encode_entry
from privyseal.tlog.proof import verify_consistency

__all__ = ["Agreement"]

_LOG: Final = structlog.get_logger("privyseal.hub")


class Agreement:
    """Lets a store be written once somebody else knows its log, and no newer one."""

    def __init__(
        self,
        *,
        store: GuardedStore,
        audit: Audit,
        witnesses: Witnesses,
        trust: PinnedTrust,
        failed: Callable[[BaseException], None],
    ) -> None:
        """`failed` is called when somebody has seen what this log does not hold."""
        self._store: Final = store
        self._audit: Final = audit
        self._witnesses: Final = witnesses
        self._trust: Final = trust
        self._failed: Final = failed

    async def check_agent_head(self, size: int, root: bytes) -> None:
        """Hold the checkpoint that an agent has seen against the log (DESIGN §5: restored backups).

        Raises:
            LogIntegrityError: `log.rollback` or `log.fork`; nothing is signed from then on.
        """
        if size > 0:
            try:
                await self._check_extends(size, root)
            except LogIntegrityError as error:
                self._failed(error)
                raise
            self._store.agree()

    async def check_agent_size(self, size: int) -> None:
        """The same for a checkpoint that an agent has got from another hub process of this database.

        Raises:
            LogIntegrityError: `log.rollback`; nothing is signed from then on.
        """
        try:
            await self._check_size(size)
        except LogIntegrityError as error:
            self._failed(error)
            raise

    async def _check_size(self, size: int) -> None:
        head = self._store.head
        if size > head.size:
            head = await self._audit.newest_head()
        if size > head.size:
            raise LogIntegrityError(
                "log.rollback",
                f"the agent has seen a log of {size} entries, this database holds {head.size}",
                hint="the database was restored from an old backup: bring the newer one back; if it is lost,"
                " privyseal log reopen",
            )

    async def _check_extends(self, size: int, root: bytes) -> None:
        await self._check_size(size)
        proofs = await self._audit.job_proofs((), size)
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

    async def wait_for(self, confirmed_size: int | None) -> None:
        """After a start: let the log be written if somebody knows that it is the newest, or begin a new one.

        Args:
            confirmed_size: How many entries the newest log has, as the operator knows from elsewhere.

        Raises:
            LogIntegrityError: `log.rollback` if the operator or a witness knows a newer one.
        """
        size = self._store.head.size
        if confirmed_size is not None and confirmed_size != size:
            raise LogIntegrityError(
                "log.rollback",
                f"the operator confirms a log of {confirmed_size} entries; this database holds {size}",
                hint="bring the newer database back; if it is lost, privyseal log reopen",
            )
        if size == 0:
            self._store.agree()
            await self._store.write(lambda tx: write_genesis(tx, self._trust.bundle))
        elif confirmed_size is not None or not await self._has_others() or await self._witnesses.vouch():
            self._store.agree()
            if confirmed_size is not None:
                await self._store.write(self._confirmation)
        else:
            _LOG.warning("nothing is written yet", reason=self._store.refusal().message)

    async def _has_others(self) -> bool:
        """Whether there is anybody who could know more of the log than this database."""
        enrolments = await self._store.read(lambda tx: tx.enrolments())
        agents = any(one.role == "agent" and one.revoked_ms is None for one in enrolments)
        return agents or any(one.url for one in self._trust.bundle.witnesses.witnesses)

    async def _confirmation(self, tx: Tx) -> None:
        await tx.append(
            encode_entry(Admin(ts=await tx.now_ms(), action="confirm", bundle=self._trust.bundle.sha256.hex()))
        )
