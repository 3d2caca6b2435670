# SPDX-License-Identifier: Apache-2.0
"""PE images for tests, made byte by byte, and signing them the way the client does."""

import io
import struct
from collections.abc import Callable
from datetime import datetime

from pki_samples import NOW, Signer, signer
from privyseal.formats.authenticode.pe import PE, embed
from privyseal.formats.model import (
    Edits,
    Patch,
    Scan,
    SignatureReport,
    Signed,
    SignOptions,
    TrustAnchors,
)

__all__ = [
    "ANCHORS",
    "EDITS",
    "apply_patch",
    "edited",
    "make_pe",
    "scan",
    "sign",
    "table_of",
    "verify",
    "with_table",
    "written_checksum",
]

ANCHORS = TrustAnchors(code_signing=(signer().root.der,))

assert PE.edits is not None
EDITS: Edits = PE.edits


def make_pe(
    *,
    plus: bool = True,
    sections: tuple[bytes, ...] = (b"\x90" * 512,),
    overlay: bytes = b"",
    checksum: int = 0,
    lfanew: int = 0x80,
    directories: int = 16,
    subsystem: int = 1,
) -> bytes:
    """A PE32+ (or PE32) image of a driver: these sections, 512-byte file alignment, and an overlay behind them."""
    optional_size = (112 if plus else 96) + 8 * directories
    headers_size = -(-(lfanew + 24 + optional_size + 40 * len(sections)) // 512) * 512
    optional = bytearray(optional_size)
    struct.pack_into("<H", optional, 0, 0x20B if plus else 0x10B)
    struct.pack_into("<II", optional, 32, 4096, 512)
    struct.pack_into("<III", optional, 56, 4096 * (len(sections) + 1), headers_size, checksum)
    struct.pack_into("<H", optional, 68, subsystem)
    struct.pack_into("<I", optional, 108 if plus else 92, directories)
    dos = bytearray(lfanew)
    dos[:2] = b"MZ"
    struct.pack_into("<I", dos, 0x3C, lfanew)
    machine = 0x8664 if plus else 0x14C
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", machine, len(sections), 0, 0, 0, optional_size, 0x22)
    table, body, offset = b"", b"", headers_size
    for index, section in enumerate(sections):
        raw = section.ljust(-(-len(section) // 512) * 512, b"\0")
        name = b".s%d" % index
        table += struct.pack("<8sIIIIIIHHI", name, len(section), 4096 * (index + 1), len(raw), offset, 0, 0, 0, 0, 0x20)
        body += raw
        offset += len(raw)
    return (bytes(dos) + coff + bytes(optional) + table).ljust(headers_size, b"\0") + body + overlay


def apply_patch(original: bytes, patch: Patch) -> bytes:
    """The signed file."""
    result = bytearray(original[: patch.keep_bytes])
    for offset, content in patch.writes:
        result[offset : offset + len(content)] = content
    return bytes(result)


def sign(
    original: bytes,
    by: Signer | None = None,
    *,
    options: SignOptions | None = None,
    timestamp_token: bytes = b"",
    timestamp: Callable[[bytes], bytes] | None = None,
) -> bytes:
    """Sign an image through the format's functions; `timestamp` makes a token over the signature."""
    by = by or signer()
    options = options or SignOptions()
    scanned = PE.scan(io.BytesIO(original), options)
    preimage = PE.preimage(scanned, by.chain, options)
    signature = by.sign(preimage.signed, PE.parse_preimage(preimage).digest_algorithm)
    whole = Signed(
        preimage=preimage,
        signature=signature,
        chain=by.chain,
        timestamp_token=timestamp(signature) if timestamp else timestamp_token,
        placement=options.placement,
    )
    return apply_patch(original, embed(scanned, whole))


def scan(data: bytes, algorithm: str = "sha256") -> Scan:
    """Read an image through the format's function."""
    return PE.scan(io.BytesIO(data), SignOptions(digest_algorithm=algorithm))


def edited(data: bytes, edit: Callable[[Scan], Patch], algorithm: str = "sha256") -> bytes:
    """The image after an edit."""
    return apply_patch(data, edit(scan(data, algorithm)))


def _optional_header(data: bytes) -> tuple[int, int]:
    """Offsets of CheckSum and of the certificate table's directory."""
    optional = int.from_bytes(data[0x3C:0x40], "little") + 24
    plus = data[optional : optional + 2] == b"\x0b\x02"
    return optional + 64, optional + (112 if plus else 96) + 32


def table_of(data: bytes) -> bytes:
    """The certificate table of an image."""
    offset, size = struct.unpack_from("<II", data, _optional_header(data)[1])
    return data[offset : offset + size] if size else b""


def with_table(image: bytes, table: bytes) -> bytes:
    """An unsigned image with this certificate table, whatever is in it."""
    data = bytearray(image + bytes(-len(image) % 8))
    struct.pack_into("<II", data, _optional_header(image)[1], len(data), len(table))
    return bytes(data) + table


def written_checksum(data: bytes) -> int:
    """The CheckSum that stands in an image."""
    offset = _optional_header(data)[0]
    return int.from_bytes(data[offset : offset + 4], "little")


def verify(signed: bytes, anchors: TrustAnchors = ANCHORS, at: datetime = NOW) -> tuple[SignatureReport, ...]:
    """Judge an image through the format's function."""
    return PE.verify(io.BytesIO(signed), anchors, at)
