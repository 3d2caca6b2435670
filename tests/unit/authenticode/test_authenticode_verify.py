# SPDX-License-Identifier: Apache-2.0
import hashlib
import io
import struct
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku

from pe_samples import ANCHORS, make_pe, sign, verify
from pki_samples import NOW, YEAR, Signer, authority, issue, make_token, signer, tsa
from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode import PE
from privyseal.formats.authenticode.layout import read_layout
from privyseal.formats.authenticode.table import encode_table, parse_table
from privyseal.formats.model import Artifact, PageHashState, SignOptions, TrustAnchors
from privyseal.pki import cms, cms_verify, der, oids

IMAGE = make_pe(sections=(b"\x90" * 700, b"data" * 300), overlay=b"overlay")
DATA = IMAGE + bytes(-len(IMAGE) % 8)
SIGNED = sign(IMAGE)
WITH_TSA = TrustAnchors(code_signing=ANCHORS.code_signing, time_stamping=(tsa().root.der,))


def codes(data: bytes, anchors: TrustAnchors = ANCHORS, at: datetime = NOW) -> list[str]:
    return [report.problem_code for report in verify(data, anchors, at)]


def content_info(signed: bytes) -> bytes:
    layout, _ = read_layout(io.BytesIO(signed))
    (entry,) = parse_table(signed[layout.data_size_bytes :])
    return der.read_tlv(entry.certificate, 0, "it").der


def with_table(table: bytes, data: bytes = DATA) -> bytes:
    copy = bytearray(data + table)
    struct.pack_into("<II", copy, 0x80 + 24 + 112 + 32, len(data), len(table))
    return bytes(copy)


def with_signature(signed_data: cms.SignedData, data: bytes = DATA) -> bytes:
    return with_table(encode_table(cms.encode_signed_data(signed_data)), data)


def parsed(signed: bytes = SIGNED) -> cms.SignedData:
    return cms.parse_signed_data(content_info(signed))


def with_unsigned(signed_data: cms.SignedData, oid: str, *values: bytes) -> cms.SignedData:
    signer_info = replace(signed_data.signer_infos[0], unsigned_attributes=(cms.Attribute(type=oid, values=values),))
    return replace(signed_data, signer_infos=(signer_info,))


def timestamped(signed: bytes, **changes: bytes) -> bytes:
    signed_data = parsed(signed)
    token = make_token(signed_data.signer_infos[0].signature, **changes)  # type: ignore[arg-type]
    return with_signature(with_unsigned(signed_data, oids.SPC_RFC3161_TIMESTAMP, token))


def test_a_report_says_who_signed_what() -> None:
    (report,) = verify(SIGNED)

    by = signer()
    assert report.problem_code == ""
    assert report.subject == "CN=Test Signer ec"
    assert report.chain == (*by.chain, by.root.der)
    assert report.artifact == PE.scan(io.BytesIO(IMAGE), SignOptions()).artifact
    assert report.signature_sha256 == hashlib.sha256(parsed().signer_infos[0].signature).digest()
    assert report.timestamped_at is None


def test_an_unsigned_image_has_no_reports() -> None:
    assert verify(IMAGE) == ()


def test_a_changed_byte_in_the_data_is_noticed() -> None:
    ignored = {*range(0xD8, 0xDC)}
    for offset in range(0, len(DATA), 97):
        if offset in ignored:
            continue
        changed = bytearray(SIGNED)
        changed[offset] ^= 0x20
        try:
            found = codes(bytes(changed))
        except (MalformedInputError, UnsupportedInputError) as error:
            found = [error.code]
        assert len(found) == 1, offset
        assert found[0] == "authenticode.digest_mismatch" or found[0].startswith("pe."), offset


def test_the_checksum_is_not_judged() -> None:
    changed = bytearray(SIGNED)
    changed[0xD8] ^= 1

    assert codes(bytes(changed)) == [""]


def test_several_entries_are_all_judged() -> None:
    good = encode_table(content_info(SIGNED))
    other = encode_table(content_info(sign(IMAGE, signer("rsa"))))
    wrong = encode_table(content_info(sign(make_pe())))
    certificate = bytearray(good)
    certificate[6] = 1

    assert codes(with_table(good + other)) == ["", ""]
    assert codes(with_table(good + wrong)) == ["", "authenticode.digest_mismatch"]
    assert codes(with_table(bytes(certificate) + good)) == ["authenticode.certificate_type", ""]


def test_nested_signatures_are_signatures_of_their_own() -> None:
    second = content_info(sign(IMAGE, signer("rsa")))
    wrong = content_info(sign(make_pe()))

    assert codes(with_signature(with_unsigned(parsed(), oids.SPC_NESTED_SIGNATURE, second))) == ["", ""]
    both = with_signature(with_unsigned(parsed(), oids.SPC_NESTED_SIGNATURE, *sorted((second, wrong))))
    assert sorted(codes(both)) == ["", "", "authenticode.digest_mismatch"]
    junk = with_signature(with_unsigned(parsed(), oids.SPC_NESTED_SIGNATURE, b"\x30\x00"))
    assert codes(junk) == ["", "der.malformed"]


def test_countless_nested_signatures_end_in_time() -> None:
    nested = tuple(der.encode_tlv(0x30, bytes((0x02, 1, number))) for number in range(100))

    found = codes(with_signature(with_unsigned(parsed(), oids.SPC_NESTED_SIGNATURE, *nested)))

    assert len(found) == 33
    assert found[-1] == "authenticode.too_many_signatures"


@pytest.mark.parametrize("surplus", [b"payload", bytes(8), b"\0\0\0\0\0\0\0\1"])
def test_what_follows_the_signature_within_its_entry_is_noticed(surplus: bytes) -> None:
    """Windows looks there only if it is told to (EnableCertPaddingCheck); nothing covers it."""
    table = encode_table(content_info(SIGNED) + surplus)

    assert codes(with_table(table)) == ["authenticode.trailing_bytes"]


def test_a_timestamp_keeps_a_signature_valid_after_the_certificate() -> None:
    later = NOW + 30 * YEAR
    signed = timestamped(SIGNED)

    (report,) = verify(signed, WITH_TSA, later)

    assert (report.problem, report.timestamped_at) == ("", NOW)
    assert codes(SIGNED, WITH_TSA, later) == ["chain.expired"]
    assert codes(signed, ANCHORS, later) == ["chain.expired"]
    assert codes(signed, ANCHORS, NOW) == [""]


def test_a_timestamp_must_hold() -> None:
    other = make_token(b"another signature")
    forged = with_signature(with_unsigned(parsed(), oids.SPC_RFC3161_TIMESTAMP, other))
    junk = with_signature(with_unsigned(parsed(), oids.SPC_RFC3161_TIMESTAMP, b"\x30\x00"))
    foreign = TrustAnchors(code_signing=ANCHORS.code_signing, time_stamping=(authority("Elsewhere").der,))

    assert codes(forged, WITH_TSA) == ["tsp.imprint"]
    assert codes(forged, ANCHORS) == ["tsp.imprint"]
    assert codes(junk, WITH_TSA) == ["der.malformed"]
    assert codes(timestamped(SIGNED), foreign) == ["chain.untrusted"]
    early = timestamped(SIGNED, gen_time=b"20200101000000Z")
    assert codes(early, WITH_TSA) == ["chain.not_yet_valid"]


def test_countless_timestamps_are_refused() -> None:
    tokens = tuple(der.encode_tlv(0x30, bytes((0x02, 1, number))) for number in range(5))
    signed = with_signature(with_unsigned(parsed(), oids.SPC_RFC3161_TIMESTAMP, *tokens))

    assert codes(signed, WITH_TSA) == ["authenticode.too_many_timestamps"]


def leaf_with(eku: tuple[x509.ObjectIdentifier, ...], **changes: datetime) -> Signer:
    by = signer()
    return replace(by, leaf=issue("Special", by.intermediate, eku=eku, **changes))  # type: ignore[arg-type]


def test_a_lifetime_signature_ends_with_its_certificate() -> None:
    lifetime = x509.ObjectIdentifier(oids.EKU_LIFETIME_SIGNING)
    by = leaf_with((Eku.CODE_SIGNING, lifetime), not_after=NOW + timedelta(days=1))
    signed = timestamped(sign(IMAGE, by))

    assert codes(signed, WITH_TSA, NOW) == [""]
    assert codes(signed, WITH_TSA, NOW + timedelta(days=2)) == ["chain.expired"]


def test_certificates_are_judged() -> None:
    assert codes(sign(IMAGE, leaf_with((Eku.SERVER_AUTH,)))) == ["chain.eku"]
    assert codes(SIGNED, TrustAnchors(code_signing=(authority("Elsewhere").der,))) == ["chain.untrusted"]
    assert codes(SIGNED, TrustAnchors(code_signing=())) == ["chain.untrusted"]
    (report,) = verify(SIGNED, TrustAnchors(code_signing=()))
    assert (report.chain, report.anchored) == (signer().chain, False)


def resigned(content: bytes, content_type: str = oids.SPC_INDIRECT_DATA) -> cms.SignedData:
    """A sound signature over whatever content."""
    by = signer()
    octets = der.read_single(content, "it").content
    signed_attributes = cms.encode_signed_attributes(
        (
            cms.Attribute(type=oids.ID_CONTENT_TYPE, values=(der.encode_oid(content_type),)),
            cms.Attribute(type=oids.ID_MESSAGE_DIGEST, values=(der.encode_tlv(4, hashlib.sha256(octets).digest()),)),
        )
    )
    signer_info = cms_verify.make_signer_info(
        certificate=by.leaf.der,
        digest_algorithm="sha256",
        signed_attributes=signed_attributes,
        signature=by.sign(signed_attributes),
    )
    return replace(parsed(), content=content, content_type=content_type, signer_infos=(signer_info,))


def test_the_content_must_be_right_in_itself() -> None:
    content = parsed().content
    sha1 = hashlib.sha1(b"", usedforsecurity=False).digest()
    sha1_content = bytes.fromhex("300906052b0e03021a0500") + der.encode_tlv(0x04, sha1)
    outer = der.children(der.read_single(content, "it"), "it")
    weak = der.encode_tlv(0x30, outer[0].der + der.encode_tlv(0x30, sha1_content))
    cabinet = content.replace(der.encode_oid(oids.SPC_PE_IMAGE_DATA), der.encode_oid("1.3.6.1.4.1.311.2.1.25"))

    assert codes(with_signature(resigned(content))) == [""]
    assert codes(with_signature(resigned(weak))) == ["cms.weak_digest"]
    assert codes(with_signature(resigned(cabinet))) == ["authenticode.data_type"]
    assert codes(with_signature(resigned(content, "1.2.840.113549.1.7.1"))) == ["authenticode.content_type"]
    assert codes(with_signature(resigned(b"\x30\x00"))) == ["der.malformed"]


def test_a_signature_without_content_signers_or_certificate_is_refused() -> None:
    assert codes(with_signature(replace(parsed(), content=b""))) == ["authenticode.content_type"]
    assert codes(with_signature(replace(parsed(), signer_infos=()))) == ["authenticode.signers"]
    assert codes(with_signature(replace(parsed(), certificates=()))) == ["cms.signer_certificate"]
    assert codes(with_table(encode_table(b"not ASN.1"))) == ["der.malformed"]
    assert codes(with_table(encode_table(b""))) == ["der.malformed"]


def test_a_signature_that_cannot_be_read_reports_no_artifact() -> None:
    (report,) = verify(with_table(encode_table(b"not ASN.1")))

    assert report.artifact == Artifact(algorithm="", digest=b"")


PAGE_HASHES_CLASS = bytes.fromhex("a6b586d5b4a12466ae05a217da8e60d6")


def page_records(image: bytes) -> bytes:
    layout, _ = read_layout(io.BytesIO(image))
    checksum, directory = layout.checksum_offset, layout.directory_offset
    header = image[:checksum] + image[checksum + 4 : directory] + image[directory + 8 : layout.size_of_headers]
    header += bytes(4096 - layout.size_of_headers)
    records = bytes(4) + hashlib.sha256(header).digest()
    for section in layout.sections:
        page = image[section.offset : section.offset + section.size_bytes].ljust(4096, b"\0")
        records += section.offset.to_bytes(4, "little") + hashlib.sha256(page).digest()
    last = layout.sections[-1]
    return records + (last.offset + last.size_bytes).to_bytes(4, "little") + bytes(32)


def with_page_hashes(records: bytes, class_id: bytes = PAGE_HASHES_CLASS, data: bytes = DATA) -> bytes:
    values = der.encode_tlv(0x31, der.encode_tlv(0x04, records))
    attribute = der.encode_tlv(0x30, der.encode_oid(oids.SPC_PE_IMAGE_PAGE_HASHES_V2) + values)
    serialized = der.encode_tlv(0x04, class_id) + der.encode_tlv(0x04, der.encode_tlv(0x31, attribute))
    image_data = der.encode_tlv(0x30, b"\x03\x01\x00" + der.encode_tlv(0xA0, der.encode_tlv(0xA1, serialized)))
    kind = der.encode_tlv(0x30, der.encode_oid(oids.SPC_PE_IMAGE_DATA) + image_data)
    digest_info = der.children(der.read_single(parsed(sign(data)).content, "it"), "it")[1].der
    return with_signature(resigned(der.encode_tlv(0x30, kind + digest_info)), data)


def test_page_hashes_are_checked() -> None:
    good = page_records(DATA)
    wrong = good[:60] + bytes((good[60] ^ 1,)) + good[61:]

    assert codes(with_page_hashes(good)) == [""]
    assert codes(with_page_hashes(wrong)) == ["authenticode.page_hash_mismatch"]
    assert codes(with_page_hashes(good[:-36])) == ["authenticode.page_hash_mismatch"]
    assert codes(with_page_hashes(b"")) == ["authenticode.page_hash_mismatch"]
    assert codes(with_page_hashes(good, bytes(16))) == ["authenticode.page_hashes"]
    states = [verify(with_page_hashes(records))[0].page_hashes for records in (good, wrong)]
    assert states == [PageHashState.CHECKED, PageHashState.WRONG]
    (unread,) = verify(with_page_hashes(wrong), TrustAnchors(code_signing=()))
    assert (unread.page_hashes, unread.problem_code) == (PageHashState.UNCHECKED, "chain.untrusted")


@pytest.mark.parametrize(("offset", "value"), [(32, 0), (32, 1 << 31), (60, 1 << 31)])
def test_page_hashes_that_cannot_be_checked_are_not_called_good(offset: int, value: int) -> None:
    image = bytearray(DATA)
    struct.pack_into("<I", image, 0x80 + 24 + offset, value)

    assert codes(with_page_hashes(page_records(DATA), data=bytes(image))) == ["authenticode.page_hashes_unchecked"]
