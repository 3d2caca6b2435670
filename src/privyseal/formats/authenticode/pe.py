# SPDX-License-Identifier: Apache-2.0
"""Authenticode in PE images: EXE, DLL, SYS, EFI, of any machine (Windows Authenticode PE Signature Format).

The file's CheckSum is always written correctly. It is not judged in `verify`: Windows asks for it in drivers
and a few system files only, and linkers leave it at zero.
"""

from datetime import datetime
from typing import BinaryIO, Final

from privyseal.errors import MalformedInputError, UnsupportedInputError, VerificationError
from privyseal.formats.authenticode import signature as authenticode
from privyseal.formats.authenticode import spc
from privyseal.formats.authenticode.edits import EDITS, append, nest
from privyseal.formats.authenticode.layout import PeLayout, looks_like_pe, read_exactly, read_layout
from privyseal.formats.authenticode.page_hashes import (
    MAX_PAGE_HASHES_SIZE_BYTES,
    check_page_hashes,
    check_records,
)
from privyseal.formats.authenticode.patching import pe_scan, with_table
from privyseal.formats.authenticode.scan import authenticode_digests, scan
from privyseal.formats.authenticode.table import (
    MAX_TABLE_SIZE_BYTES,
    WinCertificate,
    encode_table,
    parse_table,
)
from privyseal.formats.authenticode.verify import DataCheck, Found, find_signatures, judge, needed_digests
from privyseal.formats.model import (
    Binding,
    Format,
    Patch,
    Placement,
    Preimage,
    PreimageFacts,
    Scan,
    SignatureReport,
    Signed,
    SignOptions,
    TrustAnchors,
)
from privyseal.pki import oids

__all__ = ["PE", "embed", "parse_preimage", "preimage", "verify"]


def preimage(scanned: Scan, _chain: tuple[bytes, ...], options: SignOptions) -> Preimage:
    """The signed attributes for a scanned image; certificates are not in them.

    Raises:
        UnsupportedInputError: `authenticode.page_hashes_missing` if the scan was made without them,
            `format.wrong_scan`; see `signature.make_preimage`.
    """
    image = pe_scan(scanned)
    if options.page_hashes and image.page_hashes is None:
        raise UnsupportedInputError(
            "authenticode.page_hashes_missing",
            "page hashes were asked for, but the image was scanned without them",
            hint="scan the file with the options of the signature",
        )
    return authenticode.make_preimage(_kind(image.page_hashes), image.artifact, options)


def parse_preimage(candidate: Preimage) -> PreimageFacts:
    """What a preimage says; refused unless `preimage` would have made the same bytes of some image.

    Raises:
        MalformedInputError: `authenticode.page_hashes`; see `signature.parse_preimage`.
        UnsupportedInputError: see `signature.parse_preimage`.
    """
    authenticode.check_preimage_size(candidate, MAX_PAGE_HASHES_SIZE_BYTES)
    content = spc.parse_indirect_data(candidate.detail)
    page_hashes = None
    if content.data_type == oids.SPC_PE_IMAGE_DATA and content.data:
        page_hashes = spc.parse_page_hashes(content.data)
    if page_hashes is not None:
        check_records(page_hashes)
    return authenticode.parse_preimage(_kind(page_hashes), candidate)


def _kind(page_hashes: spc.PageHashes | None) -> authenticode.SpcData:
    data = spc.PE_IMAGE_DATA if page_hashes is None else spc.encode_page_hashes(page_hashes)
    return authenticode.SpcData(type=oids.SPC_PE_IMAGE_DATA, data=data)


def embed(scanned: Scan, signed: Signed) -> Patch:
    """How to put a signature into the image, where its placement says; the first one becomes the first in any case.

    Raises:
        MalformedInputError: `authenticode.other_image` if the preimage is not one of this image, and see
            `signature.make_signed_data`, `signature.parse_preimage`, `edits.nest`, `edits.append`.
        UnsupportedInputError: `pe.too_large` if the signature does not fit, `format.wrong_scan`.
    """
    image = pe_scan(scanned)
    facts = parse_preimage(signed.preimage)
    data = spc.parse_indirect_data(signed.preimage.detail).data
    if facts.artifact != image.artifact or data != _kind(image.page_hashes).data:
        raise MalformedInputError(
            "authenticode.other_image", "the preimage names another image than the one that was scanned"
        )
    content_info = authenticode.make_signed_data(facts, signed)
    if not image.is_signed or signed.placement is Placement.REPLACE:
        return with_table(image, encode_table(content_info))
    add = nest if signed.placement is Placement.NESTED else append
    return with_table(image, add(image, content_info))


def verify(stream: BinaryIO, anchors: TrustAnchors, at: datetime) -> tuple[SignatureReport, ...]:
    """Judge every signature of an image: those of all table entries, and nested ones.

    The data is read once; a second time only for an image with page hashes.

    Raises:
        MalformedInputError: `pe.*` for a file whose headers or certificate table cannot be read.
        UnsupportedInputError: `pe.*`.
    """
    layout, head = read_layout(stream)
    if not layout.table_size_bytes:
        return ()
    if layout.table_size_bytes > MAX_TABLE_SIZE_BYTES:
        raise UnsupportedInputError(
            "pe.too_large",
            f"the certificate table has {layout.table_size_bytes} of at most {MAX_TABLE_SIZE_BYTES} bytes",
        )
    stream.seek(layout.data_size_bytes)
    entries = parse_table(read_exactly(stream, layout.table_size_bytes))
    found = tuple(one for entry in entries for one in _signatures(entry))
    stream.seek(len(head))
    digests = authenticode_digests(stream, layout, head, needed_digests(found))
    check_data = _data_check(stream, layout, head)
    return tuple(judge(one, digests, check_data, anchors, at) for one in found)


def _signatures(entry: WinCertificate) -> tuple[Found, ...]:
    if not entry.is_signed_data:
        problem = VerificationError(
            "authenticode.certificate_type", "an entry of the certificate table is not a PKCS #7 SignedData"
        )
        return (Found(problem=problem),)
    return find_signatures(entry.certificate + entry.padding)


def _data_check(stream: BinaryIO, layout: PeLayout, head: bytes) -> DataCheck:
    def check(content: spc.SpcIndirectDataContent) -> None:
        if content.data_type != oids.SPC_PE_IMAGE_DATA or not content.data:
            raise VerificationError(
                "authenticode.data_type",
                f"the signature is for a file of type {content.data_type}, not a PE image",
            )
        page_hashes = spc.parse_page_hashes(content.data)
        if page_hashes is not None:
            check_page_hashes(stream, layout, head, page_hashes)

    return check


PE: Final = Format(
    name="authenticode-pe",
    title="Windows programs, libraries and drivers (PE)",
    binding=Binding.BOUND,
    detect=looks_like_pe,
    scan=scan,
    preimage=preimage,
    parse_preimage=parse_preimage,
    embed=embed,
    verify=verify,
    edits=EDITS,
)
