# SPDX-License-Identifier: Apache-2.0
"""Change what no signature covers: unsigned attributes and certificates of a SignedData that is there (RFC 5652 §5).

Nested signatures and timestamps live there. Only the lengths on the way to what changes are written again, so that
every other byte stays, whoever wrote it. Signatures are counted as `verify.find_signatures` finds them: the outer one,
then those nested in it, level by level.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.model import Dispensable
from privyseal.pki import cms, cms_verify, der, oids

__all__ = ["add_nested", "set_timestamp", "signature_values", "strip"]

_MAX_SIGNATURES: Final = 32
_UNSIGNED_ATTRIBUTES: Final = 0xA1  # [1] IMPLICIT SET OF Attribute
_CERTIFICATES: Final = 0xA0  # [0] IMPLICIT CertificateSet
_WHAT: Final = "the signature"

_Attributes = tuple[bytes, ...]  # each one DER
_Change = Callable[[_Attributes], _Attributes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """One signature, and the one that it is nested in (position, or -1)."""

    encoded: bytes
    value: bytes
    parent: int


def signature_values(encoded: bytes) -> tuple[bytes, ...]:
    """The signature value of a ContentInfo and of each one nested in it; empty for one that cannot be read."""
    return tuple(place.value for place in _places(encoded))


def add_nested(encoded: bytes, nested: bytes) -> bytes:
    """The ContentInfo with one more signature within it, beside those that are there already.

    All of them are values of one attribute, as signtool writes them.

    Raises:
        MalformedInputError: `der.malformed`, `der.trailing_bytes`, `authenticode.unreadable_signature`.
    """

    def change(attributes: _Attributes) -> _Attributes:
        there = [value for one in attributes if _is_of(one, oids.SPC_NESTED_SIGNATURE) for value in _values(one)]
        others = tuple(one for one in attributes if not _is_of(one, oids.SPC_NESTED_SIGNATURE))
        return (*others, _attribute(oids.SPC_NESTED_SIGNATURE, (*there, nested)))

    if not signature_values(encoded)[0]:
        raise MalformedInputError(
            "authenticode.unreadable_signature",
            "the first signature of the file cannot be read, so nothing can be nested in it",
            hint="replace it",
        )
    return _changed(encoded, change)


def set_timestamp(encoded: bytes, position: int, token: bytes) -> bytes:
    """The ContentInfo with a timestamp token beside one of its signatures, instead of those that are there.

    Args:
        encoded: The ContentInfo.
        position: Of the signature in `signature_values`.
        token: The token, a ContentInfo.

    Raises:
        MalformedInputError: `der.malformed`, `der.trailing_bytes`, `authenticode.unreadable_signature`.
        UnsupportedInputError: `authenticode.no_such_signature`.
    """

    def put_timestamp(attributes: _Attributes) -> _Attributes:
        others = tuple(one for one in attributes if not _is_of(one, oids.SPC_RFC3161_TIMESTAMP))
        return (*others, _attribute(oids.SPC_RFC3161_TIMESTAMP, (token,)))

    places = _places(encoded)
    if not 0 <= position < len(places) or not places[position].value:
        raise UnsupportedInputError(
            "authenticode.no_such_signature", f"there is no readable signature at position {position}"
        )
    place = places[position]
    changed = _changed(place.encoded, put_timestamp)
    while place.parent >= 0:
        changed = _changed(places[place.parent].encoded, _replacing(place.encoded, changed))
        place = places[place.parent]
    if token not in changed:
        # In the second signer of one around it, or behind lengths that are not DER.
        raise MalformedInputError(
            "authenticode.unreadable_signature",
            "the signature lies within another one that cannot be written again without changing it",
        )
    return changed


def strip(encoded: bytes, what: frozenset[Dispensable]) -> bytes:
    """The ContentInfo without unsigned attributes, or without other certificates than the signer's, or without both.

    Raises:
        MalformedInputError: `cms.*`, `der.*`.
        VerificationError: `cms.signer_certificate` if the signer's certificate is not there.
    """
    stripped = _changed(encoded, lambda _: ()) if Dispensable.UNSIGNED_ATTRIBUTES in what else encoded
    return _with_one_certificate(stripped) if Dispensable.CERTIFICATES in what else stripped


def _with_one_certificate(encoded: bytes) -> bytes:
    parsed = cms.parse_signed_data(encoded, _WHAT)
    keep = {cms_verify.signer_certificate(parsed, one).der for one in parsed.signer_infos}
    content_info = der.read_single(encoded, _WHAT)
    content_type, explicit = der.children(content_info, _WHAT)
    (signed_data,) = der.children(explicit, _WHAT)
    fields = b"".join(
        der.encode_tlv(_CERTIFICATES, b"".join(sorted(keep))) if one.tag == _CERTIFICATES else one.der
        for one in der.children(signed_data, _WHAT)
    )
    data = der.encode_tlv(signed_data.tag, fields)
    return der.encode_tlv(content_info.tag, content_type.der + der.encode_tlv(explicit.tag, data))


def _places(encoded: bytes) -> list[_Place]:
    found: list[_Place] = []
    waiting = [(encoded, -1)]
    while waiting and len(found) < _MAX_SIGNATURES:
        current, parent = waiting.pop(0)
        try:
            signer_infos = cms.parse_signed_data(current, _WHAT).signer_infos
        except MalformedInputError:
            signer_infos = ()
        for signer_info in signer_infos:
            nested = cms.attribute_values(signer_info.unsigned_attributes, oids.SPC_NESTED_SIGNATURE)
            waiting.extend((one, len(found)) for one in nested)
        value = signer_infos[0].signature if len(signer_infos) == 1 else b""
        found.append(_Place(encoded=current, value=value, parent=parent))
    return found


def _replacing(old: bytes, new: bytes) -> _Change:
    """A change that puts one nested signature in the place of another."""

    def change(attributes: _Attributes) -> _Attributes:
        return tuple(replaced(one) if _is_of(one, oids.SPC_NESTED_SIGNATURE) else one for one in attributes)

    def replaced(attribute: bytes) -> bytes:
        values = (new if old in {value, der.normalise(value, _WHAT)} else value for value in _values(attribute))
        return _attribute(oids.SPC_NESTED_SIGNATURE, tuple(values))

    return change


def _changed(encoded: bytes, change: _Change) -> bytes:
    """The ContentInfo with the unsigned attributes of its first signer changed, and in DER's order (X.690 §11.6)."""
    content_info = der.read_single(encoded, _WHAT)
    content_type, explicit = der.children(content_info, _WHAT)
    (signed_data,) = der.children(explicit, _WHAT)
    *before, signer_infos = der.children(signed_data, _WHAT)
    first, *other_signers = der.children(signer_infos, _WHAT)
    fields = der.children(first, _WHAT)
    there = fields[-1].tag == _UNSIGNED_ATTRIBUTES
    attributes = tuple(one.der for one in der.children(fields[-1], _WHAT)) if there else ()
    changed = sorted(change(attributes))
    unsigned = der.encode_tlv(_UNSIGNED_ATTRIBUTES, b"".join(changed)) if changed else b""
    kept = fields[:-1] if there else fields
    signer = der.encode_tlv(first.tag, _joined(kept) + unsigned)
    signers = der.encode_tlv(signer_infos.tag, signer + _joined(other_signers))
    data = der.encode_tlv(signed_data.tag, _joined(before) + signers)
    return der.encode_tlv(content_info.tag, content_type.der + der.encode_tlv(explicit.tag, data))


def _joined(values: list[der.Tlv] | tuple[der.Tlv, ...]) -> bytes:
    return b"".join(value.der for value in values)


def _attribute(oid: str, values: tuple[bytes, ...]) -> bytes:
    content = der.encode_oid(oid) + der.encode_tlv(der.TAG_SET, b"".join(sorted(values)))
    return der.encode_tlv(der.TAG_SEQUENCE, content)


def _is_of(attribute: bytes, oid: str) -> bool:
    return der.children(der.read_single(attribute, _WHAT), _WHAT)[0].der == der.encode_oid(oid)


def _values(attribute: bytes) -> tuple[bytes, ...]:
    values = der.children(der.read_single(attribute, _WHAT), _WHAT)[1]
    return tuple(one.der for one in der.children(values, _WHAT))
