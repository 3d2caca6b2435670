# SPDX-License-Identifier: Apache-2.0
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku

from pki_samples import NOW, Issued, authority, issue, signer
from privyseal.errors import MalformedInputError, VerificationError
from privyseal.pki import oids
from privyseal.pki.x509 import MAX_CERTIFICATES, build_path, parse_certificate

DAY = timedelta(days=1)
CODE = (Eku.CODE_SIGNING,)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
NO_SIGNING = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def path(leaf: Issued, *between: Issued, anchor: Issued | None = None, eku: str = oids.EKU_CODE_SIGNING) -> int:
    anchors = ((anchor or authority()).der,)
    return len(build_path(leaf.der, tuple(one.der for one in between), anchors, NOW, eku))


def refusal(leaf: Issued, *between: Issued, anchor: Issued | None = None) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        path(leaf, *between, anchor=anchor)
    return caught.value


def test_a_path_goes_from_leaf_to_anchor() -> None:
    by = signer()

    found = build_path(by.leaf.der, (by.intermediate.der,), (by.root.der,), NOW, oids.EKU_CODE_SIGNING)

    assert found == (by.leaf.der, by.intermediate.der, by.root.der)


def test_a_certificate_says_what_is_asked_of_it() -> None:
    issued = issue("Somebody", authority(), eku=CODE)

    facts = parse_certificate(issued.der)

    assert facts.subject == "CN=Somebody"
    assert facts.serial_number == issued.certificate.serial_number
    assert facts.issuer_name == authority().certificate.subject.public_bytes()
    assert facts.extended_key_usage == (oids.EKU_CODE_SIGNING,)


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_both_dates_belong_to_the_validity(shift: int) -> None:
    leaf = issue("Leaf", authority(), eku=CODE, not_before=NOW - DAY, not_after=NOW + DAY)
    second = timedelta(seconds=shift)

    for moment, within in ((NOW - DAY + second, shift >= 0), (NOW + DAY + second, shift <= 0)):
        try:
            build_path(leaf.der, (), (authority().der,), moment, oids.EKU_CODE_SIGNING)
        except VerificationError as error:
            assert not within
            assert error.code in {"chain.expired", "chain.not_yet_valid"}  # noqa: PT017
            assert "CN=Leaf" in error.message  # noqa: PT017
        else:
            assert within


def test_an_expired_intermediate_is_named() -> None:
    old = issue("Old Intermediate", authority(), ca=True, not_after=NOW - DAY)

    error = refusal(issue("Leaf", old, eku=CODE), old)

    assert error.code == "chain.expired"
    assert "CN=Old Intermediate" in error.message


@pytest.mark.parametrize("eku", [(), (Eku.SERVER_AUTH,), (Eku.TIME_STAMPING,)])
def test_a_leaf_for_another_purpose_is_refused(eku: tuple[x509.ObjectIdentifier, ...]) -> None:
    assert refusal(issue("Leaf", authority(), eku=eku)).code == "chain.eku"


def test_purposes_of_an_authority_narrow_what_it_issues() -> None:
    narrow = issue("Server CA", authority(), ca=True, eku=(Eku.SERVER_AUTH,))
    any_purpose = issue("Any CA", authority(), ca=True, eku=(Eku.ANY_EXTENDED_KEY_USAGE,))

    error = refusal(issue("Leaf", narrow, eku=CODE), narrow)

    assert error.code == "chain.eku"
    assert "CN=Server CA" in error.message
    assert path(issue("Leaf", any_purpose, eku=CODE), any_purpose) == 3


def test_time_stamping_is_a_purpose_of_its_own() -> None:
    leaf = issue("TSA", authority(), eku=(Eku.TIME_STAMPING,), eku_critical=True)

    assert path(leaf, eku=oids.EKU_TIME_STAMPING) == 2
    with pytest.raises(VerificationError) as caught:
        path(issue("Leaf", authority(), eku=CODE), eku=oids.EKU_TIME_STAMPING)
    assert caught.value.code == "chain.eku"


def untrusted_cases() -> list[tuple[str, Issued, tuple[Issued, ...]]]:
    no_ca = issue("No CA", authority())
    says_no_ca = issue(
        "Says no CA",
        authority(),
        extensions=((x509.BasicConstraints(ca=False, path_length=None), True),),
    )
    shallow = issue("Shallow", authority(), ca=True, path_length=0)
    below = issue("Below", shallow, ca=True)
    stranger = issue("Stranger", ca=True)
    namesake = issue("Test Root", ca=True)
    encrypting = issue("Encrypting", authority(), ca=True, extensions=((NO_SIGNING, True),))
    return [
        ("another root", issue("Leaf", stranger, eku=CODE), ()),
        ("a root of the same name", issue("Leaf", namesake, eku=CODE), (namesake,)),
        ("issuer without basicConstraints", issue("Leaf", no_ca, eku=CODE), (no_ca,)),
        ("issuer that is no authority", issue("Leaf", says_no_ca, eku=CODE), (says_no_ca,)),
        ("path length", issue("Leaf", below, eku=CODE), (below, shallow)),
        ("issuer without keyCertSign", issue("Leaf", encrypting, eku=CODE), (encrypting,)),
        ("leaf without digitalSignature", issue("Leaf", authority(), eku=CODE, extensions=((NO_SIGNING, True),)), ()),
        ("unknown critical extension", issue("Leaf", authority(), eku=CODE, extensions=((UNKNOWN, True),)), ()),
        ("missing intermediate", signer().leaf, ()),
    ]


@pytest.mark.parametrize(
    ("leaf", "between"), [pytest.param(leaf, between, id=name) for name, leaf, between in untrusted_cases()]
)
def test_broken_paths_are_refused(leaf: Issued, between: tuple[Issued, ...]) -> None:
    error = refusal(leaf, *between)

    assert error.code == "chain.untrusted"
    assert leaf.certificate.subject.rfc4514_string() in error.message
    assert error.hint


def test_details_that_windows_does_not_mind_are_no_obstacle() -> None:
    leaf = issue("Leaf", authority(), eku=CODE, extensions=((UNKNOWN, False),))
    own = issue("Self-signed", eku=CODE)

    assert path(leaf) == 2
    assert path(own, anchor=own) == 1


def test_no_anchor_is_a_reason() -> None:
    with pytest.raises(VerificationError, match="no trusted root") as caught:
        build_path(signer().leaf.der, (), (), NOW, oids.EKU_CODE_SIGNING)

    assert caught.value.code == "chain.untrusted"


def test_weak_keys_are_refused() -> None:
    weak = issue("Weak", authority(), eku=CODE, key=rsa.generate_private_key(65537, 1024))

    assert refusal(weak).code == "chain.weak_key"


@pytest.mark.parametrize("junk", [b"", b"\x30\x00", b"junk" * 100])
def test_junk_is_refused_as_leaf_and_ignored_between(junk: bytes) -> None:
    by = signer()

    with pytest.raises(MalformedInputError) as caught:
        parse_certificate(junk)
    found = build_path(by.leaf.der, (junk, by.intermediate.der), (by.root.der,), NOW, oids.EKU_CODE_SIGNING)

    assert caught.value.code == "certificate.malformed"
    assert len(found) == 3


def test_a_bundle_of_roots_counts_whole_even_with_one_that_cannot_be_read() -> None:
    by = signer()
    others = tuple(issue(f"Root {number}", ca=True).der for number in range(MAX_CERTIFICATES + 5))

    found = build_path(by.leaf.der, (by.intermediate.der,), (b"junk", *others, by.root.der), NOW, oids.EKU_CODE_SIGNING)

    assert found[-1] == by.root.der


def test_names_are_given_as_they_stand_in_the_certificate() -> None:
    """A SignerInfo repeats the issuer's bytes, and a library may write the same name in another form."""
    facts = parse_certificate(signer().leaf.der)

    assert facts.issuer_name in signer().leaf.der
    assert facts.subject_name in signer().leaf.der
    assert facts.issuer_name == parse_certificate(signer().intermediate.der).subject_name


@pytest.mark.parametrize(
    ("part", "change"),
    [
        pytest.param(b"\x06\x03\x55\x04\x03", b"\x06\x03\x55\x04\x06", id="a country of many letters"),
        pytest.param(b"\x06\x03\x55\x04\x03\x0c", b"\x06\x03\x55\x04\x03\x03", id="a name in bits"),
        pytest.param(b"\xa0\x03\x02\x01\x02\x02\x14", b"\xa0\x03\x02\x01\x02\x02\x14\x80", id="a negative number"),
    ],
)
def test_odd_certificates_are_read_or_refused_without_a_warning(part: bytes, change: bytes) -> None:
    """Pytest makes an error of a warning. The issuer stands before the subject, and each is read at another time."""
    by = signer()
    for start in (by.leaf.der.index(part), by.leaf.der.rindex(part)):
        odd = by.leaf.der[:start] + change + by.leaf.der[start + len(change) :]
        with pytest.raises((MalformedInputError, VerificationError)) as caught:
            build_path(odd, (by.intermediate.der,), (by.root.der,), NOW, oids.EKU_CODE_SIGNING)
        assert caught.value.code in {"certificate.malformed", "chain.untrusted"}


def test_a_serial_number_that_is_not_positive_is_refused() -> None:
    encoded = signer().leaf.der
    number = b"\x02\x14" + signer().leaf.certificate.serial_number.to_bytes(20, "big")
    negative = encoded.replace(number, number[:2] + b"\x80" + number[3:])

    with pytest.raises(MalformedInputError, match="not positive"):
        parse_certificate(negative)


def test_many_certificates_of_one_name_end_in_time() -> None:
    copies = tuple(issue("Twin", authority(), ca=True).der for _ in range(MAX_CERTIFICATES + 5))
    twin = issue("Twin", authority("Elsewhere"), ca=True)

    with pytest.raises(VerificationError) as caught:
        build_path(issue("Leaf", twin, eku=CODE).der, copies, (authority().der,), NOW, oids.EKU_CODE_SIGNING)

    assert caught.value.code == "chain.untrusted"
