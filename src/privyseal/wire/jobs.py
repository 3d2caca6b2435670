# SPDX-License-Identifier: Apache-2.0
"""Messages of the agent link about jobs: what a hub asks of a token, and what became of it.

Of a job that was sent the hub may take back what the token has not begun (`Recall`), and what has not begun when the
hub's lease of the token ends is not begun any more (`LeaseRenewed` puts that end off).
"""

import msgspec

__all__ = [
    "Answers",
    "ItemDone",
    "ItemRefused",
    "Job",
    "JobItem",
    "JobPart",
    "LeaseRenewed",
    "LinkMessage",
    "Membership",
    "OutcomeQuery",
    "OutcomeReply",
    "Recall",
]


class LinkMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", forbid_unknown_fields=True):
    """A message of the agent link; its class is told by its tag."""


class Membership(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why the client may ask: its `enrol` entry with proof, and for a pinned profile the signed grant."""

    entry: bytes
    index: int
    inclusion: tuple[bytes, ...]
    request_key: bytes
    grant: bytes = b""


class JobItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One signature to make: the preimage, and the INTENT entry with its inclusion proof."""

    item: int
    signed: bytes
    detail: bytes
    entry: bytes
    index: int
    inclusion: tuple[bytes, ...]


class JobPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one request has in a job: its client's signed statement, why that client may ask, and the items."""

    envelope: bytes
    membership: Membership
    items: tuple[JobItem, ...]


class Job(LinkMessage, frozen=True, tag="job"):
    """Work for a token with everything that the agent needs to check it by itself (DESIGN §4).

    Attributes:
        token: Its name in agent.toml; `fence` is that of its lease.
        lease_ms: How long the hub still holds that lease, as it was sent: what has not begun by then is not begun.
        checkpoint: Signed note over a tree that holds every INTENT of this job.
        old_size: Size of the checkpoint that the hub believes the agent to hold; `consistency` starts there.
        parts: In the order in which the token shall sign.
        cosigned: For a key profile with witnesses before use: a checkpoint with their cosignatures, no newer than
            `checkpoint`; else empty.
        cosigned_consistency: Proof from `cosigned` to `checkpoint`.
    """

    profile: str
    token: str
    fence: int
    lease_ms: int
    checkpoint: str
    old_size: int
    consistency: tuple[bytes, ...]
    parts: tuple[JobPart, ...]
    cosigned: str = ""
    cosigned_consistency: tuple[bytes, ...] = ()


class LeaseRenewed(LinkMessage, frozen=True, tag="lease"):
    """The hub holds the lease of a token under this fence for so much longer from now on."""

    token: str
    fence: int
    lease_ms: int


class Recall(LinkMessage, frozen=True, tag="recall"):
    """What the token has not begun of its jobs is handed back (`job.not_used`), each item with an answer of its own.

    Attributes:
        requests: Of these requests alone; empty for all.
        asks: Whether the holder of a USB lease that has begun is only asked to finish; else the lease ends.
        reason: Why, for that holder; empty if nobody said.
    """

    token: str
    requests: tuple[str, ...] = ()
    asks: bool = False
    reason: str = ""


class ItemDone(LinkMessage, frozen=True, tag="done"):
    """The token signed."""

    request: str
    item: int
    fence: int
    signature: bytes


class ItemRefused(LinkMessage, frozen=True, tag="item-refused"):
    """No signature.

    Attributes:
        branch: Branch of the error taxonomy, so that the client can raise the same class.
        unknown: The token may have signed, and nobody will ever know.
    """

    request: str
    item: int
    fence: int
    branch: str
    code: str
    message: str
    unknown: bool = False


class Answers(LinkMessage, frozen=True, tag="answers"):
    """What became of several items, in the order in which they ended."""

    items: tuple[ItemDone | ItemRefused, ...]


class OutcomeQuery(LinkMessage, frozen=True, tag="outcome?"):
    """What became of this (request, item, fence)?"""

    request: str
    item: int
    fence: int


class OutcomeReply(LinkMessage, frozen=True, tag="outcome"):
    """`never` begun, `running`, `done` (with signature), `failed` (with branch and code) or `unknown`."""

    request: str
    item: int
    fence: int
    state: str
    signature: bytes = b""
    branch: str = ""
    code: str = ""
    message: str = ""
