# SPDX-License-Identifier: Apache-2.0
"""What `privyseal log verify --agent` does: agents' records beside the log, and what is kept if they contradict it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from privyseal.cli.render import say
from privyseal.client.log import PublicLog
from privyseal.client.log_agents import AgentComparison, AgentVerdict
from privyseal.errors import ConfigError, LogIntegrityError
from privyseal.identity.keyfile import write_public

__all__ = ["comparing", "verdict_data", "verdict_lines"]


@contextmanager
def comparing(paths: tuple[Path, ...], log: PublicLog) -> Iterator[tuple[AgentComparison, ...]]:
    """A comparison for each record; if the log contradicts one, both signed checkpoints are kept beside it.

    Raises:
        ConfigError: `file.missing`.
        MalformedInputError: `record.malformed`.
    """
    with ExitStack() as files:
        comparisons: list[AgentComparison] = []
        try:
            for path in paths:
                try:
                    stream = files.enter_context(path.open("rb"))
                except OSError as error:
                    raise ConfigError("file.missing", f"cannot read {path}: {error.strerror}") from error
                comparisons.append(AgentComparison(path, stream, log))
            yield tuple(comparisons)
        except LogIntegrityError:
            for path, comparison in zip(paths, comparisons, strict=False):
                if comparison.contradicted:
                    _keep(path, comparison.contradicted.encode(), log.shown)
            raise


def _keep(path: Path, shown_to_agent: bytes, shown_here: bytes) -> None:
    for end, note in (("agent-checkpoint", shown_to_agent), ("log-checkpoint", shown_here)):
        place = path.with_name(f"{path.name}.{end}")
        write_public(place, note)
        say(f"kept as proof: {place}")


def verdict_data(verdict: AgentVerdict) -> dict[str, Any]:
    """For programs."""
    return {
        "file": str(verdict.path),
        "agent": verdict.agent,
        "operations": verdict.operations,
        "signed": verdict.signed,
        "pruned": verdict.pruned,
        "never_begun": verdict.never_begun_count,
        "never_begun_intents": list(verdict.never_begun),
        "different": verdict.different_count,
        "differences": [
            {"intent": one.intent, "agent": one.agent, "log": one.log} for one in verdict.different
        ],
    }  # fmt: skip


def verdict_lines(verdict: AgentVerdict) -> Iterator[str]:
    """For people."""
    yield f"agent     {verdict.agent}: all {verdict.operations} operations stand in the log, {verdict.signed} signed"
    if verdict.pruned:
        yield f"          {verdict.pruned} of them were pruned: only the checkpoints above them could be compared"
    if verdict.never_begun_count:
        yield f"          {verdict.never_begun_count} intents it never began, {_indexes(verdict)}"
    for one in verdict.different:
        yield f"          intent {one.intent}: {one.agent} at the agent, {one.log} in the log"
    if verdict.different_count > len(verdict.different):
        yield f"          {verdict.different_count - len(verdict.different)} more ended otherwise in the log"


def _indexes(verdict: AgentVerdict) -> str:
    told = ", ".join(map(str, verdict.never_begun[:10]))
    return f"at {told}" + (" …" if verdict.never_begun_count > 10 else "")
