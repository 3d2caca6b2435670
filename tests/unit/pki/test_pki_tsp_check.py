# SPDX-License-Identifier: Apache-2.0
"""The answer to our own timestamp request: everything that it may get wrong has a code of its own."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki_samples import NOW, Signer, authority, issue, signer, tsa
from privyseal.errors import VerificationError
from privyseal.pki import tsp, tsp_check
from tsa_samples import (
    Reply,
    broken_signature,
    expired,
    honest,
    made_by_hand,
    other_imprint,
    other_nonce,
    usage_not_critical,
    wrong_time,
    wrong_usage,
)

REQUEST = tsp.TimeStampReq(digest_algorithm="sha256", imprint=b"i" * 32, nonce=(1 << 63) + 1)
ENCODED = tsp.encode_request(REQUEST)


def code_of(response: bytes, request: tsp.TimeStampReq = REQUEST, now: datetime | None = None) -> str:
    with pytest.raises(VerificationError) as caught:
        tsp_check.check_response(response, request, now or datetime.now(UTC))
    return caught.value.code


def test_an_honest_answer_is_taken_and_names_its_signer() -> None:
    fresh = tsp_check.check_response(honest(ENCODED).body, REQUEST, datetime.now(UTC))

    assert fresh.signed.certificate.der == tsa().leaf.der
    assert tsp.parse_token(fresh.token).nonce == REQUEST.nonce
    tsp_check.check_trust(fresh, (signer().root.der, tsa().root.der))


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (other_nonce, "tsp.nonce"),
        (other_imprint, "tsp.imprint"),
        (expired, "tsp.certificate_dates"),
        (wrong_usage, "tsp.certificate_purpose"),
        (usage_not_critical, "tsp.certificate_purpose"),
        (broken_signature, "signature.invalid"),
        (wrong_time, "tsp.clock"),
    ],
)
def test_a_lie_has_a_name(behaviour: Callable[[bytes], Reply], code: str) -> None:
    assert code_of(behaviour(ENCODED).body) == code


def test_an_answer_without_nonce_may_be_an_old_one() -> None:
    without = tsp.encode_request(replace(REQUEST, nonce=None))

    assert code_of(made_by_hand(without)) == "tsp.nonce"


def test_the_imprints_algorithm_is_part_of_the_question() -> None:
    assert code_of(honest(ENCODED).body, replace(REQUEST, digest_algorithm="sha512")) == "tsp.imprint"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_little_drift_between_clocks_is_no_lie(sign: int) -> None:
    response = made_by_hand(ENCODED, at=NOW)

    tsp_check.check_response(response, REQUEST, NOW + sign * tsp_check.CLOCK_TOLERANCE)
    assert code_of(response, now=NOW + sign * (tsp_check.CLOCK_TOLERANCE + timedelta(seconds=1))) == "tsp.clock"


def untrusted(by: Signer, anchors: tuple[bytes, ...]) -> VerificationError:
    fresh = tsp_check.check_response(made_by_hand(ENCODED, by=by), REQUEST, datetime.now(UTC))
    with pytest.raises(VerificationError) as caught:
        tsp_check.check_trust(fresh, anchors)
    assert caught.value.code == "chain.untrusted"
    return caught.value


def test_an_unknown_root_is_said_to_be_the_only_trouble() -> None:
    error = untrusted(tsa(), (signer().root.der, b"no certificate"))

    assert "everything about the timestamp holds" in error.message
    assert error.hint.endswith("the known path ends at CN=Test TSA, issued by CN=Test TSA Root")


def test_a_path_that_breaks_below_a_known_root_is_not_blamed_on_the_root() -> None:
    twin = issue("Test TSA Root", ca=True)  # the right name, another key

    assert "everything" not in untrusted(tsa(), (twin.der,)).message


def test_an_authority_may_not_issue_for_what_it_was_not_made() -> None:
    narrow = issue("Narrow", authority(), ca=True, eku=(ExtendedKeyUsageOID.CODE_SIGNING,))
    leaf = issue("TSA", narrow, eku=(ExtendedKeyUsageOID.TIME_STAMPING,), eku_critical=True)
    fresh = tsp_check.check_response(
        made_by_hand(ENCODED, by=Signer(leaf=leaf, intermediate=narrow, root=authority())), REQUEST, datetime.now(UTC)
    )

    with pytest.raises(VerificationError) as caught:
        tsp_check.check_trust(fresh, (narrow.der,))

    assert caught.value.code == "chain.eku"
