# SPDX-License-Identifier: Apache-2.0
"""What is asked of a hub, what it answers, and whether the answer holds: neither hub nor agent is believed."""

import hashlib
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from privyseal.client.receipts import CheckedReceipt, check_receipt, match_receipt
from privyseal.errors import VerificationError, branch_named
from privyseal.formats.model import Artifact, Preimage, PreimageFacts, SignatureReport
from privyseal.formats.registry import read_preimage
from privyseal.identity.bundle import TrustBundle
from privyseal.pki.mechanism import mechanism_for, verify_digest
from privyseal.pki.x509 import parse_certificate
from privyseal.wire.api import ItemView
from privyseal.wire.statement import ClaimedFile

__all__ = ["Answered", "Wanted", "WantedT", "check_answer", "is_by_wanted_key"]


class Wanted(Protocol):
    """One signature that is wanted."""

    @property
    def format_name(self) -> str:
        """Of the format that the preimage is of."""
        ...

    @property
    def preimage(self) -> Preimage:
        """What the signature will cover."""
        ...

    @property
    def artifact(self) -> Artifact:
        """The digest that the preimage names."""
        ...

    @property
    def claimed(self) -> ClaimedFile:
        """This client's own words about the file."""
        ...

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Certificates (DER) of the key that shall sign, leaf first."""
        ...

    @property
    def others(self) -> tuple[tuple[bytes, ...], ...]:
        """The same of other keys of the profile that will do as well: what is signed does not name the key."""
        ...


WantedT = TypeVar("WantedT", bound=Wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Generic[WantedT]):
    """What the hub says became of one item.

    Attributes:
        position: Of the item in its request.
        chain: The certificates of the key that it says has signed.
    """

    request_id: str
    position: int
    wanted: WantedT
    item: ItemView
    chain: tuple[bytes, ...]


def check_answer(answered: Answered[WantedT], bundle: TrustBundle) -> CheckedReceipt:
    """The signature holds with the certificate, and the receipt with the pinned log key, both for what was wanted.

    Raises:
        PrivysealError: what the hub says of an item that was not signed.
        VerificationError: `certificate.changed`, or what does not hold.
    """
    wanted, item = answered.wanted, answered.item
    if item.state != "signed":
        raise branch_named(item.branch)(item.code, item.message)
    if not is_wanted_chain(answered):
        raise VerificationError(
            "certificate.changed", "the key profile's certificate changed meanwhile", hint="sign again"
        )
    facts = read_preimage(wanted.format_name, wanted.preimage)
    spki = parse_certificate(answered.chain[0]).spki
    _check_signature(spki, facts, item)
    receipt = check_receipt(item.receipt, bundle)
    expected = SignatureReport(
        subject="",
        spki_sha256=hashlib.sha256(spki).digest(),
        signature_sha256=hashlib.sha256(item.signature).digest(),
        artifact=facts.artifact,
    )
    match_receipt(receipt, expected, wanted.format_name)
    return receipt


def is_wanted_chain(answered: Answered[WantedT]) -> bool:
    """Whether the certificate that the hub names is one that was wanted."""
    wanted = answered.wanted
    return answered.chain[:1] in {chain[:1] for chain in (wanted.chain, *wanted.others)}


def is_by_wanted_key(answered: Answered[WantedT]) -> bool:
    """Whether a signature is of the key that is wanted now; one that was made earlier may be of a former key."""
    wanted = answered.wanted
    if not is_wanted_chain(answered):
        return False
    facts = read_preimage(wanted.format_name, wanted.preimage)
    try:
        _check_signature(parse_certificate(answered.chain[0]).spki, facts, answered.item)
    except VerificationError:
        return False
    return True


def _check_signature(spki: bytes, facts: PreimageFacts, item: ItemView) -> None:
    verify_digest(spki, mechanism_for(spki, facts.digest_algorithm), facts.digest, item.signature)
