# SPDX-License-Identifier: Apache-2.0
"""Where a PE image keeps what Authenticode needs (PE Format: headers, sections, certificate table).

Only the fields that matter to signing are judged, but each is held against the size of the file before it is
believed. PE32 and PE32+ of any machine; no field is trusted to be in order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final

from privyseal.errors import MalformedInputError, UnsupportedInputError

__all__ = [
    "ENTRY_ALIGNMENT",
    "HEAD_SIZE_BYTES",
    "PeLayout",
    "PeSection",
    "looks_like_pe",
    "read_exactly",
    "read_layout",
]

#: Certificate table entries begin at multiples of this ("The Attribute Certificate Table").
ENTRY_ALIGNMENT: Final = 8
#: Headers and section table must lie within this.
HEAD_SIZE_BYTES: Final = 1 << 20
#: File offsets in the headers have 32 bits; the certificate table must still fit behind the data.
_MAX_SIZE_BYTES: Final = (1 << 32) - (64 << 20)

_E_LFANEW: Final = 0x3C
_COFF_SIZE_BYTES: Final = 24  # signature and COFF file header
_PE32: Final = 0x10B
_PE32_PLUS: Final = 0x20B
_SECTION_ALIGNMENT: Final = 32
_SIZE_OF_HEADERS: Final = 60
_CHECKSUM: Final = 64
_SUBSYSTEM: Final = 68
_NATIVE: Final = 1
_NUMBER_OF_RVA_AND_SIZES: Final = {_PE32: 92, _PE32_PLUS: 108}
_DATA_DIRECTORIES: Final = {_PE32: 96, _PE32_PLUS: 112}
_CERTIFICATE_TABLE: Final = 4  # index of its data directory
_SECTION_HEADER_SIZE_BYTES: Final = 40
_SIZE_OF_RAW_DATA: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PeSection:
    """Where a section's bytes are in the file (PointerToRawData, SizeOfRawData)."""

    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeLayout:
    """Offsets within one PE image.

    Attributes:
        checksum_offset: Of the CheckSum field, 4 bytes.
        directory_offset: Of the data directory that names the certificate table, 8 bytes.
        data_size_bytes: Length of what comes before the certificate table: the whole file if it has none.
        table_size_bytes: Length of the certificate table; 0 if the file is not signed.
        size_of_headers: SizeOfHeaders as the file says it.
        section_alignment: SectionAlignment as the file says it.
        is_driver: Whether it runs in Windows's kernel (Subsystem native), where CheckSum must be right.
    """

    size_bytes: int
    checksum_offset: int
    directory_offset: int
    data_size_bytes: int
    table_size_bytes: int
    size_of_headers: int
    section_alignment: int
    is_driver: bool
    sections: tuple[PeSection, ...]


def looks_like_pe(head: bytes, _file_name: str) -> bool:
    """Whether the first 4096 bytes of a file are those of a PE image."""
    if head[:2] != b"MZ" or len(head) < _E_LFANEW + 4:
        return False
    offset = int.from_bytes(head[_E_LFANEW : _E_LFANEW + 4], "little")
    # A header behind the first block cannot be seen yet; the scan judges it.
    return head[offset : offset + 4] == b"PE\0\0" or len(head) <= offset < HEAD_SIZE_BYTES


def read_exactly(stream: BinaryIO, size_bytes: int) -> bytes:
    """The next `size_bytes` of a stream whose length is known.

    Raises:
        MalformedInputError: `pe.truncated` if it has become shorter meanwhile.
    """
    block = stream.read(size_bytes)
    while len(block) < size_bytes:
        more = stream.read(size_bytes - len(block))
        if not more:
            raise MalformedInputError("pe.truncated", "the file became shorter while it was read")
        block += more
    return block


def read_layout(stream: BinaryIO) -> tuple[PeLayout, bytes]:
    """Read and judge the headers.

    Returns:
        The layout, and the first bytes of the file (at most `HEAD_SIZE_BYTES`); the stream stands behind
        them.

    Raises:
        MalformedInputError: `pe.empty`, `pe.not_pe`, `pe.truncated`, `pe.header_alignment`,
            `pe.optional_header`, `pe.overlap`, `pe.certificate_table`, `pe.data_after_certificate_table`.
        UnsupportedInputError: `pe.too_large`, `pe.header_too_far`, `pe.no_certificate_directory`.
    """
    size_bytes = stream.seek(0, 2)
    stream.seek(0)
    if size_bytes == 0:
        raise MalformedInputError("pe.empty", "the file is empty", hint="check the build step that wrote it")
    if size_bytes > _MAX_SIZE_BYTES:
        raise UnsupportedInputError(
            "pe.too_large", f"the file has {size_bytes} bytes; a PE image can have at most {_MAX_SIZE_BYTES}"
        )
    head = read_exactly(stream, min(size_bytes, HEAD_SIZE_BYTES))
    return _parse(head, size_bytes), head


def _parse(head: bytes, size_bytes: int) -> PeLayout:
    field = _field_reader(head, size_bytes)
    if head[:2] != b"MZ":
        raise MalformedInputError("pe.not_pe", "the file does not begin with MZ, so it is not a PE image")
    coff = field(_E_LFANEW, 4, "e_lfanew")
    if field(coff, 4, "the PE signature") != int.from_bytes(b"PE\0\0", "little"):
        raise MalformedInputError("pe.not_pe", "e_lfanew does not lead to a PE signature, so it is not a PE image")
    if coff % 2:
        # CheckSum would not lie on a word. Windows asks for a multiple of 4, UEFI firmware does not.
        raise MalformedInputError("pe.header_alignment", f"e_lfanew is {coff}, which is an odd number")
    section_count = field(coff + 6, 2, "NumberOfSections")
    optional_size_bytes = field(coff + 20, 2, "SizeOfOptionalHeader")
    optional = coff + _COFF_SIZE_BYTES
    directory_offset = _directory_offset(field, optional, optional_size_bytes)
    table_offset = field(directory_offset, 4, "the offset of the certificate table")
    table_size_bytes = field(directory_offset + 4, 4, "the size of the certificate table")
    section_table = optional + optional_size_bytes
    sections = _sections(field, section_table, section_count)
    headers_end = section_table + section_count * _SECTION_HEADER_SIZE_BYTES
    data_size_bytes = size_bytes
    if table_size_bytes:
        _check_table(table_offset, table_size_bytes, headers_end, size_bytes)
        data_size_bytes = table_offset
    _check_sections(sections, data_size_bytes, size_bytes)
    return PeLayout(
        size_bytes=size_bytes,
        checksum_offset=optional + _CHECKSUM,
        directory_offset=directory_offset,
        data_size_bytes=data_size_bytes,
        table_size_bytes=table_size_bytes,
        size_of_headers=field(optional + _SIZE_OF_HEADERS, 4, "SizeOfHeaders"),
        section_alignment=field(optional + _SECTION_ALIGNMENT, 4, "SectionAlignment"),
        is_driver=field(optional + _SUBSYSTEM, 2, "Subsystem") == _NATIVE,
        sections=sections,
    )


_Field = Callable[[int, int, str], int]


def _field_reader(head: bytes, size_bytes: int) -> _Field:
    def field(offset: int, length: int, name: str) -> int:
        end = offset + length
        if end > size_bytes:
            raise MalformedInputError(
                "pe.truncated", f"the file ends at byte {size_bytes}, before {name} at {offset}..{end}"
            )
        if end > len(head):
            raise UnsupportedInputError(
                "pe.header_too_far", f"{name} lies at byte {offset}; headers are read up to byte {len(head)}"
            )
        return int.from_bytes(head[offset:end], "little")

    return field


def _directory_offset(field: _Field, optional: int, optional_size_bytes: int) -> int:
    magic = field(optional, 2, "the magic of the optional header")
    if magic not in _DATA_DIRECTORIES:
        raise MalformedInputError(
            "pe.optional_header", f"the optional header has magic {magic:#06x}; PE32 has 0x010b, PE32+ 0x020b"
        )
    count = field(optional + _NUMBER_OF_RVA_AND_SIZES[magic], 4, "NumberOfRvaAndSizes")
    if count <= _CERTIFICATE_TABLE:
        raise UnsupportedInputError(
            "pe.no_certificate_directory",
            f"the image has {count} data directories and therefore no place for a certificate table",
            hint="link it with the usual 16 data directories",
        )
    offset = optional + _DATA_DIRECTORIES[magic] + _CERTIFICATE_TABLE * 8
    if offset + 8 > optional + optional_size_bytes:
        raise MalformedInputError(
            "pe.optional_header",
            f"SizeOfOptionalHeader is {optional_size_bytes}, too small for the certificate table's directory",
        )
    return offset


def _sections(field: _Field, table: int, count: int) -> tuple[PeSection, ...]:
    found = []
    for index in range(count):
        raw = table + index * _SECTION_HEADER_SIZE_BYTES + _SIZE_OF_RAW_DATA
        # The last field of the header, so that a table that is cut off anywhere is noticed.
        field(raw + 20, 4, f"Characteristics of section {index + 1} of {count}")
        size_bytes = field(raw, 4, f"SizeOfRawData of section {index + 1} of {count}")
        offset = field(raw + 4, 4, f"PointerToRawData of section {index + 1} of {count}")
        if size_bytes and offset:
            found.append(PeSection(offset=offset, size_bytes=size_bytes))
    return tuple(found)


def _check_table(offset: int, table_size_bytes: int, headers_end: int, size_bytes: int) -> None:
    end = offset + table_size_bytes
    where = f"the certificate table at {offset}..{end}"
    if offset % ENTRY_ALIGNMENT or table_size_bytes < ENTRY_ALIGNMENT:
        raise MalformedInputError(
            "pe.certificate_table", f"{where} does not begin at a multiple of 8 or is shorter than 8 bytes"
        )
    if offset < headers_end:
        raise MalformedInputError("pe.overlap", f"{where} overlaps the headers, which end at {headers_end}")
    if end > size_bytes:
        raise MalformedInputError("pe.certificate_table", f"{where} ends behind the file's end at {size_bytes}")
    if end < size_bytes:
        raise MalformedInputError(
            "pe.data_after_certificate_table",
            f"{size_bytes - end} bytes follow {where}; a signature would not hold for them",
            hint="append data before signing, not after",
        )


def _check_sections(sections: tuple[PeSection, ...], data_size_bytes: int, size_bytes: int) -> None:
    for section in sections:
        end = section.offset + section.size_bytes
        if end > size_bytes:
            raise MalformedInputError(
                "pe.truncated",
                f"the section at {section.offset}..{end} ends behind the file's end at {size_bytes}",
            )
        if end > data_size_bytes:
            raise MalformedInputError(
                "pe.overlap",
                f"the section at {section.offset}..{end} overlaps the certificate table at {data_size_bytes}",
            )
