# SPDX-License-Identifier: Apache-2.0
"""Frames between supervisor and worker: what goes in comes out, and anything else is one clear error."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.ports.token import KeyKind, PinState, TokenInfo, TokenKey
from privyseal.tokens import frames
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.contents import ModuleContents, PublicCertificate, SeenToken

texts = st.text(max_size=20)
CONFIG = TokenConfig(
    name="lab", kind="pkcs11", module="/m.so", journal="/j", slot=3, hardware=True, environment={"A": "b"}
)
calls = st.one_of(
    st.builds(frames.Open, config=st.just(CONFIG), pin_bytes=st.integers(0, 255)),
    st.just(frames.InfoCall()),
    st.just(frames.KeysCall()),
    st.just(frames.CloseCall()),
    st.builds(
        frames.SignCall,
        key_id=st.binary(max_size=32),
        mechanism=st.sampled_from(Mechanism),
        digest=st.binary(max_size=64),
    ),
    st.builds(
        frames.GenerateCall,
        kind=st.sampled_from(get_args(KeyKind)),
        key_id=st.binary(max_size=32),
        label=texts,
    ),
    st.builds(frames.StoreCall, key_id=st.binary(max_size=32), chain=st.lists(st.binary(max_size=50)).map(tuple)),
    st.builds(frames.ScanCall, module=texts),
)
infos = st.builds(
    TokenInfo,
    label=texts,
    serial=texts,
    manufacturer=texts,
    model=texts,
    hardware=st.booleans(),
    pin_state=st.sampled_from(PinState),
)
keys = st.builds(
    TokenKey,
    key_id=st.binary(max_size=8),
    label=texts,
    spki=st.binary(max_size=50),
    certificates=st.lists(st.binary(max_size=50), max_size=3).map(tuple),
)
seen_tokens = st.builds(
    SeenToken,
    slot=st.integers(0, 2**64 - 1),
    label=texts,
    serial=texts,
    manufacturer=texts,
    model=texts,
    hardware=st.booleans(),
    initialized=st.booleans(),
    login_required=st.booleans(),
    pin_state=st.sampled_from(PinState),
    certificates=st.lists(
        st.builds(PublicCertificate, key_id=st.binary(max_size=8), der=st.binary(max_size=50)), max_size=3
    ).map(tuple),
    problem=texts,
)
contents = st.builds(
    ModuleContents,
    library=texts,
    slots=st.integers(0, 2**64 - 1),
    tokens=st.lists(seen_tokens, max_size=3).map(tuple),
)
answers = st.one_of(
    st.builds(frames.GenerateAnswer, key=keys),
    st.builds(frames.ScanAnswer, contents=contents),
    st.just(frames.Done()),
    st.builds(frames.Progress, function=texts),
    st.builds(frames.InfoAnswer, info=infos),
    st.builds(frames.KeysAnswer, keys=st.lists(keys, max_size=3).map(tuple)),
    st.builds(frames.SignAnswer, signature=st.binary(max_size=600)),
    st.builds(
        frames.Failure,
        code=texts,
        message=texts,
        hint=texts,
        ckr=st.none() | st.integers(0, 2**32 - 1),
        function=texts,
        begun=st.booleans(),
    ),
)


def body(frame: bytes) -> bytes:
    assert frames.frame_length(frame[: frames.HEADER_BYTES]) == len(frame) - frames.HEADER_BYTES
    return frame[frames.HEADER_BYTES :]


@given(calls)
def test_calls_come_back_as_they_were(call: frames.Call) -> None:
    assert frames.decode_call(body(frames.encode(call))) == call


@given(answers)
def test_answers_come_back_as_they_were(answer: frames.Answer) -> None:
    assert frames.decode_answer(body(frames.encode(answer))) == answer


@given(st.one_of(st.binary(max_size=100), answers.map(frames.encode)), st.data())
def test_anything_else_is_a_protocol_error(frame: bytes, data: st.DataObject) -> None:
    mangled = bytearray(frame)
    if mangled:
        mangled[data.draw(st.integers(0, len(mangled) - 1))] ^= data.draw(st.integers(1, 255))
    cut = bytes(mangled[: data.draw(st.integers(0, len(mangled)))])
    for decode in (frames.decode_answer, frames.decode_call):
        try:
            message = decode(cut)
        except TokenError as error:
            assert error.code == "token.protocol"  # noqa: PT017 - some mutations are messages, too
        else:
            assert frames.encode(message)


def test_nesting_and_size_are_bounded() -> None:
    with pytest.raises(TokenError) as caught:
        frames.decode_answer(b"\x91" * 1_000_000)
    assert caught.value.code == "token.protocol"
    with pytest.raises(TokenError, match="announces 4294967295 bytes"):
        frames.frame_length(b"\xff\xff\xff\xff")
    with pytest.raises(TokenError, match="longer than 4194304"):
        frames.encode(frames.SignAnswer(signature=bytes(frames.MAX_FRAME_BYTES)))


def test_an_error_crosses_the_pipe_whole() -> None:
    error = TokenError("token.failed", "C_Sign returned CKR_X", hint="h", ckr=5, function="C_Sign", begun=True)

    again = frames.Failure.of(error).error("lab")

    assert (again.code, again.hint, again.ckr, again.function, again.begun) == (
        "token.failed", "h", 5, "C_Sign", True,
    )  # fmt: skip
    assert again.message == "token 'lab': C_Sign returned CKR_X"
