# SPDX-License-Identifier: Apache-2.0
"""What authority keys order about the queue: carried out once, and on record."""

from typing import Final

from privyseal.hub.services.withdrawing import Recorder, Withdrawals
from privyseal.identity.authority import QueueCancel, QueueMove, QueueOrder, SignedStatement
from privyseal.policy.fair_queue import priority_named
from privyseal.ports.store import Tx
from privyseal.tlog.entry import Admin, encode_entry

__all__ = ["QueueOrders"]


class QueueOrders:
    """Carries out signed orders."""

    def __init__(self, withdrawals: Withdrawals) -> None:
        self._withdrawals: Final = withdrawals

    async def carry_out(self, signed: SignedStatement) -> None:
        """Cancel a request or move it; the same statement again changes nothing.

        Raises:
            ConfigError: `request.unknown`, `request.ended`, `request.not_queued`.
        """
        match signed.statement:
            case QueueCancel() as order:
                await self._withdrawals.end(order.request, _recorder(signed, order, "queue-cancel"), order.reason)
            case QueueMove() as order:
                recorder = _recorder(signed, order, "queue-move", order.priority)
                await self._withdrawals.move(order.request, priority_named(order.priority), recorder)


def _recorder(signed: SignedStatement, order: QueueOrder, action: str, reason: str = "") -> Recorder:
    async def record(tx: Tx) -> bool:
        if not await tx.take_statement(signed.sha256, order.not_after):
            return False
        entry = Admin(
            ts=await tx.now_ms(),
            action=action,
            bundle="",
            reason=reason,
            request=order.request,
            statement=signed.sha256.hex(),
            authorities=signed.authorities,
        )
        await tx.append(encode_entry(entry))
        return True

    return record
