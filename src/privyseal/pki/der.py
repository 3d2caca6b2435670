# SPDX-License-Identifier: Apache-2.0
"""ASN.1 encodings (X.690): declared types in strict DER, and a small reader that is lenient about BER.

Types are declared with `cryptography.hazmat.asn1`; a module that declares them turns them into frozen
dataclasses of its own, because the library's values are mutable and compare by identity. What the library
refuses on purpose (BER lengths, a SET OF out of order) goes through `normalise` first.
"""

from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from privyseal.errors import MalformedInputError

__all__ = [
    "MAX_DEPTH",
    "MAX_SIZE_BYTES",
    "MAX_VALUES",
    "TAG_BMP_STRING",
    "TAG_GENERALIZED_TIME",
    "TAG_NULL",
    "TAG_OCTET_STRING",
    "TAG_SEQUENCE",
    "TAG_SET",
    "Tlv",
    "any_value",
    "children",
    "decode",
    "encode",
    "encode_oid",
    "encode_tlv",
    "normalise",
    "read_single",
    "read_tlv",
]

#: Deepest nesting that is followed. CMS with a nested signature and a timestamp needs about 25.
MAX_DEPTH: Final = 40
#: Largest structure that is read at all: page hashes of large images, and signatures nested in one another.
MAX_SIZE_BYTES: Final = 64 * 1024 * 1024
#: How many values it may consist of, on all levels: each costs a hundred times its size once it is read.
MAX_VALUES: Final = 500_000

TAG_OCTET_STRING: Final = 0x04
TAG_NULL: Final = 0x05
TAG_GENERALIZED_TIME: Final = 0x18
TAG_BMP_STRING: Final = 0x1E
TAG_SEQUENCE: Final = 0x30
TAG_SET: Final = 0x31

_CONSTRUCTED: Final = 0x20
_CONSTRUCTED_OCTET_STRING: Final = 0x24
_HIGH_TAG_NUMBER: Final = 0x1F
_INDEFINITE: Final = 0x80
_UNCOUNTED_SIZE_BYTES: Final = 256 * 1024
_END_OF_CONTENTS: Final = b"\x00\x00"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tlv:
    """One tag-length-value.

    Attributes:
        tag: The identifier octet, class and constructed bit included.
        content: The contents octets.
        der: All of it, as it stood in the input.
    """

    tag: int
    content: bytes
    der: bytes


def decode(cls: type[T], der: bytes, what: str) -> T:
    """Decode a declared type in strict DER, without trailing bytes.

    Args:
        cls: A class decorated with `asn1.sequence`.
        der: The encoding.
        what: Name of the object, for the message.

    Raises:
        MalformedInputError: `der.malformed`, `der.too_large`, or `der.too_many_values`.
    """
    _limit(der, what)
    try:
        return asn1.decode_der(cls, der)
    except (ValueError, OverflowError) as error:
        raise MalformedInputError("der.malformed", f"{what} does not follow its ASN.1 type: {error}") from error


def encode(value: object, what: str) -> bytes:
    """Encode a value of a declared type as DER.

    Raises:
        MalformedInputError: `der.malformed` if a field holds what its type cannot.
    """
    try:
        return asn1.encode_der(value)
    except (ValueError, OverflowError) as error:
        raise MalformedInputError("der.malformed", f"{what} cannot be encoded as DER: {error}") from error


def any_value(der: bytes, what: str) -> asn1.TLV:
    """An encoded value for a field that is declared as `asn1.TLV` (the library has no constructor for it).

    Raises:
        MalformedInputError: `der.malformed` if the bytes are not exactly one tag-length-value.
    """
    return decode(asn1.TLV, der, what)


def encode_oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    return asn1.encode_der(ObjectIdentifier(dotted))


def encode_tlv(tag: int, content: bytes) -> bytes:
    """One tag-length-value with the shortest definite length (X.690 §10.1)."""
    size = len(content)
    if size < _INDEFINITE:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _INDEFINITE | len(length))) + length + content


def read_tlv(data: bytes, offset: int, what: str) -> Tlv:
    """The tag-length-value at `offset`; lengths need not be the shortest, but must be definite.

    Raises:
        MalformedInputError: `der.malformed`.
    """
    tag, start, length = _header(data, offset, len(data), what)
    if length is None:
        raise MalformedInputError("der.malformed", f"{what}: indefinite length at offset {offset}")
    end = start + length
    return Tlv(tag=tag, content=data[start:end], der=data[offset:end])


def read_single(data: bytes, what: str) -> Tlv:
    """The one tag-length-value that `data` consists of.

    Raises:
        MalformedInputError: `der.malformed`, or `der.trailing_bytes` if anything follows it.
    """
    tlv = read_tlv(data, 0, what)
    if len(tlv.der) != len(data):
        surplus = len(data) - len(tlv.der)
        raise MalformedInputError(
            "der.trailing_bytes", f"{what} is followed by {surplus} bytes that do not belong to it"
        )
    return tlv


def children(tlv: Tlv, what: str) -> tuple[Tlv, ...]:
    """What a constructed value consists of.

    Raises:
        MalformedInputError: `der.malformed`.
    """
    found = []
    offset = 0
    while offset < len(tlv.content):
        child = read_tlv(tlv.content, offset, what)
        offset += len(child.der)
        found.append(child)
    return tuple(found)


def normalise(data: bytes, what: str) -> bytes:
    """Rewrite BER as DER as far as CMS needs it.

    Lengths become definite and shortest, constructed OCTET STRINGs become primitive, universal SETs are
    sorted. Nothing else changes, and what follows the value is refused. Hashed bytes may differ afterwards
    only if they were not DER, and signed attributes are hashed as DER whatever a file holds (RFC 5652
    §5.4).

    Raises:
        MalformedInputError: `der.malformed`, `der.trailing_bytes`, `der.too_deep`, `der.too_large`,
            `der.too_many_values`.
    """
    _limit(data, what)
    _, der, end = _normalised(data, 0, len(data), 0, what)
    if end != len(data):
        raise MalformedInputError(
            "der.trailing_bytes", f"{what} is followed by {len(data) - end} bytes that do not belong to it"
        )
    return der


def _limit(data: bytes, what: str) -> None:
    if len(data) > MAX_SIZE_BYTES:
        raise MalformedInputError(
            "der.too_large", f"{what} has {len(data)} bytes; at most {MAX_SIZE_BYTES} are accepted"
        )
    if len(data) > _UNCOUNTED_SIZE_BYTES and _counts_beyond(data, MAX_VALUES):
        raise MalformedInputError("der.too_many_values", f"{what} consists of more than {MAX_VALUES} values")


def _counts_beyond(data: bytes, limit: int) -> bool:
    """Whether there are more values than that, those within constructed ones included.

    What lies about its length ends with its container, so that nothing behind it goes uncounted.
    """
    ends = [len(data)]
    position = 0
    for _ in range(limit):
        while position >= ends[-1]:
            position = ends.pop()
            if not ends:
                return False
        tag = data[position]
        position += 1
        if tag & _HIGH_TAG_NUMBER == _HIGH_TAG_NUMBER:
            while position < ends[-1] and data[position] & _INDEFINITE:
                position += 1
            position += 1
        length = int.from_bytes(data[position : position + 1], "big")
        position += 1
        if length > _INDEFINITE:
            octets = length & 0x7F
            length = int.from_bytes(data[position : position + octets], "big")
            position += octets
        elif length == _INDEFINITE:
            length = ends[-1]
        if tag & _CONSTRUCTED:
            ends.append(min(position + length, ends[-1]))
        else:
            position += length
    return True


def _header(data: bytes, offset: int, limit: int, what: str) -> tuple[int, int, int | None]:
    """Identifier octet, offset of the contents, their length; None if indefinite (X.690 §8.1)."""
    if offset + 2 > limit:
        raise MalformedInputError("der.malformed", f"{what} ends within a tag or length at offset {offset}")
    tag, first = data[offset], data[offset + 1]
    if tag & _HIGH_TAG_NUMBER == _HIGH_TAG_NUMBER:
        raise MalformedInputError("der.malformed", f"{what}: no tag number above 30 is expected at offset {offset}")
    start = offset + 2
    if first == _INDEFINITE:
        return tag, start, None
    if first < _INDEFINITE:
        length = first
    else:
        octets = data[start : min(start + (first & 0x7F), limit)]
        start += first & 0x7F
        length = int.from_bytes(octets, "big")
    if start + length > limit:
        raise MalformedInputError("der.malformed", f"{what}: the value at offset {offset} is longer than its container")
    return tag, start, length


def _normalised(data: bytes, offset: int, limit: int, depth: int, what: str) -> tuple[bytes, bytes, int]:
    """The contents octets and the DER of the value at `offset`, and the offset behind it."""
    if depth > MAX_DEPTH:
        raise MalformedInputError("der.too_deep", f"{what} is nested deeper than {MAX_DEPTH} levels")
    tag, start, length = _header(data, offset, limit, what)
    if not tag & _CONSTRUCTED:
        if length is None:
            raise MalformedInputError("der.malformed", f"{what}: primitive value without a length at offset {offset}")
        content = data[start : start + length]
        return content, encode_tlv(tag, content), start + length
    contents = []
    encodings = []
    position = start
    end = limit if length is None else start + length
    while True:
        if length is None and data[position : position + 2] == _END_OF_CONTENTS and position + 2 <= end:
            position += 2
            break
        if length is not None and position == end:
            break
        content, der, position = _normalised(data, position, end, depth + 1, what)
        contents.append(content)
        encodings.append(der)
    if tag == _CONSTRUCTED_OCTET_STRING:
        joined = b"".join(contents)
        return joined, encode_tlv(TAG_OCTET_STRING, joined), position
    if tag == TAG_SET:
        encodings.sort()
    joined = b"".join(encodings)
    return joined, encode_tlv(tag, joined), position
