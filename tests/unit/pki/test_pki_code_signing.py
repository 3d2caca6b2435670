# SPDX-License-Identifier: Apache-2.0
"""What may stand beside a code-signing key, and how a public CA's certificate is known."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki_samples import NOW, Issued, authority, issue, signer
from privyseal.errors import PrivysealError
from privyseal.pki.code_signing import check_chain, public_ca_sign

CODE_SIGNING = (ExtendedKeyUsageOID.CODE_SIGNING,)
DAY = timedelta(days=1)


def spki(issued: Issued) -> bytes:
    return issued.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def refusal(*given: bytes, key: bytes, roots: tuple[bytes, ...] = ()) -> PrivysealError:
    with pytest.raises(PrivysealError) as caught:
        check_chain(given, spki=key, roots=roots, at=NOW)
    return caught.value


def leaf_under_policy(policy: str) -> Issued:
    policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier(policy), None)])
    return issue("ACME", authority(), eku=CODE_SIGNING, extensions=((policies, False),))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_chain_in_any_order_comes_out_leaf_first(order: tuple[int, int, int]) -> None:
    one = signer()
    given = (one.leaf.der, one.intermediate.der, one.root.der)

    checked = check_chain(tuple(given[place] for place in order), spki=spki(one.leaf), roots=(), at=NOW)

    assert tuple(certificate.der for certificate in checked.certificates) == given


def test_a_root_may_be_known_already() -> None:
    one = signer()

    checked = check_chain(one.chain, spki=spki(one.leaf), roots=(one.root.der, b"no certificate"), at=NOW)

    assert checked.certificates[-1].der == one.root.der


def test_the_missing_issuer_is_named() -> None:
    one = signer()

    without_intermediate = refusal(one.leaf.der, one.root.der, key=spki(one.leaf))
    without_root = refusal(*one.chain, key=spki(one.leaf), roots=(authority("Another").der,))

    assert (without_intermediate.code, without_root.code) == ("chain.incomplete", "chain.incomplete")
    assert "CN=Test Intermediate ec" in without_intermediate.message
    assert "CN=Test Root" in without_root.message


def test_a_certificate_for_another_key_is_refused() -> None:
    one, other = signer(), signer("rsa")

    error = refusal(other.leaf.der, one.intermediate.der, one.root.der, key=spki(one.leaf))

    assert error.code == "certificate.other_key"
    assert "CN=Test Signer rsa" in error.message


def test_an_issuer_of_the_right_name_and_another_key_is_refused() -> None:
    one = signer()
    impostor = issue("Test Intermediate ec", authority(), ca=True)

    assert refusal(one.leaf.der, impostor.der, one.root.der, key=spki(one.leaf)).code == "chain.untrusted"


def test_a_root_that_did_not_sign_itself_is_no_root() -> None:
    root = authority("Forged")
    forged = issue("Forged", issue("Forged", ca=True), ca=True, key=root.key)
    leaf = issue("ACME", root, eku=CODE_SIGNING)

    sound = check_chain((leaf.der, root.der), spki=spki(leaf), roots=(), at=NOW)
    assert sound.certificates[-1].der == root.der
    assert refusal(leaf.der, forged.der, key=spki(leaf)).code == "chain.untrusted"


def test_purpose_dates_and_key_size() -> None:
    tls = issue("TLS", authority(), eku=(ExtendedKeyUsageOID.SERVER_AUTH,))
    old = issue("Old", authority(), eku=CODE_SIGNING, not_after=NOW - DAY)
    early = issue("Early", authority(), eku=CODE_SIGNING, not_before=NOW + DAY)
    weak = issue("Weak", authority(), eku=CODE_SIGNING, key=rsa.generate_private_key(65537, 1024))

    found = [refusal(one.der, authority().der, key=spki(one)).code for one in (tls, old, early, weak)]

    assert found == ["chain.eku", "chain.expired", "chain.not_yet_valid", "chain.weak_key"]
    assert "timestamp" not in refusal(old.der, authority().der, key=spki(old)).hint


def test_what_is_worth_a_remark() -> None:
    small = rsa.generate_private_key(65537, 2048)
    long = issue("Long", authority(), eku=CODE_SIGNING, key=small, not_before=NOW - 440 * DAY, not_after=NOW + 21 * DAY)
    sound = issue("Sound", authority(), eku=CODE_SIGNING, not_before=NOW - DAY, not_after=NOW + 459 * DAY)
    stray = authority("Stray")

    remarks = check_chain((long.der, authority().der, stray.der), spki=spki(long), roots=(), at=NOW).remarks

    assert [words for words in ("461 days", "expires soon", "2048 bits", "CN=Stray") if words in str(remarks)] == [
        "461 days",
        "expires soon",
        "2048 bits",
        "CN=Stray",
    ]
    assert len(remarks) == 4
    assert check_chain((sound.der, authority().der), spki=spki(sound), roots=(), at=NOW).remarks == ()


def test_hostile_input_ends_in_a_code() -> None:
    one = signer()

    assert refusal(one.leaf.der, b"\x30\x03abc", key=spki(one.leaf)).code == "certificate.malformed"
    assert refusal(*[one.leaf.der] * 65, key=spki(one.leaf)).code == "certificate.too_many"
    assert refusal(key=spki(one.leaf)).code == "certificate.other_key"


@pytest.mark.parametrize("policy", ["2.23.140.1.4.1", "2.23.140.1.3"])
def test_a_public_policy_shows_a_public_ca(policy: str) -> None:
    assert policy in public_ca_sign((leaf_under_policy(policy).der,), ())


def test_other_policies_and_roots_show_nothing() -> None:
    own = leaf_under_policy("1.2.3.4")

    assert public_ca_sign((own.der, authority().der), (authority("Public").der,)) == ""
    assert public_ca_sign((), ()) == ""


def test_a_trusted_root_shows_a_public_ca_in_the_chain_or_above_it() -> None:
    one = signer()
    roots = (b"no certificate", one.root.der)

    assert "trusted by this system" in public_ca_sign((*one.chain, one.root.der), roots)
    assert "issued under CN=Test Root" in public_ca_sign(one.chain, roots)


def test_a_policy_that_cannot_be_read_is_no_way_around() -> None:
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.32"), b"\x30\x05abc")
    leaf = issue("ACME", authority(), eku=CODE_SIGNING, extensions=((broken, False),))

    with pytest.raises(PrivysealError) as caught:
        public_ca_sign((leaf.der,), ())

    assert caught.value.code == "certificate.malformed"


def test_a_root_that_only_has_the_name_shows_nothing() -> None:
    assert public_ca_sign(signer().chain, (issue("Test Root", ca=True).der,)) == ""
