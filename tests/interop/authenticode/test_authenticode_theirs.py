# SPDX-License-Identifier: Apache-2.0
"""Signatures of others: Microsoft's on its own files, and those that osslsigncode makes."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from asn1crypto import cms as peer

from inputs import MICROSOFT_SIGNED, UNSIGNED, Input
from interop_tools import run_program
from microsoft_roots import microsoft_roots
from pe_samples import verify
from pki_samples import signer
from privyseal.errors import VerificationError
from privyseal.formats.authenticode import spc
from privyseal.formats.authenticode.layout import read_layout
from privyseal.formats.authenticode.page_hashes import check_page_hashes
from privyseal.formats.authenticode.table import parse_table
from privyseal.pki import cms, der, oids, tsp

pytestmark = pytest.mark.interop

LATER = datetime(2050, 1, 1, tzinfo=UTC)


def content_infos(data: bytes) -> list[bytes]:
    """Every SignedData in a file: of the table, nested ones, and timestamp tokens."""
    layout, _ = read_layout(io.BytesIO(data))
    waiting = [
        der.read_tlv(entry.certificate, 0, "an entry").der for entry in parse_table(data[layout.data_size_bytes :])
    ]
    found = []
    while waiting:
        found.append(waiting.pop())
        for signer_info in cms.parse_signed_data(found[-1]).signer_infos:
            for oid in (oids.SPC_NESTED_SIGNATURE, oids.SPC_RFC3161_TIMESTAMP):
                waiting += cms.attribute_values(signer_info.unsigned_attributes, oid)
    return found


@pytest.mark.parametrize("file", MICROSOFT_SIGNED, ids=lambda file: file.name)
def test_every_signed_data_of_microsoft_encodes_to_the_same_bytes(file: Input) -> None:
    found = content_infos(file.read())

    assert len(found) >= 2
    for encoded in found:
        signed_data = cms.parse_signed_data(encoded)
        assert cms.encode_signed_data(signed_data) == encoded
        content = peer.ContentInfo.load(encoded)["content"]
        assert len(content["certificates"]) == len(signed_data.certificates)
        assert [info["signature"].native for info in content["signer_infos"]] == [
            info.signature for info in signed_data.signer_infos
        ]
        if signed_data.content_type == oids.ID_CT_TST_INFO:
            native = content["encap_content_info"]["content"].parsed.native
            assert tsp.parse_token(encoded).gen_time == native["gen_time"]


@pytest.mark.parametrize("file", MICROSOFT_SIGNED, ids=lambda file: file.name)
def test_microsofts_signatures_hold_for_ever_by_their_timestamps(file: Input) -> None:
    reports = verify(file.read(), microsoft_roots(), LATER)

    assert len(reports) == (2 if file.name.startswith("msvc-amd64") else 1)
    assert [report.problem for report in reports] == [""] * len(reports)
    assert all("O=Microsoft Corporation" in report.subject for report in reports)
    assert all(report.timestamped_at is not None for report in reports)


@pytest.mark.parametrize("arguments", [(), ("-ph",), ("-h", "sha384"), ("-n", "Näme", "-i", "https://x.test")])
@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("file", [UNSIGNED[0], UNSIGNED[7], UNSIGNED[14]], ids=lambda file: file.name)
def test_signatures_of_osslsigncode_hold(file: Input, kind: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    signed = sign_with_osslsigncode(file, kind, arguments, tmp_path)

    (report,) = verify(signed)

    assert (report.problem, report.subject) == ("", f"CN=Test Signer {kind}")


def sign_with_osslsigncode(file: Input, kind: str, arguments: tuple[str, ...], folder: Path) -> bytes:
    by = signer(kind)
    certificates, key, out = folder / "chain.pem", folder / "key.pem", folder / "signed.exe"
    certificates.write_bytes(by.leaf.pem + by.intermediate.pem)
    key.write_bytes(by.leaf.key_pem)
    source = folder / file.name
    source.write_bytes(file.read())
    status, said = run_program(
        "osslsigncode",
        "sign",
        "-certs",
        certificates,
        "-key",
        key,
        "-h",
        "sha256",
        *arguments,
        "-in",
        source,
        "-out",
        out,
    )
    assert status == 0, said
    return out.read_bytes()


@pytest.mark.parametrize("file", [UNSIGNED[0], UNSIGNED[7], UNSIGNED[14]], ids=lambda file: file.name)
def test_page_hashes_of_osslsigncode_are_found_and_checked(file: Input, tmp_path: Path) -> None:
    signed = sign_with_osslsigncode(file, "rsa", ("-ph",), tmp_path)
    (encoded,) = content_infos(signed)
    content = spc.parse_indirect_data(cms.parse_signed_data(encoded).content)
    page_hashes = spc.parse_page_hashes(content.data)
    assert page_hashes is not None
    stream = io.BytesIO(signed)
    layout, head = read_layout(stream)

    check_page_hashes(stream, layout, head, page_hashes)

    for position in range(4, len(page_hashes.records), 36):
        wrong = bytearray(page_hashes.records)
        wrong[position] ^= 1
        with pytest.raises(VerificationError) as caught:
            check_page_hashes(stream, layout, head, replace(page_hashes, records=bytes(wrong)))
        assert caught.value.code == "authenticode.page_hash_mismatch"
