# SPDX-License-Identifier: Apache-2.0
"""Judging the signatures of a PE image: those of all entries of its certificate table, and nested ones.

A wrong CheckSum is only a warning, and only in a driver: nowhere else does Windows ask for it. What stands between the
last section and the table is covered by the digest, so that nothing can hide there.
"""

from dataclasses import replace
from datetime import datetime
from typing import BinaryIO

from privyseal.errors import UnsupportedInputError, VerificationError
from privyseal.formats.authenticode import spc
from privyseal.formats.authenticode.checksum import checksum_of, word_sum
from privyseal.formats.authenticode.layout import PeLayout, read_exactly, read_layout
from privyseal.formats.authenticode.page_hashes import check_page_hashes
from privyseal.formats.authenticode.scan import authenticode_digests
from privyseal.formats.authenticode.table import MAX_TABLE_SIZE_BYTES, WinCertificate, parse_table
from privyseal.formats.authenticode.verify import DataCheck, Found, find_signatures, judge, needed_digests
from privyseal.formats.model import Finding, Severity, SignatureKind, SignatureReport, TrustAnchors
from privyseal.pki import oids

__all__ = ["verify"]


def verify(stream: BinaryIO, anchors: TrustAnchors, at: datetime) -> tuple[SignatureReport, ...]:
    """Judge every signature of an image.

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
    table = read_exactly(stream, layout.table_size_bytes)
    found = tuple(
        one for position, entry in enumerate(parse_table(table)) for one in _signatures(entry, is_first=not position)
    )
    stream.seek(len(head))
    digests, data_word_sum = authenticode_digests(stream, layout, head, needed_digests(found))
    check_data = _data_check(stream, layout, head)
    reports = [judge(one, digests, check_data, anchors, at) for one in found]
    if not layout.is_driver:
        return tuple(reports)
    directory = head[layout.directory_offset : layout.directory_offset + 8]
    expected = checksum_of(data_word_sum + word_sum(directory) + word_sum(table), layout.size_bytes)
    said = int.from_bytes(head[layout.checksum_offset : layout.checksum_offset + 4], "little")
    if said != expected:
        reports[0] = replace(reports[0], findings=(*reports[0].findings, _wrong_checksum(said, expected)))
    return tuple(reports)


def _signatures(entry: WinCertificate, *, is_first: bool) -> tuple[Found, ...]:
    kind = SignatureKind.PRIMARY if is_first else SignatureKind.ENTRY
    if not entry.is_signed_data:
        problem = VerificationError(
            "authenticode.certificate_type",
            "an entry of the certificate table is not a PKCS #7 SignedData of revision 2.0",
        )
        return (Found(kind=kind, problem=problem),)
    return find_signatures(entry.certificate + entry.padding, kind)


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


def _wrong_checksum(said: int, expected: int) -> Finding:
    what = f"the CheckSum in the headers is {said:#x}, not {expected:#x}" if said else "the CheckSum was left at zero"
    return Finding(
        severity=Severity.WARNING,
        code="pe.checksum",
        message=f"{what}; Windows asks for it in drivers",
        hint="the file may have been changed after signing, where the signature does not cover it" if said else "",
    )
