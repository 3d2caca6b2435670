# SPDX-License-Identifier: Apache-2.0
import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from asn1crypto import cms as peer
from hypothesis import given
from hypothesis import strategies as st

from pki_samples import Signer, signer
from privyseal.errors import MalformedInputError, VerificationError
from privyseal.pki import cms, cms_verify, der, oids
from privyseal.pki.x509 import parse_certificate

CONTENT = der.encode_tlv(der.TAG_OCTET_STRING, b"content of some type")
TYPE = "1.2.3.4.5"


def attributes(digest: bytes = hashlib.sha256(b"content of some type").digest()) -> bytes:
    return cms.encode_signed_attributes(
        (
            cms.Attribute(type=oids.ID_CONTENT_TYPE, values=(der.encode_oid(TYPE),)),
            cms.Attribute(type=oids.ID_MESSAGE_DIGEST, values=(der.encode_tlv(0x04, digest),)),
        )
    )


def signed(by: Signer, algorithm: str = "sha256", signed_attributes: bytes = b"") -> cms.SignedData:
    covered = signed_attributes or attributes(hashlib.new(algorithm, b"content of some type").digest())
    signer_info = cms_verify.make_signer_info(
        certificate=by.leaf.der,
        digest_algorithm=algorithm,
        signed_attributes=covered,
        signature=by.sign(covered, algorithm),
    )
    return cms.SignedData(
        version=1,
        digest_algorithms=(signer_info.digest_algorithm,),
        content_type=TYPE,
        content=CONTENT,
        certificates=by.chain,
        signer_infos=(signer_info,),
    )


def check(signed_data: cms.SignedData) -> None:
    signer_info = signed_data.signer_infos[0]
    certificate = cms_verify.signer_certificate(signed_data, signer_info)
    cms_verify.verify_signer(signed_data, signer_info, certificate)


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_signature_verifies_and_round_trips(kind: str, algorithm: str) -> None:
    signed_data = signed(signer(kind), algorithm)

    encoded = cms.encode_signed_data(signed_data)

    assert cms.parse_signed_data(encoded) == signed_data
    check(cms.parse_signed_data(encoded))


def test_the_peer_reads_the_same_values() -> None:
    by = signer("rsa")
    signed_data = signed(by)

    content = peer.ContentInfo.load(cms.encode_signed_data(signed_data), strict=True)["content"]

    info = content["signer_infos"][0]
    assert content["version"].native == "v1"
    assert content["encap_content_info"]["content_type"].dotted == TYPE
    assert info["sid"].chosen["serial_number"].native == by.leaf.certificate.serial_number
    assert info["signed_attrs"].untag().dump() == signed_data.signer_infos[0].signed_attributes
    assert info["signature_algorithm"]["algorithm"].native == "rsassa_pkcs1v15"
    assert info["signature"].native == signed_data.signer_infos[0].signature


Change = Callable[[cms.SignedData], cms.SignedData]

BROKEN: dict[str, tuple[Change, str]] = {
    "content": (lambda one: replace(one, content=der.encode_tlv(0x04, b"other")), "cms.message_digest"),
    "content type": (lambda one: replace(one, content_type="1.2.3.4.6"), "cms.content_type"),
    "no certificate": (lambda one: replace(one, certificates=()), "cms.signer_certificate"),
    "no attributes": (lambda one: with_signer(one, signed_attributes=b""), "cms.signed_attributes_missing"),
    "another signature": (lambda one: with_signer(one, signature=signer("ec").sign(b"other")), "signature.invalid"),
    "no signature": (lambda one: with_signer(one, signature=b""), "signature.invalid"),
    "SHA-1": (lambda one: with_signer(one, digest_algorithm=named("1.3.14.3.2.26")), "cms.weak_digest"),
    "unknown digest": (lambda one: with_signer(one, digest_algorithm=named("1.2.3")), "cms.digest_algorithm"),
    "unannounced digest": (lambda one: replace(one, digest_algorithms=()), "cms.digest_algorithm"),
    "digests differ": (
        lambda one: with_signer(one, signature_algorithm=named(oids.ECDSA_WITH_SHA2["sha384"])),
        "cms.signature_algorithm",
    ),
    "RSA for an EC key": (
        lambda one: with_signer(one, signature_algorithm=named(oids.RSA_ENCRYPTION)),
        "cms.signature_algorithm",
    ),
}


@pytest.mark.parametrize(("change", "code"), BROKEN.values(), ids=BROKEN)
def test_what_does_not_hold_has_its_own_code(change: Change, code: str) -> None:
    with pytest.raises(VerificationError) as caught:
        check(change(signed(signer("ec"))))

    assert caught.value.code == code


def with_signer(signed_data: cms.SignedData, **changes: object) -> cms.SignedData:
    changed = replace(signed_data.signer_infos[0], **changes)  # type: ignore[arg-type]
    return replace(signed_data, signer_infos=(changed,))


def named(oid: str) -> cms.AlgorithmIdentifier:
    return cms.AlgorithmIdentifier(algorithm=oid)


def test_a_signer_may_be_named_by_key_identifier() -> None:
    by = signer("ec")
    certificate = replace(parse_certificate(by.leaf.der), subject_key_identifier=b"identifier")
    signed_data = with_signer(signed(by), version=3, issuer=b"", serial_number=0, subject_key_identifier=b"identifier")

    parsed = cms.parse_signed_data(cms.encode_signed_data(signed_data))

    assert parsed.signer_infos[0].subject_key_identifier == b"identifier"
    cms_verify.verify_signer(parsed, parsed.signer_infos[0], certificate)
    with pytest.raises(VerificationError) as caught:
        check(parsed)
    assert caught.value.code == "cms.signer_certificate"


def test_ber_lengths_and_order_do_not_matter_outside_what_is_signed() -> None:
    encoded = cms.encode_signed_data(signed(signer("ec")))
    outer = der.read_single(encoded, "it")

    indefinite = b"\x30\x80" + outer.content + b"\0\0"

    assert cms.parse_signed_data(indefinite) == cms.parse_signed_data(encoded)


def test_certificates_keep_the_order_of_the_file() -> None:
    backwards = replace(signed(signer("ec")), certificates=signer("ec").chain[::-1])
    forwards = replace(backwards, certificates=signer("ec").chain)

    assert cms.parse_signed_data(cms.encode_signed_data(backwards)) == backwards
    assert cms.parse_signed_data(cms.encode_signed_data(forwards)) == forwards


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"\x30\x0b\x06\x09*\x86H\x86\xf7\x0d\x01\x07\x01", b"\x04\x00"])
def test_what_is_not_signed_data_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInputError):
        cms.parse_signed_data(data)


def test_another_content_type_is_named() -> None:
    encoded = cms.encode_signed_data(signed(signer("ec")))
    other = encoded.replace(der.encode_oid(oids.ID_SIGNED_DATA), der.encode_oid("1.2.840.113549.1.7.3"), 1)

    with pytest.raises(MalformedInputError) as caught:
        cms.parse_signed_data(other)

    assert caught.value.code == "cms.not_signed_data"


A = der.encode_tlv(0x30, der.encode_oid("1.2.3") + b"\x31\x03\x02\x01\x05")
B = der.encode_tlv(0x30, der.encode_oid("1.2.4") + b"\x31\x03\x02\x01\x05")
TWO_VALUES = der.encode_tlv(0x30, der.encode_oid("1.2.5") + b"\x31\x06\x02\x01\x06\x02\x01\x05")
EMPTY = der.encode_tlv(0x30, der.encode_oid("1.2.5") + b"\x31\x00")


def test_signed_attributes_in_their_one_form_are_read() -> None:
    read = cms.parse_signed_attributes(der.encode_tlv(der.TAG_SET, A + B))

    assert [one.type for one in read] == ["1.2.3", "1.2.4"]
    assert cms.encode_signed_attributes(read[::-1]) == der.encode_tlv(der.TAG_SET, A + B)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(der.encode_tlv(0x31, B + A), id="unsorted"),
        pytest.param(der.encode_tlv(0x31, A + A), id="twice the same"),
        pytest.param(der.encode_tlv(0x31, TWO_VALUES), id="unsorted values"),
        pytest.param(der.encode_tlv(0x31, EMPTY), id="no value"),
        pytest.param(der.encode_tlv(0x31, b""), id="none"),
        pytest.param(der.encode_tlv(0x30, A + B), id="not a set"),
        pytest.param(der.encode_tlv(0x31, A + B) + b"\0", id="trailing byte"),
        pytest.param(b"\x31\x81" + bytes((len(A),)) + A, id="long length"),
        pytest.param(b"\x31\x80" + A + b"\0\0", id="indefinite length"),
        pytest.param(b"", id="empty"),
    ],
)
def test_signed_attributes_in_any_other_form_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedInputError) as caught:
        cms.parse_signed_attributes(data)

    assert caught.value.code in {"cms.signed_attributes", "der.trailing_bytes", "der.malformed"}


def test_unsorted_attributes_of_others_can_be_read_and_verified() -> None:
    by = signer("ec")
    sorted_attributes = der.read_single(attributes(), "it")
    unsorted = der.encode_tlv(0x31, b"".join(one.der for one in der.children(sorted_attributes, "it")[::-1]))

    check(cms.parse_signed_data(cms.encode_signed_data(signed(by, signed_attributes=unsorted))))


@given(st.data())
def test_a_changed_byte_is_refused_or_is_not_covered(data: st.DataObject) -> None:
    encoded = bytearray(attributes())
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    try:
        read = cms.parse_signed_attributes(bytes(encoded))
    except MalformedInputError:
        return
    assert cms.encode_signed_attributes(read) == bytes(encoded)
