# SPDX-License-Identifier: Apache-2.0
"""Edits without a key: taking signatures out, carrying them over, and timestamps that come later."""

import hashlib
import struct
from dataclasses import replace

import pefile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pe_samples import ANCHORS, EDITS, edited, make_pe, scan, sign, table_of, verify, with_table
from pki_samples import NOW, make_token, signer, tsa
from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode.table import encode_table, parse_table
from privyseal.formats.model import Placement, SignOptions, TrustAnchors
from privyseal.pki import cms, der, oids

IMAGE = make_pe(overlay=b"overlay")
SIGNED = sign(IMAGE, signer("rsa"))
NESTED = SignOptions(digest_algorithm="sha512", placement=Placement.NESTED)
ENTRY = SignOptions(digest_algorithm="sha384", placement=Placement.ENTRY)
WITH_TSA = TrustAnchors(code_signing=ANCHORS.code_signing, time_stamping=(tsa().root.der,))
CHECKSUM = 0x80 + 24 + 64


def with_checksum(data: bytes) -> bytes:
    checksum = pefile.PE(data=data, fast_load=True).generate_checksum()
    return data[:CHECKSUM] + struct.pack("<I", checksum) + data[CHECKSUM + 4 :]


def problems(signed: bytes) -> list[str]:
    return [report.problem for report in verify(signed, WITH_TSA)]


@pytest.mark.parametrize("surplus", range(9))
def test_an_image_without_overlay_becomes_what_it_was(surplus: int) -> None:
    """Its last section may end anywhere; linkers of firmware do that."""
    image = bytearray(make_pe(sections=(b"\x90" * 512, b"data" * 128)))
    last_raw_size = 0x80 + 24 + 240 + 40 + 16
    struct.pack_into("<I", image, last_raw_size, 512 - surplus)
    original = with_checksum(bytes(image[: len(image) - surplus]))

    assert edited(sign(original), EDITS.remove) == original


@settings(max_examples=25)
@given(st.binary(max_size=40))
def test_an_image_with_an_overlay_becomes_what_it_was_and_its_padding(overlay: bytes) -> None:
    image = make_pe(overlay=overlay)
    padded = image + bytes(-len(image) % 8)

    removed = edited(sign(image), EDITS.remove)

    assert removed == with_checksum(padded)
    assert scan(removed).artifact == scan(image).artifact
    assert verify(removed) == ()


def test_every_signature_is_taken_out() -> None:
    many = sign(sign(sign(SIGNED, options=ENTRY), options=NESTED), options=ENTRY)

    assert len(verify(many)) == 4
    assert edited(many, EDITS.remove) == edited(SIGNED, EDITS.remove)


@pytest.mark.parametrize("edit", [EDITS.remove, EDITS.extract, lambda one: EDITS.add_timestamp(one, 0, b"")])
def test_an_unsigned_image_has_nothing_to_edit(edit: object) -> None:
    assert callable(edit)
    with pytest.raises(UnsupportedInputError) as caught:
        edit(scan(IMAGE))

    assert caught.value.code == "authenticode.not_signed"


def test_an_extracted_signature_is_the_first_content_info() -> None:
    signed = sign(SIGNED, options=ENTRY)

    extracted = EDITS.extract(scan(signed))

    assert extracted == EDITS.extract(scan(SIGNED))
    assert der.read_single(extracted, "it").der == extracted
    assert cms.parse_signed_data(extracted).content_type == oids.SPC_INDIRECT_DATA
    assert table_of(SIGNED)[8:].startswith(extracted)


def test_entries_of_other_types_are_passed_over() -> None:
    other = bytearray(encode_table(b"an X.509 certificate"))
    other[6] = 1
    signed = with_table(IMAGE, bytes(other) + table_of(SIGNED))

    assert EDITS.extract(scan(signed)) == EDITS.extract(scan(SIGNED))
    assert EDITS.signature_values(scan(signed)) == (b"", *EDITS.signature_values(scan(SIGNED)))
    with pytest.raises(UnsupportedInputError) as caught:
        EDITS.extract(scan(with_table(IMAGE, bytes(other))))
    assert caught.value.code == "authenticode.not_signed"


@settings(max_examples=25)
@given(st.binary(max_size=40), st.sampled_from(["sha256", "sha384", "sha512"]))
def test_what_is_carried_over_gives_the_same_file(overlay: bytes, algorithm: str) -> None:
    image = make_pe(overlay=overlay)
    signed = sign(image, options=SignOptions(digest_algorithm=algorithm), timestamp=make_token)
    detached = EDITS.extract(scan(signed))

    assert EDITS.digest_algorithm(detached) == algorithm
    assert edited(image, lambda one: EDITS.attach(one, detached), algorithm) == signed
    assert edited(image, lambda one: EDITS.attach(one, detached + bytes(7)), algorithm) == signed
    assert edited(sign(image), lambda one: EDITS.attach(one, detached), algorithm) == signed


def test_a_signature_of_another_file_is_not_attached() -> None:
    detached = EDITS.extract(scan(sign(make_pe())))

    with pytest.raises(MalformedInputError) as caught:
        EDITS.attach(scan(IMAGE), detached)

    assert caught.value.code == "authenticode.other_artifact"


def test_a_file_that_was_hashed_otherwise_says_how() -> None:
    detached = EDITS.extract(scan(sign(IMAGE, options=SignOptions(digest_algorithm="sha384"))))

    with pytest.raises(UnsupportedInputError) as caught:
        EDITS.attach(scan(IMAGE), detached)

    assert caught.value.code == "authenticode.digest_algorithm"
    assert "sha384" in caught.value.hint


def detached_with(old: bytes, new: bytes) -> bytes:
    detached = EDITS.extract(scan(SIGNED))
    assert old in detached
    assert len(old) == len(new)
    return detached.replace(old, new)


@pytest.mark.parametrize(
    ("detached", "code"),
    [
        (b"", "der.malformed"),
        (b"0\x80", "der.malformed"),
        (b"\x30\x00", "der.malformed"),
        (EDITS.extract(scan(SIGNED)) + bytes(8), "der.trailing_bytes"),
        (EDITS.extract(scan(SIGNED)) + b"\x01", "der.trailing_bytes"),
        (make_token(b"signature"), "authenticode.other_content"),
        (detached_with(der.encode_oid(oids.SPC_PE_IMAGE_DATA), der.encode_oid("1.3.6.1.4.1.311.2.1.16")), "other"),
        (detached_with(der.encode_oid(oids.DIGEST_OIDS["sha256"]), der.encode_oid("2.16.840.1.101.3.4.2.9")), "digest"),
    ],
)
def test_what_is_no_signature_of_an_image_is_not_attached(detached: bytes, code: str) -> None:
    with pytest.raises((MalformedInputError, UnsupportedInputError)) as caught:
        EDITS.attach(scan(IMAGE), detached)

    error = caught.value
    assert isinstance(error, MalformedInputError | UnsupportedInputError)
    assert error.code == {"other": "authenticode.other_content", "digest": "digest.unsupported"}.get(code, code)


def many_signed() -> bytes:
    """Two entries; the first has a nested signature, and all but the second entry have timestamps."""
    once = sign(IMAGE, signer("rsa"), timestamp=make_token)
    twice = sign(once, options=NESTED, timestamp=make_token)
    return sign(twice, signer("rsa"), options=ENTRY)


def test_signature_values_are_in_the_order_of_the_reports() -> None:
    signed = sign(many_signed(), options=NESTED)
    values = EDITS.signature_values(scan(signed))

    assert len(values) == 4
    assert [hashlib.sha256(value).digest() for value in values] == [one.signature_sha256 for one in verify(signed)]
    assert EDITS.signature_values(scan(IMAGE)) == ()


def without_first(data: bytes, part: bytes) -> bytes:
    before, found, after = data.partition(part)
    assert found
    return before + after


@pytest.mark.parametrize("position", range(3))
def test_a_timestamp_goes_to_the_signature_that_was_meant(position: int) -> None:
    signed = many_signed()
    values = EDITS.signature_values(scan(signed))
    token = make_token(values[position], gen_time=b"20260601115900Z")

    stamped = edited(signed, lambda one: EDITS.add_timestamp(one, position, token))

    before, after = verify(signed, WITH_TSA), verify(stamped, WITH_TSA)
    assert [report.problem for report in after] == ["", "", ""]
    assert [one.timestamped_at for one in before] == [NOW, NOW, None]
    moved = [old.timestamped_at != new.timestamped_at for old, new in zip(before, after, strict=True)]
    assert moved == [index == position for index in range(3)]
    assert EDITS.signature_values(scan(stamped)) == values
    assert stamped == with_checksum(stamped)
    again = edited(stamped, lambda one: EDITS.add_timestamp(one, position, token))
    assert again == stamped


def test_a_timestamp_leaves_the_other_attributes_as_they_are() -> None:
    foreign = cms.Attribute(type="1.2.3.4.5", values=(b"\x04\x03own", b"\x05\x00"))
    signed_data = cms.parse_signed_data(EDITS.extract(scan(SIGNED)))
    (signer_info,) = signed_data.signer_infos
    changed = replace(signed_data, signer_infos=(replace(signer_info, unsigned_attributes=(foreign,)),))
    signed = with_table(IMAGE, encode_table(cms.encode_signed_data(changed)))

    stamped = edited(signed, lambda one: EDITS.add_timestamp(one, 0, make_token(signer_info.signature)))

    (attributes,) = (
        one.unsigned_attributes for one in cms.parse_signed_data(EDITS.extract(scan(stamped))).signer_infos
    )
    assert [one for one in attributes if one.type != oids.SPC_RFC3161_TIMESTAMP] == [foreign]
    assert problems(stamped) == [""]


@pytest.mark.parametrize("surplus", [b"payload", bytes(8), b"\1" + bytes(20)])
def test_what_hides_behind_a_signature_is_not_lost(surplus: bytes) -> None:
    """Programs keep data there that no signature covers; it is reported, and kept."""
    content_info = EDITS.extract(scan(SIGNED))
    signed = with_table(IMAGE, encode_table(content_info + surplus))
    (value,) = EDITS.signature_values(scan(signed))

    stamped = edited(signed, lambda one: EDITS.add_timestamp(one, 0, make_token(value)))

    (entry,) = parse_table(table_of(stamped))
    longer = der.read_tlv(entry.certificate, 0, "it").der
    assert entry.certificate[len(longer) :].startswith(surplus)


def test_a_token_of_another_signature_is_refused() -> None:
    signed = many_signed()
    first, second, _ = EDITS.signature_values(scan(signed))

    for position, token in ((0, make_token(second)), (1, make_token(first))):
        with pytest.raises(MalformedInputError) as caught:
            EDITS.add_timestamp(scan(signed), position, token)
        assert caught.value.code == "authenticode.timestamp_imprint"


@pytest.mark.parametrize("position", [-1, 3, 1 << 40])
def test_a_position_without_a_signature_is_refused(position: int) -> None:
    with pytest.raises(UnsupportedInputError) as caught:
        EDITS.add_timestamp(scan(many_signed()), position, b"")

    assert caught.value.code == "authenticode.no_such_signature"


def test_an_unreadable_signature_has_no_value_and_takes_no_timestamp() -> None:
    signed = with_table(IMAGE, encode_table(b"\x30\x00") + table_of(SIGNED))

    assert EDITS.signature_values(scan(signed)) == (b"", *EDITS.signature_values(scan(SIGNED)))
    assert len(verify(signed)) == 2
    with pytest.raises(UnsupportedInputError) as caught:
        EDITS.add_timestamp(scan(signed), 0, b"")
    assert caught.value.code == "authenticode.no_such_signature"


def test_a_signature_within_a_second_signer_takes_no_timestamp() -> None:
    nested = EDITS.extract(scan(sign(IMAGE)))
    signed_data = cms.parse_signed_data(EDITS.extract(scan(SIGNED)))
    (one,) = signed_data.signer_infos
    attribute = cms.Attribute(type=oids.SPC_NESTED_SIGNATURE, values=(nested,))
    two = (one, replace(one, unsigned_attributes=(attribute,)))
    signed = with_table(IMAGE, encode_table(cms.encode_signed_data(replace(signed_data, signer_infos=two))))
    values = EDITS.signature_values(scan(signed))
    assert [bool(value) for value in values] == [False, True]
    assert len(verify(signed)) == 2

    with pytest.raises(MalformedInputError) as caught:
        EDITS.add_timestamp(scan(signed), 1, make_token(values[1]))

    assert caught.value.code == "authenticode.unreadable_signature"
