# SPDX-License-Identifier: Apache-2.0
"""How a PE image changes when its certificate table does: table, directory, CheckSum and nothing else."""

from privyseal.errors import UnsupportedInputError
from privyseal.formats.authenticode.checksum import checksum_of, word_sum
from privyseal.formats.authenticode.scan import PeScan
from privyseal.formats.authenticode.table import check_table_size
from privyseal.formats.model import Patch, Scan

__all__ = ["pe_scan", "with_table", "without_table"]

_DIRECTORY_SIZE_BYTES = 8


def pe_scan(scanned: Scan) -> PeScan:
    """The scan, if it is one of a PE image.

    Raises:
        UnsupportedInputError: `format.wrong_scan`.
    """
    if not isinstance(scanned, PeScan):
        raise UnsupportedInputError("format.wrong_scan", "the scan is not one of a PE image")
    return scanned


def with_table(scanned: PeScan, table: bytes) -> Patch:
    """The image with this certificate table instead of the one that it has.

    Raises:
        UnsupportedInputError: `pe.too_large`.
    """
    check_table_size(len(table))
    layout = scanned.layout
    table_offset = layout.data_size_bytes + scanned.padding_size_bytes
    directory = table_offset.to_bytes(4, "little") + len(table).to_bytes(4, "little")
    total = scanned.data_word_sum + word_sum(directory) + word_sum(table)
    checksum = checksum_of(total, table_offset + len(table))
    return Patch(
        keep_bytes=layout.data_size_bytes,
        writes=(
            (layout.checksum_offset, checksum.to_bytes(4, "little")),
            (layout.directory_offset, directory),
            (layout.data_size_bytes, bytes(scanned.padding_size_bytes) + table),
        ),
    )


def without_table(scanned: PeScan) -> Patch:
    """The image without a certificate table, cut off where it ended before it was signed.

    Signing pads an image to a multiple of 8. The padding goes again if it can be told apart from the image's own
    bytes: if all that stands behind the last section is fewer than 8 zeros. Behind an overlay it stays.
    """
    layout = scanned.layout
    size_bytes = layout.data_size_bytes - scanned.surplus_size_bytes
    checksum = checksum_of(scanned.data_word_sum, size_bytes)
    return Patch(
        keep_bytes=size_bytes,
        writes=(
            (layout.checksum_offset, checksum.to_bytes(4, "little")),
            (layout.directory_offset, bytes(_DIRECTORY_SIZE_BYTES)),
        ),
    )
