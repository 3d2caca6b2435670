# SPDX-License-Identifier: Apache-2.0
"""Page hashes of a PE image: a digest of each page, so that Windows can check pages as it maps them.

Records are (file offset, digest): the headers without what a signature changes, then each section page by
page, each padded with zeros to a whole page, at last the end of the last section with a zero digest.
Privyseal does not write them; it checks those of others, because a wrong one makes an image fail while it
runs.
"""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO, Final

from privyseal.errors import VerificationError
from privyseal.formats.authenticode.layout import PeLayout, read_exactly
from privyseal.formats.authenticode.spc import PageHashes

__all__ = ["check_page_hashes"]

_OFFSET_SIZE_BYTES: Final = 4
_MAX_PAGE_SIZE_BYTES: Final = 1 << 20


def check_page_hashes(stream: BinaryIO, layout: PeLayout, head: bytes, page_hashes: PageHashes) -> None:
    """Hash the pages of an image again and compare; reads the sections once more.

    Raises:
        MalformedInputError: `pe.truncated`.
        VerificationError: `authenticode.page_hash_mismatch`, `authenticode.page_hashes_unchecked` if the
            image's pages cannot be told apart.
    """
    page_size_bytes = layout.section_alignment
    page_count = sum(-(-one.size_bytes // max(page_size_bytes, 1)) for one in layout.sections) + 2
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


def _records(stream: BinaryIO, layout: PeLayout, head: bytes, algorithm: str) -> Iterator[bytes]:
    page_size_bytes = layout.section_alignment
    checksum, directory = layout.checksum_offset, layout.directory_offset
    header = head[:checksum] + head[checksum + 4 : directory] + head[directory + 8 : layout.size_of_headers]
    gap = bytes(max(page_size_bytes - layout.size_of_headers, 0))
    yield _record(0, hashlib.new(algorithm, header + gap).digest())
    end = 0
    for section in layout.sections:
        stream.seek(section.offset)
        end = section.offset + section.size_bytes
        for offset in range(section.offset, end, page_size_bytes):
            page = read_exactly(stream, min(page_size_bytes, end - offset))
            yield _record(offset, hashlib.new(algorithm, page.ljust(page_size_bytes, b"\0")).digest())
    yield _record(end, bytes(hashlib.new(algorithm).digest_size))


def _record(offset: int, digest: bytes) -> bytes:
    return offset.to_bytes(_OFFSET_SIZE_BYTES, "little") + digest
