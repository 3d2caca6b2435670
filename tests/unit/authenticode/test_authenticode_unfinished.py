# SPDX-License-Identifier: Apache-2.0
"""A SignedData without its signature: ours, and those of other programs."""

import contextlib
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_samples import edited, make_pe, scan, sign, verify
from pki_samples import make_token, signer, tsa
from privyseal.errors import MalformedInputError, PrivysealError
from privyseal.formats.authenticode.edits import EDITS
from privyseal.formats.authenticode.pe import PE
from privyseal.formats.authenticode.unfinished import finish, make_unfinished, read_unfinished
from privyseal.formats.model import Dispensable, Placement, SignOptions
from privyseal.pki import cms
from unsigned_samples import with_attributes

IMAGE = make_pe(overlay=b"its own data")


def unfinished(algorithm: str = "sha256") -> bytes:
    options = SignOptions(digest_algorithm=algorithm, program_name="Sample")
    preimage = PE.preimage(scan(IMAGE, algorithm), signer().chain, options)
    return make_unfinished(PE.parse_preimage(preimage), preimage, signer().chain)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_finished_it_is_what_signing_makes(algorithm: str) -> None:
    read = read_unfinished(unfinished(algorithm))
    value = signer().sign(read.preimage.signed, algorithm)

    content_info = finish(read, value)
    signed = edited(IMAGE, lambda scanned: EDITS.attach(scanned, content_info), algorithm)

    assert read.digest == hashlib.new(algorithm, read.preimage.signed).digest()
    assert PE.parse_preimage(read.preimage).digest == read.digest
    assert [one.problem for one in verify(signed)] == [""]
    assert cms.encode_signed_data(cms.parse_signed_data(content_info)) == content_info


@pytest.mark.parametrize("reverse", [False, True])
def test_attributes_of_other_programs_are_taken_as_they_stand(reverse: bool) -> None:  # noqa: FBT001
    data = with_attributes(unfinished(), reverse=reverse)
    read = read_unfinished(data)

    finished = cms.parse_signed_data(finish(read, b"any"))

    assert read.encoded == data
    assert finished.signer_infos[0].signed_attributes == read.preimage.signed
    assert finished.signer_infos[0].signature == b"any"
    assert len(cms.read_signed_attributes(read.preimage.signed)) == 5
    with pytest.raises(MalformedInputError):
        PE.parse_preimage(read.preimage)


def test_any_signature_value_may_stand_in_for_the_one_to_come() -> None:
    read = read_unfinished(unfinished())

    assert read_unfinished(finish(read, bytes(256))) == replace(read, encoded=finish(read, bytes(256)))


def test_it_must_agree_with_itself() -> None:
    data = unfinished()
    digest = scan(IMAGE).artifact.digest
    parsed = cms.parse_signed_data(data)
    other_digest = data.replace(digest, bytes(32))
    without = cms.encode_signed_data(replace(parsed, signer_infos=()))
    bare = cms.encode_signed_data(
        replace(parsed, signer_infos=(replace(parsed.signer_infos[0], signed_attributes=b""),))
    )
    detached = cms.encode_signed_data(replace(parsed, content=b""))

    for wrong in (other_digest, without, bare, detached):
        with pytest.raises(MalformedInputError) as raised:
            read_unfinished(wrong)
        assert raised.value.code == "authenticode.unfinished"


@given(st.data())
def test_damaged_ones_are_refused_or_read(data: st.DataObject) -> None:
    encoded = bytearray(unfinished())
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(encoded)))

    for damaged in (bytes(encoded), bytes(encoded[:end])):
        with contextlib.suppress(PrivysealError):
            finish(read_unfinished(damaged), b"value")


def timestamped() -> bytes:
    once = sign(IMAGE, timestamp=lambda value: make_token(value, by=tsa()))
    return sign(once, options=SignOptions(digest_algorithm="sha384", placement=Placement.NESTED))


def parts(data: bytes) -> tuple[int, int]:
    """Certificates and unsigned attributes of the first signature."""
    parsed = cms.parse_signed_data(EDITS.extract(scan(data)))
    return len(parsed.certificates), len(parsed.signer_infos[0].unsigned_attributes)


@pytest.mark.parametrize(
    ("what", "left"),
    [
        ({Dispensable.CERTIFICATES}, (1, 2)),
        ({Dispensable.UNSIGNED_ATTRIBUTES}, (2, 0)),
        ({Dispensable.CERTIFICATES, Dispensable.UNSIGNED_ATTRIBUTES}, (1, 0)),
    ],
)
def test_what_no_signature_covers_can_be_taken_out(what: set[Dispensable], left: tuple[int, int]) -> None:
    signed = timestamped()
    strip = EDITS.strip
    assert strip is not None
    assert parts(signed) == (2, 2)

    stripped = edited(signed, lambda scanned: strip(scanned, frozenset(what)))

    assert parts(stripped) == left
    assert EDITS.signature_values(scan(stripped))[0] == EDITS.signature_values(scan(signed))[0]
    codes = {one.problem_code for one in verify(stripped)}
    assert codes == ({"chain.untrusted", ""} if left == (1, 2) else {"chain.untrusted"} if left[0] == 1 else {""})
