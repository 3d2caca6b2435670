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
from privyseal.wire.certificate_changed import CERTIFICATE_CHANGED, certificate_changed
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
    def is_key_fixed(self) -> bool:
        """Whether only that key will do (what is signed names it, or somebody has chosen it), or any of the profile."""
        ...


WantedT = TypeVar("WantedT", bound=Wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Generic[WantedT]):
    """What the hub says became of one item.

    Attributes:
        position: Of the item in its request.
        named_chain: The certificates of the key that it says has signed.
    """

    request_id: str
    position: int
    wanted: WantedT
    item: ItemView
    named_chain: tuple[bytes, ...]

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Certificates for the signature: those that were wanted, if only their key will do."""
        return self.wanted.chain if self.wanted.is_key_fixed else self.named_chain


def check_answer(answered: Answered[WantedT], bundle: TrustBundle) -> CheckedReceipt:
    """The signature holds with the certificate, and the receipt with the pinned log key, both for what was wanted.

    Raises:
        PrivysealError: what the hub says of an item that was not signed.
        ConflictError: `certificate.changed`. VerificationError: what does not hold.
    """
    wanted, item = answered.wanted, answered.item
    if item.state != "signed" and item.code == CERTIFICATE_CHANGED:
        raise certificate_changed("")
    if item.state != "signed":
        raise branch_named(item.branch)(item.code, item.message)
    spki = _signer(answered)
    if spki is None:
        raise certificate_changed("")
    facts = read_preimage(wanted.format_name, wanted.preimage)
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


def _signer(answered: Answered[WantedT]) -> bytes | None:
    """The key (SPKI, DER) that the hub names, if it is one that was wanted."""
    named = parse_certificate(answered.named_chain[0]).spki if answered.named_chain else None
    wanted = answered.wanted
    if wanted.is_key_fixed and named != parse_certificate(wanted.chain[0]).spki:
        return None
    return named


def is_by_wanted_key(answered: Answered[WantedT]) -> bool:
    """Whether a signature is of a key that is wanted now; one that was made earlier may be of a former key."""
    spki = _signer(answered)
    if spki is None:
        return False
    facts = read_preimage(answered.wanted.format_name, answered.wanted.preimage)
    try:
        _check_signature(spki, facts, answered.item)
    except VerificationError:
        return False
    return True


def _check_signature(spki: bytes, facts: PreimageFacts, item: ItemView) -> None:
    verify_digest(spki, mechanism_for(spki, facts.digest_algorithm), facts.digest, item.signature)
