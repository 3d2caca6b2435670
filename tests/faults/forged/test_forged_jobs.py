# SPDX-License-Identifier: Apache-2.0
"""Promise 2: a hub with CA key and log key gets no signature out of an agent by lying; each lie has its own reason."""

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from forger import NOW_MS, Log, LyingHub, Victim, inclusion, make_victim
from privyseal.formats.authenticode import PE
from privyseal.formats.model import Binding
from privyseal.ports.token import Token
from privyseal.tlog.entry import Admin, ArtifactDigest, Claimed, Result, encode_entry
from privyseal.tlog.note import NoteSigner
from privyseal.wire.link import Job

pytestmark = pytest.mark.asyncio(loop_scope="module")

replace = msgspec.structs.replace


async def test_an_honest_job_is_signed(hub: LyingHub, agent: Victim) -> None:
    assert len(await agent.signed(hub.job(hub.draft()))) > 60
    assert len(await agent.signed(hub.job(hub.draft(b"one", b"two", b"three")))) > 60
    assert [entry.item for entry in await agent.journal.entries(0, 10)] == [0, 0, 1, 2]


# -- the log --------------------------------------------------------------------------------------------------------


async def test_a_log_of_the_same_size_with_another_root(hub: LyingHub, agent: Victim) -> None:
    await agent.signed(hub.job(hub.draft()))
    forked = hub.draft(b"other")
    hub.log.entries.pop()
    await agent.refused(hub.job(forked), "log.fork")


async def test_a_larger_log_that_does_not_extend_the_one_seen(hub: LyingHub, agent: Victim) -> None:
    await agent.signed(hub.job(hub.draft()))
    hub.log.entries[1], hub.log.entries[2] = hub.log.entries[2], hub.log.entries[1]
    hub.log.append(hub.log.entries[1])
    draft = hub.draft()
    draft.member = 2
    await agent.refused(hub.job(draft), "log.fork")


async def test_a_rewound_log(hub: LyingHub, agent: Victim) -> None:
    for _ in range(3):
        await agent.signed(hub.job(hub.draft()))
    del hub.log.entries[3:]
    job = hub.job(hub.draft())
    await agent.refused(job, "log.rewound")


async def test_a_log_without_the_entry(hub: LyingHub, agent: Victim) -> None:
    job = hub.job(hub.draft())
    hub.log.entries.pop()
    hub.log.append(Admin(ts=NOW_MS, action="other", bundle=""))
    await agent.refused(replace(job, checkpoint=hub.log.checkpoint()), "proof.inclusion")


async def test_a_consistency_proof_from_another_size(hub: LyingHub, agent: Victim) -> None:
    await agent.signed(hub.job(hub.draft()))
    hub.held -= 1
    await agent.refused(hub.job(hub.draft()), "log.fork")


async def test_a_consistency_proof_that_is_left_out(hub: LyingHub, agent: Victim) -> None:
    await agent.signed(hub.job(hub.draft()))
    job = hub.job(hub.draft())
    await agent.refused(replace(job, consistency=()), "log.fork")


async def test_a_checkpoint_of_another_log(hub: LyingHub, agent: Victim) -> None:
    job = hub.job(hub.draft())
    other = Log(Ed25519PrivateKey.generate())
    other.entries = hub.log.entries
    await agent.refused(replace(job, checkpoint=other.checkpoint()), "note.unsigned")


async def test_a_checkpoint_with_another_origin(hub: LyingHub, agent: Victim) -> None:
    job = hub.job(hub.draft())
    text = job.checkpoint.replace("hub.example/lies\n", "hub.example/else\n", 1)
    await agent.refused(replace(job, checkpoint=text), "note.signature")


async def test_a_checkpoint_that_the_log_key_signed_for_another_origin(hub: LyingHub, agent: Victim) -> None:
    job = hub.job(hub.draft())
    key = hub.log.signer
    origin, hub.log.origin = hub.log.origin, "hub.example/else"
    checkpoint = hub.log.checkpoint()
    hub.log.origin = origin
    assert isinstance(key, NoteSigner)
    await agent.refused(replace(job, checkpoint=checkpoint), "checkpoint.origin")


async def test_a_checkpoint_without_signature(hub: LyingHub, agent: Victim) -> None:
    job = hub.job(hub.draft())
    text = job.checkpoint.split("\n\n")[0] + "\n\n"
    await agent.refused(replace(job, checkpoint=text), "note.malformed")


# -- the entry ------------------------------------------------------------------------------------------------------

OTHER = "ab" * 32
SPOILED = {
    "request": OTHER,
    "item": 1,
    "profile": "other",
    "key": OTHER,
    "format": "other",
    "binding": "opaque",
    "mechanism": "CKM_ECDSA_SHA384",
    "preimage": OTHER,
    "digest": OTHER,
    "artifact": ArtifactDigest(alg="sha256", digest=OTHER),
    "claimed": Claimed(sha256=OTHER, size=7),
    "client": OTHER,
    "agent": OTHER,
    "authority": 0,
    "fence": 2,
}


@pytest.mark.parametrize("field", sorted(SPOILED))
async def test_an_entry_that_says_something_else(hub: LyingHub, agent: Victim, field: str) -> None:
    draft = hub.draft()
    job = hub.job(draft)
    lie = encode_entry(replace(draft.intents[0], **{field: SPOILED[field]}))
    index = hub.log.append(lie)
    item = replace(job.items[0], entry=lie, index=index, inclusion=inclusion(index, hub.log.leaves))
    job = replace(hub.job(hub.draft()), envelope=job.envelope)
    item = replace(item, inclusion=inclusion(index, hub.log.leaves))
    await agent.refused(replace(job, items=(item,)), "job.entry")


async def test_an_entry_of_another_type(hub: LyingHub, agent: Victim) -> None:
    draft = hub.draft()
    job = hub.job(draft)
    intent = draft.intents[0]
    result = Result(
        ts=NOW_MS,
        intent=0,
        request=intent.request,
        item=0,
        profile=intent.profile,
        key=intent.key,
        format=intent.format,
        artifact=intent.artifact,
        fence=1,
        outcome="ok",
    )
    hub.log.entries[-1] = encode_entry(result)
    job = reproved(hub, job)
    await agent.refused(job, "job.entry")


async def test_an_entry_in_another_form(hub: LyingHub, agent: Victim) -> None:
    job = hub.job(hub.draft())
    hub.log.entries[-1] = hub.log.entries[-1].replace(b'"v":1', b'"v": 1')
    await agent.refused(reproved(hub, job), "entry.not_canonical")


def reproved(hub: LyingHub, job: Job) -> Job:
    """The job with all proofs made anew for what the log holds now."""
    leaves = hub.log.leaves
    item = job.items[0]
    item = replace(item, entry=hub.log.entries[item.index], inclusion=inclusion(item.index, leaves))
    member = replace(job.membership, inclusion=inclusion(job.membership.index, leaves))
    return replace(job, items=(item,), membership=member, checkpoint=hub.log.checkpoint())


# -- the preimage and the statement ---------------------------------------------------------------------------------


async def test_a_preimage_that_nobody_asked_for(hub: LyingHub, agent: Victim) -> None:
    job = hub.job(hub.draft())
    other = hub.preimage(b"malware")
    item = replace(job.items[0], signed=other.signed, detail=other.detail)
    await agent.refused(replace(job, items=(item,)), "job.artifact")


async def test_signed_attributes_with_trailing_bytes(hub: LyingHub, agent: Victim) -> None:
    job = hub.job(hub.draft())
    item = replace(job.items[0], signed=job.items[0].signed + b"\0")
    await agent.refused(replace(job, items=(item,)), "der.trailing_bytes")


async def test_a_preimage_that_two_formats_accept(hub: LyingHub, key: Token, tmp_path: Path) -> None:
    victim = await make_victim(hub, key, tmp_path / "journal.db", formats=(PE, dataclasses.replace(PE, name="twin")))
    await victim.refused(hub.job(hub.draft()), "preimage.ambiguous")
    await victim.journal.close()


async def test_an_opaque_format_that_the_profile_does_not_list(hub: LyingHub, key: Token, tmp_path: Path) -> None:
    bare = dataclasses.replace(PE, binding=Binding.OPAQUE)
    victim = await make_victim(hub, key, tmp_path / "journal.db", formats=(bare,))
    await victim.refused(hub.job(hub.draft()), "job.opaque")
    await victim.journal.close()
    listed = await make_victim(hub, key, tmp_path / "other.db", formats=(bare,), opaque=(PE.name,))
    draft = hub.draft()
    draft.intents = [replace(intent, binding="opaque") for intent in draft.intents]
    await listed.signed(hub.job(draft))
    await listed.journal.close()


@pytest.mark.parametrize("changes", [{"hub": "hub.example/else"}, {"profile": "other"}])
async def test_a_statement_for_somebody_else(hub: LyingHub, agent: Victim, changes: dict[str, Any]) -> None:
    await agent.refused(hub.job(hub.draft(**changes)), "job.statement")


async def test_a_statement_that_has_expired(hub: LyingHub, agent: Victim) -> None:
    await agent.refused(hub.job(hub.draft(not_after=NOW_MS - 1)), "job.expired")


async def test_a_statement_that_was_changed_after_it_was_signed(hub: LyingHub, agent: Victim) -> None:
    job = hub.job(hub.draft())
    envelope = msgspec.json.decode(job.envelope)
    other = msgspec.json.decode(hub.draft(b"malware").envelope)
    envelope["payload"] = other["payload"]
    await agent.refused(replace(job, envelope=msgspec.json.encode(envelope)), "envelope.signature")
