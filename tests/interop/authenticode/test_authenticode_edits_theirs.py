# SPDX-License-Identifier: Apache-2.0
"""Edits and placements side by side with those of osslsigncode and sbsign."""

import io
from pathlib import Path

import pytest

from authenticode_judges import (
    accepted_by_lief,
    accepted_by_osslsigncode,
    accepted_by_sbverify,
    accepted_by_signify,
    accepted_by_yara,
    entries_for_sbverify,
)
from inputs import EFI, EFI_SIGNED, MICROSOFT_SIGNED, MORE_UNSIGNED, UNSIGNED, Input
from interop_tools import run_program
from pe_samples import EDITS, edited, scan, sign, table_of, verify
from pki_samples import Signer, authority, make_token, signer
from privyseal.formats.authenticode import spc
from privyseal.formats.authenticode.scan import scan as pe_scan
from privyseal.formats.authenticode.table import parse_table
from privyseal.formats.model import Placement, SignOptions
from privyseal.pki import cms

pytestmark = pytest.mark.interop

FILES = (UNSIGNED[1], UNSIGNED[14], UNSIGNED[15], UNSIGNED[16], MORE_UNSIGNED[0], MORE_UNSIGNED[9], EFI[0], EFI[6])
NESTED = SignOptions(digest_algorithm="sha384", placement=Placement.NESTED)
ENTRY = SignOptions(placement=Placement.ENTRY)


def osslsigncode(folder: Path, data: bytes, command: str, *arguments: str | Path) -> bytes:
    source, target = folder / "in.exe", folder / "out"
    source.write_bytes(data)
    target.unlink(missing_ok=True)
    status, said = run_program("osslsigncode", command, *arguments, "-in", source, "-out", target)
    assert status == 0, said
    return target.read_bytes()


def keys(folder: Path, by: Signer) -> tuple[Path, Path]:
    certificates, key = folder / "chain.pem", folder / "key.pem"
    certificates.write_bytes(by.leaf.pem + by.intermediate.pem)
    key.write_bytes(by.leaf.key_pem)
    return certificates, key


def root_pem(folder: Path) -> Path:
    path = folder / "root.pem"
    path.write_bytes(authority().pem)
    return path


def sbsign(folder: Path, data: bytes, by: Signer) -> bytes:
    source, target = folder / "in.efi", folder / "out.efi"
    source.write_bytes(data)
    certificate, key = folder / "leaf.pem", folder / "key.pem"
    certificate.write_bytes(by.leaf.pem)
    key.write_bytes(by.leaf.key_pem)
    status, said = run_program("sbsign", "--key", key, "--cert", certificate, "--output", target, source)
    assert status == 0, said
    return target.read_bytes()


@pytest.mark.parametrize("file", [*FILES, MICROSOFT_SIGNED[0]], ids=lambda file: file.name)
def test_both_take_signatures_out_and_carry_them_over_alike(file: Input, tmp_path: Path) -> None:
    original = file.read()
    signed = sign(original, signer("rsa"))
    detached = EDITS.extract(scan(signed))
    sigin = tmp_path / "detached.p7"
    sigin.write_bytes(detached)

    theirs = osslsigncode(tmp_path, signed, "extract-signature")
    assert theirs.rstrip(b"\0") == detached.rstrip(b"\0")
    judging = ("-CAfile", root_pem(tmp_path), "-sigin", sigin)
    attached = osslsigncode(tmp_path, original, "attach-signature", *judging)
    assert attached == signed
    bare = edited(signed, EDITS.remove)
    assert edited(bare, lambda one: EDITS.attach(one, theirs)) == signed
    removed = osslsigncode(tmp_path, signed, "remove-signature")
    assert removed[: len(bare)] == bare or scan(removed).artifact == scan(bare).artifact
    assert not removed[len(bare) :].rstrip(b"\0")


@pytest.mark.parametrize("file", [UNSIGNED[1], UNSIGNED[14], EFI[0]], ids=lambda file: file.name)
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_signatures_nest_in_one_another(file: Input, first: str, tmp_path: Path) -> None:
    certificates, key = keys(tmp_path, signer("rsa"))
    by_them = ("-certs", certificates, "-key", key, "-h", "sha256")
    if first == "ours":
        data = osslsigncode(tmp_path, sign(file.read(), timestamp=make_token), "sign", "-nest", *by_them)
    else:
        data = sign(osslsigncode(tmp_path, file.read(), "sign", *by_them), options=NESTED)
    data = sign(data, options=NESTED)

    path = tmp_path / "nested.exe"
    path.write_bytes(data)
    root = root_pem(tmp_path)
    assert [report.problem for report in verify(data)] == ["", "", ""]
    if first == "theirs":
        assert accepted_by_osslsigncode(path, root, signatures=3)
    assert accepted_by_lief(data)
    assert accepted_by_yara(data)


@pytest.mark.parametrize("file", MICROSOFT_SIGNED[:2] + MICROSOFT_SIGNED[12:14], ids=lambda file: file.name)
def test_microsofts_signature_keeps_its_bytes_within_ours(file: Input) -> None:
    """All that changes are lengths on the way, and attributes that no signature covers."""
    before, after = file.read(), sign(file.read(), options=NESTED)

    (theirs,) = cms.parse_signed_data(EDITS.extract(scan(before))).signer_infos
    (ours,) = cms.parse_signed_data(EDITS.extract(scan(after))).signer_infos
    assert ours.signature == theirs.signature
    assert ours.signed_attributes == theirs.signed_attributes
    old, new = ({value for one in info.unsigned_attributes for value in one.values} for info in (theirs, ours))
    assert old < new
    assert len(new - old) == 1
    values = EDITS.signature_values(scan(after))
    token = make_token(values[-1])
    place = len(values) - 1
    stamped = edited(after, lambda one: EDITS.add_timestamp(one, place, token))
    assert EDITS.signature_values(scan(stamped)) == values
    assert edited(stamped, EDITS.remove) == edited(before, EDITS.remove)


@pytest.mark.parametrize("file", [EFI[0], EFI[3], EFI[6], EFI[7]], ids=lambda file: file.name)
def test_entries_of_sbsign_and_ours_stand_side_by_side(file: Input, tmp_path: Path) -> None:
    rsa = signer("rsa")
    by_sbsign_twice = sbsign(tmp_path, sbsign(tmp_path, file.read(), rsa), rsa)
    ours_behind = sign(by_sbsign_twice, options=ENTRY)
    theirs_behind = sbsign(tmp_path, sign(file.read()), rsa)
    nested = sign(by_sbsign_twice, options=NESTED)

    path, certificate = tmp_path / "entries.efi", tmp_path / "signer.pem"
    for data, entries in ((ours_behind, 3), (theirs_behind, 2), (nested, 2)):
        path.write_bytes(data)
        assert entries_for_sbverify(path) == entries == len(parse_table(table_of(data)))
        for by in (rsa, *((signer("ec"),) if data is not nested else ())):
            certificate.write_bytes(by.leaf.pem)
            assert accepted_by_sbverify(path, certificate)
        assert accepted_by_lief(data)
    assert table_of(ours_behind).startswith(table_of(by_sbsign_twice))
    assert parse_table(table_of(nested))[1].encoded == parse_table(table_of(by_sbsign_twice))[1].encoded
    assert edited(ours_behind, EDITS.remove) == edited(nested, EDITS.remove)


def test_a_signer_who_did_not_sign_is_not_found(tmp_path: Path) -> None:
    """sbverify can say no, where a signature carries its signer's certificate alone."""
    path, certificate = tmp_path / "signed.efi", tmp_path / "signer.pem"
    path.write_bytes(sbsign(tmp_path, EFI[0].read(), signer("rsa")))
    certificate.write_bytes(signer("ec").leaf.pem)

    assert not accepted_by_sbverify(path, certificate)


def test_two_entries_of_microsoft_are_read_and_kept() -> None:
    shim = EFI_SIGNED[0].read()

    data = sign(shim, options=ENTRY)

    assert len(parse_table(table_of(shim))) == 2
    assert table_of(data).startswith(table_of(shim))
    assert len(EDITS.signature_values(scan(data))) == 3
    assert [report.problem_code for report in verify(data)] == ["chain.untrusted", "chain.untrusted", ""]
    assert scan(edited(shim, EDITS.remove)).artifact == scan(EFI[0].read()).artifact


@pytest.mark.parametrize(
    "file", [UNSIGNED[1], UNSIGNED[7], UNSIGNED[14], MORE_UNSIGNED[9], MORE_UNSIGNED[11], EFI[0]], ids=lambda f: f.name
)
@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_page_hashes_are_those_of_osslsigncode(file: Input, algorithm: str, tmp_path: Path) -> None:
    certificates, key = keys(tmp_path, signer("rsa"))
    by_them = ("-certs", certificates, "-key", key, "-h", algorithm, "-ph")
    theirs = osslsigncode(tmp_path, file.read(), "sign", *by_them)
    content = spc.parse_indirect_data(cms.parse_signed_data(EDITS.extract(scan(theirs))).content)

    ours = pe_scan(io.BytesIO(file.read()), SignOptions(digest_algorithm=algorithm, page_hashes=True)).page_hashes

    assert ours is not None
    assert ours == spc.parse_page_hashes(content.data)
    # They set a flag (includeResources) that Microsoft does not set.
    encoded = spc.encode_page_hashes(ours)
    assert (encoded[4:7].hex(), content.data[4:8].hex()) == ("030100", "03020780")
    assert encoded[7:] == content.data[8:]
    assert accepted_by_signify(
        sign(file.read(), options=SignOptions(digest_algorithm=algorithm, page_hashes=True)), (authority().der,)
    )
