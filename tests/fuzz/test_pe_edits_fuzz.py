# SPDX-License-Identifier: Apache-2.0
"""Edits of hostile images: each ends in a patch or an error with a code, and no patch touches what is signed."""

import hashlib
import io
from collections.abc import Callable
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from pe_samples import EDITS, apply_patch, make_pe, scan, sign, table_of, verify, with_table, written_checksum
from pki_samples import make_token, signer
from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode import PE
from privyseal.formats.authenticode.checksum import checksum_of, word_sum
from privyseal.formats.authenticode.table import encode_table
from privyseal.formats.model import Patch, Placement, Scan, Signed, SignOptions

IMAGE = make_pe(overlay=b"overlay")
PAGES = SignOptions(page_hashes=True)
CHECKSUM = 0x80 + 24 + 64


@cache
def richly_signed() -> bytes:
    """Two entries, a nested signature, timestamps and page hashes."""
    once = sign(IMAGE, signer("ec"), options=PAGES, timestamp=make_token)
    nested = SignOptions(placement=Placement.NESTED, digest_algorithm="sha384", page_hashes=True)
    twice = sign(once, signer("ec"), options=nested, timestamp=make_token)
    return sign(twice, signer("ec"), options=SignOptions(placement=Placement.ENTRY))


@cache
def signature_for(placement: Placement) -> Signed:
    by = signer("ec")
    preimage = PE.preimage(scan(IMAGE), by.chain, SignOptions())
    return Signed(preimage=preimage, signature=by.sign(preimage.signed), chain=by.chain, placement=placement)


@cache
def detached() -> bytes:
    return EDITS.extract(scan(sign(IMAGE, signer("ec"))))


def with_token(scanned: Scan, position: int) -> Patch:
    values = EDITS.signature_values(scanned)
    value = values[position] if position < len(values) else b""
    return EDITS.add_timestamp(scanned, position, make_token(value))


CHANGES: tuple[Callable[[Scan], Patch], ...] = (
    EDITS.remove,
    lambda one: EDITS.attach(one, detached()),
    *(lambda one, place=place: PE.embed(one, signature_for(place)) for place in Placement),
    *(lambda one, position=position: with_token(one, position) for position in range(4)),
)


def check_every_edit(data: bytes) -> None:
    """Each edit of an image leaves its digest alone and writes the right CheckSum, or is refused."""
    try:
        scanned = scan(data)
    except (MalformedInputError, UnsupportedInputError):
        return
    for edit in CHANGES:
        try:
            changed = apply_patch(data, edit(scanned))
        except (MalformedInputError, UnsupportedInputError):
            continue
        assert scan(changed).artifact == scanned.artifact
        blank = changed[:CHECKSUM] + bytes(4) + changed[CHECKSUM + 4 :]
        assert written_checksum(changed) == checksum_of(word_sum(blank), len(changed))


def values_as_verified(data: bytes) -> None:
    """What is timestamped is what `verify` reports at that position."""
    try:
        reports, values = verify(data), EDITS.signature_values(scan(data))
    except (MalformedInputError, UnsupportedInputError):
        return
    for report, value in zip(reports, values, strict=False):
        assert report.signature_sha256 == (hashlib.sha256(value).digest() if value else b"")


def test_every_edit_of_the_rich_image_works() -> None:
    check_every_edit(richly_signed())
    values_as_verified(richly_signed())
    assert [report.problem for report in verify(richly_signed())] == ["", "", ""]


@settings(max_examples=100)
@given(st.data())
def test_changed_bytes_of_a_table_do_no_harm(data: st.DataObject) -> None:
    table = bytearray(table_of(richly_signed()))
    for _ in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.integers(0, len(table) - 1))
        table[offset] = data.draw(st.sampled_from([0, 1, 0x30, 0x31, 0x7F, 0x80, 0x84, 0xA0, 0xFF]))
    image = with_table(IMAGE, bytes(table))

    check_every_edit(image)
    values_as_verified(image)


@settings(max_examples=60)
@given(st.integers(0, 1 << 14), st.integers(0, 64), st.binary(max_size=32))
def test_pieces_cut_out_of_a_table_and_put_in_do_no_harm(offset: int, length: int, piece: bytes) -> None:
    table = table_of(richly_signed())
    start = offset % len(table)
    image = with_table(IMAGE, table[:start] + piece + table[start + length :])

    check_every_edit(image)
    values_as_verified(image)


@settings(max_examples=60)
@given(st.integers(0, 1 << 14))
def test_truncated_tables_do_no_harm(size: int) -> None:
    table = table_of(richly_signed())

    check_every_edit(with_table(IMAGE, table[: size % len(table)]))


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_as_a_signature_do_no_harm(data: bytes) -> None:
    check_every_edit(with_table(IMAGE, encode_table(data)))


@settings(max_examples=100)
@given(st.data())
def test_changed_bytes_of_a_detached_signature_are_refused_or_kept(data: st.DataObject) -> None:
    changed = bytearray(detached())
    offset = data.draw(st.integers(0, len(changed) - 1))
    changed[offset] ^= data.draw(st.integers(1, 255))
    try:
        patch = EDITS.attach(scan(IMAGE), bytes(changed))
    except (MalformedInputError, UnsupportedInputError):
        return
    assert EDITS.extract(scan(apply_patch(IMAGE, patch))) == changed


@settings(max_examples=100)
@given(st.data())
def test_changed_bytes_of_a_token_are_refused_or_kept(data: st.DataObject) -> None:
    signed = richly_signed()
    token = bytearray(make_token(EDITS.signature_values(scan(signed))[1]))
    offset = data.draw(st.integers(0, len(token) - 1))
    token[offset] ^= data.draw(st.integers(1, 255))
    try:
        patch = EDITS.add_timestamp(scan(signed), 1, bytes(token))
    except (MalformedInputError, UnsupportedInputError):
        return
    assert bytes(token) in apply_patch(signed, patch)
    assert len(verify(apply_patch(signed, patch))) == 3


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 9000), min_size=1, max_size=4),
    st.integers(0, 40),
    st.sampled_from(["sha256", "sha384", "sha512"]),
    st.booleans(),
)
def test_signing_then_removing_changes_no_byte_that_counts(
    sizes: list[int],
    overlay: int,
    algorithm: str,
    page_hashes: bool,  # noqa: FBT001
) -> None:
    image = make_pe(sections=tuple(b"\x90" * size for size in sizes), overlay=b"\xff" * overlay)
    options = SignOptions(digest_algorithm=algorithm, page_hashes=page_hashes)

    signed = sign(image, options=options)
    removed = apply_patch(signed, EDITS.remove(PE.scan(io.BytesIO(signed), options)))

    assert [report.problem for report in verify(signed)] == [""]
    assert len(removed) == len(image) + -len(image) % 8
    assert removed[CHECKSUM + 4 : len(image)] == image[CHECKSUM + 4 :]
    assert apply_patch(removed, EDITS.remove(scan(with_table(removed, table_of(signed))))) == removed
    again = EDITS.attach(scan(removed, algorithm), EDITS.extract(scan(signed)))
    assert apply_patch(removed, again) == signed
