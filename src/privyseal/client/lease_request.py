# SPDX-License-Identifier: Apache-2.0
"""The request for a USB lease, and what its result has to be.

It is not kept on disk, as requests for signatures are: the keys of its channel live as long as this process, and nobody
else could use the lease. Whoever was interrupted asks again.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.client.receipts import CheckedReceipt, check_receipt
from privyseal.errors import VerificationError
from privyseal.formats.usb import LEASE, LeaseOrder, lease_preimage
from privyseal.identity.bundle import TrustBundle
from privyseal.identity.channel import ChannelUse, ClientPins, new_channel_key, seal_secret, sealing_key_of
from privyseal.tlog.entry import ArtifactDigest
from privyseal.wire.api import ItemView, SignatureItem, SignatureRequest
from privyseal.wire.dsse import parse_envelope
from privyseal.wire.leases import LeaseReport, read_report
from privyseal.wire.statement import (
    REQUEST_TYPE,
    ClaimedFile,
    RequestItem,
    RequestStatement,
    seal_request,
    statement_id,
)

__all__ = ["LeaseRequest", "LeaseWish", "RecordedLease", "new_request", "recorded_lease"]

#: A turn that comes at the last moment is still a turn.
_SLACK_MS: Final = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseWish:
    """What somebody wants.

    Attributes:
        device: Name of the device.
        seconds: For how long at most; 1 to 86,400.
        reason: For those who wait, in printable ASCII.
        priority: `release`, `normal` or `nightly`.
        wait_seconds: How long the turn is waited for; None for as long as the hub lets requests wait.
        grace_seconds: For how long the network may be away in the midst of the lease; at most 30, and no longer than
            the agent allows. 0 ends the lease at once.
    """

    device: str
    seconds: int = 600
    reason: str = ""
    priority: str = "normal"
    wait_seconds: float | None = None
    grace_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """A request that can be handed in.

    Attributes:
        id: Its name at the hub.
        pins: By which the agent is known, and this client.
        order_sha256: SHA-256 of the order's bytes, in hex.
    """

    id: str
    body: SignatureRequest
    pins: ClientPins
    order_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedLease:
    """What a lease was used for, with the proof that it is on record.

    Attributes:
        receipt: `c2sp.org/tlog-proof@v1` of its RESULT entry.
        log_index: Of that entry.
    """

    report: LeaseReport
    receipt: str
    log_index: int


def new_request(
    wish: LeaseWish, *, agent: str, bundle: TrustBundle, key: Ed25519PrivateKey, longest_seconds: float, now_ms: int
) -> LeaseRequest:
    """A request for a device of an agent, with fresh keys.

    Args:
        wish: What is wanted.
        agent: Whose device it is, as the hub says: it is of use to an agent of the pinned bundle alone.
        bundle: The pinned trust bundle.
        key: The client's request key.
        longest_seconds: How long the hub lets a request wait.
        now_ms: The time.

    Raises:
        ConfigError: `channel.agent_key`. MalformedInputError: `lease.malformed`.
    """
    channel_key, idempotency_key = new_channel_key(), secrets.token_hex(16)
    use = ChannelUse(
        hub=bundle.hub, agent=agent, device=wish.device, idempotency_key=idempotency_key, tls_key=channel_key.sha256
    )
    secret, sealed = seal_secret(sealing_key_of(bundle, agent), use)
    keys = {"tls_key": channel_key.sha256.hex(), "sealed": sealed.hex()}
    order = LeaseOrder(device=wish.device, seconds=wish.seconds, reason=wish.reason, **keys)
    signed = lease_preimage(order).signed
    sha256 = hashlib.sha256(signed).hexdigest()
    wait_ms = int(min(longest_seconds, longest_seconds if wish.wait_seconds is None else wish.wait_seconds) * 1000)
    item = RequestItem(
        preimage=sha256,
        artifact=ArtifactDigest(alg="sha256", digest=sha256),
        claimed=ClaimedFile(name="", sha256=sha256, size=len(signed)),
    )
    statement = RequestStatement(
        hub=bundle.hub,
        profile=wish.device,
        format=LEASE.name,
        items=(item,),
        idempotency_key=idempotency_key,
        created=now_ms,
        not_after=now_ms + min(wait_ms + _SLACK_MS, int(longest_seconds * 1000)),
    )
    envelope = seal_request(statement, key)
    payload = parse_envelope(envelope, REQUEST_TYPE).payload
    request_id = statement_id(key.public_key().public_bytes_raw(), payload)
    return LeaseRequest(
        id=request_id,
        body=SignatureRequest(envelope=envelope, preimages=(SignatureItem(signed=signed),), priority=wish.priority),
        pins=ClientPins(key=channel_key, request_id=request_id, secret=secret),
        order_sha256=sha256,
    )


def recorded_lease(request: LeaseRequest, item: ItemView, bundle: TrustBundle, said: bytes) -> RecordedLease:
    """The report of a lease that has ended well, as it is on record.

    Args:
        request: What was asked for.
        item: What the hub says of it.
        bundle: The pinned trust bundle.
        said: The report as the agent itself sent it over the channel; empty if it could not.

    Raises:
        VerificationError: `receipt.mismatch` if the log has recorded something else; `lease.other_report` if the hub
            shows another report than the agent sent. MalformedInputError: `lease.report`.
    """
    checked: CheckedReceipt = check_receipt(item.receipt, bundle)
    entry = checked.entry
    recorded = (entry.request, entry.item, entry.format, entry.artifact.digest, entry.signature)
    report_sha256 = hashlib.sha256(item.signature).hexdigest()
    if recorded != (request.id, 0, LEASE.name, request.order_sha256, report_sha256):
        raise VerificationError(
            "receipt.mismatch", f"the receipt that the hub gave for lease {request.id[:16]}… is of something else"
        )
    if said and said != item.signature:
        raise VerificationError(
            "lease.other_report",
            f"the hub shows another report of lease {request.id[:16]}… than the agent sent",
            hint="no honest hub does: tell its administrator",
        )
    return RecordedLease(report=read_report(item.signature), receipt=item.receipt, log_index=checked.index)
