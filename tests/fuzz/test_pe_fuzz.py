# SPDX-License-Identifier: Apache-2.0
"""Hostile PE images: whatever is changed, the answer is a report or an error with a code."""

import io
from dataclasses import replace
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from pe_samples import ANCHORS, apply_patch, make_pe, sign, verify
from pki_samples import make_token, signer, tsa
from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode import PE
from privyseal.formats.authenticode.pe import embed
from privyseal.formats.authenticode.scan import scan
from privyseal.formats.authenticode.table import encode_table
from privyseal.formats.model import Signed, SignOptions, TrustAnchors
from privyseal.pki import cms, oids

IMAGE = make_pe(overlay=b"overlay")
TRUST = TrustAnchors(code_signing=ANCHORS.code_signing, time_stamping=(tsa().root.der,))


@cache
def richly_signed() -> bytes:
    """With a timestamp, and a nested signature that has one, too."""
    by = signer("ec")
    scanned = scan(io.BytesIO(IMAGE), SignOptions())
    preimage = PE.preimage(scanned, by.chain, SignOptions(program_name="Program"))
    signature = by.sign(preimage.signed)
    token = make_token(signature)
    whole = Signed(preimage=preimage, signature=signature, chain=by.chain, timestamp_token=token)
    once = apply_patch(IMAGE, embed(scanned, whole))
    table = once[scanned.layout.data_size_bytes + scanned.padding_size_bytes :]
    inner = table[8 : 8 + int.from_bytes(table[10:12], "big") + 4]
    outer = cms.parse_signed_data(inner)
    nested = cms.Attribute(type=oids.SPC_NESTED_SIGNATURE, values=(inner,))
    attributes = (*outer.signer_infos[0].unsigned_attributes, nested)
    signer_info = replace(outer.signer_infos[0], unsigned_attributes=attributes)
    twice = encode_table(cms.encode_signed_data(replace(outer, signer_infos=(signer_info,))))
    start = len(once) - len(table)
    directory = 0x80 + 24 + 112 + 32
    data = bytearray(once[:start] + twice)
    data[directory : directory + 8] = start.to_bytes(4, "little") + len(twice).to_bytes(4, "little")
    return bytes(data)


def codes_or_refusal(data: bytes) -> list[str]:
    try:
        return [report.problem_code for report in verify(data, TRUST)]
    except (MalformedInputError, UnsupportedInputError) as error:
        return [error.code]


def test_the_rich_image_holds() -> None:
    assert codes_or_refusal(richly_signed()) == ["", ""]


@settings(max_examples=400)
@given(st.data())
def test_changed_bytes_end_in_a_report_or_a_code(data: st.DataObject) -> None:
    changed = bytearray(richly_signed())
    for _ in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.integers(0, len(changed) - 1))
        changed[offset] = data.draw(st.sampled_from([0, 1, 0x30, 0x31, 0x7F, 0x80, 0x84, 0xA0, 0xFF]))

    found = codes_or_refusal(bytes(changed))

    assert all(code == "" or "." in code for code in found)


@settings(max_examples=150)
@given(st.integers(0, 1 << 14), st.integers(0, 64), st.binary(max_size=64))
def test_pieces_cut_out_and_put_in_end_in_a_report_or_a_code(offset: int, length: int, piece: bytes) -> None:
    whole = richly_signed()
    start = offset % len(whole)

    found = codes_or_refusal(whole[:start] + piece + whole[start + length :])

    assert all(code == "" or "." in code for code in found)


@settings(max_examples=150)
@given(st.binary(max_size=400))
def test_any_bytes_as_an_image_are_refused(data: bytes) -> None:
    assert codes_or_refusal(b"MZ" + data)[0].startswith("pe.")


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_as_a_signature_are_reported(data: bytes) -> None:
    table = encode_table(data)
    image = bytearray(sign(IMAGE)[: len(IMAGE) + -len(IMAGE) % 8])
    directory = 0x80 + 24 + 112 + 32
    image[directory : directory + 8] = len(image).to_bytes(4, "little") + len(table).to_bytes(4, "little")

    found = codes_or_refusal(bytes(image) + table)

    assert len(found) == 1
    assert found[0]
