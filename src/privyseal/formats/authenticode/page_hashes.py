# SPDX-License-Identifier: Apache-2.0
"""Page hashes of a PE image: a digest of each page, so that Windows can check pages as it maps them.

Records are (file offset, digest): the headers without what a signature changes, then each section page by
page, each padded with zeros to a whole page, at last the end of the last section with a zero digest.

Windows knows two lists, of SHA-1 and of SHA-256; we write SHA-256, whatever the signature's own algorithm is, as
signtool and osslsigncode do. Pages are hashed in a second pass over the sections, one block at a time.
"""

import hashlib
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO, Final

from privyseal.errors import MalformedInputError, UnsupportedInputError, VerificationError
from privyseal.formats.authenticode.layout import PeLayout, PeSection, read_exactly
from privyseal.formats.authenticode.spc import PageHashes

__all__ = ["MAX_PAGE_HASHES_SIZE_BYTES", "check_page_hashes", "check_records", "make_page_hashes"]

#: Of all records together: enough for an image of 2 GB. A hub takes it in one message.
MAX_PAGE_HASHES_SIZE_BYTES: Final = 20 << 20

_OFFSET_SIZE_BYTES: Final = 4
_PAGE_SIZE_BYTES: Final = 4096
_MAX_PAGE_SIZE_BYTES: Final = 1 << 20
_BLOCK_SIZE_BYTES: Final = 1 << 18
_ALGORITHM: Final = "sha256"
_RECORD: Final = struct.Struct("<I32x")
_NO_DIGEST: Final = bytes(32)


def make_page_hashes(stream: BinaryIO, layout: PeLayout, head: bytes) -> PageHashes:
    """Hash the pages of an image; reads its sections once more.

    Raises:
        MalformedInputError: `pe.truncated`.
        UnsupportedInputError: `pe.page_hashes` if programs would not agree on what the image's pages are.
    """
    ends = [layout.size_of_headers, *(one.offset + one.size_bytes for one in layout.sections)]
    in_order = len(ends) > 1 and all(end <= section.offset for end, section in zip(ends, layout.sections, strict=False))
    if layout.section_alignment != _PAGE_SIZE_BYTES or layout.size_of_headers > _PAGE_SIZE_BYTES or not in_order:
        raise UnsupportedInputError(
            "pe.page_hashes",
            f"page hashes need a SectionAlignment of {_PAGE_SIZE_BYTES}, headers within one page, and sections one "
            f"behind the other; this image has {layout.section_alignment}, headers of {layout.size_of_headers} bytes, "
            f"and its sections {'are' if in_order else 'are none, overlap or are not'} in order",
            hint="sign it without page hashes",
        )
    size_bytes = _page_count(layout) * _RECORD.size
    if size_bytes > MAX_PAGE_HASHES_SIZE_BYTES:
        raise UnsupportedInputError(
            "pe.too_large",
            f"the page hashes would have {size_bytes} of at most {MAX_PAGE_HASHES_SIZE_BYTES} bytes",
            hint="sign it without page hashes",
        )
    return PageHashes(algorithm=_ALGORITHM, records=b"".join(_records(stream, layout, head, _ALGORITHM)))


def check_records(page_hashes: PageHashes) -> None:
    """Hold page hashes against the form in which `make_page_hashes` makes them, without the image.

    Raises:
        MalformedInputError: `authenticode.page_hashes`.
    """
    size_bytes = len(page_hashes.records)
    if page_hashes.algorithm != _ALGORITHM or size_bytes % _RECORD.size or size_bytes > MAX_PAGE_HASHES_SIZE_BYTES:
        raise MalformedInputError(
            "authenticode.page_hashes",
            f"page hashes are records of {_RECORD.size} bytes with SHA-256 digests, at most "
            f"{MAX_PAGE_HASHES_SIZE_BYTES} bytes together; these are {size_bytes} bytes of {page_hashes.algorithm}",
        )
    offsets = (int(offset) for (offset,) in _RECORD.iter_unpack(page_hashes.records))
    in_order = all(first < second for first, second in pairwise(offsets))
    begins, ends = page_hashes.records[:_OFFSET_SIZE_BYTES], page_hashes.records[-len(_NO_DIGEST) :]
    if begins != bytes(_OFFSET_SIZE_BYTES) or ends != _NO_DIGEST or not in_order:
        raise MalformedInputError(
            "authenticode.page_hashes",
            "page hashes begin at offset 0, go up, and end in a record without a digest; these do not",
        )


def check_page_hashes(stream: BinaryIO, layout: PeLayout, head: bytes, page_hashes: PageHashes) -> None:
    """Hash the pages of an image again and compare; reads the sections once more.

    Raises:
        MalformedInputError: `pe.truncated`.
        VerificationError: `authenticode.page_hash_mismatch`, `authenticode.page_hashes_unchecked` if the
            image's pages cannot be told apart.
    """
    page_size_bytes = layout.section_alignment
    record_size_bytes = _OFFSET_SIZE_BYTES + hashlib.new(page_hashes.algorithm).digest_size
    if not 0 < page_size_bytes <= _MAX_PAGE_SIZE_BYTES or layout.size_of_headers > len(head):
        raise VerificationError(
            "authenticode.page_hashes_unchecked",
            f"the image has page hashes, but pages of {page_size_bytes} bytes; they were not checked",
        )
    if sum(one.size_bytes for one in layout.sections) > layout.data_size_bytes:
        raise VerificationError(
            "authenticode.page_hashes_unchecked", "the image has page hashes, but its sections overlap"
        )
    page_count = _page_count(layout)
    if len(page_hashes.records) != page_count * record_size_bytes:
        raise VerificationError(
            "authenticode.page_hash_mismatch",
            f"the page hashes have {len(page_hashes.records)} bytes; {page_count} records were expected",
        )
    position = 0
    for record in _records(stream, layout, head, page_hashes.algorithm):
        if page_hashes.records[position : position + record_size_bytes] != record:
            offset = int.from_bytes(record[:_OFFSET_SIZE_BYTES], "little")
            raise VerificationError(
                "authenticode.page_hash_mismatch", f"the page at byte {offset} is not the one that was signed"
            )
        position += record_size_bytes


def _page_count(layout: PeLayout) -> int:
    """How many records there are, those of the headers and of the end included."""
    return sum(-(-one.size_bytes // layout.section_alignment) for one in layout.sections) + 2


def _records(stream: BinaryIO, layout: PeLayout, head: bytes, algorithm: str) -> Iterator[bytes]:
    page_size_bytes = layout.section_alignment
    checksum, directory = layout.checksum_offset, layout.directory_offset
    header = head[:checksum] + head[checksum + 4 : directory] + head[directory + 8 : layout.size_of_headers]
    gap = bytes(max(page_size_bytes - layout.size_of_headers, 0))
    yield _record(0, hashlib.new(algorithm, header + gap).digest())
    end = 0
    for section in layout.sections:
        end = section.offset + section.size_bytes
        for offset, page in _pages(stream, section, page_size_bytes):
            yield _record(offset, hashlib.new(algorithm, page.ljust(page_size_bytes, b"\0")).digest())
    yield _record(end, bytes(hashlib.new(algorithm).digest_size))


def _pages(stream: BinaryIO, section: PeSection, page_size_bytes: int) -> Iterator[tuple[int, bytes]]:
    stream.seek(section.offset)
    end = section.offset + section.size_bytes
    block_size_bytes = page_size_bytes * max(_BLOCK_SIZE_BYTES // page_size_bytes, 1)
    for offset in range(section.offset, end, block_size_bytes):
        block = read_exactly(stream, min(block_size_bytes, end - offset))
        for start in range(0, len(block), page_size_bytes):
            yield offset + start, block[start : start + page_size_bytes]


def _record(offset: int, digest: bytes) -> bytes:
    return offset.to_bytes(_OFFSET_SIZE_BYTES, "little") + digest
