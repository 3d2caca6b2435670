# SPDX-License-Identifier: Apache-2.0
"""The format of bare digests: a DigestInfo in one form, accepted by no other format."""

import io

import pytest
from asn1crypto import tsp as peer
from hypothesis import given
from hypothesis import strategies as st

from lying_hub import pe_preimage
from pe_samples import ANCHORS
from pki_samples import NOW
from privyseal.errors import MalformedInputError, PrivysealError, UnsupportedInputError
from privyseal.formats.model import Artifact, Preimage, SignOptions
from privyseal.formats.opaque import DIGEST
from privyseal.formats.opaque.digest import digest_preimage
from privyseal.formats.registry import read_preimage
from privyseal.pki.mechanism import DIGEST_SIZES
from wire_samples import mutated

digests = st.sampled_from(sorted(DIGEST_SIZES)).flatmap(
    lambda name: st.binary(min_size=DIGEST_SIZES[name], max_size=DIGEST_SIZES[name]).map(
        lambda digest: Artifact(algorithm=name, digest=digest)
    )
)


@given(digests)
def test_a_digest_comes_back_and_is_what_is_signed(artifact: Artifact) -> None:
    preimage = digest_preimage(artifact)

    facts = read_preimage("digest", preimage)

    assert (facts.artifact, facts.digest_algorithm, facts.digest) == (artifact, artifact.algorithm, artifact.digest)
    # TSP's MessageImprint has the shape of PKCS #1's DigestInfo.
    theirs = peer.MessageImprint.load(preimage.signed, strict=True)
    assert theirs["hash_algorithm"]["algorithm"].native == artifact.algorithm
    assert theirs["hashed_message"].native == artifact.digest


@given(st.data())
def test_another_form_is_refused(data: st.DataObject) -> None:
    artifact = data.draw(digests)
    good = digest_preimage(artifact).signed
    changed = data.draw(mutated(good))

    try:
        facts = read_preimage("digest", Preimage(signed=changed))
    except (MalformedInputError, UnsupportedInputError):
        return
    assert digest_preimage(facts.artifact).signed == changed


@pytest.mark.parametrize(
    ("preimage", "code"),
    [
        (Preimage(signed=b""), "der.malformed"),
        (Preimage(signed=digest_preimage(Artifact(algorithm="sha256", digest=bytes(32))).signed, detail=b"x"),
         "digest.malformed"),
        (Preimage(signed=bytes.fromhex("3021300906052b0e03021a05000414") + bytes(20)), "digest.unsupported"),
        (Preimage(signed=bytes.fromhex("302f300b0609608648016503040201" + "0420") + bytes(32)), "digest.malformed"),
        (Preimage(signed=bytes.fromhex("302f300b06096086480165030402010420") + bytes(30)), "der.malformed"),
        (Preimage(signed=bytes.fromhex("3030300d060960864801650304020105000" + "41f") + bytes(31)), "digest.size"),
    ],
    ids=["nothing", "detail", "sha1", "cut", "length", "size"],
)  # fmt: skip
def test_what_is_no_digest(preimage: Preimage, code: str) -> None:
    with pytest.raises(PrivysealError) as caught:
        DIGEST.parse_preimage(preimage)

    assert caught.value.code == code


def test_a_programs_preimage_is_no_digest() -> None:
    with pytest.raises(MalformedInputError):
        DIGEST.parse_preimage(pe_preimage())


@pytest.mark.parametrize(
    "call",
    [
        lambda: DIGEST.scan(io.BytesIO(b"x"), SignOptions()),
        lambda: DIGEST.verify(io.BytesIO(b"x"), ANCHORS, NOW),
    ],
    ids=["scan", "verify"],
)
def test_it_is_no_format_of_files(call: object) -> None:
    assert DIGEST.detect is None
    assert callable(call)
    with pytest.raises(UnsupportedInputError) as caught:
        call()

    assert caught.value.code == "format.no_file"
