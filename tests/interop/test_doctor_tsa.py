# SPDX-License-Identifier: Apache-2.0
"""`doctor` asks a TSA: OpenSSL's behind HTTP on loopback, and some that are not what they seem."""

from pathlib import Path

import pytest

from diagnoses import fails
from installation import free_port
from privyseal.client.diagnosis_tsa import check_tsa
from privyseal.pki.tsp import TimeStampReq, encode_request
from privyseal.ports.diagnosis import Verdict
from tsa_samples import (
    Behaviour,
    OpensslTsa,
    Reply,
    busy,
    html,
    other_nonce,
    oversize,
    refusing,
    running_tsa,
    truncated,
)

pytestmark = pytest.mark.interop


def test_openssl_as_tsa_is_sound(tmp_path: Path) -> None:
    with running_tsa(OpensslTsa(tmp_path / "tsa", certs=True)) as host:
        found = check_tsa(host.url)

    assert found.verdict is Verdict.PASS, found
    assert "genTime 2" in found.found
    assert len(host.requests) == 1


def test_an_answer_to_another_question_is_noticed(tmp_path: Path) -> None:
    openssl = OpensslTsa(tmp_path / "tsa", certs=False)
    other = encode_request(TimeStampReq(digest_algorithm="sha256", imprint=bytes(32), nonce=7))

    with running_tsa(lambda _: Reply(body=openssl.answer(other))) as host:
        fails(check_tsa(host.url), "tsp.nonce", "verification")


@pytest.mark.parametrize(
    ("behaviour", "code", "branch"),
    [
        (other_nonce, "tsp.nonce", "verification"),
        (refusing, "tsp.rejected", "unavailable"),
        (html, "tsa.not_a_timestamp", "malformed"),
        (truncated, "tsa.truncated", "malformed"),
        (oversize, "tsa.too_large", "malformed"),
        (busy(), "tsa.busy", "unavailable"),
        (lambda _: Reply(status=404), "tsa.http_status", "unsupported"),
    ],
)
def test_what_is_no_sound_tsa(behaviour: Behaviour, code: str, branch: str) -> None:
    with running_tsa(behaviour) as host:
        fails(check_tsa(host.url), code, branch)


def test_a_tsa_that_does_not_answer() -> None:
    fails(check_tsa(f"http://127.0.0.1:{free_port()}/tsr"), "tsa.unreachable", "unavailable")


def test_an_address_that_is_none() -> None:
    fails(check_tsa("tsa.example"), "timestamp.url", "config")
