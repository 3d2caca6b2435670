# SPDX-License-Identifier: Apache-2.0
"""One pass over a PE image: its Authenticode digest, and the sum for its CheckSum.

The digest covers the file up to the certificate table in the order of the file, without the CheckSum field
and the certificate table's data directory ("Calculating the PE Image Hash"; data between sections counts,
too). Bytes that will pad the data to a multiple of 8 count as if they were there.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from privyseal.formats.authenticode.checksum import fold, word_sum
from privyseal.formats.authenticode.layout import ENTRY_ALIGNMENT, PeLayout, read_exactly, read_layout
from privyseal.formats.authenticode.page_hashes import make_page_hashes
from privyseal.formats.authenticode.spc import PageHashes
from privyseal.formats.authenticode.table import check_table_size
from privyseal.formats.model import Artifact, SignOptions
from privyseal.pki.mechanism import hash_algorithm

__all__ = ["PeScan", "authenticode_digests", "scan"]

_BLOCK_SIZE_BYTES: Final = 1 << 18  # even, and small enough to stay in the processor's cache between its two uses


@dataclass(frozen=True, slots=True, kw_only=True)
class PeScan:
    """What one pass over a PE image learned.

    Attributes:
        padding_size_bytes: Zero bytes that go between data and certificate table.
        surplus_size_bytes: Zero bytes between the last section and the certificate table, where they are nothing but
            the padding of a signature.
        data_word_sum: `checksum.word_sum` of the data, CheckSum and certificate directory taken as zero.
        table: The certificate table, unread; empty if the image is not signed.
        page_hashes: If they were asked for.
    """

    artifact: Artifact
    layout: PeLayout
    padding_size_bytes: int
    surplus_size_bytes: int
    data_word_sum: int
    table: bytes
    page_hashes: PageHashes | None = None

    @property
    def size_bytes(self) -> int:
        """Size of the file that was read."""
        return self.layout.size_bytes

    @property
    def is_signed(self) -> bool:
        """Whether the image has a certificate table."""
        return self.layout.table_size_bytes > 0


def scan(stream: BinaryIO, options: SignOptions) -> PeScan:
    """Read a PE image once, its sections twice for page hashes; a signature that it has is kept, but not read.

    Memory is bounded: blocks of the data, the certificate table, and the page hashes.

    Raises:
        MalformedInputError: `pe.*`; see `layout.read_layout`.
        UnsupportedInputError: `pe.*`, or `digest.unsupported`.
    """
    digest_algorithm = options.digest_algorithm
    hash_algorithm(digest_algorithm)
    layout, head = read_layout(stream)
    check_table_size(layout.table_size_bytes)
    digest = hashlib.new(digest_algorithm)
    total = 0
    tail = b""
    for hashed, summed in _blocks(stream, layout, head, summing=True):
        for part in hashed:
            digest.update(part)
        total += summed
        tail = (tail + bytes(hashed[-1][-ENTRY_ALIGNMENT:]))[-ENTRY_ALIGNMENT:]
    table = _read_table(stream, layout, head)
    padding_size_bytes = -layout.data_size_bytes % ENTRY_ALIGNMENT
    digest.update(bytes(padding_size_bytes))
    return PeScan(
        artifact=Artifact(algorithm=digest_algorithm, digest=digest.digest()),
        layout=layout,
        padding_size_bytes=padding_size_bytes,
        surplus_size_bytes=_surplus_size_bytes(layout, tail),
        data_word_sum=fold(total),
        table=table,
        page_hashes=make_page_hashes(stream, layout, head) if options.page_hashes else None,
    )


def authenticode_digests(
    stream: BinaryIO, layout: PeLayout, head: bytes, digest_algorithms: frozenset[str]
) -> tuple[dict[str, bytes], int]:
    """The Authenticode digests of a PE image, and of a driver the `data_word_sum`; the stream must stand behind `head`.

    Raises:
        MalformedInputError: `pe.truncated`.
    """
    digests = {name: hashlib.new(name) for name in digest_algorithms}
    total = 0
    for hashed, summed in _blocks(stream, layout, head, summing=layout.is_driver):
        for digest in digests.values():
            for part in hashed:
                digest.update(part)
        total += summed
    return {name: digest.digest() for name, digest in digests.items()}, total


def _surplus_size_bytes(layout: PeLayout, tail: bytes) -> int:
    """Less than one alignment of zeros behind the last section; behind an overlay nobody can tell them from its own."""
    end = max((one.offset + one.size_bytes for one in layout.sections), default=0)
    surplus_size_bytes = layout.data_size_bytes - end
    is_padding = end and 0 < surplus_size_bytes < ENTRY_ALIGNMENT and not any(tail[-surplus_size_bytes:])
    return surplus_size_bytes if is_padding and layout.table_size_bytes else 0


def _read_table(stream: BinaryIO, layout: PeLayout, head: bytes) -> bytes:
    """The certificate table; as far as it lies within `head`, the stream is behind it already."""
    within = head[layout.data_size_bytes : layout.data_size_bytes + layout.table_size_bytes]
    return within + read_exactly(stream, layout.table_size_bytes - len(within))


def _blocks(
    stream: BinaryIO, layout: PeLayout, head: bytes, *, summing: bool
) -> Iterator[tuple[tuple[bytes | memoryview, ...], int]]:
    """The data in blocks: what is hashed of each, and its `word_sum`, which costs as much again, if it is wanted."""
    checksum, directory, end = layout.checksum_offset, layout.directory_offset, layout.data_size_bytes
    first = memoryview(head)[:end]
    hashed = (first[:checksum], first[checksum + 4 : directory], first[directory + 8 :])
    # Both fields lie at even offsets, so that their words can be taken out of the sum.
    fields = word_sum(first[checksum : checksum + 4]) + word_sum(first[directory : directory + 8])
    # Reduced once, so that adding the blocks behind it stays cheap.
    yield hashed, fold(word_sum(first) - fields) if summing else 0
    position = len(first)
    while position < end:
        block = read_exactly(stream, min(_BLOCK_SIZE_BYTES, end - position))
        position += len(block)
        yield (block,), word_sum(block) if summing else 0
