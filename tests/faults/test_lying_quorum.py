# SPDX-License-Identifier: Apache-2.0
"""A hub that was taken over and an agent that wants witnesses before use: nothing is signed without their quorum."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lied_to_agent import Bench, Served, open_bench, with_item, with_member
from lying_hub import HUB, LyingHub, Trust
from privyseal.identity.bundle import seal_bundle
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.note import NoteSignature, NoteSigner, parse_note
from privyseal.tlog.proof import consistency_proof, consistency_tiles
from privyseal.wire.jobs import ItemRefused, Job

pytest_plugins = ["lying_hub_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

OWN = Cosigner(name=f"{HUB}/agent/own", key=Ed25519PrivateKey.from_private_bytes(b"o" * 32))
ONE = Cosigner(name="one.example/w", key=Ed25519PrivateKey.from_private_bytes(b"1" * 32))
TWO = Cosigner(name="two.example/w", key=Ed25519PrivateKey.from_private_bytes(b"2" * 32))
STRANGER = Cosigner(name="one.example/w", key=Ed25519PrivateKey.from_private_bytes(b"s" * 32))
POLICY = "".join(
    (
        f"witness own {OWN.verifier.vkey}\n",
        f"witness one {ONE.verifier.vkey}\n",
        f"witness two {TWO.verifier.vkey}\n",
        "group g 2 own one two\nquorum g\n",
    )
)


@pytest.fixture
def trust(trust: Trust) -> Trust:
    """The same hub, whose bundle names three witnesses, the agent among them, of whom two are enough."""
    statement = msgspec.structs.replace(trust.bundle.statement, witnesses=POLICY)
    return replace(trust, bundle=seal_bundle(statement, trust.authority))


@pytest_asyncio.fixture(loop_scope="module")
async def bench(tmp_path: Path, served: Served, trust: Trust) -> AsyncIterator[Bench]:
    bench = await open_bench(tmp_path, served, trust, own_witness=OWN.verifier.public_key)
    yield bench
    await bench.journal.close()


def cosigned(hub: LyingHub, size: int, *lines: Cosigner, root: bytes | None = None) -> str:
    """The log's checkpoint of some size, with these witnesses' lines."""
    checkpoint = Checkpoint(origin=HUB, size=size, root=hub.log.root(size) if root is None else root)
    note = parse_note(sign_checkpoint(checkpoint, NoteSigner(name=HUB, key=hub.trust.log_key)))
    return replace(note, signatures=(*note.signatures, *(one.sign(note.text, 7) for one in lines))).encode()


def shown(hub: LyingHub, job: Job, note: str, size: int) -> Job:
    """The job with a cosigned checkpoint, and the proof from there to the job's own."""
    tiles = hub.log._tiles(consistency_tiles(size, hub.log.size))
    return msgspec.structs.replace(
        job, cosigned=note, cosigned_consistency=consistency_proof(size, hub.log.size, tiles)
    )


async def test_two_others_are_enough(bench: Bench) -> None:
    hub = bench.hub
    job = hub.job(hub.ask(hub.enrol()))

    await bench.signs(shown(hub, job, cosigned(hub, hub.log.size, ONE, TWO), hub.log.size))


async def test_also_under_a_checkpoint_that_is_older_than_the_job_s(bench: Bench) -> None:
    hub = bench.hub
    ask = hub.ask(hub.enrol())
    job = hub.job(ask)
    size = hub.log.size
    hub.enrol()  # the log goes on while the witnesses are asked
    (item,) = job.parts[0].items
    later = msgspec.structs.replace(
        with_item(
            with_member(job, inclusion=hub.log.inclusion(ask.member.index)), inclusion=hub.log.inclusion(item.index)
        ),
        checkpoint=hub.checkpoint(),
        consistency=hub.log.consistency(job.old_size),
    )

    await bench.signs(shown(hub, later, cosigned(hub, size, ONE, TWO), size))


Lie = Callable[[LyingHub, Job], Job]
LIES: dict[str, tuple[Lie, str]] = {
    "nothing": (lambda _, job: job, "job.quorum"),
    "one is not two": (lambda hub, job: shown(hub, job, cosigned(hub, hub.log.size, ONE), hub.log.size), "job.quorum"),
    "the agent's own": (
        lambda hub, job: shown(hub, job, cosigned(hub, hub.log.size, OWN, ONE), hub.log.size),
        "job.quorum",
    ),
    "one twice": (
        lambda hub, job: shown(hub, job, cosigned(hub, hub.log.size, ONE, ONE), hub.log.size),
        "job.quorum",
    ),
    "a stranger under a known name": (
        lambda hub, job: shown(hub, job, cosigned(hub, hub.log.size, ONE, STRANGER), hub.log.size),
        "job.quorum",
    ),
    "before the intent": (
        lambda hub, job: shown(hub, job, cosigned(hub, hub.log.size - 1, ONE, TWO), hub.log.size - 1),
        "job.quorum",
    ),
    "of another log": (
        lambda hub, job: shown(hub, job, cosigned(hub, hub.log.size, ONE, TWO, root=bytes(32)), hub.log.size),
        "log.fork",
    ),
    "of the future": (
        lambda hub, job: shown(hub, job, cosigned(hub, hub.log.size + 1, ONE, TWO, root=bytes(32)), hub.log.size),
        "job.quorum",
    ),
    "without its proof": (
        lambda hub, job: msgspec.structs.replace(
            shown(hub, job, cosigned(hub, hub.log.size, ONE, TWO), hub.log.size), cosigned_consistency=(bytes(32),)
        ),
        "log.fork",
    ),
    "a damaged line": (
        lambda hub, job: shown(hub, job, damaged(cosigned(hub, hub.log.size, ONE, TWO)), hub.log.size),
        "note.signature",
    ),
    "no note": (lambda hub, job: shown(hub, job, "nonsense", hub.log.size), "note.malformed"),
    "not signed by the log": (
        lambda hub, job: shown(hub, job, unsigned(cosigned(hub, hub.log.size, ONE, TWO)), hub.log.size),
        "note.unsigned",
    ),
}


def damaged(note: str) -> str:
    parsed = parse_note(note)
    *rest, last = parsed.signatures
    spoilt = NoteSignature(name=last.name, key_id=last.key_id, signature=last.signature[:-1] + b"\0")
    return replace(parsed, signatures=(*rest, spoilt)).encode()


def unsigned(note: str) -> str:
    parsed = parse_note(note)
    return replace(parsed, signatures=parsed.signatures[1:]).encode()


@pytest.mark.parametrize("lie", LIES)
async def test_whatever_else_is_shown_nothing_is_signed(bench: Bench, lie: str) -> None:
    change, code = LIES[lie]
    job = bench.hub.job(bench.hub.ask(bench.hub.enrol()))

    (said,) = await bench.take(change(bench.hub, job))

    assert isinstance(said, ItemRefused)
    assert said.code == code
    assert not said.unknown
    assert bench.token.signed == []


async def test_a_bundle_that_names_nobody_is_no_quorum(tmp_path: Path, served: Served, trust: Trust) -> None:
    statement = msgspec.structs.replace(trust.bundle.statement, witnesses="quorum none\n")
    nobody = replace(trust, bundle=seal_bundle(statement, trust.authority))
    bench = await open_bench(tmp_path, served, nobody, own_witness=OWN.verifier.public_key)
    hub = bench.hub
    job = hub.job(hub.ask(hub.enrol()))

    (said,) = await bench.take(shown(hub, job, cosigned(hub, hub.log.size, ONE, TWO), hub.log.size))

    assert isinstance(said, ItemRefused)
    assert said.code == "job.quorum"
    assert bench.token.signed == []
    await bench.journal.close()
