# SPDX-License-Identifier: Apache-2.0
"""What an agent signed under, held against the log: an honest log passes, a forked or cut one is contradicted."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from log_samples import ORIGIN, GrownLog, genesis, intent_at, result_of, sha
from privyseal.client.log import PublicLog
from privyseal.client.log_agents import AgentComparison, AgentVerdict, Difference
from privyseal.client.log_files import verify_log
from privyseal.errors import LogIntegrityError, MalformedInputError, PrivysealError
from privyseal.tlog.agent_record import (
    MAX_LINE_BYTES,
    Held,
    Operation,
    RecordHead,
    RecordLine,
    encode_line,
    parse_line,
)
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.entry import Intent, Unknown, encode_entry
from privyseal.tlog.note import NoteSigner
from wire_samples import key, mutated

AGENT = sha(8)
PATH = Path("agent.jsonl")


def operation(log: GrownLog, intent: Intent, outcome: str = "signed", signature: str = "") -> Operation:
    """Begun now, under the log's newest checkpoint."""
    return Operation(
        checkpoint=log.notes[-1],
        entry=encode_entry(intent).decode(),
        outcome=outcome,  # type: ignore[arg-type]
        signature=signature or (result_of(0, 0, intent).signature if outcome == "signed" else ""),
    )


def record(*lines: RecordLine, operations: int | None = None, agent: str = AGENT, origin: str = ORIGIN) -> bytes:
    count = sum(isinstance(line, Operation) for line in lines)
    head = RecordHead(agent=agent, origin=origin, operations=count if operations is None else operations)
    return b"".join(map(encode_line, (head, *lines)))


def grown(count: int = 5, *, fork_at: int | None = None) -> tuple[GrownLog, list[Operation]]:
    """A log of `count` signatures, and what the agent was shown of it; a fork has another entry in one place."""
    log, shown = GrownLog(), []
    log.commit(genesis())
    for number in range(count):
        if number == fork_at:
            log.commit(intent_at(1000 + number, 500))
        index, intent = len(log.entries), intent_at(1000 + number, number)
        log.commit(intent)
        shown.append(operation(log, intent))
        log.commit(result_of(1000 + number, index, intent))
    return log, shown


def compared(data: bytes, log: PublicLog) -> AgentVerdict:
    comparison = AgentComparison(PATH, io.BytesIO(data), log)
    verify_log(log, (comparison,))
    return comparison.verdict()


def contradicted(data: bytes, log: PublicLog) -> tuple[str, str]:
    """The code with which the log is refused, and the checkpoint that is the proof."""
    comparison = AgentComparison(PATH, io.BytesIO(data), log)
    with pytest.raises(LogIntegrityError) as caught:
        verify_log(log, (comparison,))
    return caught.value.code, comparison.contradicted


def test_what_an_honest_hub_has_shown_stands_in_the_log() -> None:
    log, shown = grown()

    verdict = compared(record(*shown, Held(checkpoint=log.notes[-1])), log.public())

    assert (verdict.operations, verdict.signed, verdict.never_begun_count, verdict.different_count) == (5, 5, 0, 0)
    assert compared(record(), log.public()).never_begun == (1, 3, 5, 7, 9)
    assert compared(record(agent=sha(9)), log.public()).never_begun == ()


def test_a_batch_lies_under_one_checkpoint_and_its_results_come_later() -> None:
    log = GrownLog()
    intents = [intent_at(2, number) for number in range(40)]
    log.commit(genesis(), *intents)
    shown = [operation(log, intent) for intent in reversed(intents)]
    log.commit(*(result_of(3, index, intent) for index, intent in enumerate(intents, start=1)))

    assert compared(record(*shown), log.public()).signed == 40


@pytest.mark.parametrize("fork_at", range(5))
def test_a_fork_is_found_at_the_first_checkpoint_that_the_log_does_not_have(fork_at: int) -> None:
    _, shown = grown()
    other, _ = grown(fork_at=fork_at)

    code, proof = contradicted(record(*shown), other.public())

    assert (code, proof) == ("log.fork", shown[fork_at].checkpoint)


def test_a_checkpoint_that_was_only_held_counts_too() -> None:
    log, shown = grown()
    other, _ = grown(fork_at=3)
    held = Held(checkpoint=other.notes[-3])

    code, proof = contradicted(record(*shown[:3], held), log.public())

    assert (code, proof) == ("log.fork", held.checkpoint)


def test_a_log_that_was_cut_is_shorter_than_what_the_agent_saw() -> None:
    log, shown = grown()
    cut, _ = grown(4)

    assert contradicted(record(*shown), cut.public()) == ("log.rewound", shown[4].checkpoint)
    assert contradicted(record(Held(checkpoint=log.notes[-1])), cut.public()) == ("log.rewound", log.notes[-1])


def test_an_intent_that_the_log_does_not_hold() -> None:
    log, shown = grown()
    strange = replace(shown[2], entry=encode_entry(intent_at(1002, 77)).decode())
    early = replace(shown[2], checkpoint=shown[1].checkpoint)

    for lines in ((*shown[:2], strange), (*shown[:2], early), (*shown[:2], shown[1])):
        code, proof = contradicted(record(*lines), log.public())
        assert (code, proof) == ("log.agent_entry", lines[2].checkpoint)


@pytest.mark.parametrize(
    ("outcome", "ending", "says"),
    [
        ("signed", "ok", ""),
        ("signed", "failed", "failed"),
        ("signed", "not-used", "not-used"),
        ("signed", "unknown", "unknown"),
        ("signed", "other", "other signature"),
        ("begun", "ok", ""),
        ("begun", "unknown", ""),
        ("begun", "not-used", "not-used"),
        ("failed", "failed", ""),
        ("failed", "ok", "ok"),
    ],
)
@pytest.mark.parametrize("shown_under", ["intent", "result"])
def test_an_end_that_differs_is_told(outcome: str, ending: str, says: str, shown_under: str) -> None:
    log, intent = GrownLog(), intent_at(2, 1)
    log.commit(genesis(), intent)
    shown = operation(log, intent, outcome, sha(99) if ending == "other" else "")
    if ending == "unknown":
        log.commit(Unknown(ts=3, intent=1, request=intent.request, item=0, profile=intent.profile, fence=1, code="x"))
    else:
        log.commit(result_of(3, 1, intent, "ok" if ending == "other" else ending))
    if shown_under == "result":
        shown = replace(shown, checkpoint=log.notes[-1])

    verdict = compared(record(shown), log.public())

    wanted = (Difference(intent=1, agent=outcome, log=says),) if says else ()
    assert (verdict.different, verdict.different_count) == (wanted, len(wanted))


def test_many_differences_are_counted_and_a_hundred_told() -> None:
    log = GrownLog()
    intents = [intent_at(2, number) for number in range(150)]
    log.commit(genesis(), *intents)
    shown = [operation(log, intent) for intent in intents]
    log.commit(*(result_of(3, index, intent, "failed") for index, intent in enumerate(intents, start=1)))

    verdict = compared(record(*shown), log.public())

    assert (len(verdict.different), verdict.different_count) == (100, 150)


def spoilt() -> dict[str, bytes]:
    log, shown = grown()
    stranger = NoteSigner(name=ORIGIN, key=key(3))
    forged = sign_checkpoint(Checkpoint(origin=ORIGIN, size=2, root=bytes(32)), stranger)
    held = Held(checkpoint=log.notes[-1])
    other = encode_entry(intent_at(1, 1)).decode().replace(AGENT, sha(9))
    return {
        "empty": b"",
        "no head": encode_line(shown[0]),
        "another log": record(*shown, origin="other.example"),
        "two heads": record(shown[0], RecordHead(agent=AGENT, origin=ORIGIN, operations=1)),
        "fewer than named": record(*shown, operations=6),
        "more than named": record(*shown, operations=4),
        "held in between": record(held, *shown),
        "held twice": record(*shown, held, held),
        "cut line": record(*shown)[:-1],
        "out of order": record(shown[1], shown[0]),
        "forged": record(replace(shown[0], checkpoint=forged)),
        "no note": record(replace(shown[0], checkpoint="hello")),
        "no entry": record(replace(shown[0], entry="{}")),
        "lone surrogate": record(shown[0]).replace(b'\\"v\\":1', b"\\ud800"),
        "result": record(replace(shown[0], entry=encode_entry(result_of(1, 1, intent_at(1, 1))).decode())),
        "another agent": record(replace(shown[0], entry=other)),
        "signed without": record(replace(shown[0], signature="")),
        "failed with": record(replace(shown[0], outcome="failed")),
        "unknown outcome": record(shown[0]).replace(b'"signed"', b'"lost"'),
        "unknown field": record(shown[0]).replace(b'"outcome"', b'"x":1,"outcome"'),
        "version 2": record().replace(b'"v":1', b'"v":2'),
        "deep": record() + b"[" * 100_000 + b"\n",
        "long line": record() + b" " * MAX_LINE_BYTES + b"\n",
        "no json": record() + b"\xff\n",
    }


@pytest.mark.parametrize("what", spoilt())
def test_a_record_that_is_none_is_refused_and_accuses_nobody(what: str) -> None:
    log, _ = grown()
    with pytest.raises((MalformedInputError, LogIntegrityError)) as caught:
        compared(spoilt()[what], log.public())

    wanted = {"log.checkpoint"} if what in {"forged", "no note"} else {"record.malformed"}
    assert caught.value.code in wanted
    assert caught.value.code != "record.malformed" or "the agent's record " in caught.value.message


@given(st.data())
def test_changed_bytes_are_read_or_refused_by_name(data: st.DataObject) -> None:
    log, shown = grown(2)
    changed = data.draw(mutated(record(*shown, Held(checkpoint=log.notes[-1]))))
    code, verdict = "", None
    try:
        verdict = compared(changed, log.public())
    except PrivysealError as error:
        code = error.code
    assert code in {"", "record.malformed", "log.checkpoint", "log.agent_entry", "log.rewound"}
    assert verdict is None or verdict.operations == 2


def test_an_endless_record_is_read_a_line_at_a_time() -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            view = memoryview(buffer)  # type: ignore[arg-type]
            view[:] = b" " * len(view)
            self.taken += len(view)
            return len(view)

    raw = Endless()
    with pytest.raises(MalformedInputError):
        AgentComparison(PATH, io.BufferedReader(raw), GrownLog().grow_to(1).public())
    assert raw.taken < 2 * MAX_LINE_BYTES


@pytest.mark.parametrize("line", [Held(checkpoint="x"), RecordHead(agent="", origin="", operations=0)], ids=["h", "a"])
def test_a_line_survives_its_text(line: RecordLine) -> None:
    assert parse_line(encode_line(line), "line 1") == line
