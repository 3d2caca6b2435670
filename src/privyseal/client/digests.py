# SPDX-License-Identifier: Apache-2.0
"""Signatures over what was made elsewhere: preimages of any format, and bare digests (format `digest`)."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from privyseal.client.answers import check_answer
from privyseal.client.config import ClientConfig
from privyseal.client.hub import HubClient
from privyseal.client.journal import RequestJournal
from privyseal.client.receipts import CheckedReceipt
from privyseal.client.requests import Requester
from privyseal.client.time_limit import TimeLimit
from privyseal.formats.model import Artifact, Preimage
from privyseal.formats.opaque import DIGEST
from privyseal.formats.opaque.digest import digest_preimage
from privyseal.identity.keyfile import load_ed25519
from privyseal.pki.mechanism import Mechanism
from privyseal.pki.remote_key import RemoteKey, remote_key
from privyseal.pki.x509 import parse_certificate
from privyseal.ports.clock import Clock, system_clock
from privyseal.wire.statement import ClaimedFile

__all__ = ["DigestSigner", "PreimageSigner", "SignedDigest", "WantedPreimage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedDigest:
    """A signature over a digest, on record.

    Attributes:
        signature: RSA block (PKCS#1 v1.5), or DER ECDSA-Sig-Value.
        receipt: `c2sp.org/tlog-proof@v1` of its RESULT entry.
    """

    signature: bytes
    receipt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedPreimage:
    """See `Wanted`; for what is no file that is read here: whoever made it has chosen the certificate."""

    format_name: str
    preimage: Preimage
    artifact: Artifact
    claimed: ClaimedFile
    chain: tuple[bytes, ...]

    @property
    def is_key_fixed(self) -> bool:
        """See `Wanted`."""
        return True


class PreimageSigner:
    """Has preimages signed that were made elsewhere, with one key profile."""

    def __init__(self, config: ClientConfig, *, profile: str, clock: Clock = system_clock) -> None:
        self._profile = profile
        self._limit = TimeLimit(seconds=config.wait_seconds)
        self._hub = HubClient(config)
        self._requester = Requester(
            hub=self._hub,
            hub_name=self._hub.bundle.hub,
            profile=profile,
            key=load_ed25519(config.identity.request_key),
            journal=RequestJournal(config.identity.journal),
            clock=clock,
        )

    def chain(self) -> tuple[bytes, ...]:
        """Certificates (DER) of the key profile, leaf first."""
        return self._hub.profile(self._profile, self._limit.begin()).chain

    @contextmanager
    def sign(self, wanted: WantedPreimage) -> Iterator[tuple[SignedDigest, CheckedReceipt]]:
        """Have one signed; until the block has ended well, the next run gets the same signature.

        Raises:
            DeniedError: `policy.opaque` if the key profile does not sign the format.
            ConflictError: `certificate.changed` if no token of it has the key of that certificate any more.
            PrivysealError: whatever else stands in the way.
        """
        (answered,) = self._requester.ask((wanted,), self._limit.begin())
        if answered.item.state != "signed":
            self._requester.settled(answered)
        receipt = check_answer(answered, self._hub.bundle)
        yield SignedDigest(signature=answered.item.signature, receipt=answered.item.receipt), receipt
        self._requester.settled(answered)


class DigestSigner:
    """Signs digests with one key profile, which must list `digest` under `opaque`."""

    def __init__(self, config: ClientConfig, *, profile: str, clock: Clock = system_clock) -> None:
        """Read the client's keys, and ask the hub for the key profile.

        Raises:
            PrivysealError: the configuration, the hub, or the key profile.
        """
        self._signer = PreimageSigner(config, profile=profile, clock=clock)
        self._chain = self._signer.chain()

    def sign(self, digest_algorithm: str, digest: bytes) -> SignedDigest:
        """Sign a digest.

        Args:
            digest_algorithm: `sha256`, `sha384` or `sha512`.
            digest: 32, 48 or 64 bytes.

        Raises:
            DeniedError: `policy.opaque` if the key profile signs no bare digests.
            PrivysealError: whatever else stands in the way.
        """
        artifact = Artifact(algorithm=digest_algorithm, digest=digest)
        preimage = digest_preimage(artifact)
        # There is no file; what is claimed is the DigestInfo itself.
        sha256 = hashlib.sha256(preimage.signed).hexdigest()
        wanted = WantedPreimage(
            format_name=DIGEST.name,
            preimage=preimage,
            artifact=artifact,
            claimed=ClaimedFile(name="", sha256=sha256, size=len(preimage.signed)),
            chain=self._chain,
        )
        with self._signer.sign(wanted) as (signed, _):
            return signed

    def key(self) -> RemoteKey:
        """The key profile's private key in the shape of `cryptography`'s own: every use is a request to the hub."""

        def sign(mechanism: Mechanism, digest: bytes) -> bytes:
            return self.sign(mechanism.digest_algorithm, digest).signature

        return remote_key(parse_certificate(self._chain[0]).spki, sign)
