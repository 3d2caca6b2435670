# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from asn1crypto import tsp as peer

from pki_samples import NOW, issue, make_token, signer, tsa
from privyseal.errors import MalformedInputError, UnavailableError, UnsupportedInputError, VerificationError
from privyseal.pki import cms, der, oids, tsp

ROOTS = (tsa().root.der,)
GRANTED = bytes.fromhex("3003020100")


def test_a_token_proves_its_time() -> None:
    assert tsp.verify_token(make_token(b"signature"), b"signature", ROOTS) == NOW


@pytest.mark.parametrize(
    ("gen_time", "expected"),
    [
        (b"20260601120000Z", NOW),
        (b"202606011200Z", NOW),
        (b"20260601120000.500Z", NOW.replace(microsecond=500_000)),
        (b"20260601120000.1234567Z", NOW.replace(microsecond=123_456)),
    ],
)
def test_times_are_read_in_every_form_that_is_seen(gen_time: bytes, expected: datetime) -> None:
    assert tsp.verify_token(make_token(b"it", gen_time=gen_time), b"it", ROOTS) == expected


@pytest.mark.parametrize("gen_time", [b"20261301120000Z", b"20260601120000", b"20260601120000+0100", b"now", b""])
def test_other_times_are_refused(gen_time: bytes) -> None:
    with pytest.raises(MalformedInputError) as caught:
        make_token(b"it", gen_time=gen_time)

    assert caught.value.code == "tsp.gen_time"


def test_an_encoded_default_and_a_nonce_are_read() -> None:
    ordering_false_and_nonce = b"\x01\x01\x00\x02\x01\x2a"
    token = make_token(b"it", extra=ordering_false_and_nonce)

    assert tsp.parse_token(token).nonce == 42
    assert tsp.verify_token(token, b"it", ROOTS, nonce=42) == NOW
    with pytest.raises(VerificationError) as caught:
        tsp.verify_token(token, b"it", ROOTS, nonce=43)
    assert caught.value.code == "tsp.nonce"


def test_certificates_out_of_order_are_no_obstacle() -> None:
    signed_data = cms.parse_signed_data(make_token(b"it"))
    certificates = sorted((tsa().leaf.der, tsa().root.der), reverse=True)

    token = cms.encode_signed_data(replace(signed_data, certificates=tuple(certificates)))

    assert tsp.verify_token(token, b"it", ROOTS) == NOW


def test_certificates_may_come_from_the_caller() -> None:
    signed_data = cms.parse_signed_data(make_token(b"it"))
    token = cms.encode_signed_data(replace(signed_data, certificates=()))

    assert tsp.verify_token(token, b"it", ROOTS, intermediates=(tsa().leaf.der,)) == NOW
    with pytest.raises(VerificationError) as caught:
        tsp.verify_token(token, b"it", ROOTS)
    assert caught.value.code == "cms.signer_certificate"


def test_what_does_not_hold_has_its_own_code() -> None:
    token = make_token(b"it")
    twice = cms.parse_signed_data(token)
    second = replace(twice.signer_infos[0], version=3)
    cases = [
        (token, b"something else", ROOTS, "tsp.imprint"),
        (token, b"it", (signer().root.der,), "chain.untrusted"),
        (token, b"it", (), "chain.untrusted"),
        (make_token(b"it", name_certificate=False), b"it", ROOTS, "tsp.signing_certificate"),
        (make_token(b"it", by=signer("ec")), b"it", (signer().root.der,), "chain.eku"),
        (make_token(b"it", gen_time=b"20000101000000Z"), b"it", ROOTS, "chain.not_yet_valid"),
        (token.replace(b"\x02\x01\x07\x18", b"\x02\x01\x08\x18"), b"it", ROOTS, "cms.message_digest"),
        (
            cms.encode_signed_data(replace(twice, signer_infos=(*twice.signer_infos, second))),
            b"it",
            ROOTS,
            "tsp.signers",
        ),
    ]
    for candidate, data, anchors, code in cases:
        with pytest.raises(VerificationError) as caught:
            tsp.verify_token(candidate, data, anchors)
        assert caught.value.code == code


def test_another_signers_certificate_of_the_same_name_is_noticed() -> None:
    """The attribute binds the certificate, not the name (RFC 2634 §5)."""
    by = tsa()
    token = make_token(b"it")
    twin = issue("Test TSA", by.root, key=by.leaf.key, not_after=datetime(2040, 1, 1, tzinfo=UTC))
    signed_data = cms.parse_signed_data(token)
    changed = replace(signed_data.signer_infos[0], serial_number=twin.certificate.serial_number)
    forged = cms.encode_signed_data(replace(signed_data, certificates=(twin.der,), signer_infos=(changed,)))

    with pytest.raises(VerificationError) as caught:
        tsp.verify_token(forged, b"it", ROOTS)

    assert caught.value.code == "tsp.signing_certificate"


def test_a_request_reads_back_and_the_peer_agrees() -> None:
    request = tsp.TimeStampReq(digest_algorithm="sha256", imprint=b"x" * 32, nonce=1 << 60)

    encoded = tsp.encode_request(request)

    assert tsp.parse_request(encoded) == request
    read = peer.TimeStampReq.load(encoded, strict=True)
    assert read["message_imprint"]["hash_algorithm"]["algorithm"].native == "sha256"
    assert read["message_imprint"]["hashed_message"].native == b"x" * 32
    assert read["nonce"].native == 1 << 60
    assert read["cert_req"].native is True


@pytest.mark.parametrize("algorithm", ["sha1", "md5", ""])
def test_weak_imprints_are_not_asked_for(algorithm: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        tsp.encode_request(tsp.TimeStampReq(digest_algorithm=algorithm, imprint=b""))

    assert caught.value.code == "tsp.digest_algorithm"


def test_the_token_of_a_granted_response_is_given() -> None:
    token = make_token(b"it")

    assert tsp.parse_response(der.encode_tlv(0x30, GRANTED + token)) == token


def refusal(*, said: str = "", failure: bytes = b"") -> bytes:
    text = der.encode_tlv(0x30, der.encode_tlv(0x0C, said.encode())) if said else b""
    return der.encode_tlv(0x30, der.encode_tlv(0x30, b"\x02\x01\x02" + text + failure))


@pytest.mark.parametrize(
    ("failure", "name", "code", "later"),
    [
        (b"", "no ☂ today", "tsp.rejected", True),
        (b"\x03\x02\x07\x80", "badAlg; no ☂ today", "tsp.refused", False),
        (b"\x03\x02\x05\x20", "badRequest; no ☂ today", "tsp.refused", False),
        (b"\x03\x03\x01\x00\x02", "timeNotAvailable; no ☂ today", "tsp.rejected", True),
        (b"\x03\x05\x06\x00\x00\x00\x40", "systemFailure; no ☂ today", "tsp.rejected", True),
        (b"\x03\x01\x00", "no ☂ today", "tsp.rejected", True),
    ],
)
def test_a_refusal_says_what_the_authority_said(failure: bytes, name: str, code: str, later: bool) -> None:  # noqa: FBT001
    with pytest.raises((UnavailableError, UnsupportedInputError), match=rf"status 2: {name} \[") as caught:
        tsp.parse_response(refusal(said="no ☂ today", failure=failure))

    assert (caught.value.code, caught.value.retryable) == (code, later)


def test_a_refusal_without_words_is_one() -> None:
    with pytest.raises(UnavailableError, match="no reason given"):
        tsp.parse_response(refusal())


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x30\x00", b"\x30\x80\x00"])
def test_what_is_not_a_response_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInputError):
        tsp.parse_response(data)


def test_a_signature_is_not_a_timestamp() -> None:
    signed_data = cms.parse_signed_data(make_token(b"it"))
    other = cms.encode_signed_data(replace(signed_data, content_type=oids.SPC_INDIRECT_DATA))

    with pytest.raises(MalformedInputError) as caught:
        tsp.parse_token(other)

    assert caught.value.code == "tsp.not_tst_info"
