# SPDX-License-Identifier: Apache-2.0
"""The order for a USB lease: which device, for how long, why, and by which keys both ends know each other.

Its bytes are the preimage of a request with one item, so that a lease waits in the token's queue, is put on record
before the device is handed over, and is checked by the agent, as a signature is. No key signs it: it is opaque, as
nobody can tell from it what the device will be used for.
"""

import hashlib
import re
from typing import Final

import msgspec

from privyseal.errors import MalformedInputError
from privyseal.formats.model import Artifact, Preimage, PreimageFacts
from privyseal.formats.no_file import format_without_file

__all__ = ["LEASE", "MAX_LEASE_SECONDS", "LeaseOrder", "lease_preimage", "read_lease"]

#: A day: whoever wants a device for longer asks again.
MAX_LEASE_SECONDS: Final = 86_400
_MAX_REASON: Final = 200
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_TEXT: Final = re.compile(r"[ -~]{0,200}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SEALED: Final = re.compile(r"(?:[0-9a-f]{2}){48,256}", re.ASCII)

_ENCODER: Final = msgspec.json.Encoder(order="sorted")


class LeaseOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="usb-lease"):
    """What a client asks for.

    Attributes:
        device: Name under which the agent gives the device out.
        seconds: How long it wants it at most; 1 to 86,400.
        reason: For those who wait, in printable ASCII; never in the log.
        tls_key: SHA-256 (hex) of the SubjectPublicKeyInfo with which the client will come.
        sealed: A secret by which the agent will be known, sealed to its key (`privyseal.identity.channel`), hex.
    """

    device: str
    seconds: int
    reason: str
    tls_key: str
    sealed: str


def lease_preimage(order: LeaseOrder) -> Preimage:
    """The bytes of an order.

    Raises:
        MalformedInputError: `lease.malformed` if a field is not what it can be.
    """
    _check(order)
    return Preimage(signed=_ENCODER.encode(order))


def read_lease(preimage: Preimage) -> LeaseOrder:
    """The order in a preimage; only the bytes that `lease_preimage` makes are accepted.

    Raises:
        MalformedInputError: `lease.malformed`.
    """
    try:
        order = msgspec.json.decode(preimage.signed, type=LeaseOrder)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedInputError("lease.malformed", f"not an order for a USB lease: {error}") from error
    if lease_preimage(order) != preimage:
        raise MalformedInputError("lease.malformed", "the order for a USB lease is not in its one form")
    return order


def _check(order: LeaseOrder) -> None:
    wrong = next(
        (
            what
            for what, holds in (
                ("the device's name", _NAME.fullmatch(order.device)),
                (f"its length in seconds (1 to {MAX_LEASE_SECONDS})", 1 <= order.seconds <= MAX_LEASE_SECONDS),
                (f"its reason ({_MAX_REASON} characters of printable ASCII at most)", _TEXT.fullmatch(order.reason)),
                ("the client's key", _SHA256.fullmatch(order.tls_key)),
                ("the sealed secret", _SEALED.fullmatch(order.sealed)),
            )
            if not holds
        ),
        "",
    )
    if wrong:
        raise MalformedInputError("lease.malformed", f"an order for a USB lease: {wrong} is not what it can be")


def _parse_preimage(preimage: Preimage) -> PreimageFacts:
    read_lease(preimage)
    digest = hashlib.sha256(preimage.signed).digest()
    artifact = Artifact(algorithm="sha256", digest=digest)
    return PreimageFacts(artifact=artifact, digest_algorithm="sha256", digest=digest)


LEASE: Final = format_without_file(
    name="usb-lease", title="USB leases", parse_preimage=_parse_preimage, certificate_in_preimage=False
)
