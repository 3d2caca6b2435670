# SPDX-License-Identifier: Apache-2.0
"""A second signature: nested in the first one, beside it, or instead of it."""

import io
from dataclasses import replace

import pytest

from pe_samples import EDITS, edited, make_pe, scan, sign, table_of, verify, with_table
from pki_samples import make_token, signer
from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode import PE
from privyseal.formats.authenticode.table import encode_table, parse_table
from privyseal.formats.model import Placement, Signed, SignOptions
from privyseal.pki import cms, oids

IMAGE = make_pe(overlay=b"overlay")
SIGNED = sign(IMAGE, signer("rsa"), timestamp=make_token)


def placed(data: bytes, placement: Placement, algorithm: str = "sha256", kind: str = "ec") -> bytes:
    return sign(data, signer(kind), options=SignOptions(digest_algorithm=algorithm, placement=placement))


def problems(data: bytes) -> list[str]:
    return [report.problem for report in verify(data)]


def unsigned_attributes(data: bytes) -> tuple[cms.Attribute, ...]:
    (signer_info,) = cms.parse_signed_data(EDITS.extract(scan(data))).signer_infos
    return signer_info.unsigned_attributes


@pytest.mark.parametrize("placement", Placement)
def test_the_first_signature_is_the_same_wherever_it_would_go(placement: Placement) -> None:
    signed = sign(IMAGE, signer("rsa"), options=SignOptions(placement=placement), timestamp=make_token)

    assert len(table_of(signed)) == len(table_of(SIGNED))
    assert problems(signed) == [""]


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_nested_signature_has_its_own_digest_and_leaves_the_first_alone(algorithm: str) -> None:
    both = placed(SIGNED, Placement.NESTED, algorithm)

    reports = verify(both)
    assert [(one.problem, one.artifact.algorithm) for one in reports] == [("", "sha256"), ("", algorithm)]
    assert [one.subject for one in reports] == ["CN=Test Signer rsa", "CN=Test Signer ec"]
    assert EDITS.signature_values(scan(both))[0] == EDITS.signature_values(scan(SIGNED))[0]
    assert set(unsigned_attributes(SIGNED)) < set(unsigned_attributes(both))


def test_several_nested_signatures_are_values_of_one_attribute_in_ders_order() -> None:
    data = SIGNED
    for algorithm in ("sha512", "sha256", "sha384"):
        data = placed(data, Placement.NESTED, algorithm)

    nested = [one for one in unsigned_attributes(data) if one.type == oids.SPC_NESTED_SIGNATURE]
    assert [len(one.values) for one in nested] == [3]
    assert list(nested[0].values) == sorted(nested[0].values)
    assert cms.encode_signed_data(cms.parse_signed_data(EDITS.extract(scan(data)))) == EDITS.extract(scan(data))
    assert {one.artifact.algorithm for one in verify(data)[1:]} == {"sha256", "sha384", "sha512"}
    assert problems(data) == [""] * 4


def test_nested_attributes_of_others_become_one() -> None:
    """Some programs add an attribute for each signature (against RFC 5652 §5.3)."""
    second, third = (EDITS.extract(scan(placed(IMAGE, Placement.REPLACE, one))) for one in ("sha384", "sha512"))
    signed_data = cms.parse_signed_data(EDITS.extract(scan(SIGNED)))
    (info,) = signed_data.signer_infos
    two = tuple(cms.Attribute(type=oids.SPC_NESTED_SIGNATURE, values=(one,)) for one in (second, third))
    changed = replace(signed_data, signer_infos=(replace(info, unsigned_attributes=two),))
    data = with_table(IMAGE, encode_table(cms.encode_signed_data(changed)))
    assert problems(data) == ["", "", ""]

    after = placed(data, Placement.NESTED)

    assert [len(one.values) for one in unsigned_attributes(after)] == [3]
    assert problems(after) == [""] * 4


def test_another_entry_stands_behind_those_that_are_there() -> None:
    data = placed(placed(SIGNED, Placement.ENTRY, "sha384"), Placement.ENTRY, "sha512")

    assert table_of(data).startswith(table_of(SIGNED))
    assert [one.is_signed_data for one in parse_table(table_of(data))] == [True] * 3
    assert [one.artifact.algorithm for one in verify(data)] == ["sha256", "sha384", "sha512"]
    assert problems(data) == ["", "", ""]


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_an_entry_without_padding_gets_it_before_the_next(kind: str) -> None:
    """The last entry of a table need not be padded; the next one must begin at a multiple of 8."""
    table = bytearray(table_of(SIGNED)[:8] + EDITS.extract(scan(sign(IMAGE, signer(kind)))))
    table[:4] = len(table).to_bytes(4, "little")

    data = placed(with_table(IMAGE, bytes(table)), Placement.ENTRY)

    first, second = parse_table(table_of(data))
    assert first.encoded == table + bytes(-len(table) % 8)
    assert second.encoded == table_of(data)[len(first.encoded) :]
    assert problems(data) == ["", ""]


def test_other_entries_keep_their_bytes_when_a_signature_is_nested() -> None:
    data = placed(placed(SIGNED, Placement.ENTRY, "sha384"), Placement.ENTRY, "sha512")

    nested = placed(data, Placement.NESTED)

    before, after = parse_table(table_of(data)), parse_table(table_of(nested))
    assert [one.encoded for one in after[1:]] == [one.encoded for one in before[1:]]
    assert len(after[0].encoded) > len(before[0].encoded)
    assert problems(nested) == [""] * 4


def test_nothing_is_nested_in_what_cannot_be_read() -> None:
    broken = with_table(IMAGE, encode_table(b"\x30\x00"))

    with pytest.raises(MalformedInputError) as caught:
        placed(broken, Placement.NESTED)

    assert caught.value.code == "authenticode.unreadable_signature"
    assert problems(placed(broken, Placement.REPLACE)) == [""]
    assert len(problems(placed(broken, Placement.ENTRY))) == 2


def test_a_table_that_cannot_be_read_can_be_replaced_or_removed_only() -> None:
    broken = with_table(IMAGE, b"\xff" * 64)

    for placement in (Placement.NESTED, Placement.ENTRY):
        with pytest.raises(MalformedInputError) as caught:
            placed(broken, placement)
        assert caught.value.code == "pe.certificate_table"
    assert problems(placed(broken, Placement.REPLACE)) == [""]
    assert edited(broken, EDITS.remove) == edited(SIGNED, EDITS.remove)


def test_a_table_that_would_become_too_large_is_refused() -> None:
    data = with_table(IMAGE, encode_table(EDITS.extract(scan(SIGNED)) + bytes(64 << 20)))
    with pytest.raises(UnsupportedInputError) as caught:
        PE.scan(io.BytesIO(data), SignOptions())
    assert caught.value.code == "pe.too_large"

    content_info = EDITS.extract(scan(SIGNED))
    nearly = with_table(IMAGE, encode_table(content_info.ljust((64 << 20) - 1000, b"\0")))
    with pytest.raises(UnsupportedInputError) as caught:
        placed(nearly, Placement.ENTRY)
    assert caught.value.code == "pe.too_large"


def test_a_preimage_goes_where_the_signed_value_says() -> None:
    """The preimage is the same for every placement: hub and agent need not know it."""
    scanned = scan(SIGNED)
    made = [PE.preimage(scanned, (), SignOptions(placement=placement)) for placement in Placement]
    assert made[0] == made[1] == made[2]
    signature = signer().sign(made[0].signed)

    patches = {
        PE.embed(scanned, Signed(preimage=made[0], signature=signature, chain=signer().chain, placement=placement))
        for placement in Placement
    }

    assert len(patches) == 3
