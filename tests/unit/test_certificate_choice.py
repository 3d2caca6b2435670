# SPDX-License-Identifier: Apache-2.0
"""Choosing a key profile by its certificate, and saying why the others were left out."""

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pki_samples import NOW, authority, issue
from privyseal.client.certificate_choice import (
    Candidate,
    Choice,
    Wish,
    choose,
    common_name,
    name_contains,
    read_certificates,
)
from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.pki.x509 import parse_certificate

CODE = (ExtendedKeyUsageOID.CODE_SIGNING,)
DAY = timedelta(days=1)


def candidate(profile: str, *, days: int = 100, test: bool = False, problem: str = "", name: str = "") -> Candidate:
    leaf = issue(name or profile, authority(), eku=CODE, not_after=NOW + days * DAY)
    return Candidate(profile=profile, chain=(leaf.der, authority().der), problem=problem, test=test)


RELEASE = candidate("release", days=100)
NIGHTLY = candidate("nightly", days=300)
DEMO = candidate("demo", days=400, test=True)
EXPIRED = candidate("expired", days=-1)
OFFLINE = candidate("offline", days=500, problem="its agent is offline")
BARE = Candidate(profile="bare", problem="the token is not there")
ALL = (RELEASE, NIGHTLY, DEMO, EXPIRED, OFFLINE, BARE)


def chosen(choice: Choice) -> str:
    assert choice.error is None
    assert choice.chosen is not None
    return choice.chosen.profile


def test_the_only_one_that_can_be_used_is_taken() -> None:
    choice = choose((EXPIRED, RELEASE, OFFLINE, BARE), Wish(), NOW)

    assert chosen(choice) == "release"
    assert "expired on 2026-05-31" in choice.reason(EXPIRED)
    assert choice.reason(OFFLINE) == "its agent is offline"
    assert choice.reason(BARE) == "the token is not there"
    assert choice.reason(RELEASE) == ""


def test_several_need_a_word_more_and_are_listed() -> None:
    choice = choose(ALL, Wish(), NOW)

    assert choice.chosen is None
    assert choice.error is not None
    assert choice.error.code == "certificate.several"
    for one in (RELEASE, NIGHTLY, DEMO):
        assert hashlib.sha1(one.chain[0]).hexdigest() in choice.error.message


def test_the_best_is_no_test_key_and_valid_for_the_longest() -> None:
    assert chosen(choose(ALL, Wish(automatic=True), NOW)) == "nightly"
    assert chosen(choose((EXPIRED, DEMO), Wish(automatic=True), NOW)) == "demo"
    assert chosen(choose((DEMO, OFFLINE), Wish(automatic=True), NOW)) == "demo"


@pytest.mark.parametrize(
    "wish",
    [
        Wish(subject="LEAS"),
        Wish(thumbprint=hashlib.sha1(RELEASE.chain[0]).hexdigest()),
        Wish(certificates=(NIGHTLY.chain[1], RELEASE.chain[0])),
        Wish(
            signer=(
                parse_certificate(RELEASE.chain[0]).issuer_name,
                parse_certificate(RELEASE.chain[0]).serial_number,
            )
        ),
        Wish(subject="release", issuer="test root", root="Test Root"),
    ],
)
def test_each_condition_chooses(wish: Wish) -> None:
    assert chosen(choose(ALL, wish, NOW)) == "release"


POOL = (candidate("pool", days=100), candidate("pool", days=200))


@pytest.mark.parametrize(
    ("wish", "is_certain"),
    [
        (Wish(), False),
        (Wish(automatic=True), False),
        (Wish(subject="pool"), False),
        (Wish(thumbprint=hashlib.sha1(POOL[1].chain[0]).hexdigest()), True),
        (Wish(certificates=(POOL[1].chain[0],)), True),
        (Wish(issuer="test root"), False),
    ],
)
def test_of_a_pool_any_will_do_unless_one_is_named(wish: Wish, is_certain: bool) -> None:  # noqa: FBT001
    choice = choose(POOL, wish, NOW)

    assert chosen(choice) == "pool"
    assert choice.is_certain is is_certain


def test_a_wish_that_one_of_a_pool_meets_is_for_that_one() -> None:
    other = candidate("pool", name="another subject")

    choice = choose((*POOL, other), Wish(subject="another"), NOW)

    assert (choice.chosen, choice.is_certain) == (other, True)


def test_a_certificate_that_has_expired_does_not_bind_the_rest_of_its_pool() -> None:
    assert not choose((*POOL, candidate("pool", days=-1)), Wish(), NOW).is_certain


def test_two_of_a_pool_that_are_both_in_a_file_are_several() -> None:
    choice = choose(POOL, Wish(certificates=tuple(one.chain[0] for one in POOL)), NOW)

    assert choice.error is not None
    assert choice.error.code == "certificate.several"


@pytest.mark.parametrize(
    ("wish", "step", "why"),
    [
        (Wish(subject="nobody"), "Subject Name", "'nobody' is not in its subject name"),
        (Wish(issuer="nobody"), "Issuer Name", "issuer name"),
        (Wish(root="nobody"), "Root Name", "root"),
        (Wish(thumbprint="00" * 20), "Hash", "SHA1"),
        (Wish(certificates=(b"other",)), "File", "file"),
        (Wish(signer=(b"name", 1)), "Signer", ".p7u"),
        (Wish(usages=("1.2.3",)), "EKU", "1.2.3"),
    ],
)
def test_each_condition_says_why(wish: Wish, step: str, why: str) -> None:
    choice = choose((RELEASE,), wish, NOW)

    assert choice.error is not None
    assert choice.error.code == "certificate.none"
    assert [one.left for one in choice.steps if one.name == step] == [0]
    assert why in choice.reason(RELEASE)


def test_no_key_profile_at_all() -> None:
    assert choose((), Wish(automatic=True), NOW).error is not None


def test_a_certificate_that_begins_tomorrow() -> None:
    choice = choose((RELEASE,), Wish(), NOW - timedelta(days=400))

    assert "it is valid from" in choice.reason(RELEASE)


def test_names_are_found_as_people_write_them() -> None:
    name = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A+B"), x509.NameAttribute(NameOID.COMMON_NAME, "Acme, Inc.")]
    ).rfc4514_string()

    assert common_name(name) == "Acme, Inc."
    assert name_contains(name, "acme, inc")
    assert name_contains(name, "a+b")
    assert not name_contains(name, "acme inc")
    assert common_name("O=Nobody") == "O=Nobody"


def test_certificates_are_read_in_both_forms(tmp_path: Path) -> None:
    (tmp_path / "one.cer").write_bytes(authority().der)
    (tmp_path / "two.pem").write_bytes(
        authority().pem + x509.load_der_x509_certificate(RELEASE.chain[0]).public_bytes(Encoding.PEM)
    )

    assert read_certificates(tmp_path / "one.cer") == (authority().der,)
    assert read_certificates(tmp_path / "two.pem") == (authority().der, RELEASE.chain[0])


def test_files_with_keys_are_refused_whatever_their_name(tmp_path: Path) -> None:
    for name, content in (("key.pfx", b""), ("KEY.P12", b"x"), ("key.pem", authority().key_pem + authority().pem)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnsupportedInputError) as raised:
            read_certificates(tmp_path / name)
        assert raised.value.code == "certificate.with_key"


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "no.cer").write_bytes(content)

    with pytest.raises(MalformedInputError, match=r"no\.cer holds no certificate"):
        read_certificates(tmp_path / "no.cer")
