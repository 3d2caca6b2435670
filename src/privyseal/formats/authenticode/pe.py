# SPDX-License-Identifier: Apache-2.0
"""Authenticode in PE images: EXE, DLL, SYS, EFI, of any machine (Windows Authenticode PE Signature Format).

The file's CheckSum is always written correctly; how signatures are judged is said in `pe_verify`.
"""

from typing import Final

from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode import signature as authenticode
from privyseal.formats.authenticode import spc
from privyseal.formats.authenticode.edits import EDITS, append, nest
from privyseal.formats.authenticode.layout import looks_like_pe
from privyseal.formats.authenticode.page_hashes import MAX_PAGE_HASHES_SIZE_BYTES, check_records
from privyseal.formats.authenticode.patching import pe_scan, with_table
from privyseal.formats.authenticode.pe_verify import verify
from privyseal.formats.authenticode.scan import scan
from privyseal.formats.authenticode.table import encode_table
from privyseal.formats.model import (
    Binding,
    Format,
    Patch,
    Placement,
    Preimage,
    PreimageFacts,
    Scan,
    Signed,
    SignOptions,
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


PE: Final = Format(
    name="authenticode-pe",
    title="Windows programs, libraries and drivers (PE)",
    binding=Binding.BOUND,
    certificate_in_preimage=False,
    detect=looks_like_pe,
    scan=scan,
    preimage=preimage,
    parse_preimage=parse_preimage,
    embed=embed,
    verify=verify,
    edits=EDITS,
)
