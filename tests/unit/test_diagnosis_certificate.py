# SPDX-License-Identifier: Apache-2.0
"""`doctor` on a key profile's certificates: dates, the 460 days of public CAs, path, purpose, size and key."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from diagnoses import fails, row, verdicts
from pki_samples import NOW, Issued, Key, authority, issue, signer
from privyseal.agent.diagnosis_certificate import certificate_rows
from privyseal.ports.diagnosis import Row, Verdict

DAY = dt.timedelta(days=1)
CODE_SIGNING = (ExtendedKeyUsageOID.CODE_SIGNING,)
EV, COMPANY = "2.23.140.1.3", "1.3.6.1.4.1.55555.1"


def leaf(
    *,
    days: int = 400,
    since: dt.datetime = NOW - 10 * DAY,
    policy: str = EV,
    key: Key | None = None,
    purposes: tuple[x509.ObjectIdentifier, ...] = CODE_SIGNING,
) -> Issued:
    policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier(policy), None)])
    return issue(
        "Acme",
        authority(),
        key=key,
        eku=purposes,
        not_before=since,
        not_after=since + days * DAY,
        extensions=((policies, False),),
    )


def spki(issued: Issued) -> bytes:
    return issued.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def rows(one: Issued, *more: Issued, key: bytes | None = None) -> tuple[Row, ...]:
    chain = (one.der, *(other.der for other in (more or (authority(),))))
    return certificate_rows("acme", chain, NOW, spki=key)


def part(found: tuple[Row, ...], what: str) -> Row:
    return row(found, f"certificate of acme: {what}")


def test_a_certificate_that_is_sound() -> None:
    one = leaf()

    assert verdicts(rows(one, key=spki(one))) == {}


def test_an_expired_certificate() -> None:
    found = rows(leaf(days=5))

    fails(part(found, "dates"), "chain.expired", "verification")
    fails(part(found, "path"), "chain.expired", "verification")


def test_a_certificate_of_tomorrow() -> None:
    fails(part(rows(leaf(since=NOW + DAY)), "dates"), "chain.not_yet_valid", "verification")


def test_few_days_are_left() -> None:
    found = part(rows(leaf(days=30)), "dates")

    assert (found.verdict, "20 days" in found.found) == (Verdict.WARN, True)


@pytest.mark.parametrize(
    ("days", "since", "policy", "verdict"),
    [
        (460, NOW - 10 * DAY, EV, Verdict.PASS),
        (461, NOW - 10 * DAY, EV, Verdict.WARN),
        (461, NOW - 10 * DAY, "2.23.140.1.4.1", Verdict.WARN),
        (1100, dt.datetime(2026, 2, 28, 23, tzinfo=dt.UTC), EV, Verdict.PASS),
        (1100, NOW - 10 * DAY, COMPANY, Verdict.PASS),
    ],
)
def test_public_certificates_last_460_days(days: int, since: dt.datetime, policy: str, verdict: Verdict) -> None:
    assert part(rows(leaf(days=days, since=since, policy=policy)), "dates").verdict is verdict


def test_the_path_is_out_of_order() -> None:
    one = signer("ec")

    found = part(rows(one.leaf, one.root, one.intermediate), "path")

    fails(found, "config.chain", "config")
    assert "certificate 1" in found.found


def test_the_path_has_no_root() -> None:
    one = signer("ec")

    found = part(rows(one.leaf, one.intermediate), "path")

    assert (found.verdict, "Test Root" in found.found) == (Verdict.WARN, True)


def test_a_certificate_for_another_purpose() -> None:
    one = leaf(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,))

    fails(part(rows(one), "path"), "chain.eku", "verification")


@pytest.mark.parametrize(("policy", "verdict"), [(EV, Verdict.WARN), (COMPANY, Verdict.PASS)])
def test_public_trust_asks_for_3072_bits(policy: str, verdict: Verdict) -> None:
    one = leaf(policy=policy, key=rsa.generate_private_key(65537, 2048))

    assert part(rows(one), "size of key").verdict is verdict


def test_the_token_holds_another_key() -> None:
    fails(part(rows(leaf(), key=spki(leaf())), "key on token"), "config.chain", "config")


def test_without_a_login_the_key_is_not_compared() -> None:
    assert part(rows(leaf()), "key on token").verdict is Verdict.SKIP


def test_bytes_that_are_no_certificate() -> None:
    (found,) = certificate_rows("acme", (b"hello",), NOW)

    fails(found, "certificate.malformed", "malformed")
