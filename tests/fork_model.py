# SPDX-License-Identifier: Apache-2.0
"""Every log that a hub may show to an agent, in a small scope: it appends, rewinds, forks, and proves what it likes.

The agent's own `check_checkpoint` judges real checkpoints with real proofs. What it signs under must be one log.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from lying_hub import HUB, MemoryLog, Trust, make_trust
from privyseal.agent.check import Held, check_checkpoint
from privyseal.errors import PrivysealError
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.note import NoteSigner
from privyseal.tlog.tree import EMPTY_ROOT
from privyseal.wire.jobs import Job

__all__ = ["Found", "explore"]

_ENTRIES = (b"a", b"b")
_MOST = 4
Log = tuple[bytes, ...]
Check = Callable[..., Checkpoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to: states, jobs that were signed, and pairs of logs signed under that fork."""

    states: int
    signed: int
    forks: int


@cache
def _trust() -> Trust:
    return make_trust()


@cache
def _memory(log: Log) -> MemoryLog:
    memory = MemoryLog()
    memory.entries[:] = log
    return memory


@cache
def _job(log: Log, old_size: int, proven: Log) -> Job:
    """A job under `log`, with the proof that `proven` has from `old_size` on."""
    memory = _memory(log)
    signer = NoteSigner(name=HUB, key=_trust().log_key)
    return Job(
        profile="release",
        token="lab",
        fence=1,
        lease_ms=60_000,
        checkpoint=sign_checkpoint(Checkpoint(origin=HUB, size=memory.size, root=memory.root()), signer),
        old_size=old_size,
        consistency=_memory(proven).consistency(old_size) if old_size <= len(proven) else (),
        parts=(),
    )


@cache
def _held(log: Log) -> Held:
    return Held(size=len(log), root=_memory(log).root()) if log else Held(size=0, root=EMPTY_ROOT)


def explore(check: Check = check_checkpoint) -> Found:
    """Visit every state: the hub's log, what the agent holds, and under which logs it has signed."""
    judged: dict[Any, bool] = {}

    def accepts(held: Log, log: Log, old_size: int, proven: Log) -> bool:
        question = (held, log, old_size, proven)
        if question not in judged:
            try:
                check(_job(log, old_size, proven), _held(held), _trust().bundle)
            except PrivysealError:
                judged[question] = False
            else:
                judged[question] = True
        return judged[question]

    first: tuple[Log, Log, frozenset[Log]] = ((), (), frozenset())
    seen, waiting = {first}, deque([first])
    while waiting:
        log, held, under = waiting.popleft()
        following = {((*log, entry), held, under) for entry in _ENTRIES if len(log) < _MOST}
        following |= {(log[:size], held, under) for size in range(len(log))}
        if log and any(
            accepts(held, log, old_size, proven) for old_size in {len(held), 0, len(log)} for proven in (log, held)
        ):
            # Two of them tell a fork: more would tell nothing new.
            following.add((log, log, frozenset([*sorted(under, key=len)[-1:], log])))
        for state in following - seen:
            seen.add(state)
            waiting.append(state)
    pairs = [under for _, _, under in seen if len(under) == 2]
    forks = sum(not _one_log(*sorted(pair, key=len)) for pair in pairs)
    return Found(states=len(seen), signed=sum(judged.values()), forks=forks)


def _one_log(short: Log, long: Log) -> bool:
    return long[: len(short)] == short
