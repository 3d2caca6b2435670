# SPDX-License-Identifier: Apache-2.0
"""Remembered certificates and paths say nothing else than fresh ones, and what nothing covers is refused."""

import random
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509 as library
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku

from pki_samples import NOW, YEAR, Issued, authority, issue, make_token, signer, tsa
from privyseal.errors import MalformedInputError, VerificationError
from privyseal.pki import cms, der, oids, tsp, x509

CODE = (Eku.CODE_SIGNING,)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def code_of(leaf: Issued, *pool: Issued, at: datetime = NOW, anchors: tuple[bytes, ...] = (authority().der,)) -> str:
    """Empty if a path is found."""
    try:
        x509.build_path(leaf.der, tuple(one.der for one in pool), anchors, at, oids.EKU_CODE_SIGNING)
    except VerificationError as error:
        return error.code
    return ""


def test_a_remembered_path_holds_no_longer_than_its_certificates() -> None:
    between = issue("Between", authority(), ca=True, not_before=NOW - 3 * DAY, not_after=NOW + 2 * DAY)
    leaf = issue("Leaf", between, eku=CODE, not_before=NOW - 2 * DAY, not_after=NOW + 3 * DAY)
    edges = (NOW - 2 * DAY, NOW + 2 * DAY)
    moments = [edge + shift for edge in edges for shift in (-DAY, -SECOND, SECOND * 0, SECOND, DAY)]
    moments += [moment + SECOND / 2 for moment in moments]
    seeded = random.Random(1)

    for _ in range(4):
        seeded.shuffle(moments)
        for at in moments:
            # Half a second behind the last second is still within it, as everywhere in X.509.
            holds = NOW - 2 * DAY <= at < NOW + 2 * DAY + SECOND
            assert (code_of(leaf, between, at=at) == "") == holds, at


def test_a_validity_without_end_is_no_trouble() -> None:
    forever = issue("Forever", authority(), eku=CODE, not_after=datetime(9999, 12, 31, 23, 59, 59, tzinfo=NOW.tzinfo))

    assert code_of(forever) == ""
    assert code_of(forever, at=NOW + 30 * YEAR) == "chain.expired", "the root's"


def test_a_remembered_path_is_one_for_these_anchors_and_this_purpose() -> None:
    both = issue("Both", authority(), eku=(*CODE, Eku.TIME_STAMPING))

    assert code_of(both) == ""
    assert code_of(both, anchors=(authority("Elsewhere").der,)) == "chain.untrusted"
    assert code_of(both, anchors=()) == "chain.untrusted"
    with pytest.raises(VerificationError):
        x509.build_path(issue("Code", authority(), eku=CODE).der, (), (authority().der,), NOW, oids.EKU_TIME_STAMPING)


def test_what_is_large_is_not_remembered() -> None:
    text = library.UnrecognizedExtension(library.ObjectIdentifier("1.2.3.4"), bytes(40_000))
    large = issue("Large", authority(), eku=CODE, extensions=((text, False),))
    x509.parse_certificate(authority().der)
    remembered = x509._read.cache_info().currsize

    assert x509.parse_certificate(large.der).subject == "CN=Large"
    assert code_of(large) == ""

    assert x509._read.cache_info().currsize == remembered


def test_thousands_of_certificates_do_not_fill_the_memory() -> None:
    limit = x509._read.cache_info().maxsize

    assert limit is not None
    assert limit * x509._REMEMBERED_SIZE_BYTES <= 1 << 24


def test_certificates_that_no_name_leads_to_do_not_matter() -> None:
    by = signer()
    crowd = [issue(f"Stranger {number}", ca=True) for number in range(20)]

    assert code_of(by.leaf, *crowd, by.intermediate) == ""


def test_the_chain_is_followed_by_names_as_far_as_it_goes() -> None:
    by = signer()
    ring = issue("Ring", authority("Ring"), ca=True)

    assert x509.chain_by_names(by.leaf.der, (ring.der, b"junk", by.intermediate.der)) == by.chain
    assert x509.chain_by_names(ring.der, (ring.der,)) == (ring.der,)


def weakly_issued(name: str, issuer: Issued, **more: object) -> bytes:
    """Named as signed with SHA-1; the signature itself does not hold, but nobody comes to that."""
    sound = issue(name, issuer, **more).der  # type: ignore[arg-type]
    sha256, sha1 = der.encode_oid(oids.RSA_WITH_SHA2["sha256"]), der.encode_oid("1.2.840.113549.1.1.5")
    assert sound.count(sha256) == 2
    return sound.replace(sha256, sha1)


def test_sha1_in_a_chain_is_named() -> None:
    root = issue("RSA Root", ca=True, key=rsa.generate_private_key(65537, 2048))
    leaf = weakly_issued("Weak Leaf", root, eku=CODE)

    with pytest.raises(VerificationError) as caught:
        x509.build_path(leaf, (), (root.der,), NOW, oids.EKU_CODE_SIGNING)

    assert caught.value.code == "chain.weak_digest"
    assert "CN=Weak Leaf" in caught.value.message
    assert "SHA-1" in caught.value.message


def test_how_an_anchor_signed_itself_does_not_matter() -> None:
    root = issue("Old RSA Root", ca=True, key=rsa.generate_private_key(65537, 2048))
    anchor = weakly_issued("Old RSA Root", root, ca=True, key=root.key)

    found = x509.build_path(issue("Leaf", root, eku=CODE).der, (), (anchor,), NOW, oids.EKU_CODE_SIGNING)

    assert found[-1] == anchor


def test_a_certificates_signature_is_whole_octets() -> None:
    leaf = issue("Leaf", authority(), eku=CODE).der
    _, _, signature = der.children(der.read_single(leaf, "it"), "it")
    offset = len(leaf) - len(signature.content)
    assert leaf[offset] == 0

    with pytest.raises(MalformedInputError) as caught:
        x509.parse_certificate(leaf[:offset] + b"\x01" + leaf[offset + 1 :])

    assert caught.value.code == "certificate.malformed"


@pytest.mark.parametrize("field", ["digest_algorithm", "signature_algorithm"])
def test_parameters_that_an_algorithm_does_not_know_are_refused(field: str) -> None:
    token = make_token(b"data")
    signed_data = cms.parse_signed_data(token)
    (signer_info,) = signed_data.signer_infos
    roots = (tsa().root.der,)

    def with_parameters(parameters: bytes | None) -> bytes:
        algorithm = replace(getattr(signer_info, field), parameters=parameters)
        changes = {field: algorithm}
        return cms.encode_signed_data(replace(signed_data, signer_infos=(replace(signer_info, **changes),)))

    for parameters in (None, cms.NULL_PARAMETERS):
        assert tsp.verify_token(with_parameters(parameters), b"data", roots) == NOW
    with pytest.raises(VerificationError) as caught:
        tsp.verify_token(with_parameters(b"\x04\x00"), b"data", roots)
    assert caught.value.code == f"cms.{field}"


def test_a_tst_info_stands_in_an_octet_string() -> None:
    signed_data = cms.parse_signed_data(make_token(b"data"))
    elsewhere = der.encode_tlv(der.TAG_SEQUENCE, signed_data.content_octets)

    with pytest.raises(MalformedInputError) as caught:
        tsp.parse_token(cms.encode_signed_data(replace(signed_data, content=elsewhere)))

    assert caught.value.code == "tsp.not_tst_info"
