# SPDX-License-Identifier: Apache-2.0
"""Bodies of the HTTP API: read strictly or `body.malformed`; errors cross it and stay what they are."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal import errors
from privyseal.errors import MalformedInputError, PrivysealError, TokenError
from privyseal.wire.api import (
    Problem,
    RequestView,
    SignatureItem,
    SignatureRequest,
    decode_body,
    error_from_problem,
    problem_from_error,
)
from privyseal.wire.membership import JoinRequest
from wire_samples import mutated, texts

data = st.binary(max_size=60)
requests = st.builds(
    SignatureRequest,
    envelope=data,
    preimages=st.lists(st.builds(SignatureItem, signed=data, detail=data), max_size=3).map(tuple),
)
BODY = msgspec.json.encode(SignatureRequest(envelope=b"{}", preimages=(SignatureItem(signed=b"x", detail=b"y"),)))
BRANCHES = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error") and name != "PrivysealError"]


def malformed(body: bytes, kind: type[Any] = SignatureRequest) -> str:
    with pytest.raises(MalformedInputError) as caught:
        decode_body(body, kind)
    assert caught.value.code == "body.malformed"
    assert kind.__name__ in caught.value.message
    return caught.value.message


@given(requests)
def test_what_was_written_is_read(request: SignatureRequest) -> None:
    assert decode_body(msgspec.json.encode(request), SignatureRequest) == request


@given(st.builds(JoinRequest, secret=data, csr=data, request_key=data, proof=data))
def test_a_join_request_is_read(request: JoinRequest) -> None:
    assert decode_body(msgspec.json.encode(request), JoinRequest) == request


@given(st.data())
def test_changed_bytes_are_a_body_or_malformed(draw: st.DataObject) -> None:
    body = draw.draw(mutated(BODY))
    try:
        read = decode_body(body, SignatureRequest)
    except MalformedInputError:
        return
    assert decode_body(msgspec.json.encode(read), SignatureRequest) == read


@given(st.integers(0, len(BODY) - 1))
def test_a_body_that_ends_early_is_malformed(length: int) -> None:
    malformed(BODY[:length])


@given(st.binary(max_size=200))
def test_noise_is_malformed(noise: bytes) -> None:
    malformed(noise)


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(BODY), **changes}).encode()


BOMBS = {
    "empty": b"",
    "null": b"null",
    "number": b"1e999",
    "NaN": b"NaN",
    "list": b"[]",
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "deep in an unknown field": BODY[:-1] + b',"more":' + b"[" * 100_000,
    "huge number in an unknown field": BODY[:-1] + b',"more":' + b"9" * 100_000 + b"}",
    "not UTF-8": b'{"envelope":"\xff"}',
    "lone surrogate": b'{"envelope":"\\ud800"}',
    "trailing": BODY + b"x",
    "two": BODY * 2,
    "no preimages": b'{"envelope":""}',
    "not base64": changed(envelope="not base64!"),
    "base64 cut": changed(envelope="YQ="),
    "base64 for URLs": changed(envelope="__--"),
    "number for bytes": changed(envelope=1),
    "object for a list": changed(preimages={}),
    "items without signed": changed(preimages=[{"detail": ""}]),
    "items of null": changed(preimages=[None]),
}


@pytest.mark.parametrize("kind", [name for name in BOMBS if "unknown field" not in name])
def test_what_is_no_body_is_malformed(kind: str) -> None:
    malformed(BOMBS[kind])


@pytest.mark.parametrize("kind", [name for name in BOMBS if "unknown field" in name])
def test_an_unknown_field_is_bounded_too(kind: str) -> None:
    try:
        read = decode_body(BOMBS[kind], SignatureRequest)
    except MalformedInputError as error:
        code = error.code
    else:
        code = "body.malformed"
        assert read == decode_body(BODY, SignatureRequest)
    assert code == "body.malformed"


def test_a_field_of_a_newer_peer_is_passed_over() -> None:
    assert decode_body(changed(newer=1), SignatureRequest) == decode_body(BODY, SignatureRequest)


def test_the_field_that_is_wrong_is_named() -> None:
    assert "$.preimages[0].signed" in malformed(changed(preimages=[{"signed": 1}]))


@given(st.sampled_from(BRANCHES), texts, texts, texts)
def test_an_error_comes_out_as_it_went_in(branch: type[PrivysealError], code: str, message: str, hint: str) -> None:
    error = branch(code, message, hint=hint)

    problem = decode_body(msgspec.json.encode(problem_from_error(error)), Problem)
    back = error_from_problem(problem)

    assert type(back) is branch
    assert (back.code, back.message, back.hint) == (code, message, hint)
    assert (back.exit_status, back.http_status) == (branch.exit_status, problem.status)


def test_an_error_of_a_newer_hub_is_an_error_still() -> None:
    problem = Problem(title="New", status=418, code="new.kind", branch="new", detail="something new")

    error = error_from_problem(problem)

    assert type(error) is PrivysealError
    assert (error.code, error.exit_status) == ("new.kind", 1)


def test_a_problem_does_not_say_what_stays_inside() -> None:
    error = TokenError("token.failed", "CKR_DEVICE_ERROR", ckr=0x30, function="C_Sign", begun=True)

    assert json.loads(msgspec.json.encode(problem_from_error(error))) == {
        "title": "Token",
        "status": 502,
        "code": "token.failed",
        "branch": "token",
        "detail": "CKR_DEVICE_ERROR",
    }


@pytest.mark.parametrize("branch", BRANCHES, ids=lambda branch: branch.__name__)
def test_every_branch_has_a_name_and_a_status(branch: type[PrivysealError]) -> None:
    assert errors.branch_named(branch.branch) is branch
    assert 200 <= branch.http_status < 600
    assert 1 <= branch.exit_status <= 10


def test_a_view_without_its_items_is_malformed() -> None:
    malformed(b'{"id":"","state":"done","position":0,"chain":[]}', RequestView)
