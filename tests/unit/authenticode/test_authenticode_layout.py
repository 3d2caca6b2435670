# SPDX-License-Identifier: Apache-2.0
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_samples import make_pe, sign, verify
from privyseal.errors import MalformedInputError, PrivysealError, UnsupportedInputError
from privyseal.formats.authenticode import PE
from privyseal.formats.authenticode.layout import HEAD_SIZE_BYTES, looks_like_pe, read_layout
from privyseal.formats.model import SignOptions

LFANEW = 0x80
OPTIONAL = LFANEW + 24
CHECKSUM = OPTIONAL + 64
DIRECTORY = OPTIONAL + 112 + 32
SECTIONS = OPTIONAL + 112 + 128
RAW_SIZE, RAW_POINTER = SECTIONS + 16, SECTIONS + 20
IMAGE = make_pe()
SIGNED = sign(IMAGE)


def changed(data: bytes, offset: int, layout: str, *values: int) -> bytes:
    copy = bytearray(data)
    struct.pack_into(layout, copy, offset, *values)
    return bytes(copy)


def refusal(data: bytes) -> PrivysealError:
    with pytest.raises((MalformedInputError, UnsupportedInputError)) as by_scan:
        PE.scan(io.BytesIO(data), SignOptions())
    with pytest.raises((MalformedInputError, UnsupportedInputError)) as by_verify:
        verify(data)
    assert by_scan.value.code == by_verify.value.code
    assert isinstance(by_scan.value, PrivysealError)
    return by_scan.value


@pytest.mark.parametrize("plus", [True, False])
@pytest.mark.parametrize("lfanew", [0x40, 0x7A, 0x80, 0x1000])
def test_offsets_are_found(plus: bool, lfanew: int) -> None:  # noqa: FBT001
    layout, _ = read_layout(io.BytesIO(make_pe(plus=plus, lfanew=lfanew, overlay=b"abc")))

    assert layout.checksum_offset == lfanew + 24 + 64
    assert layout.directory_offset == lfanew + 24 + (112 if plus else 96) + 32
    assert layout.data_size_bytes == layout.size_bytes
    assert layout.section_alignment == 4096
    assert [one.size_bytes for one in layout.sections] == [512]


def test_a_file_cut_off_at_any_byte_of_its_headers_is_refused() -> None:
    for end in range(SECTIONS + 40):
        code = refusal(IMAGE[:end]).code
        assert code == ("pe.empty" if end == 0 else "pe.not_pe" if end == 1 else "pe.truncated"), end


def test_a_file_cut_off_in_its_sections_is_refused() -> None:
    for end in (SECTIONS + 40, 512, len(IMAGE) - 1):
        assert refusal(IMAGE[:end]).code == "pe.truncated"


def test_a_signed_file_cut_off_anywhere_in_its_table_is_refused() -> None:
    for end in range(len(IMAGE), len(SIGNED), 37):
        assert refusal(SIGNED[:end]).code == "pe.certificate_table"


CASES = {
    "no MZ": (b"ZM" + IMAGE[2:], "pe.not_pe"),
    "text": (b"#!/bin/sh\necho hello\n" * 100, "pe.not_pe"),
    "e_lfanew at the end": (changed(IMAGE, 0x3C, "<I", len(IMAGE) - 2), "pe.truncated"),
    "e_lfanew enormous": (changed(IMAGE, 0x3C, "<I", 0xFFFFFFFF), "pe.truncated"),
    "e_lfanew elsewhere": (changed(IMAGE, 0x3C, "<I", 0x84), "pe.not_pe"),
    "e_lfanew odd": (make_pe(lfanew=0x81), "pe.header_alignment"),
    "headers far away": (make_pe(lfanew=HEAD_SIZE_BYTES), "pe.header_too_far"),
    "too many sections": (changed(IMAGE, LFANEW + 6, "<H", 0xFFFF), "pe.truncated"),
    "many sections": (changed(make_pe(overlay=bytes(3 << 20)), LFANEW + 6, "<H", 0xFFFF), "pe.header_too_far"),
    "no optional header": (changed(IMAGE, LFANEW + 20, "<H", 0), "pe.optional_header"),
    "short optional header": (changed(IMAGE, LFANEW + 20, "<H", 112 + 39), "pe.optional_header"),
    "long optional header": (changed(IMAGE, LFANEW + 20, "<H", 0xFFFF), "pe.truncated"),
    "ROM magic": (changed(IMAGE, OPTIONAL, "<H", 0x107), "pe.optional_header"),
    "four directories": (changed(IMAGE, OPTIONAL + 108, "<I", 4), "pe.no_certificate_directory"),
    "no directories": (make_pe(directories=0), "pe.no_certificate_directory"),
    "table without offset": (changed(SIGNED, DIRECTORY, "<I", 0), "pe.overlap"),
    "table in the headers": (changed(SIGNED, DIRECTORY, "<II", 8, len(SIGNED) - 8), "pe.overlap"),
    "table unaligned": (changed(SIGNED, DIRECTORY, "<II", len(IMAGE) + 4, 400), "pe.certificate_table"),
    "table tiny": (changed(SIGNED, DIRECTORY + 4, "<I", 7), "pe.certificate_table"),
    "table too long": (changed(SIGNED, DIRECTORY + 4, "<I", len(SIGNED)), "pe.certificate_table"),
    "table enormous": (changed(SIGNED, DIRECTORY, "<II", 0xFFFFFFF8, 0xFFFFFFFF), "pe.certificate_table"),
    "table outside": (changed(SIGNED, DIRECTORY, "<I", len(SIGNED)), "pe.certificate_table"),
    "data behind the table": (SIGNED + b"12345678", "pe.data_after_certificate_table"),
    "section over the table": (changed(SIGNED, RAW_SIZE, "<I", 513), "pe.overlap"),
    "section behind the end": (changed(IMAGE, RAW_POINTER, "<I", len(IMAGE)), "pe.truncated"),
    "section enormous": (changed(IMAGE, RAW_SIZE, "<II", 0xFFFFFFFF, 0xFFFFFFFF), "pe.truncated"),
}


@pytest.mark.parametrize(("data", "code"), CASES.values(), ids=CASES)
def test_broken_headers_have_their_own_code(data: bytes, code: str) -> None:
    assert refusal(data).code == code


class HugeFile(io.BytesIO):
    """An image that says of itself that it is larger than its headers can express."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return (5 << 30) if whence == 2 else super().seek(offset, whence)


def test_a_file_beyond_32_bits_is_refused() -> None:
    with pytest.raises(UnsupportedInputError) as caught:
        PE.scan(HugeFile(IMAGE), SignOptions())

    assert caught.value.code == "pe.too_large"


class ShrinkingFile(io.BytesIO):
    """A file that somebody truncates while it is read."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return super().seek(offset, whence) + (1 << 20 if whence == 2 else 0)


def test_a_file_that_shrinks_is_refused() -> None:
    with pytest.raises(MalformedInputError) as caught:
        PE.scan(ShrinkingFile(IMAGE), SignOptions())

    assert caught.value.code == "pe.truncated"


@given(st.integers(0, SECTIONS + 39), st.binary(min_size=1, max_size=8))
def test_any_change_of_the_headers_is_read_or_refused_with_a_code(offset: int, change: bytes) -> None:
    data = IMAGE[:offset] + change + IMAGE[offset + len(change) :]
    try:
        scanned = PE.scan(io.BytesIO(data), SignOptions())
    except (MalformedInputError, UnsupportedInputError) as error:
        code = error.code
    else:
        assert scanned.size_bytes == len(data)
        code = "pe.none"
    assert code.startswith("pe.")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (IMAGE, True),
        (make_pe(lfanew=0x2000)[:4096], True),
        (b"MZ" + bytes(100), False),
        (b"MZ", False),
        (b"", False),
        (b"\x7fELF" + bytes(100), False),
    ],
)
def test_an_image_is_known_by_its_head(head: bytes, expected: bool) -> None:  # noqa: FBT001
    assert looks_like_pe(head[:4096], "app.exe") is expected
