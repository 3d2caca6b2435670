# SPDX-License-Identifier: Apache-2.0
"""A slice of `make matrix`: some files in every way, with every key; and that its judges can say no."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import pytest

from authenticode_judges import accepted_by_lief, accepted_by_osslsigncode, accepted_by_signify, accepted_by_yara
from authenticode_matrix import JUDGES, Cell, cells, judged, unexpected
from inputs import EFI, EFI_SIGNED, MICROSOFT_SIGNED, MORE_UNSIGNED, UNSIGNED
from pe_samples import apply_patch
from pki_samples import authority, signer
from privyseal.formats.authenticode import PE, spc
from privyseal.formats.authenticode.scan import scan
from privyseal.formats.model import Signed, SignOptions

pytestmark = pytest.mark.interop

FILES = {UNSIGNED[16], MORE_UNSIGNED[0], MORE_UNSIGNED[14], EFI[0], EFI[3], EFI_SIGNED[0], MICROSOFT_SIGNED[1]}
SLICE = [cell for cell in cells() if cell.file in FILES]


def test_the_slice_has_every_option_and_key() -> None:
    assert len({cell.option for cell in SLICE}) == 6
    assert len({(cell.kind, cell.algorithm, cell.option) for cell in SLICE}) == 36


@pytest.mark.parametrize("cell", SLICE, ids=lambda cell: cell.name)
def test_every_judge_says_what_it_must(cell: Cell, tmp_path: Path) -> None:
    assert unexpected(cell, judged(cell, tmp_path)) == []


def test_an_unexpected_answer_is_named(tmp_path: Path) -> None:
    """Else the whole matrix would prove nothing."""
    (cell,) = [one for one in SLICE if one.option == "entry" and one.file == EFI[3]]
    said = judged(cell, tmp_path)
    assert isinstance(said, dict)
    assert said.keys() == set(JUDGES)

    for judge in JUDGES:
        lying = said | {judge: not said[judge]}
        assert [line.split(": ")[1] for line in unexpected(cell, lying)] == [f"{judge} says {lying[judge]}"]
    assert len(unexpected(cell, "pe.page_hashes")) == 1


def test_a_wrong_page_hash_is_noticed_by_those_who_look(tmp_path: Path) -> None:
    by, image = signer("rsa"), UNSIGNED[1].read()
    options = SignOptions(page_hashes=True)
    scanned = scan(io.BytesIO(image), options)
    assert scanned.page_hashes is not None
    wrong = bytearray(scanned.page_hashes.records)
    wrong[36 * 3 + 4 : 36 * 3 + 36] = hashlib.sha256(b"another page").digest()
    lying = replace(scanned, page_hashes=spc.PageHashes(algorithm="sha256", records=bytes(wrong)))
    preimage = PE.preimage(lying, by.chain, options)
    whole = Signed(preimage=preimage, signature=by.sign(preimage.signed), chain=by.chain)
    path, root = tmp_path / "wrong.exe", tmp_path / "root.pem"
    path.write_bytes(apply_patch(image, PE.embed(lying, whole)))
    root.write_bytes(authority().pem)

    assert not accepted_by_osslsigncode(path, root)
    assert not accepted_by_signify(path.read_bytes(), (authority().der,))
    assert accepted_by_lief(path.read_bytes())
    assert accepted_by_yara(path.read_bytes())
