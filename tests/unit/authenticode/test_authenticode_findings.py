# SPDX-License-Identifier: Apache-2.0
"""What a report says beside the first problem: every finding with its severity, and what Windows would say."""

import struct
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku

from pe_samples import ANCHORS, make_pe, sign, verify
from pki_samples import NOW, YEAR, Signer, authority, issue, make_token, signer, tsa
from privyseal.formats.authenticode.table import encode_table
from privyseal.formats.model import PageHashState, SignatureKind, SignatureReport, TrustAnchors
from privyseal.pki import cms, der, oids
from privyseal.pki.x509 import parse_certificate

IMAGE = make_pe(sections=(b"\x90" * 700, b"data" * 300), overlay=b"overlay!")
SIGNED = sign(IMAGE)
WITH_TSA = TrustAnchors(code_signing=ANCHORS.code_signing, time_stamping=(tsa().root.der,))
CHECKSUM = 0x80 + 24 + 64
DIRECTORY = 0x80 + 24 + 112 + 32


def table_of(signed: bytes) -> tuple[int, int]:
    offset, size = struct.unpack_from("<II", signed, DIRECTORY)
    return offset, size


def content_info(signed: bytes = SIGNED) -> bytes:
    return der.read_tlv(signed, table_of(signed)[0] + 8, "it").der


def with_table(table: bytes, signed: bytes = SIGNED) -> bytes:
    """The image with another certificate table, and a CheckSum that is left at zero."""
    offset, _ = table_of(signed)
    copy = bytearray(signed[:offset] + table)
    struct.pack_into("<II", copy, DIRECTORY, offset, len(table))
    struct.pack_into("<I", copy, CHECKSUM, 0)
    return bytes(copy)


def changed(signed: bytes = SIGNED, **parts: object) -> bytes:
    """The image with other parts in its SignedData; `unsigned` replaces the unsigned attributes."""
    signed_data = cms.parse_signed_data(content_info(signed))
    unsigned = parts.pop("unsigned", None)
    if unsigned is not None:
        signer_info = replace(signed_data.signer_infos[0], unsigned_attributes=unsigned)  # type: ignore[arg-type]
        signed_data = replace(signed_data, signer_infos=(signer_info,))
    signed_data = replace(signed_data, **parts)  # type: ignore[arg-type]
    return with_table(encode_table(cms.encode_signed_data(signed_data)), signed)


def attribute(oid: str, *values: bytes) -> cms.Attribute:
    return cms.Attribute(type=oid, values=values)


def timestamped(signed: bytes = SIGNED, *, gen_time: bytes = b"20260601120000Z") -> bytes:
    signature = cms.parse_signed_data(content_info(signed)).signer_infos[0].signature
    return changed(signed, unsigned=(attribute(oids.SPC_RFC3161_TIMESTAMP, make_token(signature, gen_time=gen_time)),))


def only(signed: bytes, anchors: TrustAnchors = WITH_TSA) -> SignatureReport:
    (report,) = verify(signed, anchors)
    return report


def found(report: SignatureReport) -> list[str]:
    return [f"{one.severity.value} {one.code}" for one in report.findings]


def test_a_sound_signature_without_timestamp_has_one_warning() -> None:
    report = only(SIGNED)

    assert found(report) == ["warning timestamp.missing"]
    assert f"{signer().leaf.certificate.not_valid_after_utc:%Y-%m-%d}" in report.findings[0].message
    assert (report.problem_code, report.problem, report.problems) == ("", "", ())
    assert (report.digest_algorithm, report.anchored, report.countersignatures) == ("sha256", True, 0)


def test_every_finding_is_reported_not_only_the_first() -> None:
    """A changed program with an untrusted signer and a timestamp of another signature has three things wrong."""
    other = make_token(b"another signature")
    broken = bytearray(changed(unsigned=(attribute(oids.SPC_RFC3161_TIMESTAMP, other),)))
    broken[0x400] ^= 1

    report = only(bytes(broken), TrustAnchors(code_signing=(), time_stamping=(tsa().root.der,)))

    assert found(report) == [
        "problem authenticode.digest_mismatch",
        "problem tsp.imprint",
        "problem chain.untrusted",
        "warning pe.checksum",
    ]
    assert report.problem_code == "authenticode.digest_mismatch"
    assert report.chain == signer().chain, "as far as names lead"
    assert not report.anchored


def test_each_signature_says_what_it_is() -> None:
    nested, entry = content_info(sign(IMAGE, signer("rsa"))), encode_table(content_info())
    both = changed(unsigned=(attribute(oids.SPC_NESTED_SIGNATURE, nested),))
    offset, _ = table_of(both)

    reports = verify(with_table(both[offset:] + entry, both))

    assert [report.kind for report in reports] == [SignatureKind.PRIMARY, SignatureKind.NESTED, SignatureKind.ENTRY]
    assert [report.subject for report in reports] == ["CN=Test Signer ec", "CN=Test Signer rsa", "CN=Test Signer ec"]
    assert [report.windows.startswith("Windows accepts") for report in reports] == [True, False, False]


def test_a_timestamp_is_described_whether_it_holds_or_not() -> None:
    good, early = only(timestamped()), only(timestamped(gen_time=b"20200101000000Z"))
    unknown = only(timestamped(), ANCHORS)
    unreadable = only(changed(unsigned=(attribute(oids.SPC_RFC3161_TIMESTAMP, b"\x30\x00"),)))

    assert [(one.gen_time, one.subject, one.problem_code) for one in good.timestamps] == [(NOW, "CN=Test TSA", "")]
    assert good.timestamped_at == NOW
    assert early.timestamps[0].problem_code == "chain.not_yet_valid"
    assert early.timestamps[0].gen_time is not None
    assert found(unknown) == ["warning timestamp.untrusted", "warning pe.checksum"]
    assert (unknown.timestamped_at, unknown.timestamps[0].subject) == (None, "CN=Test TSA")
    assert (unreadable.timestamps[0].gen_time, unreadable.timestamps[0].subject) == (None, "")
    assert unreadable.problem_code == "der.malformed"


def test_what_may_hide_beside_the_signature_is_noticed() -> None:
    octets = der.encode_tlv(der.TAG_OCTET_STRING, bytes(1000))
    unknown = only(changed(unsigned=(attribute("1.2.3.4", octets),)))
    certificates = cms.parse_signed_data(content_info()).certificates
    junk = der.encode_tlv(der.TAG_SEQUENCE, octets)
    unread = only(changed(certificates=(*certificates, junk)))

    assert "warning authenticode.unknown_attribute" in found(unknown)
    assert "1004 bytes in the unsigned attribute 1.2.3.4" in unknown.warnings[1].message
    assert "warning authenticode.unread_certificate" in found(unread)
    assert (unknown.problem_code, unread.problem_code) == ("", "")


def test_more_certificates_than_are_looked_at_are_noticed() -> None:
    certificates = cms.parse_signed_data(content_info()).certificates
    many = tuple(der.encode_tlv(0x30, bytes((2, 1, number))) for number in range(100))

    report = only(changed(certificates=certificates + many))

    assert "100 of the 102 certificates" in report.warnings[1].message


def test_a_countersignature_is_noticed_and_counts_for_nothing() -> None:
    report = only(changed(unsigned=(attribute(oids.ID_COUNTERSIGNATURE, b"\x30\x00"),)))

    assert found(report) == ["warning timestamp.missing", "warning timestamp.countersignature", "warning pe.checksum"]
    assert report.countersignatures == 1


@pytest.mark.parametrize(("said", "words"), [(0, "left at zero"), (12345, "not 0x")])
def test_a_wrong_checksum_is_a_warning(said: int, words: str) -> None:
    copy = bytearray(SIGNED)
    struct.pack_into("<I", copy, CHECKSUM, said)

    report = only(bytes(copy))

    assert report.problem_code == ""
    assert report.warnings[-1].code == "pe.checksum"
    assert words in report.warnings[-1].message


def test_the_checksum_of_a_program_is_nobodys_business() -> None:
    signed = bytearray(sign(make_pe(subsystem=3)))
    struct.pack_into("<I", signed, CHECKSUM, 12345)

    assert found(only(bytes(signed))) == ["warning timestamp.missing"]


def test_the_checksum_covers_the_certificate_table() -> None:
    """So that data which was hidden there later shows, if whoever hid it forgot the CheckSum."""
    hidden = bytearray(changed(unsigned=(attribute(oids.ID_COUNTERSIGNATURE, b"\x30\x00"),)))
    hidden[CHECKSUM : CHECKSUM + 4] = SIGNED[CHECKSUM : CHECKSUM + 4]

    assert "pe.checksum" not in [one.code for one in only(SIGNED).findings]
    assert "not 0x" in only(bytes(hidden)).warnings[-1].message


def test_an_entry_of_another_revision_is_no_signature() -> None:
    offset, _ = table_of(SIGNED)
    copy = bytearray(SIGNED)
    copy[offset + 5] = 1

    assert only(bytes(copy)).problem_code == "authenticode.certificate_type"


@pytest.mark.parametrize(("version", "expected"), [(0, "cms.version"), (1, ""), (3, ""), (17, "cms.version")])
def test_a_signed_data_of_an_unknown_version_is_refused(version: int, expected: str) -> None:
    assert only(changed(version=version)).problem_code == expected


def test_a_signer_info_has_the_version_of_its_signers_name() -> None:
    (signer_info,) = cms.parse_signed_data(content_info()).signer_infos

    assert only(changed(signer_infos=(replace(signer_info, version=3),))).problem_code == "cms.version"


def leaf_with(eku: tuple[x509.ObjectIdentifier, ...], **changes: object) -> Signer:
    by = signer()
    return replace(by, leaf=issue("Special", by.intermediate, eku=eku, **changes))  # type: ignore[arg-type]


def test_lifetime_signing_is_a_warning_beside_a_timestamp() -> None:
    by = leaf_with((Eku.CODE_SIGNING, x509.ObjectIdentifier(oids.EKU_LIFETIME_SIGNING)))

    report = only(timestamped(sign(IMAGE, by)))

    assert found(report) == ["warning certificate.lifetime_signing", "warning pe.checksum"]
    assert f"Windows accepts it until {NOW + 20 * YEAR:%Y-%m-%d}" in report.windows


EXPIRED = leaf_with((Eku.CODE_SIGNING,), not_after=NOW - timedelta(days=1))
NOT_YET = leaf_with((Eku.CODE_SIGNING,), not_before=NOW + timedelta(days=1))


@pytest.mark.parametrize(
    ("signed", "words"),
    [
        (timestamped(), "Windows accepts it where it trusts CN=Test Root"),
        (SIGNED, f"Windows accepts it until {NOW + 20 * YEAR:%Y-%m-%d} where it trusts CN=Test Root"),
        (SIGNED[:0x400] + b"!" + SIGNED[0x401:], "TRUST_E_BAD_DIGEST"),
        (sign(IMAGE, EXPIRED), "CERT_E_EXPIRED"),
        (sign(IMAGE, NOT_YET), "CERT_E_EXPIRED"),
        (sign(IMAGE, leaf_with((Eku.SERVER_AUTH,))), "CERT_E_WRONG_USAGE"),
        (sign(IMAGE, replace(signer(), intermediate=issue("Lost", authority("Else"), ca=True))), "CERT_E_CHAINING"),
        (with_table(encode_table(content_info() + b"payload")), "accepts it by default, and refuses"),
        (changed(unsigned=(attribute(oids.SPC_RFC3161_TIMESTAMP, make_token(b"other")),)), "TRUST_E_TIME_STAMP"),
        (with_table(encode_table(b"not ASN.1")), "most likely refuses it"),
        (with_table(encode_table(content_info(changed(version=17)) + b"payload")), "most likely refuses it"),
    ],
)
def test_what_windows_would_say(signed: bytes, words: str) -> None:
    assert words in only(signed).windows


def test_windows_may_know_a_root_that_is_unknown_here() -> None:
    report = only(timestamped(), TrustAnchors(code_signing=(authority("E").der,), time_stamping=(authority("E").der,)))

    assert [one.code for one in report.problems] == ["chain.untrusted", "chain.untrusted"]
    assert "unless it knows the root itself" in report.windows


def test_an_image_without_page_hashes_says_so() -> None:
    assert only(SIGNED).page_hashes is PageHashState.ABSENT


def test_the_signers_certificate_comes_first_in_the_chain() -> None:
    assert parse_certificate(only(SIGNED).chain[0]).issuer == "CN=Test Intermediate ec"
