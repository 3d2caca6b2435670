# SPDX-License-Identifier: Apache-2.0
"""Microsoft's Software Publishing Certificate structures (Authenticode PE Signature Format, appendix).

The forms are those of signtool and osslsigncode: SpcAttributeTypeAndOptionalValue holds its value untagged,
strings are UTF-16 big-endian, and a PE image names the file `<<<Obsolete>>>`.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from cryptography.hazmat import asn1
from cryptography.hazmat.asn1 import TLV, BitString, IA5String, Implicit, Null, Variant
from cryptography.x509 import ObjectIdentifier

from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.pki import cms, der, oids

__all__ = [
    "INDIVIDUAL_STATEMENT_TYPE",
    "PE_IMAGE_DATA",
    "PageHashes",
    "SpcIndirectDataContent",
    "SpcSpOpusInfo",
    "encode_indirect_data",
    "encode_opus_info",
    "encode_page_hashes",
    "parse_indirect_data",
    "parse_opus_info",
    "parse_page_hashes",
]

#: SpcStatementType with the one purpose "individual code signing".
INDIVIDUAL_STATEMENT_TYPE: Final = der.encode_tlv(der.TAG_SEQUENCE, der.encode_oid(oids.SPC_INDIVIDUAL_SP_KEY_PURPOSE))

_MAX_TEXT_CHARACTERS: Final = 1024
#: The class of a serialized object that carries page hashes.
_PAGE_HASHES_CLASS: Final = bytes.fromhex("a6b586d5b4a12466ae05a217da8e60d6")
_PAGE_HASH_OIDS: Final = {
    "sha1": oids.SPC_PE_IMAGE_PAGE_HASHES_V1,
    "sha256": oids.SPC_PE_IMAGE_PAGE_HASHES_V2,
}
_PAGE_HASH_ALGORITHMS: Final = {der.encode_oid(oid): name for name, oid in _PAGE_HASH_OIDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpcIndirectDataContent:
    """What an Authenticode signature says of a file: its kind and its digest.

    Attributes:
        data_type: OID of the kind of file.
        data: What that kind wants to say (DER, tag included); empty if absent.
    """

    data_type: str
    data: bytes
    digest_algorithm: cms.AlgorithmIdentifier
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SpcSpOpusInfo:
    """Name and address that Windows shows of the program; either may be empty."""

    program_name: str = ""
    more_info_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageHashes:
    """Digests of the pages of an image, as (offset, digest) records one after the other."""

    algorithm: str
    records: bytes


# `[n] EXPLICIT CHOICE`: a sequence of one field under an IMPLICIT tag has the same bytes.
@asn1.sequence
class _SpcString:
    value: (
        Annotated[Variant[bytes, Literal["unicode"]], Implicit(0)]
        | Annotated[Variant[IA5String, Literal["ascii"]], Implicit(1)]
    )


@asn1.sequence
class _SpcSerializedObject:
    class_id: bytes
    serialized_data: bytes


@asn1.sequence
class _SpcLink:
    value: (
        Annotated[Variant[IA5String, Literal["url"]], Implicit(0)]
        | Annotated[Variant[_SpcSerializedObject, Literal["moniker"]], Implicit(1)]
        | Annotated[Variant[_SpcString, Literal["file"]], Implicit(2)]
    )


@asn1.sequence
class _SpcPeImageData:
    flags: BitString | None
    file: Annotated[_SpcLink | None, Implicit(0)]


@asn1.sequence
class _SpcAttributeTypeAndOptionalValue:
    type: ObjectIdentifier
    value: Null | TLV | None


@asn1.sequence
class _AlgorithmIdentifier:
    algorithm: ObjectIdentifier
    parameters: Null | TLV | None


@asn1.sequence
class _DigestInfo:
    digest_algorithm: _AlgorithmIdentifier
    digest: bytes


@asn1.sequence
class _SpcIndirectDataContent:
    data: _SpcAttributeTypeAndOptionalValue
    message_digest: _DigestInfo


@asn1.sequence
class _SpcSpOpusInfo:
    program_name: Annotated[_SpcString | None, Implicit(0)]
    more_info: Annotated[_SpcLink | None, Implicit(1)]


def encode_indirect_data(content: SpcIndirectDataContent) -> bytes:
    """The SpcIndirectDataContent (DER).

    Raises:
        MalformedInputError: `der.malformed`.
    """
    raw = _SpcIndirectDataContent(
        data=_SpcAttributeTypeAndOptionalValue(
            type=ObjectIdentifier(content.data_type), value=_optional(content.data or None)
        ),
        message_digest=_DigestInfo(
            digest_algorithm=_AlgorithmIdentifier(
                algorithm=ObjectIdentifier(content.digest_algorithm.algorithm),
                parameters=_optional(content.digest_algorithm.parameters),
            ),
            digest=content.digest,
        ),
    )
    return der.encode(raw, "the SpcIndirectDataContent")


def parse_indirect_data(data: bytes) -> SpcIndirectDataContent:
    """Read a SpcIndirectDataContent (DER, without anything behind it).

    Raises:
        MalformedInputError: `der.malformed`.
    """
    raw = der.decode(_SpcIndirectDataContent, data, "the SpcIndirectDataContent")
    algorithm = raw.message_digest.digest_algorithm
    return SpcIndirectDataContent(
        data_type=raw.data.type.dotted_string,
        data=b"" if raw.data.value is None else asn1.encode_der(raw.data.value),
        digest_algorithm=cms.AlgorithmIdentifier(
            algorithm=algorithm.algorithm.dotted_string,
            parameters=None if algorithm.parameters is None else asn1.encode_der(algorithm.parameters),
        ),
        digest=raw.message_digest.digest,
    )


def encode_opus_info(info: SpcSpOpusInfo) -> bytes:
    """The SpcSpOpusInfo (DER): an empty SEQUENCE if there is nothing to say.

    Raises:
        UnsupportedInputError: `authenticode.program_name`, `authenticode.program_url` for a text that the
            structure cannot hold or that nobody could read.
    """
    name = info.program_name
    if len(name) > _MAX_TEXT_CHARACTERS or not (name.isprintable() or not name):
        raise UnsupportedInputError(
            "authenticode.program_name",
            f"the program name must be printable and at most {_MAX_TEXT_CHARACTERS} characters",
        )
    url = info.more_info_url
    if len(url) > _MAX_TEXT_CHARACTERS or not url.isascii() or not (url.isprintable() or not url):
        raise UnsupportedInputError(
            "authenticode.program_url",
            f"the program URL must be printable ASCII and at most {_MAX_TEXT_CHARACTERS} characters",
            hint="write a host name of other letters in its xn-- form, and percent-encode the rest",
        )
    more_info = _SpcLink(value=Variant(IA5String(url), "url")) if url else None
    raw = _SpcSpOpusInfo(program_name=_string(name) if name else None, more_info=more_info)
    return der.encode(raw, "the SpcSpOpusInfo")


def parse_opus_info(data: bytes) -> SpcSpOpusInfo:
    """Read a SpcSpOpusInfo (DER).

    Raises:
        MalformedInputError: `der.malformed`, `authenticode.opus_info`.
    """
    raw = der.decode(_SpcSpOpusInfo, data, "the SpcSpOpusInfo")
    url = ""
    if raw.more_info is not None:
        if not isinstance(raw.more_info.value.value, IA5String):
            raise MalformedInputError("authenticode.opus_info", "the program's address is not a URL")
        url = raw.more_info.value.value.as_str()
    return SpcSpOpusInfo(program_name="" if raw.program_name is None else _text(raw.program_name), more_info_url=url)


def encode_page_hashes(page_hashes: PageHashes) -> bytes:
    """The SpcPeImageData (DER) of an image with page hashes: they take the place of the file name.

    Raises:
        MalformedInputError: `der.malformed`.
    """
    oid = _PAGE_HASH_OIDS[page_hashes.algorithm]
    values = der.encode_tlv(der.TAG_SET, der.encode_tlv(der.TAG_OCTET_STRING, page_hashes.records))
    attribute = der.encode_tlv(der.TAG_SEQUENCE, der.encode_oid(oid) + values)
    moniker = _SpcSerializedObject(class_id=_PAGE_HASHES_CLASS, serialized_data=der.encode_tlv(der.TAG_SET, attribute))
    return der.encode(
        _SpcPeImageData(flags=BitString(b"", 0), file=_SpcLink(value=Variant(moniker, "moniker"))),
        "the SpcPeImageData",
    )


def parse_page_hashes(pe_image_data: bytes) -> PageHashes | None:
    """The page hashes in a SpcPeImageData (DER); None if it has none.

    Raises:
        MalformedInputError: `der.malformed`, `der.trailing_bytes`, `authenticode.page_hashes`.
    """
    image = der.decode(_SpcPeImageData, pe_image_data, "the SpcPeImageData")
    if image.file is None or not isinstance(image.file.value.value, _SpcSerializedObject):
        return None
    moniker = image.file.value.value
    if moniker.class_id != _PAGE_HASHES_CLASS:
        raise MalformedInputError("authenticode.page_hashes", "the SpcPeImageData holds an unknown object")
    # One list is expected; read without a declared type, so that a million empty ones cost nothing.
    what = "the page hashes"
    attributes = der.read_single(moniker.serialized_data, what)
    attribute = der.read_single(attributes.content, what)
    oid = der.read_tlv(attribute.content, 0, what)
    values = der.read_single(attribute.content[len(oid.der) :], what)
    records = der.read_single(values.content, what)
    algorithm = _PAGE_HASH_ALGORITHMS.get(oid.der)
    tags = (attributes.tag, attribute.tag, values.tag, records.tag)
    if algorithm is None or tags != (der.TAG_SET, der.TAG_SEQUENCE, der.TAG_SET, der.TAG_OCTET_STRING):
        raise MalformedInputError("authenticode.page_hashes", "the page hashes are not one list of a known kind")
    return PageHashes(algorithm=algorithm, records=records.content)


def _string(text: str) -> _SpcString:
    try:
        return _SpcString(value=Variant(text.encode("utf-16-be"), "unicode"))
    except UnicodeEncodeError as error:
        raise UnsupportedInputError(
            "authenticode.program_name",
            f"UTF-16 has no form for the program name: {error}",
        ) from error


def _text(string: _SpcString) -> str:
    value = string.value.value
    if isinstance(value, IA5String):
        return value.as_str()
    try:
        return value.decode("utf-16-be")
    except UnicodeDecodeError as error:
        raise MalformedInputError("authenticode.opus_info", f"a string is not UTF-16: {error}") from error


def _optional(encoded: bytes | None) -> TLV | None:
    return None if encoded is None else der.any_value(encoded, "an optional value")


#: SpcPeImageData of an image without page hashes: no flags, and the file name that the specification wants.
PE_IMAGE_DATA: Final = der.encode(
    _SpcPeImageData(flags=BitString(b"", 0), file=_SpcLink(value=Variant(_string("<<<Obsolete>>>"), "file"))),
    "the SpcPeImageData",
)
