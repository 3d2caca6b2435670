# SPDX-License-Identifier: Apache-2.0
"""What an Authenticode signature covers, and the SignedData around it (Authenticode PE Signature Format).

The signature covers four signed attributes: contentType, messageDigest over the contents octets of the
SpcIndirectDataContent, SpcSpOpusInfo and SpcStatementType. There is no signingTime: only a timestamp could
prove it. Nothing here depends on the kind of file but the data type and data of the SpcIndirectDataContent.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode import spc
from privyseal.formats.model import Artifact, Preimage, PreimageFacts, Signed, SignOptions
from privyseal.pki import cms, cms_verify, der, oids
from privyseal.pki.mechanism import DIGEST_SIZES, hash_algorithm

__all__ = [
    "SpcData",
    "check_detached",
    "check_preimage_size",
    "detached_digest_algorithm",
    "make_preimage",
    "make_signed_data",
    "parse_preimage",
]

_MAX_PREIMAGE_SIZE_BYTES: Final = 64 * 1024
_MAX_PADDING_BYTES: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class SpcData:
    """Type and data of the SpcIndirectDataContent of one kind of file."""

    type: str
    data: bytes


def make_preimage(kind: SpcData, artifact: Artifact, options: SignOptions) -> Preimage:
    """The signed attributes for an artifact, and the SpcIndirectDataContent that they name.

    Raises:
        UnsupportedInputError: `digest.unsupported`, `authenticode.program_name`, `authenticode.program_url`,
            or `authenticode.digest_algorithm` if the options ask for another algorithm than the file was
            hashed with.
    """
    hash_algorithm(artifact.algorithm)
    if options.digest_algorithm != artifact.algorithm:
        raise UnsupportedInputError(
            "authenticode.digest_algorithm",
            f"the file was hashed with {artifact.algorithm}, but {options.digest_algorithm} was asked for",
            hint="scan the file with the digest algorithm of the signature",
        )
    opus = spc.SpcSpOpusInfo(program_name=options.program_name, more_info_url=options.program_url)
    return _preimage(kind, artifact, opus)


def check_preimage_size(preimage: Preimage, data_size_bytes: int) -> None:
    """Refuse a preimage that has no reason to be so large.

    Args:
        preimage: Not read yet.
        data_size_bytes: How much the kind of file may want to say, as in `SpcData.data`.

    Raises:
        MalformedInputError: `authenticode.preimage_too_large`.
    """
    limit = _MAX_PREIMAGE_SIZE_BYTES + data_size_bytes
    if len(preimage.signed) > _MAX_PREIMAGE_SIZE_BYTES or len(preimage.signed) + len(preimage.detail) > limit:
        raise MalformedInputError(
            "authenticode.preimage_too_large",
            f"an Authenticode preimage has at most {limit} bytes, {_MAX_PREIMAGE_SIZE_BYTES} of them signed attributes",
        )


def parse_preimage(kind: SpcData, preimage: Preimage) -> PreimageFacts:
    """Read a preimage of this kind of file; only the bytes that `make_preimage` makes are accepted.

    Raises:
        MalformedInputError: `authenticode.preimage`, `authenticode.message_digest`, `authenticode.opus_info`,
            `authenticode.preimage_too_large`, `cms.signed_attributes`, `der.*`.
        UnsupportedInputError: `digest.unsupported`, `authenticode.program_name`, `authenticode.program_url`.
    """
    check_preimage_size(preimage, len(kind.data))
    content = spc.parse_indirect_data(preimage.detail)
    if (content.data_type, content.data) != (kind.type, kind.data):
        raise MalformedInputError(
            "authenticode.preimage",
            f"the SpcIndirectDataContent is not the one of type {kind.type} expected here",
        )
    artifact = _artifact(content)
    if len(artifact.digest) != DIGEST_SIZES.get(artifact.algorithm):
        raise MalformedInputError(
            "authenticode.preimage",
            f"the SpcIndirectDataContent holds {len(artifact.digest)} bytes as a {artifact.algorithm} digest",
        )
    attributes = cms.parse_signed_attributes(preimage.signed)
    octets = der.read_single(preimage.detail, "the SpcIndirectDataContent").content
    message_digest = hashlib.new(artifact.algorithm, octets).digest()
    if cms.attribute_values(attributes, oids.ID_MESSAGE_DIGEST) != (_octet_string(message_digest),):
        raise MalformedInputError(
            "authenticode.message_digest", "messageDigest is not that of the SpcIndirectDataContent"
        )
    opus = cms.attribute_values(attributes, oids.SPC_SP_OPUS_INFO)
    if len(opus) != 1:
        raise MalformedInputError("authenticode.preimage", "exactly one SpcSpOpusInfo is expected")
    if _preimage(kind, artifact, spc.parse_opus_info(opus[0])) != preimage:
        raise MalformedInputError(
            "authenticode.preimage",
            "the signed attributes are not contentType, messageDigest, SpcSpOpusInfo and SpcStatementType "
            "in the one form that is accepted",
        )
    return PreimageFacts(
        artifact=artifact,
        digest_algorithm=artifact.algorithm,
        digest=hashlib.new(artifact.algorithm, preimage.signed).digest(),
    )


def make_signed_data(facts: PreimageFacts, signed: Signed) -> bytes:
    """The SignedData (ContentInfo, DER) with one signer.

    Args:
        facts: What `parse_preimage` said of the preimage.
        signed: Signature, chain (all of it goes into the file), and timestamp.

    Raises:
        MalformedInputError: `authenticode.no_certificate`, `certificate.malformed`, `der.malformed`.
        UnsupportedInputError: `key.unsupported`.
    """
    if not signed.chain:
        raise MalformedInputError(
            "authenticode.no_certificate", "an Authenticode signature needs the signer's certificate"
        )
    token = signed.timestamp_token
    timestamp = (cms.Attribute(type=oids.SPC_RFC3161_TIMESTAMP, values=(token,)),) if token else ()
    signer_info = cms_verify.make_signer_info(
        certificate=signed.chain[0],
        digest_algorithm=facts.digest_algorithm,
        signed_attributes=signed.preimage.signed,
        signature=signed.signature,
        unsigned_attributes=timestamp,
    )
    signed_data = cms.SignedData(
        version=1,
        digest_algorithms=(signer_info.digest_algorithm,),
        content_type=oids.SPC_INDIRECT_DATA,
        content=signed.preimage.detail,
        # DER asks for a SET in order (X.690 §11.6); readers find the signer by name, not by place.
        certificates=tuple(sorted(set(signed.chain))),
        signer_infos=(signer_info,),
    )
    return cms.encode_signed_data(signed_data)


def detached_digest_algorithm(detached: bytes) -> str:
    """The algorithm of the digest by which a detached signature names its file.

    Raises:
        MalformedInputError: `authenticode.other_content`, `cms.*`, `der.*`.
        UnsupportedInputError: `digest.unsupported` for a weak one.
    """
    return _artifact(_read_detached(detached)[1]).algorithm


def check_detached(data_type: str, artifact: Artifact, detached: bytes) -> bytes:
    """A detached signature, if it is one of this artifact; whether it holds is not judged.

    Args:
        data_type: The kind of file, as in `SpcData.type`.
        artifact: Of the file.
        detached: A ContentInfo; up to seven zeros may follow it.

    Returns:
        The ContentInfo alone.

    Raises:
        MalformedInputError: `authenticode.other_artifact`, `authenticode.other_content`, `cms.*`, `der.*`.
        UnsupportedInputError: `authenticode.digest_algorithm` if the file was hashed with another algorithm,
            `digest.unsupported` for a weak one.
    """
    content_info, content = _read_detached(detached)
    if content.data_type != data_type:
        raise MalformedInputError(
            "authenticode.other_content",
            f"the detached signature is one of a file of type {content.data_type}, not {data_type}",
        )
    named = _artifact(content)
    if named.algorithm != artifact.algorithm:
        raise UnsupportedInputError(
            "authenticode.digest_algorithm",
            f"the detached signature names the file by its {named.algorithm} digest, but the file was hashed with "
            f"{artifact.algorithm}",
            hint=f"scan the file with {named.algorithm}",
        )
    if named != artifact:
        raise MalformedInputError(
            "authenticode.other_artifact",
            f"the detached signature is one of another file: it names the digest {named.digest.hex()}, but this file "
            f"has {artifact.digest.hex()}",
        )
    return content_info


def _read_detached(detached: bytes) -> tuple[bytes, spc.SpcIndirectDataContent]:
    what = "the detached signature"
    content_info = der.read_tlv(detached, 0, what).der
    surplus = detached[len(content_info) :]
    if len(surplus) > _MAX_PADDING_BYTES or any(surplus):
        der.read_single(detached, what)
    signed_data = cms.parse_signed_data(content_info, what)
    if signed_data.content_type != oids.SPC_INDIRECT_DATA or not signed_data.content:
        raise MalformedInputError(
            "authenticode.other_content",
            f"{what} is over content of type {signed_data.content_type}, not SpcIndirectDataContent",
        )
    return content_info, spc.parse_indirect_data(signed_data.content)


def _preimage(kind: SpcData, artifact: Artifact, opus: spc.SpcSpOpusInfo) -> Preimage:
    detail = spc.encode_indirect_data(
        spc.SpcIndirectDataContent(
            data_type=kind.type,
            data=kind.data,
            digest_algorithm=cms.AlgorithmIdentifier(
                algorithm=oids.DIGEST_OIDS[artifact.algorithm], parameters=cms.NULL_PARAMETERS
            ),
            digest=artifact.digest,
        )
    )
    octets = der.read_single(detail, "the SpcIndirectDataContent").content
    values = {
        oids.ID_CONTENT_TYPE: der.encode_oid(oids.SPC_INDIRECT_DATA),
        oids.ID_MESSAGE_DIGEST: _octet_string(hashlib.new(artifact.algorithm, octets).digest()),
        oids.SPC_SP_OPUS_INFO: spc.encode_opus_info(opus),
        oids.SPC_STATEMENT_TYPE: spc.INDIVIDUAL_STATEMENT_TYPE,
    }
    attributes = (cms.Attribute(type=oid, values=(value,)) for oid, value in values.items())
    return Preimage(signed=cms.encode_signed_attributes(attributes), detail=detail)


def _artifact(content: spc.SpcIndirectDataContent) -> Artifact:
    name = oids.DIGEST_NAMES.get(content.digest_algorithm.algorithm, content.digest_algorithm.algorithm)
    hash_algorithm(name)
    return Artifact(algorithm=name, digest=content.digest)


def _octet_string(content: bytes) -> bytes:
    return der.encode_tlv(der.TAG_OCTET_STRING, content)
