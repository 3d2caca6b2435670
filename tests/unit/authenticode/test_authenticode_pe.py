# SPDX-License-Identifier: Apache-2.0
import hashlib
import io
from dataclasses import replace

import pefile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pe_samples import apply_patch, make_pe, sign, verify
from pki_samples import signer
from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode import PE
from privyseal.formats.authenticode.checksum import checksum_of, word_sum
from privyseal.formats.authenticode.pe import embed
from privyseal.formats.authenticode.table import encode_table, parse_table
from privyseal.formats.model import Artifact, Preimage, Scan, Signed, SignOptions

MIB = 1 << 20


def pefile_checksum(data: bytes) -> int:
    checksum: int = pefile.PE(data=data, fast_load=True).generate_checksum()
    return checksum


def written_checksum(data: bytes) -> int:
    return int.from_bytes(data[0x80 + 24 + 64 : 0x80 + 24 + 68], "little")


@pytest.mark.parametrize("plus", [True, False])
@pytest.mark.parametrize("overlay", [0, 1, 2, 3, 7, 8, 9, 255])
@pytest.mark.parametrize("checksum", [0, 0xDEADBEEF])
def test_a_signed_image_verifies_and_has_the_right_checksum(plus: bool, overlay: int, checksum: int) -> None:  # noqa: FBT001
    signed = sign(make_pe(plus=plus, overlay=b"\xff" * overlay, checksum=checksum))

    (report,) = verify(signed)

    assert (report.problem_code, report.problem) == ("", "")
    assert len(signed) % 8 == 0
    assert written_checksum(signed) == pefile_checksum(signed)


@settings(max_examples=20)
@given(st.binary(max_size=100))
def test_the_checksum_is_that_of_pefile(overlay: bytes) -> None:
    signed = sign(make_pe(overlay=overlay))

    assert written_checksum(signed) == pefile_checksum(signed)


@given(st.lists(st.binary(max_size=64).filter(lambda block: len(block) % 2 == 0)), st.binary(max_size=9))
def test_blocks_sum_up_like_words(blocks: list[bytes], tail: bytes) -> None:
    data = b"".join(blocks) + tail
    words = 0
    for offset in range(0, len(data), 2):
        words += int.from_bytes(data[offset : offset + 2], "little")
        words = (words & 0xFFFF) + (words >> 16)

    total = sum(word_sum(block) for block in [*blocks, tail])

    assert checksum_of(total, len(data)) == words + len(data)


@pytest.mark.parametrize(
    "size", [MIB - 600, MIB - 1, MIB, MIB + 1, MIB + (1 << 18) - 1, MIB + (1 << 18) + 3, 3 * MIB + 5]
)
def test_blocks_join_without_a_gap(size: int) -> None:
    image = make_pe()
    image += bytes(index * 7 % 251 for index in range(size - len(image)))
    directory = 0x80 + 24 + 112 + 32
    checksum = 0x80 + 24 + 64
    covered = image[:checksum] + image[checksum + 4 : directory] + image[directory + 8 :] + bytes(-size % 8)

    scanned = PE.scan(io.BytesIO(image), SignOptions(digest_algorithm="sha384"))

    assert scanned.artifact == Artifact(algorithm="sha384", digest=hashlib.sha384(covered).digest())
    signed = sign(image)
    assert written_checksum(signed) == pefile_checksum(signed)


class ForwardOnly(io.BytesIO):
    """Counts what is read, refuses large reads, and allows no way back but to the start."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 <= size <= MIB
        self.taken += size
        return super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        assert self.taken == 0
        return super().seek(offset, whence)


def test_a_scan_reads_each_byte_once_and_in_small_blocks() -> None:
    image = make_pe(overlay=bytes(5 * MIB + 3))
    stream = ForwardOnly(image)

    PE.scan(stream, SignOptions())

    assert stream.taken == len(image)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_every_sha2_digest_can_be_signed(algorithm: str, kind: str) -> None:
    signed = sign(make_pe(), signer(kind), options=SignOptions(digest_algorithm=algorithm))

    (report,) = verify(signed)

    assert report.problem == ""
    assert report.artifact.algorithm == algorithm
    assert report.subject == f"CN=Test Signer {kind}"


@pytest.mark.parametrize("algorithm", ["sha1", "md5", "sha3_256", ""])
def test_other_digests_are_refused(algorithm: str) -> None:
    with pytest.raises(UnsupportedInputError) as caught:
        PE.scan(io.BytesIO(make_pe()), SignOptions(digest_algorithm=algorithm))

    assert caught.value.code == "digest.unsupported"


def test_signing_again_replaces_the_signature() -> None:
    image = make_pe(overlay=b"overlay")
    once = sign(image, signer("rsa"))

    twice = sign(once, signer("ec"))

    scanned = PE.scan(io.BytesIO(once), SignOptions())
    assert scanned.artifact == PE.scan(io.BytesIO(image), SignOptions()).artifact
    assert len(twice) < len(once)
    assert [report.subject for report in verify(twice)] == ["CN=Test Signer ec"]
    assert written_checksum(twice) == pefile_checksum(twice)


def test_only_three_places_are_written_and_they_are_in_order() -> None:
    image = make_pe(overlay=b"abc")
    scanned = PE.scan(io.BytesIO(image), SignOptions())
    preimage = PE.preimage(scanned, signer().chain, SignOptions())

    patch = PE.embed(scanned, Signed(preimage=preimage, signature=signer().sign(preimage.signed), chain=signer().chain))

    assert patch.keep_bytes == len(image)
    assert [(offset, len(content)) for offset, content in patch.writes[:2]] == [(0xD8, 4), (0x128, 8)]
    assert patch.writes[2][0] == len(image)
    assert patch.writes[2][1].startswith(bytes(-len(image) % 8))
    assert apply_patch(image, patch)[len(image) : len(image) + 5] == bytes(5)


def test_the_root_is_in_the_file_only_if_it_was_given() -> None:
    by = signer()
    with_root = replace(by, intermediate=by.intermediate)
    scanned = PE.scan(io.BytesIO(make_pe()), SignOptions())
    preimage = PE.preimage(scanned, by.chain, SignOptions())
    signature = with_root.sign(preimage.signed)

    bare = PE.embed(scanned, Signed(preimage=preimage, signature=signature, chain=by.chain))
    full = PE.embed(scanned, Signed(preimage=preimage, signature=signature, chain=(*by.chain, by.root.der)))

    assert by.root.der not in bare.writes[2][1]
    assert by.root.der in full.writes[2][1]


def test_a_preimage_of_another_image_is_not_embedded() -> None:
    scanned = PE.scan(io.BytesIO(make_pe()), SignOptions())
    other = PE.scan(io.BytesIO(make_pe(overlay=b"other")), SignOptions())
    preimage = PE.preimage(other, signer().chain, SignOptions())

    with pytest.raises(MalformedInputError) as caught:
        embed(scanned, Signed(preimage=preimage, signature=b"", chain=signer().chain))

    assert caught.value.code == "authenticode.other_image"


def test_a_signature_needs_a_certificate() -> None:
    scanned = PE.scan(io.BytesIO(make_pe()), SignOptions())
    preimage = PE.preimage(scanned, (), SignOptions())

    with pytest.raises(MalformedInputError) as caught:
        PE.embed(scanned, Signed(preimage=preimage, signature=b"signature", chain=()))

    assert caught.value.code == "authenticode.no_certificate"


class OtherScan:
    artifact = Artifact(algorithm="sha256", digest=bytes(32))
    size_bytes = 0
    is_signed = False


def test_a_scan_of_another_format_is_refused() -> None:
    scanned: Scan = OtherScan()

    with pytest.raises(UnsupportedInputError) as caught:
        PE.embed(scanned, Signed(preimage=Preimage(signed=b""), signature=b"", chain=()))

    assert caught.value.code == "format.wrong_scan"


@given(st.binary(max_size=100))
def test_a_table_reads_back(signed_data: bytes) -> None:
    table = encode_table(signed_data)

    (entry,) = parse_table(table)

    assert len(table) % 8 == 0
    assert entry.is_signed_data
    assert entry.certificate.rstrip(b"\0") == signed_data.rstrip(b"\0")


@given(st.binary(max_size=200))
def test_any_table_is_read_or_refused(table: bytes) -> None:
    try:
        entries = parse_table(table)
    except MalformedInputError as error:
        refused = error.code
    else:
        assert sum(8 + len(one.certificate) + len(one.padding) for one in entries) == len(table)
        refused = ""
    assert refused in {"", "pe.certificate_table"}


def test_a_table_of_countless_entries_is_refused() -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_table((8).to_bytes(4, "little") * 2 * 100)

    assert caught.value.code == "pe.certificate_table"
