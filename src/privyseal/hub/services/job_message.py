# SPDX-License-Identifier: Apache-2.0
"""A batch as the message that an agent can check by itself (DESIGN §4): entries with proofs, statements, preimages."""

from privyseal.hub.services.audit import Audit, JobProofs
from privyseal.hub.services.claiming import Batch, Part
from privyseal.hub.services.token_lease import left_now_ms
from privyseal.tlog.checkpoint import parse_checkpoint
from privyseal.tlog.note import parse_note
from privyseal.wire.jobs import Job, JobItem, JobPart, Membership

__all__ = ["job_message"]


async def job_message(audit: Audit, batch: Batch, held_size: int, cosigned: str) -> tuple[Job, int]:
    """The message, and the size of the checkpoint that the agent holds once it has it.

    Args:
        audit: Reads the log.
        batch: What was claimed; its entries are durable.
        held_size: Size of the checkpoint that the agent holds now.
        cosigned: A checkpoint that witnesses have cosigned, or empty.
    """
    cosigned_size = parse_checkpoint(parse_note(cosigned).text).size if cosigned else 0
    parts = [part for part in batch.parts if part.jobs]
    indexes = [index for part in parts for index in _indexes(part)]
    unique = tuple(dict.fromkeys(indexes))  # a client with several requests stands in the log once
    proofs = await audit.job_proofs(unique, held_size, cosigned_size)
    places = {index: place for place, index in enumerate(unique)}
    message = Job(
        profile=batch.profile.name,
        token=batch.profile.token,
        fence=batch.lease.fence,
        lease_ms=left_now_ms(batch.lease_ms, batch.since_s),
        checkpoint=proofs.head.note,
        old_size=held_size,
        consistency=proofs.consistency,
        parts=tuple(_part(part, proofs, places) for part in parts),
        cosigned=cosigned,
        cosigned_consistency=proofs.cosigned,
    )
    return message, proofs.head.size


def _indexes(part: Part) -> list[int]:
    return [part.client.entry_index, *(job.intent_index for job in part.jobs if job.intent_index is not None)]


def _part(part: Part, proofs: JobProofs, places: dict[int, int]) -> JobPart:
    client, *intents = _indexes(part)
    return JobPart(
        envelope=part.request.envelope,
        membership=Membership(
            entry=proofs.entries[places[client]],
            index=client,
            inclusion=proofs.inclusion[places[client]],
            request_key=part.client.request_key,
            grant=part.grant,
        ),
        items=tuple(
            JobItem(
                item=job.item,
                signed=job.signed,
                detail=job.detail,
                entry=proofs.entries[places[index]],
                index=index,
                inclusion=proofs.inclusion[places[index]],
            )
            for job, index in zip(part.jobs, intents, strict=True)
        ),
    )
