# SPDX-License-Identifier: Apache-2.0
"""Hostile certificates, SignedData and timestamps: read in one way, or refused with a code."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pki_samples import make_token, signer, tsa
from privyseal.errors import MalformedInputError, UnavailableError, VerificationError
from privyseal.formats.authenticode import spc
from privyseal.pki import cms, der, tsp, x509

TOKEN = make_token(b"data")
RESPONSE = der.encode_tlv(0x30, bytes.fromhex("3003020100") + TOKEN)
REQUEST = tsp.encode_request(tsp.TimeStampReq(digest_algorithm="sha256", imprint=bytes(32), nonce=1))
OPUS = spc.encode_opus_info(spc.SpcSpOpusInfo(program_name="Program", more_info_url="https://a.test"))

READERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "SignedData": (cms.parse_signed_data, TOKEN),
    "certificate": (x509.parse_certificate, signer().leaf.der),
    "timestamp token": (lambda data: tsp.verify_token(data, b"data", (tsa().root.der,)), TOKEN),
    "timestamp response": (tsp.parse_response, RESPONSE),
    "timestamp request": (tsp.parse_request, REQUEST),
    "SpcSpOpusInfo": (spc.parse_opus_info, OPUS),
    "SpcPeImageData": (spc.parse_page_hashes, spc.PE_IMAGE_DATA),
}


def is_read_or_refused(read: Callable[[bytes], object], data: bytes) -> bool:
    try:
        read(data)
    except (MalformedInputError, VerificationError, UnavailableError) as error:
        return "." in error.code
    return True


@pytest.mark.parametrize(("read", "sample"), READERS.values(), ids=READERS)
def test_the_samples_are_sound(read: Callable[[bytes], object], sample: bytes) -> None:
    read(sample)


@pytest.mark.parametrize(("read", "sample"), READERS.values(), ids=READERS)
def test_every_truncation_is_refused(read: Callable[[bytes], object], sample: bytes) -> None:
    for end in range(0, len(sample), 1 + len(sample) // 200):
        with pytest.raises((MalformedInputError, VerificationError)):
            read(sample[:end])


@pytest.mark.parametrize(("read", "sample"), READERS.values(), ids=READERS)
@settings(max_examples=200)
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(read: Callable[[bytes], object], sample: bytes, data: st.DataObject) -> None:
    changed = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))

    assert is_read_or_refused(read, bytes(changed))


@pytest.mark.parametrize("read", [read for read, _ in READERS.values()], ids=READERS)
@settings(max_examples=60)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(read: Callable[[bytes], object], data: bytes) -> None:
    assert is_read_or_refused(read, data)


@given(data=st.data())
def test_signed_data_that_is_read_encodes_and_reads_again(data: st.DataObject) -> None:
    changed = bytearray(TOKEN)
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        signed_data = cms.parse_signed_data(bytes(changed))
    except MalformedInputError:
        return
    assert cms.parse_signed_data(cms.encode_signed_data(signed_data)) == signed_data
