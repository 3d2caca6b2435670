# SPDX-License-Identifier: Apache-2.0
"""BER-TLV as cards speak it (ISO/IEC 7816-4 §5.2.2): tags of up to three bytes, lengths of up to 65535."""

__all__ = ["MalformedTlvError", "decode", "encode"]

_MAX_TAG_BYTES = 3


class MalformedTlvError(ValueError):
    """Bytes that are no sequence of data objects."""


def encode(tag: int, *values: bytes) -> bytes:
    """One data object: a tag as it stands on the wire (0x53, 0x5FC105), and the values one after the other."""
    value = b"".join(values)
    head = tag.to_bytes((tag.bit_length() + 7) // 8, "big")
    if len(value) < 0x80:
        return head + bytes((len(value),)) + value
    length = len(value).to_bytes((len(value).bit_length() + 7) // 8, "big")
    return head + bytes((0x80 | len(length),)) + length + value


def decode(data: bytes) -> dict[int, bytes]:
    """The data objects of one level, by tag.

    Raises:
        MalformedTlvError: If they are cut short, or a tag or length is longer than cards use.
    """
    found = {}
    at = 0
    while at < len(data):
        tag, at = _tag(data, at)
        length, at = _length(data, at)
        if at + length > len(data):
            raise MalformedTlvError(f"the data object {tag:X} is cut short")
        found[tag] = data[at : at + length]
        at += length
    return found


def _tag(data: bytes, at: int) -> tuple[int, int]:
    end = at + 1
    if data[at] & 0x1F == 0x1F:
        while end < len(data) and data[end] & 0x80:
            end += 1
        end += 1
    if end > len(data) or end - at > _MAX_TAG_BYTES:
        raise MalformedTlvError("a tag is cut short or too long")
    return int.from_bytes(data[at:end], "big"), end


def _length(data: bytes, at: int) -> tuple[int, int]:
    if at >= len(data):
        raise MalformedTlvError("a length is missing")
    first, at = data[at], at + 1
    if first < 0x80:
        return first, at
    end = at + (first & 0x7F)
    if first not in (0x81, 0x82) or end > len(data):
        raise MalformedTlvError("a length is cut short or too long")
    return int.from_bytes(data[at:end], "big"), end
