# SPDX-License-Identifier: Apache-2.0
"""A bare digest, as a PKCS#1 DigestInfo (RFC 8017 §9.2): for programs that build the signed structure themselves.

Neither hub nor agent can tell what it is the digest of, so the log cannot either.
"""

from typing import Final

from cryptography.hazmat import asn1
from cryptography.hazmat.asn1 import TLV, Null
from cryptography.x509 import ObjectIdentifier

from privyseal.errors import MalformedInputError
from privyseal.formats.model import Artifact, Preimage, PreimageFacts
from privyseal.formats.no_file import format_without_file
from privyseal.pki import der, oids
from privyseal.pki.mechanism import DIGEST_SIZES, hash_algorithm

__all__ = ["DIGEST", "digest_preimage"]


@asn1.sequence
class _AlgorithmIdentifier:
    algorithm: ObjectIdentifier
    parameters: Null | TLV | None


@asn1.sequence
class _DigestInfo:
    digest_algorithm: _AlgorithmIdentifier
    digest: bytes


def digest_preimage(artifact: Artifact) -> Preimage:
    """The DigestInfo of a digest.

    Raises:
        UnsupportedInputError: `digest.unsupported`. MalformedInputError: `digest.size`.
    """
    hash_algorithm(artifact.algorithm)
    if len(artifact.digest) != DIGEST_SIZES[artifact.algorithm]:
        raise MalformedInputError(
            "digest.size", f"{len(artifact.digest)} bytes cannot be a digest by {artifact.algorithm}"
        )
    algorithm = ObjectIdentifier(oids.DIGEST_OIDS[artifact.algorithm])
    raw = _DigestInfo(
        digest_algorithm=_AlgorithmIdentifier(algorithm=algorithm, parameters=Null()), digest=artifact.digest
    )
    return Preimage(signed=der.encode(raw, "the DigestInfo"))


def parse_preimage(preimage: Preimage) -> PreimageFacts:
    """Read a DigestInfo; only the bytes that `digest_preimage` makes are accepted.

    Raises:
        MalformedInputError: `digest.malformed`, `digest.size`, `der.malformed`.
        UnsupportedInputError: `digest.unsupported`.
    """
    raw = der.decode(_DigestInfo, preimage.signed, "the DigestInfo")
    oid = raw.digest_algorithm.algorithm.dotted_string
    artifact = Artifact(algorithm=oids.DIGEST_NAMES.get(oid, oid), digest=raw.digest)
    if digest_preimage(artifact) != preimage:
        raise MalformedInputError("digest.malformed", "the DigestInfo is not in the one form that is accepted")
    return PreimageFacts(artifact=artifact, digest_algorithm=artifact.algorithm, digest=artifact.digest)


DIGEST: Final = format_without_file(
    name="digest",
    title="bare digests",
    parse_preimage=parse_preimage,
    certificate_in_preimage=True,  # it may well be: nobody here knows what the digest is of
)
