# SPDX-License-Identifier: Apache-2.0
"""Signatures over bare digests, for programs that build the signed structure themselves (format `digest`)."""

import hashlib
from dataclasses import dataclass

from privyseal.client.answers import check_answer
from privyseal.client.config import ClientConfig
from privyseal.client.hub import HubClient
from privyseal.client.journal import RequestJournal
from privyseal.client.requests import Requester
from privyseal.formats.model import Artifact, Preimage
from privyseal.formats.opaque import DIGEST
from privyseal.formats.opaque.digest import digest_preimage
from privyseal.identity.keyfile import load_ed25519
from privyseal.pki.mechanism import Mechanism
from privyseal.pki.remote_key import RemoteKey, remote_key
from privyseal.pki.x509 import parse_certificate
from privyseal.ports.clock import Clock, system_clock
from privyseal.wire.statement import ClaimedFile

__all__ = ["DigestSigner", "SignedDigest"]


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
class _WantedDigest:
    format_name: str
    preimage: Preimage
    artifact: Artifact
    claimed: ClaimedFile
    chain: tuple[bytes, ...]


class DigestSigner:
    """Signs digests with one key profile, which must list `digest` under `opaque`."""

    def __init__(self, config: ClientConfig, *, profile: str, clock: Clock = system_clock) -> None:
        """Read the client's keys, and ask the hub for the key profile.

        Raises:
            PrivysealError: the configuration, the hub, or the key profile.
        """
        self._bundle = config.load_bundle()
        hub = HubClient(config)
        self._requester = Requester(
            hub=hub,
            hub_name=self._bundle.hub,
            profile=profile,
            key=load_ed25519(config.identity.request_key),
            journal=RequestJournal(config.identity.journal),
            clock=clock,
        )
        self.chain = hub.profile(profile).chain

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
        wanted = _WantedDigest(
            format_name=DIGEST.name,
            preimage=preimage,
            artifact=artifact,
            # There is no file; what is claimed is the DigestInfo itself.
            claimed=ClaimedFile(name="", sha256=hashlib.sha256(preimage.signed).hexdigest(), size=len(preimage.signed)),
            chain=self.chain,
        )
        (answered,) = self._requester.ask((wanted,), lambda _: None)
        self._requester.settled(answered)
        check_answer(answered, self._bundle)
        return SignedDigest(signature=answered.item.signature, receipt=answered.item.receipt)

    def key(self) -> RemoteKey:
        """The key profile's private key in the shape of `cryptography`'s own: every use is a request to the hub."""

        def sign(mechanism: Mechanism, digest: bytes) -> bytes:
            return self.sign(mechanism.digest_algorithm, digest).signature

        return remote_key(parse_certificate(self.chain[0]).spki, sign)
