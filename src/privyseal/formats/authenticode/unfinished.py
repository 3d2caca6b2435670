# SPDX-License-Identifier: Apache-2.0
"""A SignedData whose signature is still to come, so that another machine can sign its digest (SignTool's .p7u).

It has all but the signature value, for which any may stand. Signed attributes are taken in whatever order and number
the file has them: other programs make these files, too.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from privyseal.errors import MalformedInputError
from privyseal.formats.authenticode import signature as authenticode
from privyseal.formats.model import Preimage, PreimageFacts, Signed
from privyseal.pki import cms, cms_verify, der, oids
from privyseal.pki.mechanism import hash_algorithm

__all__ = ["Unfinished", "finish", "make_unfinished", "read_unfinished"]

_WHAT: Final = "the unsigned PKCS #7"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """What was read.

    Attributes:
        encoded: The ContentInfo (DER).
        preimage: Signed attributes and SpcIndirectDataContent.
        digest: Of the signed attributes, by `digest_algorithm`: what is to be signed.
        issuer: Of the signer's certificate, its Name (DER).
        serial_number: Of the signer's certificate.
        certificates: DER.
    """

    encoded: bytes
    preimage: Preimage
    digest_algorithm: str
    digest: bytes
    issuer: bytes
    serial_number: int
    certificates: tuple[bytes, ...]


def make_unfinished(facts: PreimageFacts, preimage: Preimage, chain: tuple[bytes, ...]) -> bytes:
    """The ContentInfo (DER) around a preimage, with an empty signature value.

    Args:
        facts: What the format says of the preimage.
        preimage: What will be signed.
        chain: DER, the signer's certificate first; all of it goes into the file.

    Raises:
        MalformedInputError: see `signature.make_signed_data`.
        UnsupportedInputError: `key.unsupported`.
    """
    return authenticode.make_signed_data(facts, Signed(preimage=preimage, signature=b"", chain=chain))


def read_unfinished(data: bytes) -> Unfinished:
    """Read what `make_unfinished` or another program made; it must agree with itself.

    Raises:
        MalformedInputError: `authenticode.unfinished`, `cms.*`, `der.*`.
        UnsupportedInputError: `digest.unsupported`.
    """
    encoded = _definite(data)
    signed_data = cms.parse_signed_data(encoded, _WHAT)
    if len(signed_data.signer_infos) != 1 or signed_data.content_type != oids.SPC_INDIRECT_DATA:
        raise _unfinished("it must be over an SpcIndirectDataContent, with exactly one signer")
    signer_info = signed_data.signer_infos[0]
    if not signer_info.signed_attributes or not signed_data.content or not signer_info.issuer:
        raise _unfinished("content, signed attributes or the signer's name are missing")
    algorithm = cms_verify.digest_algorithm_name(signer_info.digest_algorithm)
    hash_algorithm(algorithm)
    octets = hashlib.new(algorithm, signed_data.content_octets).digest()
    attributes = cms.read_signed_attributes(signer_info.signed_attributes)
    wanted = {
        oids.ID_CONTENT_TYPE: (der.encode_oid(signed_data.content_type),),
        oids.ID_MESSAGE_DIGEST: (der.encode_tlv(der.TAG_OCTET_STRING, octets),),
    }
    if any(cms.attribute_values(attributes, oid) != values for oid, values in wanted.items()):
        raise _unfinished("its contentType or messageDigest is not that of its content")
    return Unfinished(
        encoded=encoded,
        preimage=Preimage(signed=signer_info.signed_attributes, detail=signed_data.content),
        digest_algorithm=algorithm,
        digest=hashlib.new(algorithm, signer_info.signed_attributes).digest(),
        issuer=signer_info.issuer,
        serial_number=signer_info.serial_number,
        certificates=signed_data.certificates,
    )


def finish(unfinished: Unfinished, signature: bytes) -> bytes:
    """The ContentInfo with the signature value; every other byte stays. Whether the signature holds is not judged.

    Raises:
        MalformedInputError: `der.*`.
    """
    return _with_signature(unfinished.encoded, signature)


def _definite(data: bytes) -> bytes:
    """The same bytes if every length on the way to the signature is definite, else in DER."""
    try:
        _with_signature(data, b"")
    except (MalformedInputError, ValueError):
        return der.normalise(data, _WHAT)
    return data


def _with_signature(encoded: bytes, signature: bytes) -> bytes:
    content_info = der.read_single(encoded, _WHAT)
    content_type, explicit = der.children(content_info, _WHAT)
    (signed_data,) = der.children(explicit, _WHAT)
    *before, signer_infos = der.children(signed_data, _WHAT)
    (signer,) = der.children(signer_infos, _WHAT)
    # Of SignerInfo's fields (RFC 5652 §5.3) the signature alone is an OCTET STRING without a tag of its own.
    fields = b"".join(
        der.encode_tlv(der.TAG_OCTET_STRING, signature) if one.tag == der.TAG_OCTET_STRING else one.der
        for one in der.children(signer, _WHAT)
    )
    signers = der.encode_tlv(signer_infos.tag, der.encode_tlv(signer.tag, fields))
    data = der.encode_tlv(signed_data.tag, b"".join(one.der for one in before) + signers)
    return der.encode_tlv(content_info.tag, content_type.der + der.encode_tlv(explicit.tag, data))


def _unfinished(why: str) -> MalformedInputError:
    return MalformedInputError(
        "authenticode.unfinished", f"{_WHAT} cannot be used: {why}", hint="make it again: signtool sign /dg"
    )
