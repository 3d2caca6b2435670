# SPDX-License-Identifier: Apache-2.0
"""What can be done to the signatures of a PE image without a key.

Every edit writes the certificate table, its directory and the CheckSum, and nothing else. Of the table, entries and
attributes that are not meant keep their bytes, whoever wrote them.
"""

import hashlib
from typing import Final

from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode import signature as authenticode
from privyseal.formats.authenticode import unsigned
from privyseal.formats.authenticode.layout import ENTRY_ALIGNMENT
from privyseal.formats.authenticode.patching import pe_scan, with_table, without_table
from privyseal.formats.authenticode.scan import PeScan
from privyseal.formats.authenticode.table import WinCertificate, encode_table, parse_table
from privyseal.formats.model import Dispensable, Edits, Patch, Scan
from privyseal.pki import der, oids, tsp

__all__ = ["EDITS", "add_timestamp", "append", "attach", "extract", "nest", "remove", "signature_values", "strip"]


def remove(scanned: Scan) -> Patch:
    """Take every signature out, readable or not; see `patching.without_table` for where the image then ends.

    Raises:
        UnsupportedInputError: `authenticode.not_signed`, `format.wrong_scan`.
    """
    return without_table(_signed(pe_scan(scanned)))


def extract(scanned: Scan) -> bytes:
    """The first signature: a ContentInfo in DER, without the padding of the table.

    Raises:
        MalformedInputError: `pe.certificate_table`, `der.malformed`.
        UnsupportedInputError: `authenticode.not_signed`, `format.wrong_scan`.
    """
    entries = _entries(pe_scan(scanned))
    return _content_info(entries[_first(entries)])


def attach(scanned: Scan, detached: bytes) -> Patch:
    """Put a detached signature into the image, instead of those that are there.

    Args:
        scanned: The image, hashed with the algorithm of the signature.
        detached: A ContentInfo; up to seven zeros may follow it.

    Raises:
        MalformedInputError: see `signature.check_detached`.
        UnsupportedInputError: see `signature.check_detached`; `pe.too_large`, `format.wrong_scan`.
    """
    image = pe_scan(scanned)
    content_info = authenticode.check_detached(oids.SPC_PE_IMAGE_DATA, image.artifact, detached)
    return with_table(image, encode_table(content_info))


def signature_values(scanned: Scan) -> tuple[bytes, ...]:
    """The signature value of each signature, in the order of `verify`; empty for one that cannot be read.

    Raises:
        MalformedInputError: `pe.certificate_table`.
        UnsupportedInputError: `format.wrong_scan`.
    """
    image = pe_scan(scanned)
    return tuple(value for entry in parse_table(image.table) for value in _values(entry))


def add_timestamp(scanned: Scan, position: int, token: bytes) -> Patch:
    """Put an RFC 3161 token beside a signature, instead of one that is there.

    Args:
        scanned: The image.
        position: Of the signature in `signature_values`.
        token: A timestamp token over the signature value.

    Raises:
        MalformedInputError: `authenticode.timestamp_imprint` if the token is one of another signature;
            `pe.certificate_table`, `cms.*`, `der.*`, `tsp.*`.
        UnsupportedInputError: `authenticode.no_such_signature`, `authenticode.not_signed`, `pe.too_large`,
            `format.wrong_scan`.
    """
    image = pe_scan(scanned)
    entries = _entries(image)
    skipped = 0
    for index, entry in enumerate(entries):
        values = _values(entry)
        if 0 <= position - skipped < len(values) and values[position - skipped]:
            _check_imprint(token, values[position - skipped])
            changed = unsigned.set_timestamp(_content_info(entry), position - skipped, token)
            return with_table(image, _with_entry(entries, index, changed))
        skipped += len(values)
    raise UnsupportedInputError(
        "authenticode.no_such_signature",
        f"the image has no readable signature at position {position}; it has {skipped} signatures",
    )


def strip(scanned: Scan, what: frozenset[Dispensable]) -> Patch:
    """Take what no signature covers out of every SignedData of the image.

    Raises:
        MalformedInputError: `pe.certificate_table`, `cms.*`, `der.*`.
        UnsupportedInputError: `authenticode.not_signed`, `format.wrong_scan`.
        VerificationError: `cms.signer_certificate`.
    """
    image = pe_scan(scanned)
    entries = _entries(image)
    _first(entries)
    return with_table(
        image,
        b"".join(
            encode_table(unsigned.strip(_content_info(entry), what)) if entry.is_signed_data else entry.encoded
            for entry in entries
        ),
    )


def nest(scanned: PeScan, nested: bytes) -> bytes:
    """The image's certificate table with one more signature nested in the first one, which stays as it is.

    Raises:
        MalformedInputError: see `unsigned.add_nested`; `pe.certificate_table`.
        UnsupportedInputError: `authenticode.not_signed`.
    """
    entries = _entries(scanned)
    index = _first(entries)
    return _with_entry(entries, index, unsigned.add_nested(_content_info(entries[index]), nested))


def append(scanned: PeScan, content_info: bytes) -> bytes:
    """The image's certificate table with one more entry, as UEFI firmware and sbsign have several signatures.

    Raises:
        MalformedInputError: `pe.certificate_table`.
        UnsupportedInputError: `authenticode.not_signed`.
    """
    there = b"".join(entry.encoded for entry in _entries(scanned))
    return there + bytes(-len(there) % ENTRY_ALIGNMENT) + encode_table(content_info)


def _signed(image: PeScan) -> PeScan:
    if not image.is_signed:
        raise UnsupportedInputError("authenticode.not_signed", "the file has no signature")
    return image


def _entries(image: PeScan) -> tuple[WinCertificate, ...]:
    return parse_table(_signed(image).table)


def _first(entries: tuple[WinCertificate, ...]) -> int:
    for index, entry in enumerate(entries):
        if entry.is_signed_data:
            return index
    raise UnsupportedInputError(
        "authenticode.not_signed", "no entry of the file's certificate table is a PKCS #7 SignedData"
    )


def _content_info(entry: WinCertificate) -> bytes:
    return der.read_tlv(entry.certificate, 0, "the signature").der


def _values(entry: WinCertificate) -> tuple[bytes, ...]:
    if not entry.is_signed_data:
        return (b"",)
    try:
        content_info = _content_info(entry)
    except MalformedInputError:
        return (b"",)
    return unsigned.signature_values(content_info)


def _with_entry(entries: tuple[WinCertificate, ...], index: int, content_info: bytes) -> bytes:
    """The table with another ContentInfo in one entry; what stands behind it in the entry stays if it is no padding."""
    entry = entries[index]
    behind = entry.certificate[len(_content_info(entry)) :]
    is_padding = len(behind) < ENTRY_ALIGNMENT and not any(behind)
    changed = encode_table(content_info if is_padding else content_info + behind)
    return b"".join(changed if other is entry else other.encoded for other in entries)


def _check_imprint(token: bytes, value: bytes) -> None:
    info = tsp.parse_token(token)
    name = oids.DIGEST_NAMES.get(info.digest_algorithm)
    if name is None or hashlib.new(name, value, usedforsecurity=False).digest() != info.imprint:
        raise MalformedInputError(
            "authenticode.timestamp_imprint",
            "the timestamp token is not one over this signature",
            hint="ask the time-stamping authority for the digest of the signature value",
        )


EDITS: Final = Edits(
    remove=remove,
    extract=extract,
    digest_algorithm=authenticode.detached_digest_algorithm,
    attach=attach,
    signature_values=signature_values,
    add_timestamp=add_timestamp,
    strip=strip,
)
