# SPDX-License-Identifier: Apache-2.0
import hashlib
import io
from dataclasses import replace

import pytest
from asn1crypto import core
from hypothesis import given
from hypothesis import strategies as st

from pe_samples import make_pe
from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode import PE, spc
from privyseal.formats.model import Artifact, Preimage, SignOptions
from privyseal.pki import cms, der, oids

SCAN = PE.scan(io.BytesIO(make_pe()), SignOptions())
GOOD = PE.preimage(SCAN, (), SignOptions(program_name="Acmé ☂ 𝄞", program_url="https://example.test/"))


def refused(preimage: Preimage) -> str:
    with pytest.raises((MalformedInputError, UnsupportedInputError)) as caught:
        PE.parse_preimage(preimage)
    error = caught.value
    assert isinstance(error, MalformedInputError | UnsupportedInputError)
    return error.code


def attributes_with(*, without: str = "", extra: tuple[cms.Attribute, ...] = ()) -> bytes:
    """The good attributes with one left out, replaced or added."""
    gone = {without, *(one.type for one in extra)}
    kept = [one for one in cms.parse_signed_attributes(GOOD.signed) if one.type not in gone]
    return cms.encode_signed_attributes((*kept, *extra))


def attribute(oid: str, *values: bytes) -> tuple[cms.Attribute, ...]:
    return (cms.Attribute(type=oid, values=values),)


def test_a_preimage_says_the_artifact_and_nothing_else_is_believed() -> None:
    facts = PE.parse_preimage(GOOD)

    assert facts.artifact == SCAN.artifact
    assert facts.digest_algorithm == "sha256"


def test_the_bytes_are_those_of_the_specification() -> None:
    """The header and PE data are as signtool writes them; the digest ends the structure."""
    assert GOOD.detail[:16].hex() == "30683033060a2b06010401823702010f"
    assert "<<<Obsolete>>>".encode("utf-16-be") in GOOD.detail
    assert GOOD.detail.endswith(b"\x04\x20" + SCAN.artifact.digest)


def test_message_digest_covers_the_content_octets_only() -> None:
    octets = der.read_single(GOOD.detail, "it").content
    attributes = cms.parse_signed_attributes(GOOD.signed)

    assert cms.attribute_values(attributes, oids.ID_MESSAGE_DIGEST) == (b"\x04\x20" + hashlib.sha256(octets).digest(),)
    assert {one.type for one in attributes} == {
        oids.ID_CONTENT_TYPE,
        oids.ID_MESSAGE_DIGEST,
        oids.SPC_SP_OPUS_INFO,
        oids.SPC_STATEMENT_TYPE,
    }


@given(
    st.sampled_from(["sha256", "sha384", "sha512"]),
    st.text(max_size=40).filter(lambda text: text.isprintable()),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40),
)
def test_preimages_round_trip(algorithm: str, name: str, url: str) -> None:
    artifact = Artifact(algorithm=algorithm, digest=hashlib.new(algorithm, name.encode()).digest())
    scanned = replace(SCAN, artifact=artifact)  # type: ignore[type-var]
    options = SignOptions(digest_algorithm=algorithm, program_name=name, program_url=url)

    preimage = PE.preimage(scanned, (), options)

    assert PE.parse_preimage(preimage).artifact == artifact
    opus = cms.attribute_values(cms.parse_signed_attributes(preimage.signed), oids.SPC_SP_OPUS_INFO)[0]
    assert spc.parse_opus_info(opus) == spc.SpcSpOpusInfo(program_name=name, more_info_url=url)


@given(st.data())
def test_no_changed_byte_is_accepted_as_the_same_thing(data: st.DataObject) -> None:
    """A change is refused, or gives other facts in the one form that is accepted."""
    whole = GOOD.signed + GOOD.detail
    position = data.draw(st.integers(0, len(whole) - 1))
    change = bytes((whole[position] ^ data.draw(st.integers(1, 255)),))
    other = whole[:position] + change + whole[position + 1 :]
    split = len(GOOD.signed)
    candidate = Preimage(signed=other[:split], detail=other[split:])
    try:
        facts = PE.parse_preimage(candidate)
    except (MalformedInputError, UnsupportedInputError):
        return
    assert facts.artifact == SCAN.artifact
    assert position < split
    opus = cms.attribute_values(cms.parse_signed_attributes(candidate.signed), oids.SPC_SP_OPUS_INFO)[0]
    assert spc.encode_opus_info(spc.parse_opus_info(opus)) == opus


def test_every_truncation_and_surplus_is_refused() -> None:
    for end in range(len(GOOD.signed)):
        refused(replace(GOOD, signed=GOOD.signed[:end]))
    for end in range(len(GOOD.detail)):
        refused(replace(GOOD, detail=GOOD.detail[:end]))
    refused(replace(GOOD, signed=GOOD.signed + b"\0"))
    refused(replace(GOOD, detail=GOOD.detail + b"\0"))


def detail(**changes: object) -> bytes:
    return spc.encode_indirect_data(replace(spc.parse_indirect_data(GOOD.detail), **changes))  # type: ignore[arg-type]


def over(changed: bytes) -> Preimage:
    """Attributes whose messageDigest is right for another content."""
    digest = hashlib.sha256(der.read_single(changed, "it").content).digest()
    signed = attributes_with(extra=attribute(oids.ID_MESSAGE_DIGEST, der.encode_tlv(0x04, digest)))
    return Preimage(signed=signed, detail=changed)


SHA1 = cms.AlgorithmIdentifier(algorithm="1.3.14.3.2.26", parameters=b"\x05\x00")
BARE_SHA256 = cms.AlgorithmIdentifier(algorithm=oids.DIGEST_OIDS["sha256"])
CASES = {
    "empty": (Preimage(signed=b"", detail=b""), "der.malformed"),
    "huge": (Preimage(signed=b"\x31" * 70_000), "authenticode.preimage_too_large"),
    "another content": (replace(GOOD, detail=detail(digest=b"x" * 32)), "authenticode.message_digest"),
    "short digest": (over(detail(digest=b"x" * 31)), "authenticode.preimage"),
    "digest of another length": (over(detail(digest=b"x" * 48)), "authenticode.preimage"),
    "SHA-1": (over(detail(digest_algorithm=SHA1, digest=b"x" * 20)), "digest.unsupported"),
    "digest without NULL": (over(detail(digest_algorithm=BARE_SHA256)), "authenticode.preimage"),
    "a cabinet's type": (over(detail(data_type="1.3.6.1.4.1.311.2.1.25")), "authenticode.preimage"),
    "other image data": (over(detail(data=b"\x30\x00")), "authenticode.preimage"),
    "no image data": (over(detail(data=b"")), "authenticode.preimage"),
    "no content type": (
        replace(GOOD, signed=attributes_with(without=oids.ID_CONTENT_TYPE)),
        "authenticode.preimage",
    ),
    "no digest": (
        replace(GOOD, signed=attributes_with(without=oids.ID_MESSAGE_DIGEST)),
        "authenticode.message_digest",
    ),
    "no opus": (replace(GOOD, signed=attributes_with(without=oids.SPC_SP_OPUS_INFO)), "authenticode.preimage"),
    "two opus values": (
        replace(GOOD, signed=attributes_with(extra=attribute(oids.SPC_SP_OPUS_INFO, b"\x30\x00", b"\x30\x00"))),
        "authenticode.preimage",
    ),
    "no statement": (
        replace(GOOD, signed=attributes_with(without=oids.SPC_STATEMENT_TYPE)),
        "authenticode.preimage",
    ),
    "commercial": (
        replace(GOOD, signed=attributes_with(extra=attribute(oids.SPC_STATEMENT_TYPE, b"\x30\x00"))),
        "authenticode.preimage",
    ),
    "signingTime": (
        replace(GOOD, signed=attributes_with(extra=attribute("1.2.840.113549.1.9.5", b"\x17\x0d260601120000Z"))),
        "authenticode.preimage",
    ),
    "opus with a moniker": (
        replace(
            GOOD,
            signed=attributes_with(
                extra=attribute(oids.SPC_SP_OPUS_INFO, bytes.fromhex("3008a106a104040004 00".replace(" ", "")))
            ),
        ),
        "authenticode.opus_info",
    ),
    "opus in odd UTF-16": (
        replace(GOOD, signed=attributes_with(extra=attribute(oids.SPC_SP_OPUS_INFO, bytes.fromhex("3005a003800161")))),
        "authenticode.opus_info",
    ),
    "opus in ASCII": (
        replace(GOOD, signed=attributes_with(extra=attribute(oids.SPC_SP_OPUS_INFO, bytes.fromhex("3005a003810161")))),
        "authenticode.preimage",
    ),
}


@pytest.mark.parametrize(("preimage", "code"), CASES.values(), ids=CASES)
def test_every_other_form_is_refused(preimage: Preimage, code: str) -> None:
    assert refused(preimage) == code


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (SignOptions(program_name="a\nb"), "authenticode.program_name"),
        (SignOptions(program_name="\ud800"), "authenticode.program_name"),
        (SignOptions(program_name="x" * 1025), "authenticode.program_name"),
        (SignOptions(program_url="https://exämple.test"), "authenticode.program_url"),
        (SignOptions(program_url="https://x/" + "y" * 1024), "authenticode.program_url"),
        (SignOptions(program_url="a\0b"), "authenticode.program_url"),
        (SignOptions(digest_algorithm="sha512"), "authenticode.digest_algorithm"),
    ],
)
def test_options_that_cannot_be_written_are_refused(options: SignOptions, code: str) -> None:
    with pytest.raises(UnsupportedInputError) as caught:
        PE.preimage(SCAN, (), options)

    assert caught.value.code == code


class SpcString(core.Choice):  # type: ignore[misc]
    _alternatives = (("unicode", core.BMPString, {"implicit": 0}),)


class SpcLink(core.Choice):  # type: ignore[misc]
    _alternatives = (("url", core.IA5String, {"implicit": 0}),)


class SpcOpus(core.Sequence):  # type: ignore[misc]
    _fields = (
        ("name", SpcString, {"explicit": 0, "optional": True}),
        ("info", SpcLink, {"explicit": 1, "optional": True}),
    )


def test_the_peer_reads_the_opus_info() -> None:
    encoded = spc.encode_opus_info(spc.SpcSpOpusInfo(program_name="Acme", more_info_url="https://a.test"))

    read = SpcOpus.load(encoded, strict=True)
    assert read.native == {"name": "Acme", "info": "https://a.test"}
