# SPDX-License-Identifier: Apache-2.0
"""A hub that lies about its log or its INTENT entries gets no signature (promise 2)."""

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from lied_to_agent import Bench, resent, with_item, with_member
from lying_hub import HUB, NOW_MS, Ask, LyingHub, pe_preimage, sha256
from privyseal.tlog.entry import Deny, Entry, Intent, Result, encode_entry
from privyseal.tlog.note import NoteSigner

pytest_plugins = ["lying_hub_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

Change = Callable[[Intent], Entry | bytes]


async def test_an_honest_job_is_signed_and_written_down(bench: Bench, ask: Ask) -> None:
    job = bench.hub.job(ask)

    await bench.signs(job)

    (entry,) = await bench.journal.entries(0, 10)
    assert (entry.entry, entry.checkpoint_note) == (job.parts[0].items[0].entry, job.checkpoint)
    assert (entry.request_id, entry.item, entry.fence) == (ask.request_id, 0, 1)
    assert (await bench.journal.state()).size == bench.hub.log.size


async def test_a_job_of_many_items_is_signed_item_by_item(bench: Bench) -> None:
    ask = bench.hub.ask(bench.hub.enrol(), pe_preimage(1), pe_preimage(2), pe_preimage(3))

    assert len(set(await bench.signs(bench.hub.job(ask)))) == 3


async def test_a_fork_of_the_same_size_is_noticed(bench: Bench, ask: Ask) -> None:
    await bench.signs(bench.hub.job(ask))
    fork = bench.hub.fork(bench.hub.log.size - 1)

    forged = fork.job(fork.ask(ask.member, idempotency_key="other"))

    assert len(fork.log.entries) == len(bench.hub.log.entries)
    await bench.refuses(forged, "log.fork")
    await bench.still_signs(bench.hub.ask(ask.member, idempotency_key="after"))


@pytest.mark.parametrize("common", [1, 2, 3, 5])
async def test_a_longer_log_that_does_not_extend_the_held_one_is_noticed(bench: Bench, common: int) -> None:
    member = bench.hub.enrol()
    for build in range(4):
        await bench.signs(bench.hub.job(bench.hub.ask(member, idempotency_key=f"build {build}")))
    fork = bench.hub.fork(common)
    other = member if common > member.index else fork.enrol()
    while fork.log.size < bench.hub.log.size + 2:
        fork.log.append(Deny(ts=NOW_MS, client="", profile="", request="", code="filler"))

    await bench.refuses(fork.job(fork.ask(other)), "log.fork")


async def test_a_rewound_log_is_noticed(bench: Bench, ask: Ask) -> None:
    old = bench.hub.fork(bench.hub.log.size)
    await bench.signs(bench.hub.job(ask))
    bench.hub.log.append(Deny(ts=NOW_MS, client="", profile="", request="", code="filler"))
    await bench.signs(bench.hub.job(bench.hub.ask(ask.member, idempotency_key="second")))

    old.held_size = 0
    await bench.refuses(old.job(old.ask(ask.member, idempotency_key="third")), "log.rewound")


@pytest.mark.parametrize("old_size", [0, 1, 2, 4])
async def test_a_proof_from_another_size_than_the_held_one_is_refused(bench: Bench, ask: Ask, old_size: int) -> None:
    await bench.signs(bench.hub.job(ask))
    bench.hub.log.append(Deny(ts=NOW_MS, client="", profile="", request="", code="filler"))
    bench.hub.held_size = old_size

    await bench.refuses(bench.hub.job(bench.hub.ask(ask.member, idempotency_key="second")), "log.fork")


async def test_an_empty_consistency_proof_proves_nothing(bench: Bench, ask: Ask) -> None:
    await bench.signs(bench.hub.job(ask))
    job = bench.hub.job(bench.hub.ask(ask.member, idempotency_key="second"))

    await bench.refuses(replace(job, consistency=()), "log.fork")
    await bench.refuses(replace(job, consistency=(*job.consistency, bytes(32))), "log.fork")
    await bench.refuses(replace(job, consistency=(b"short",)), "log.fork")
    await bench.refuses(replace(job, consistency=(bytes(32),) * 5000), "log.fork")


def forged_signature(hub: LyingHub) -> str:
    """A checkpoint whose signature line names the pinned key and was not made by it."""
    other = hub.checkpoint(signer=NoteSigner(name=HUB, key=Ed25519PrivateKey.generate()))
    text, _, _ = other.partition("\n\n")
    *_, honest = hub.fork(1).checkpoint().split("\n\n")
    return f"{text}\n\n{honest}"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda hub: hub.checkpoint(origin="other.example/log"), "checkpoint.origin"),
        (lambda hub: hub.checkpoint(signer=NoteSigner(name=HUB, key=Ed25519PrivateKey.generate())), "note.unsigned"),
        (lambda hub: hub.checkpoint(signer=NoteSigner(name="other", key=hub.trust.log_key)), "note.unsigned"),
        (forged_signature, "note.signature"),
        (lambda hub: hub.checkpoint().partition("\n\n")[0] + "\n\n", "note.malformed"),
        (lambda hub: hub.checkpoint().partition("\n\n")[0] + "\n", "note.malformed"),
        (lambda hub: hub.checkpoint().replace("\n\n", "\n\n\n", 1), "note.signature"),
        (lambda hub: hub.checkpoint().replace("\n", "\r\n"), "note.malformed"),
        (lambda _: "", "note.malformed"),
        (lambda _: "x" * 600_000, "note.malformed"),
    ],
    ids=["origin", "key", "name", "forged", "unsigned", "text", "blank", "crlf", "empty", "huge"],
)
async def test_a_checkpoint_that_the_pinned_log_did_not_sign_is_refused(
    bench: Bench, ask: Ask, make: Callable[[LyingHub], str], code: str
) -> None:
    job = bench.hub.job(ask)

    await bench.refuses(replace(job, checkpoint=make(bench.hub)), code)
    await bench.signs(job)


async def test_an_entry_that_stands_in_no_log_is_refused(bench: Bench, ask: Ask) -> None:
    job = bench.hub.job(ask)
    other = bench.hub.intent(ask, 0, fence=1)
    unrecorded = encode_entry(replace(other, ts=other.ts + 1))

    await bench.refuses(with_item(job, entry=unrecorded), "proof.inclusion")


@pytest.mark.parametrize("index", [-1, 0, 1, 3, 2**40, 2**63])
async def test_an_entry_at_another_place_is_refused(bench: Bench, ask: Ask, index: int) -> None:
    await bench.refuses(with_item(bench.hub.job(ask), index=index), "proof.inclusion")


@pytest.mark.parametrize("proof", [(), (b"short",), (bytes(32),) * 70], ids=["none", "short", "long"])
async def test_a_wrong_inclusion_proof_is_refused(bench: Bench, ask: Ask, proof: tuple[bytes, ...]) -> None:
    job = bench.hub.job(ask)

    await bench.refuses(with_item(job, inclusion=proof), "proof.inclusion")
    await bench.refuses(with_member(resent(job, bench), inclusion=proof), "proof.inclusion")


OTHER = sha256(b"another")

INTENT_LIES: dict[str, dict[str, Any]] = {
    "request": {"request": OTHER},
    "item": {"item": 1},
    "profile": {"profile": "demo"},
    "key": {"key": OTHER},
    "format": {"format": "authenticode-msi"},
    "binding": {"binding": "whole"},
    "mechanism": {"mechanism": "CKM_ECDSA_SHA384"},
    "preimage": {"preimage": OTHER},
    "digest": {"digest": OTHER},
    "client": {"client": OTHER},
    "agent": {"agent": OTHER},
    "authority": {"authority": 0},
    "fence": {"fence": 2},
}


async def test_every_field_of_an_intent_is_lied_about() -> None:
    own_test = {"artifact", "claimed", "v"}
    believed = {"ts"}  # the hub's own to say
    assert set(INTENT_LIES) | own_test | believed == set(Intent.__struct_fields__)


@pytest.mark.parametrize("field", INTENT_LIES)
async def test_an_intent_that_says_something_else_is_refused(bench: Bench, ask: Ask, field: str) -> None:
    job = bench.hub.job(ask, change=lambda intent: replace(intent, **INTENT_LIES[field]))

    await bench.refuses(job, "job.entry", f"`{field}`")


@pytest.mark.parametrize("change", [{"alg": "sha384"}, {"digest": OTHER}], ids=["algorithm", "digest"])
async def test_an_intent_for_another_artifact_is_refused(bench: Bench, ask: Ask, change: dict[str, str]) -> None:
    job = bench.hub.job(ask, change=lambda intent: replace(intent, artifact=replace(intent.artifact, **change)))

    await bench.refuses(job, "job.entry", "`artifact`")


@pytest.mark.parametrize("change", [{"sha256": OTHER}, {"size": 4}], ids=["digest", "size"])
async def test_an_intent_that_changes_the_clients_claims_is_refused(
    bench: Bench, ask: Ask, change: dict[str, Any]
) -> None:
    job = bench.hub.job(ask, change=lambda intent: replace(intent, claimed=replace(intent.claimed, **change)))

    await bench.refuses(job, "job.entry", "`claimed`")


async def test_an_intent_of_another_grammar_version_is_refused(bench: Bench, ask: Ask) -> None:
    await bench.refuses(bench.hub.job(ask, change=lambda intent: replace(intent, v=2)), "job.entry", "`v`")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda entry: entry.replace(b":", b": ", 1), "entry.not_canonical"),
        (lambda entry: entry[:-1] + b',"zz":1}', "entry.malformed"),
        (lambda entry: entry[:-1] + b',"fence":1}', "entry.not_canonical"),
        (lambda entry: entry.replace(b'"fence":1', b'"fence":1.0'), "entry.malformed"),
        (lambda entry: entry.replace(b'"fence":1', b'"fence":9007199254740992'), "entry.malformed"),
        (lambda entry: entry + b" ", "entry.not_canonical"),
        (lambda _: b"[" * 60_000, "entry.malformed"),
        (lambda _: b"\xff", "entry.malformed"),
        (lambda _: b"", "entry.malformed"),
        (lambda entry: entry + b" " * 65_536, "entry.too_large"),
    ],
    ids=["space", "unknown", "twice", "float", "2^53", "trailing", "deep", "not-utf8", "empty", "huge"],
)
async def test_an_entry_that_is_not_canonical_is_refused_though_it_is_in_the_log(
    bench: Bench, ask: Ask, spoil: Callable[[bytes], bytes], code: str
) -> None:
    await bench.refuses(bench.hub.job(ask, change=lambda intent: spoil(encode_entry(intent))), code)


def result_of(intent: Intent) -> Result:
    """A RESULT in the place where the INTENT should stand."""
    return Result(
        ts=intent.ts,
        intent=0,
        request=intent.request,
        item=intent.item,
        profile=intent.profile,
        key=intent.key,
        format=intent.format,
        artifact=intent.artifact,
        fence=intent.fence,
        outcome="ok",
        signature=OTHER,
    )


@pytest.mark.parametrize(
    "change",
    [result_of, lambda intent: Deny(ts=NOW_MS, client=intent.client, profile="", request=intent.request, code="x")],
    ids=["result", "deny"],
)
async def test_an_entry_of_another_type_is_no_intent(bench: Bench, ask: Ask, change: Change) -> None:
    await bench.refuses(bench.hub.job(ask, change=change), "job.entry", "not an INTENT")
