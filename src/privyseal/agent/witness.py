# SPDX-License-Identifier: Apache-2.0
"""The agent as a witness of its hub's log: `add-checkpoint` of C2SP tlog-witness, over the link.

What it cosigned last is the checkpoint that it holds: jobs and cosignatures go by the same memory, in its journal.
"""

from typing import Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.agent.check import Held
from privyseal.agent.executor import Executor, Shown
from privyseal.agent.operations import journal_is_lost
from privyseal.errors import PrivysealError
from privyseal.identity.bundle import TrustBundle
from privyseal.ports.clock import Clock
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.witness import Refusal, Seen, judge_checkpoint, parse_add_checkpoint
from privyseal.wire.link import CheckpointAnswer
from privyseal.wire.names import agent_witness_name

__all__ = ["LinkWitness", "agent_cosigner"]

_LOG: Final = structlog.get_logger("privyseal.agent.witness")
_CANNOT_STORE: Final = 503
#: Refusals of a checkpoint that the log's key did sign.
_CONTRADICTIONS: Final = frozenset({409, 422})


def agent_cosigner(hub: str, agent: str, key: Ed25519PrivateKey) -> Cosigner:
    """An agent's key as a witness; its name tells whose it is."""
    return Cosigner(name=agent_witness_name(hub, agent), key=key)


class LinkWitness:
    """Cosigns checkpoints of the agent's own hub, one after the other, and none beside a job's check."""

    def __init__(self, *, cosigner: Cosigner, executor: Executor, clock: Clock) -> None:
        self._cosigner: Final = cosigner
        self._executor: Final = executor
        self._clock: Final = clock

    @property
    def vkey(self) -> str:
        """Verifier key of the cosignatures."""
        return self._cosigner.verifier.vkey

    async def add_checkpoint(self, body: str, bundle: TrustBundle, shown: Shown) -> CheckpointAnswer:
        """The cosignature on a checkpoint that extends the one held, which is durable then; or why there is none.

        Args:
            body: As it came.
            bundle: Names the log and its key.
            shown: What the hub at the other end of the link has shown before.
        """
        async with self._executor.checks:
            return await self._judge(body, bundle, shown)

    async def _judge(self, body: str, bundle: TrustBundle, shown: Shown) -> CheckpointAnswer:
        held = self._executor.held
        verdict = judge_checkpoint(
            body,
            logs={bundle.origin: (bundle.log_key,)},
            seen={bundle.origin: Seen(size=held.size, root=held.root)},
        )
        if isinstance(verdict, Refusal):
            if verdict.status in _CONTRADICTIONS:
                level = _LOG.warning if self._crossed(body, verdict, shown) else _LOG.critical
                level("the hub's checkpoint does not extend the one held", reason=verdict.reason)
            return CheckpointAnswer(status=verdict.status, text=verdict.reason)
        try:
            seen = Held(size=verdict.seen.size, root=verdict.seen.root)
            await self._executor.see(parse_add_checkpoint(body).note.encode(), seen, shown)
        except PrivysealError as error:
            if journal_is_lost(error):
                raise
            _LOG.error("not cosigned", code=error.code, reason=error.message)
            return CheckpointAnswer(status=_CANNOT_STORE, text=error.message)
        line = self._cosigner.sign(verdict.text, self._clock() // 1000).line
        return CheckpointAnswer(status=200, text=line)

    def _crossed(self, body: str, refusal: Refusal, shown: Shown) -> bool:
        """Whether another hub may have shown a newer checkpoint while this one was on its way."""
        proves_from_elsewhere = refusal.size is not None
        return (
            self._executor.several_hubs
            and proves_from_elsewhere
            and parse_add_checkpoint(body).checkpoint.size >= shown.size
        )
