# SPDX-License-Identifier: Apache-2.0
"""Witnesses before use: the agent signs only under a checkpoint that carries the quorum of its trust bundle.

Pure. The cosigned checkpoint may be older than the job's own, which was made meanwhile: it is shown to be a beginning
of the same log, and long enough to hold every INTENT of the job.
"""

from privyseal.errors import DeniedError, LogIntegrityError, VerificationError
from privyseal.identity.bundle import TrustBundle
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint
from privyseal.tlog.note import parse_note
from privyseal.tlog.proof import verify_consistency
from privyseal.tlog.quorum import cosigned_by
from privyseal.wire.jobs import Job

__all__ = ["BEFORE_USE", "check_cosigned"]

#: The level at which this is asked for.
BEFORE_USE = "before-use"


def check_cosigned(job: Job, checkpoint: Checkpoint, bundle: TrustBundle, *, own_witness: bytes) -> None:
    """Check that witnesses have cosigned the INTENTs of a job.

    Args:
        job: Its items' inclusion in `checkpoint` is checked elsewhere.
        checkpoint: The job's checkpoint, which extends what the agent holds.
        bundle: Names the quorum.
        own_witness: The agent's own public key as a witness, which does not count for itself.

    Raises:
        DeniedError: `job.quorum`.
        LogIntegrityError: `log.fork` if the cosigned checkpoint is not a beginning of the same log.
        MalformedInputError, VerificationError: what reading the cosigned checkpoint raises.
    """
    if not bundle.witnesses.wants_witnesses:
        raise DeniedError(
            "job.quorum",
            f"key profile {job.profile!r} wants witnesses before use, and the trust bundle names none",
            hint="name them with `privyseal hub trust`, or change `witness` of the [[key]] in agent.toml",
        )
    if not job.cosigned:
        raise _missing(job, "no cosigned checkpoint")
    cosigned = open_checkpoint(job.cosigned, origin=bundle.origin, verifiers=(bundle.log_key,))
    if cosigned.size > checkpoint.size or any(item.index >= cosigned.size for part in job.parts for item in part.items):
        raise _missing(job, f"a cosigned checkpoint of {cosigned.size} entries, which does not cover the job")
    try:
        verify_consistency(
            old_size=cosigned.size,
            old_root=cosigned.root,
            new_size=checkpoint.size,
            new_root=checkpoint.root,
            proof=job.cosigned_consistency,
        )
    except VerificationError as error:
        raise LogIntegrityError(
            "log.fork", f"the cosigned checkpoint of {cosigned.size} entries is no beginning of the hub's log"
        ) from error
    names = frozenset(
        name
        for name, one in cosigned_by(parse_note(job.cosigned), bundle.witnesses)
        if one.key.public_key != own_witness
    )
    if not bundle.witnesses.is_met(names):
        raise _missing(job, f"cosignatures by {', '.join(sorted(names)) or 'nobody'}")


def _missing(job: Job, shown: str) -> DeniedError:
    return DeniedError(
        "job.quorum",
        f"key profile {job.profile!r} wants the quorum of witnesses before use; the hub shows {shown}",
    )
