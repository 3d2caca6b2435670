# SPDX-License-Identifier: Apache-2.0
import hashlib
import io
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pe_samples import make_pe, sign, verify
from pki_samples import signer
from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode import PE, spc
from privyseal.formats.authenticode.page_hashes import MAX_PAGE_HASHES_SIZE_BYTES
from privyseal.formats.authenticode.scan import PeScan
from privyseal.formats.authenticode.scan import scan as pe_scan
from privyseal.formats.model import Preimage, Signed, SignOptions
from privyseal.pki import cms, der, oids

IMAGE = make_pe(sections=(b"\x90" * 5000, b"data" * 300, b"x" * 4096), overlay=b"overlay")
OPTIONS = SignOptions(page_hashes=True)
OPTIONAL = 0x80 + 24
#: SizeOfHeaders of IMAGE.
HEADERS = 512


def page_scan(image: bytes, options: SignOptions = OPTIONS) -> PeScan:
    return pe_scan(io.BytesIO(image), options)


def records_of(image: bytes) -> bytes:
    page_hashes = page_scan(image).page_hashes
    assert page_hashes is not None
    return page_hashes.records


def page_digest(page: bytes) -> bytes:
    return hashlib.sha256(page.ljust(4096, b"\0")).digest()


def test_records_are_headers_pages_and_the_end() -> None:
    checksum, directory = OPTIONAL + 64, OPTIONAL + 112 + 32
    header = IMAGE[:checksum] + IMAGE[checksum + 4 : directory] + IMAGE[directory + 8 : HEADERS]
    offsets = [HEADERS, HEADERS + 4096, HEADERS + 5120, HEADERS + 5120 + 1536]
    ends = [HEADERS + 4096, HEADERS + 5120, HEADERS + 5120 + 1536, HEADERS + 5120 + 1536 + 4096]
    expected = struct.pack("<I", 0) + hashlib.sha256(header + bytes(4096 - HEADERS)).digest()
    for offset, end in zip(offsets, ends, strict=True):
        expected += struct.pack("<I", offset) + page_digest(IMAGE[offset:end])

    assert records_of(IMAGE) == expected + struct.pack("<I", ends[-1]) + bytes(32)


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 3 << 18])
def test_pages_join_over_blocks(size: int) -> None:
    section = bytes(index * 7 % 251 for index in range(size))
    image = make_pe(sections=(section,))

    records = records_of(image)

    digests = [records[at + 4 : at + 36] for at in range(36, len(records) - 36, 36)]
    assert digests == [page_digest(section[at : at + 4096]) for at in range(0, size, 4096)]


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("plus", [True, False])
def test_an_image_with_page_hashes_verifies(plus: bool, algorithm: str) -> None:  # noqa: FBT001
    """The list is SHA-256's for every signature: Windows knows no other but SHA-1's."""
    image = make_pe(plus=plus, sections=(b"\x90" * 5000, b"", b"data"), overlay=b"overlay")
    signed = sign(image, options=replace(OPTIONS, digest_algorithm=algorithm))

    (report,) = verify(signed)

    assert (report.problem, report.artifact.algorithm) == ("", algorithm)
    assert der.encode_oid(oids.SPC_PE_IMAGE_PAGE_HASHES_V2) in signed
    assert sign(signed, options=SignOptions(digest_algorithm=algorithm)).count(b"<\0<\0<\0O") == 1


def test_a_wrong_record_is_noticed_when_it_was_signed() -> None:
    by = signer()
    scanned = page_scan(IMAGE)
    wrong = bytearray(records_of(IMAGE))
    wrong[40] ^= 1
    lying = replace(scanned, page_hashes=spc.PageHashes(algorithm="sha256", records=bytes(wrong)))
    preimage = PE.preimage(lying, by.chain, OPTIONS)
    whole = Signed(preimage=preimage, signature=by.sign(preimage.signed), chain=by.chain)

    with pytest.raises(MalformedInputError) as caught:
        PE.embed(scanned, whole)
    assert caught.value.code == "authenticode.other_image"
    patch = PE.embed(lying, whole)
    data = bytearray(IMAGE)
    for offset, content in patch.writes:
        data[offset : offset + len(content)] = content
    assert [one.problem_code for one in verify(bytes(data))] == ["authenticode.page_hash_mismatch"]


def test_page_hashes_must_have_been_scanned() -> None:
    with pytest.raises(UnsupportedInputError) as caught:
        PE.preimage(page_scan(IMAGE, SignOptions()), (), OPTIONS)

    assert caught.value.code == "authenticode.page_hashes_missing"


def changed(image: bytes, offset: int, value: int) -> bytes:
    return image[:offset] + struct.pack("<I", value) + image[offset + 4 :]


SECTION_TABLE = OPTIONAL + 240


@pytest.mark.parametrize(
    "image",
    [
        make_pe(sections=(b"",)),
        changed(IMAGE, OPTIONAL + 32, 0),
        changed(IMAGE, OPTIONAL + 32, 16),
        changed(IMAGE, OPTIONAL + 32, 8192),
        changed(IMAGE, OPTIONAL + 60, 4097),
        changed(IMAGE, OPTIONAL + 60, 513),
        changed(IMAGE, SECTION_TABLE + 20, HEADERS + 512),
        changed(IMAGE, SECTION_TABLE + 16, 5121),
        changed(changed(IMAGE, SECTION_TABLE + 20, HEADERS + 5120), SECTION_TABLE + 60, HEADERS),
    ],
    ids=["no sections", "none", "small", "large", "long headers", "over headers", "overlap", "longer", "out of order"],
)
def test_images_whose_pages_are_doubtful_get_no_page_hashes(image: bytes) -> None:
    with pytest.raises(UnsupportedInputError) as caught:
        page_scan(image)

    assert caught.value.code == "pe.page_hashes"
    assert page_scan(image, SignOptions()).page_hashes is None


def with_records(records: bytes, algorithm: str = "sha256") -> Preimage:
    scanned = replace(page_scan(IMAGE), page_hashes=spc.PageHashes(algorithm=algorithm, records=records))
    return PE.preimage(scanned, (), OPTIONS)


def refused(preimage: Preimage) -> str:
    with pytest.raises((MalformedInputError, UnsupportedInputError)) as caught:
        PE.parse_preimage(preimage)
    error = caught.value
    assert isinstance(error, MalformedInputError | UnsupportedInputError)
    return error.code


RECORDS = records_of(IMAGE)
END = RECORDS[-36:]
LARGE = b"".join(struct.pack("<I32x", offset) for offset in range(MAX_PAGE_HASHES_SIZE_BYTES // 36))


def test_a_preimage_with_page_hashes_says_the_same() -> None:
    facts = PE.parse_preimage(with_records(RECORDS))

    assert facts.artifact == page_scan(IMAGE).artifact


def test_the_largest_preimage_is_accepted() -> None:
    assert PE.parse_preimage(with_records(LARGE)).artifact == page_scan(IMAGE).artifact


@pytest.mark.parametrize(
    "records",
    [
        b"",
        RECORDS[:-1],
        RECORDS + b"\0",
        RECORDS[36:],
        RECORDS[:-36],
        RECORDS[:36] + RECORDS[72:108] + RECORDS[36:72] + RECORDS[108:],
        RECORDS[:36] + RECORDS[36:72] * 2 + RECORDS[72:],
        RECORDS[:-36] + END[:35] + b"\1",
        RECORDS + END,
        LARGE + struct.pack("<I32x", 0xFFFFFFFF),
    ],
    ids=["none", "short", "odd", "no headers", "no end", "unsorted", "twice", "end digest", "two ends", "large"],
)
def test_records_in_any_other_form_are_refused(records: bytes) -> None:
    assert refused(with_records(records)) == "authenticode.page_hashes"


def test_records_of_sha1_are_refused() -> None:
    records = b"".join(RECORDS[at : at + 24] for at in range(0, len(RECORDS), 36))

    assert refused(with_records(records, "sha1")) == "authenticode.page_hashes"


def image_data(serialized: bytes, class_id: str = "a6b586d5b4a12466ae05a217da8e60d6", flags: str = "030100") -> bytes:
    moniker = der.encode_tlv(0x04, bytes.fromhex(class_id)) + der.encode_tlv(0x04, serialized)
    return der.encode_tlv(0x30, bytes.fromhex(flags) + der.encode_tlv(0xA0, der.encode_tlv(0xA1, moniker)))


def over(data: bytes) -> Preimage:
    """Attributes whose messageDigest is right for another SpcPeImageData."""
    good = with_records(RECORDS)
    detail = spc.encode_indirect_data(replace(spc.parse_indirect_data(good.detail), data=data))
    digest = hashlib.sha256(der.read_single(detail, "it").content).digest()
    kept = [one for one in cms.parse_signed_attributes(good.signed) if one.type != oids.ID_MESSAGE_DIGEST]
    named = cms.Attribute(type=oids.ID_MESSAGE_DIGEST, values=(der.encode_tlv(0x04, digest),))
    return Preimage(signed=cms.encode_signed_attributes((*kept, named)), detail=detail)


def attribute(oid: str, values: bytes) -> bytes:
    return der.encode_tlv(0x30, der.encode_oid(oid) + values)


V2 = oids.SPC_PE_IMAGE_PAGE_HASHES_V2
LIST = der.encode_tlv(0x31, der.encode_tlv(0x04, RECORDS))
ONE = attribute(V2, LIST)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (image_data(der.encode_tlv(0x31, ONE + ONE)), "der.trailing_bytes"),
        (image_data(der.encode_tlv(0x31, ONE) + b"\0"), "der.trailing_bytes"),
        (image_data(der.encode_tlv(0x31, attribute(V2, LIST + b"\5\0"))), "der.trailing_bytes"),
        (image_data(der.encode_tlv(0x31, attribute(V2, der.encode_tlv(0x31, b"")))), "der.malformed"),
        (image_data(der.encode_tlv(0x30, ONE)), "authenticode.page_hashes"),
        (image_data(der.encode_tlv(0x31, attribute("1.2.3", LIST))), "authenticode.page_hashes"),
        (image_data(der.encode_tlv(0x31, attribute(V2, der.encode_tlv(0x31, b"\5\0")))), "authenticode.page_hashes"),
        (image_data(der.encode_tlv(0x31, ONE), class_id="00" * 16), "authenticode.page_hashes"),
        (image_data(der.encode_tlv(0x31, ONE), flags=""), "authenticode.preimage"),
        (image_data(der.encode_tlv(0x31, ONE), flags="03020780"), "authenticode.preimage"),
        (image_data(der.encode_tlv(0x31, b"\5\0" * 600_000)), "der.trailing_bytes"),
        (image_data(b"\x31\x84\xff\xff\xff\xff"), "der.malformed"),
    ],
)
def test_every_other_form_is_refused(data: bytes, code: str) -> None:
    assert refused(over(data)) == code


def test_the_hand_made_form_is_the_accepted_one() -> None:
    assert over(image_data(der.encode_tlv(0x31, ONE))) == with_records(RECORDS)


def test_a_preimage_beyond_all_limits_is_not_read() -> None:
    good = with_records(RECORDS)

    assert refused(replace(good, detail=bytes(MAX_PAGE_HASHES_SIZE_BYTES + 70_000))) == (
        "authenticode.preimage_too_large"
    )
    assert refused(replace(good, signed=bytes(70_000))) == "authenticode.preimage_too_large"
    assert refused(replace(with_records(RECORDS), signed=good.signed + bytes(64 << 10))) == (
        "authenticode.preimage_too_large"
    )


@settings(max_examples=300)
@given(st.data())
def test_no_changed_byte_is_accepted_as_the_same_thing(data: st.DataObject) -> None:
    good = with_records(RECORDS)
    position = data.draw(st.integers(0, len(good.detail) - 1))
    other = bytes((good.detail[position] ^ data.draw(st.integers(1, 255)),))

    refused(replace(good, detail=good.detail[:position] + other + good.detail[position + 1 :]))
    refused(replace(good, detail=good.detail[:position]))


def test_memory_is_that_of_the_records() -> None:
    """Sections are read in blocks of a quarter of a MiB, twice."""

    class SmallReads(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.largest = max(self.largest, -1 if size is None else size)
            return super().read(size)

    stream = SmallReads(make_pe(sections=(bytes(5 << 20),)))

    scanned = pe_scan(stream, OPTIONS)

    assert stream.largest == 1 << 20
    assert scanned.page_hashes is not None
    assert len(scanned.page_hashes.records) == 36 * ((5 << 8) + 2)
