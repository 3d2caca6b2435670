# SPDX-License-Identifier: Apache-2.0
"""The messages inside the channel of a USB lease."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError
from privyseal.wire.relay import (
    HEAD_BYTES,
    MAX_DATA_BYTES,
    MAX_SUMMARY_BYTES,
    MAX_TEXT_CHARACTERS,
    Ack,
    Data,
    Decoder,
    End,
    Message,
    Notice,
    Ping,
    Pong,
    Progress,
    Resume,
    encode,
)

COUNTS = st.integers(0, 2**64 - 1)
PROGRESS = st.builds(Progress, COUNTS, COUNTS)
CODES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
TEXTS = st.text(max_size=200)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Resume, PROGRESS),
    st.builds(Data, st.binary(min_size=1, max_size=300)),
    st.builds(Ping, COUNTS, PROGRESS),
    st.builds(Pong, COUNTS, PROGRESS),
    st.builds(Ack, PROGRESS),
    st.builds(Notice, CODES, TEXTS),
    st.builds(End, CODES, TEXTS, st.binary(max_size=300)),
)


@given(messages=st.lists(MESSAGES, max_size=8), cuts=st.lists(st.integers(0, 4000), max_size=12))
def test_messages_come_whole_however_they_were_cut(messages: list[Message], cuts: list[int]) -> None:
    encoded = b"".join(encode(message) for message in messages)
    decoder = Decoder()
    places = sorted({0, len(encoded), *(cut for cut in cuts if cut < len(encoded))})

    found = [message for begin, end in itertools.pairwise(places) for message in decoder.feed(encoded[begin:end])]

    assert found == messages


@given(data=st.binary(max_size=400), cut=st.integers(0, 400))
def test_whatever_comes_is_read_or_refused(data: bytes, cut: int) -> None:
    decoder = Decoder()
    try:
        found = decoder.feed(data[:cut]) + decoder.feed(data[cut:])
    except MalformedInputError:
        return
    encoded = b"".join(encode(message) for message in found)
    assert data.startswith(encoded), "each message has one spelling"


@given(message=MESSAGES, place=st.integers(0, 2**16), value=st.integers(1, 255))
def test_a_changed_byte_changes_the_message_or_is_refused(message: Message, place: int, value: int) -> None:
    encoded = bytearray(encode(message))
    encoded[place % len(encoded)] ^= value
    try:
        found = Decoder().feed(bytes(encoded))
    except MalformedInputError:
        return
    assert found != [message]


@pytest.mark.parametrize(
    "message",
    [
        Data(b""),
        Data(bytes(MAX_DATA_BYTES + 1)),
        Notice("", "no code"),
        Notice("No.Code", ""),
        Notice("a.code", "x" * (MAX_TEXT_CHARACTERS + 1)),
        End("a.code", "", bytes(MAX_SUMMARY_BYTES + 1)),
    ],
)
def test_what_is_too_long_or_no_code_is_not_sent(message: Message) -> None:
    with pytest.raises(MalformedInputError, match="what it must not"):
        encode(message)


def test_the_longest_texts_fit() -> None:
    text = "\U0001f511" * MAX_TEXT_CHARACTERS
    messages: list[Message] = [Notice("a.code", text), End("a.code", text, bytes(MAX_SUMMARY_BYTES))]

    assert Decoder().feed(b"".join(map(encode, messages))) == messages


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 5, 6, 7, 8, 255])
def test_a_length_is_refused_before_the_body_comes(kind: int) -> None:
    """Nobody makes the other side hold what it will refuse anyway."""
    with pytest.raises(MalformedInputError):
        Decoder().feed(bytes([kind]) + (MAX_DATA_BYTES + 1).to_bytes(HEAD_BYTES - 1, "big"))
