# SPDX-License-Identifier: Apache-2.0
"""The attribute certificate table: WIN_CERTIFICATE entries at the end of a PE image (PE Format)."""

from dataclasses import dataclass
from typing import Final

from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode.layout import ENTRY_ALIGNMENT

__all__ = ["MAX_TABLE_SIZE_BYTES", "WinCertificate", "check_table_size", "encode_table", "parse_table"]

#: Larger certificate tables are not read. Two signatures with all the page hashes that one may have fit in.
MAX_TABLE_SIZE_BYTES: Final = 64 << 20
_MAX_ENTRIES: Final = 32

_HEADER_SIZE_BYTES: Final = 8
_REVISION_2_0: Final = 0x0200
_PKCS_SIGNED_DATA: Final = 0x0002
_SIGNED_DATA: Final = _REVISION_2_0.to_bytes(2, "little") + _PKCS_SIGNED_DATA.to_bytes(2, "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class WinCertificate:
    """One entry of the table.

    Attributes:
        is_signed_data: Whether it says of itself that it is a PKCS #7 SignedData, of the one revision that has them.
        certificate: Its bytes, which may end in padding.
        padding: What stands between it and the next entry.
        encoded: All of it, header and padding included, as it stands in the table.
    """

    is_signed_data: bool
    certificate: bytes
    padding: bytes
    encoded: bytes


def check_table_size(size_bytes: int) -> None:
    """Refuse a certificate table that nobody needs to be this large.

    Raises:
        UnsupportedInputError: `pe.too_large`.
    """
    if size_bytes > MAX_TABLE_SIZE_BYTES:
        raise UnsupportedInputError(
            "pe.too_large", f"the certificate table has {size_bytes} of at most {MAX_TABLE_SIZE_BYTES} bytes"
        )


def encode_table(signed_data: bytes) -> bytes:
    """The table with one PKCS #7 SignedData as its only entry, padded to a multiple of 8.

    The padding counts in dwLength, as signtool writes it: everything in the table then belongs to the entry.
    """
    padded = signed_data + bytes(-len(signed_data) % ENTRY_ALIGNMENT)
    length = _HEADER_SIZE_BYTES + len(padded)
    return length.to_bytes(4, "little") + _SIGNED_DATA + padded


def parse_table(table: bytes) -> tuple[WinCertificate, ...]:
    """All entries of a certificate table.

    Raises:
        MalformedInputError: `pe.certificate_table`.
    """
    found: list[WinCertificate] = []
    offset = 0
    while offset < len(table):
        length = int.from_bytes(table[offset : offset + 4], "little")
        end = offset + length
        if length < _HEADER_SIZE_BYTES or end > len(table) or len(found) == _MAX_ENTRIES:
            raise MalformedInputError(
                "pe.certificate_table",
                f"entry {len(found) + 1} of the certificate table, at {offset}, has length {length}; "
                f"{_HEADER_SIZE_BYTES} or more, and at most {_MAX_ENTRIES} entries, are expected",
            )
        following = end + -end % ENTRY_ALIGNMENT
        found.append(
            WinCertificate(
                is_signed_data=table[offset + 4 : offset + 8] == _SIGNED_DATA,
                certificate=table[offset + _HEADER_SIZE_BYTES : end],
                padding=table[end:following],
                encoded=table[offset:following],
            )
        )
        offset = following
    return tuple(found)
