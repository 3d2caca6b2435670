# SPDX-License-Identifier: Apache-2.0
"""Cryptographic Message Syntax: SignedData as frozen values (RFC 5652 §3, §5; PKCS #7 v1.5).

Reading keeps every byte that was hashed: the content and the signed attributes are the original encodings,
and the order of certificates and attributes is the file's. Nothing is verified here; that is `cms_verify`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Final

from cryptography.hazmat import asn1
from cryptography.hazmat.asn1 import TLV, Explicit, Implicit, Null, SetOf
from cryptography.x509 import ObjectIdentifier

from privyseal.errors import MalformedInputError
from privyseal.pki import der, oids

__all__ = [
    "NULL_PARAMETERS",
    "AlgorithmIdentifier",
    "Attribute",
    "SignedData",
    "SignerInfo",
    "attribute_values",
    "encode_signed_attributes",
    "encode_signed_data",
    "parse_signed_attributes",
    "parse_signed_data",
    "read_signed_attributes",
    "with_certificates",
]

#: `parameters` of the SHA-2 and RSA algorithm identifiers as Authenticode writes them.
NULL_PARAMETERS: Final = b"\x05\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmIdentifier:
    """An algorithm and its parameters (RFC 5280 §4.1.1.2); `parameters` is DER, or None if absent."""

    algorithm: str
    parameters: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """An attribute type and its values, each one DER (RFC 5652 §5.3)."""

    type: str
    values: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerInfo:
    """One signer (RFC 5652 §5.3).

    Attributes:
        issuer: The issuer's Name (DER) if the signer is named by issuer and serial number, else empty.
        subject_key_identifier: The other way to name a signer; empty with `issuer`.
        signed_attributes: The SET OF Attribute in the original order, with the tag that is hashed (0x31);
            empty if there are none.
    """

    version: int
    issuer: bytes
    serial_number: int
    subject_key_identifier: bytes = b""
    digest_algorithm: AlgorithmIdentifier
    signed_attributes: bytes
    signature_algorithm: AlgorithmIdentifier
    signature: bytes
    unsigned_attributes: tuple[Attribute, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedData:
    """Signed content with its certificates and signers (RFC 5652 §5.1).

    Attributes:
        content: The encapsulated value (DER, tag included); empty if the signature is detached.
        certificates: DER, in the original order; may hold other things than X.509 certificates.
    """

    version: int
    digest_algorithms: tuple[AlgorithmIdentifier, ...]
    content_type: str
    content: bytes
    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    signer_infos: tuple[SignerInfo, ...]

    @property
    def content_octets(self) -> bytes:
        """What messageDigest covers: the contents octets of `content`, without tag and length (§5.4)."""
        return der.read_single(self.content, "the encapsulated content").content if self.content else b""


@asn1.sequence
class _AlgorithmIdentifier:
    algorithm: ObjectIdentifier
    parameters: Null | TLV | None


@asn1.sequence
class _Attribute:
    type: ObjectIdentifier
    values: SetOf[TLV]


@asn1.sequence
class _SignedAttributes:
    attributes: SetOf[_Attribute]


@asn1.sequence
class _UnorderedAttributes:
    attributes: list[_Attribute]


@asn1.sequence
class _IssuerAndSerialNumber:
    issuer: TLV
    serial_number: int


# A list under an IMPLICIT tag has the bytes of a SET OF, and keeps the order in which a file has it.
@asn1.sequence
class _SignerInfo:
    version: int
    sid: _IssuerAndSerialNumber | Annotated[bytes, Implicit(0)]
    digest_algorithm: _AlgorithmIdentifier
    signed_attributes: Annotated[list[TLV] | None, Implicit(0)]
    signature_algorithm: _AlgorithmIdentifier
    signature: bytes
    unsigned_attributes: Annotated[list[_Attribute] | None, Implicit(1)]


# `[0] EXPLICIT ANY`: a sequence of one field under an IMPLICIT tag has the same bytes.
@asn1.sequence
class _Content:
    value: TLV


@asn1.sequence
class _EncapsulatedContentInfo:
    content_type: ObjectIdentifier
    content: Annotated[_Content | None, Implicit(0)]


@asn1.sequence
class _SignedData:
    version: int
    digest_algorithms: SetOf[_AlgorithmIdentifier]
    content_info: _EncapsulatedContentInfo
    certificates: Annotated[list[TLV] | None, Implicit(0)]
    crls: Annotated[list[TLV] | None, Implicit(1)]
    signer_infos: SetOf[_SignerInfo]


@asn1.sequence
class _ContentInfo:
    content_type: ObjectIdentifier
    content: Annotated[_SignedData, Explicit(0)]


def parse_signed_data(data: bytes, what: str = "the SignedData") -> SignedData:
    """Read a ContentInfo that holds a SignedData, in DER or in the BER that signing programs write.

    Args:
        data: The ContentInfo, without anything behind it.
        what: Name of the object, for messages.

    Raises:
        MalformedInputError: `cms.not_signed_data`, `der.malformed`, `der.trailing_bytes`, `der.too_deep`,
            `der.too_large`.
    """
    try:
        raw = der.decode(_ContentInfo, data, what)
    except MalformedInputError:
        raw = der.decode(_ContentInfo, der.normalise(data, what), what)
    if raw.content_type.dotted_string != oids.ID_SIGNED_DATA:
        raise MalformedInputError(
            "cms.not_signed_data", f"{what} has content type {raw.content_type.dotted_string}, not SignedData"
        )
    return _signed_data(raw.content)


def encode_signed_data(signed_data: SignedData) -> bytes:
    """The ContentInfo (DER) around a SignedData; the order of certificates and attributes is kept.

    Raises:
        MalformedInputError: `der.malformed` if a part is not what its type demands.
    """
    raw = _SignedData(
        version=signed_data.version,
        digest_algorithms=SetOf([_raw_algorithm(one) for one in signed_data.digest_algorithms]),
        content_info=_EncapsulatedContentInfo(
            content_type=_oid(signed_data.content_type),
            content=_Content(value=der.any_value(signed_data.content, "the content")) if signed_data.content else None,
        ),
        certificates=_raw_values(signed_data.certificates, "a certificate"),
        crls=_raw_values(signed_data.crls, "a revocation list"),
        signer_infos=SetOf([_raw_signer_info(one) for one in signed_data.signer_infos]),
    )
    return der.encode(_ContentInfo(content_type=_oid(oids.ID_SIGNED_DATA), content=raw), "the SignedData")


def encode_signed_attributes(attributes: Iterable[Attribute]) -> bytes:
    """The DER SET OF Attribute that is hashed and signed (RFC 5652 §5.4).

    Raises:
        MalformedInputError: `der.malformed` if a value is not one tag-length-value.
    """
    return der.encode(SetOf([_raw_attribute(one) for one in attributes]), "the signed attributes")


def parse_signed_attributes(data: bytes) -> tuple[Attribute, ...]:
    """Read signed attributes and accept only the one encoding that `encode_signed_attributes` makes of them.

    Raises:
        MalformedInputError: `cms.signed_attributes` for anything out of order, not DER, without a value, or
            occurring twice; `der.trailing_bytes`.
    """
    tlv = der.read_single(data, "the signed attributes")
    if tlv.tag != der.TAG_SET:
        raise MalformedInputError("cms.signed_attributes", f"the signed attributes have tag {tlv.tag:#04x}, not SET")
    try:
        raw = der.decode(_SignedAttributes, der.encode_tlv(der.TAG_SEQUENCE, data), "the signed attributes")
    except MalformedInputError as error:
        raise MalformedInputError("cms.signed_attributes", error.message) from error
    attributes = tuple(_attribute(one) for one in raw.attributes.as_list())
    _check_attributes(attributes)
    if encode_signed_attributes(attributes) != data:
        raise MalformedInputError("cms.signed_attributes", "the signed attributes are not in DER")
    return attributes


def read_signed_attributes(data: bytes) -> tuple[Attribute, ...]:
    """Read the signed attributes of somebody else's signature, in whatever order they stand.

    Raises:
        MalformedInputError: `cms.signed_attributes` if one has no value or occurs twice; `der.malformed`.
    """
    tlv = der.read_single(data, "the signed attributes")
    as_sequence = der.encode_tlv(der.TAG_SEQUENCE, der.encode_tlv(der.TAG_SEQUENCE, tlv.content))
    raw = der.decode(_UnorderedAttributes, as_sequence, "the signed attributes")
    attributes = tuple(_attribute(one) for one in raw.attributes)
    _check_attributes(attributes)
    return attributes


def with_certificates(signed_data: SignedData, certificates: tuple[bytes, ...]) -> SignedData:
    """The same SignedData with more certificates behind its own."""
    return replace(signed_data, certificates=signed_data.certificates + certificates)


def attribute_values(attributes: Iterable[Attribute], oid: str) -> tuple[bytes, ...]:
    """All values of the attributes of one type, in order."""
    return tuple(value for attribute in attributes if attribute.type == oid for value in attribute.values)


def _check_attributes(attributes: tuple[Attribute, ...]) -> None:
    types = [one.type for one in attributes]
    if not types or len(set(types)) != len(types):
        raise MalformedInputError("cms.signed_attributes", "the signed attributes must be some, and of different types")
    if not all(one.values for one in attributes):
        raise MalformedInputError("cms.signed_attributes", "a signed attribute has no value")


def _signed_data(raw: _SignedData) -> SignedData:
    content = raw.content_info.content
    return SignedData(
        version=raw.version,
        digest_algorithms=tuple(_algorithm(one) for one in raw.digest_algorithms.as_list()),
        content_type=raw.content_info.content_type.dotted_string,
        content=asn1.encode_der(content.value) if content is not None else b"",
        certificates=_values(raw.certificates),
        crls=_values(raw.crls),
        signer_infos=tuple(_signer_info(one) for one in raw.signer_infos.as_list()),
    )


def _signer_info(raw: _SignerInfo) -> SignerInfo:
    if isinstance(raw.sid, _IssuerAndSerialNumber):
        issuer, serial_number, subject_key_identifier = (
            asn1.encode_der(raw.sid.issuer),
            raw.sid.serial_number,
            b"",
        )
    else:
        issuer, serial_number, subject_key_identifier = b"", 0, raw.sid
    signed = _values(raw.signed_attributes)
    return SignerInfo(
        version=raw.version,
        issuer=issuer,
        serial_number=serial_number,
        subject_key_identifier=subject_key_identifier,
        digest_algorithm=_algorithm(raw.digest_algorithm),
        signed_attributes=der.encode_tlv(der.TAG_SET, b"".join(signed)) if signed else b"",
        signature_algorithm=_algorithm(raw.signature_algorithm),
        signature=raw.signature,
        unsigned_attributes=tuple(_attribute(one) for one in raw.unsigned_attributes or ()),
    )


def _raw_signer_info(signer_info: SignerInfo) -> _SignerInfo:
    signed = None
    if signer_info.signed_attributes:
        attributes = der.read_single(signer_info.signed_attributes, "the signed attributes")
        signed = [der.any_value(one.der, "a signed attribute") for one in der.children(attributes, "an attribute")]
    sid: _IssuerAndSerialNumber | bytes = signer_info.subject_key_identifier
    if signer_info.issuer:
        issuer = der.any_value(signer_info.issuer, "the issuer")
        sid = _IssuerAndSerialNumber(issuer=issuer, serial_number=signer_info.serial_number)
    return _SignerInfo(
        version=signer_info.version,
        sid=sid,
        digest_algorithm=_raw_algorithm(signer_info.digest_algorithm),
        signed_attributes=signed,
        signature_algorithm=_raw_algorithm(signer_info.signature_algorithm),
        signature=signer_info.signature,
        unsigned_attributes=[_raw_attribute(one) for one in signer_info.unsigned_attributes] or None,
    )


def _attribute(raw: _Attribute) -> Attribute:
    return Attribute(type=raw.type.dotted_string, values=_values(raw.values.as_list()))


def _raw_attribute(attribute: Attribute) -> _Attribute:
    values = SetOf([der.any_value(value, f"attribute {attribute.type}") for value in attribute.values])
    return _Attribute(type=_oid(attribute.type), values=values)


def _algorithm(raw: _AlgorithmIdentifier) -> AlgorithmIdentifier:
    parameters = None if raw.parameters is None else asn1.encode_der(raw.parameters)
    return AlgorithmIdentifier(algorithm=raw.algorithm.dotted_string, parameters=parameters)


def _raw_algorithm(algorithm: AlgorithmIdentifier) -> _AlgorithmIdentifier:
    parameters = None
    if algorithm.parameters is not None:
        parameters = der.any_value(algorithm.parameters, "the parameters of an algorithm")
    return _AlgorithmIdentifier(algorithm=_oid(algorithm.algorithm), parameters=parameters)


def _values(raw: list[TLV] | None) -> tuple[bytes, ...]:
    return tuple(asn1.encode_der(one) for one in raw or ())


def _raw_values(values: tuple[bytes, ...], what: str) -> list[TLV] | None:
    return [der.any_value(value, what) for value in values] or None


def _oid(dotted: str) -> ObjectIdentifier:
    return ObjectIdentifier(dotted)
