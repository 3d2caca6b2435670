# SPDX-License-Identifier: Apache-2.0
"""Messages of the agent link: what one side says the other reads, and everything else is `link.malformed`."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError
from privyseal.wire.jobs import (
    Answers,
    ItemDone,
    ItemRefused,
    Job,
    JobItem,
    JobPart,
    LeaseRenewed,
    Membership,
    OutcomeQuery,
    OutcomeReply,
    Recall,
)
from privyseal.wire.link import (
    AgentMessage,
    Announce,
    Held,
    Hello,
    HubMessage,
    ProfileAnnouncement,
    Refused,
    UnlockAnswer,
    UnlockOrder,
    UnlockQuery,
    Welcome,
    decode_agent,
    decode_hub,
    encode,
)
from wire_samples import mutated, texts

data = st.binary(max_size=40)
hashes = st.lists(st.binary(min_size=32, max_size=32), max_size=3).map(tuple)
numbers = st.integers(-(2**63), 2**64 - 1)

_profiles = st.builds(
    ProfileAnnouncement,
    name=texts,
    token=texts,
    chain=st.lists(data, max_size=2).map(tuple),
    level=texts,
    opaque=st.lists(texts, max_size=2).map(tuple),
    token_label=texts,
    token_serial=texts,
    hardware=st.booleans(),
    test=st.booleans(),
    problem_code=texts,
    problem=texts,
    problem_hint=texts,
)
_answers: st.SearchStrategy[ItemDone | ItemRefused] = st.one_of(
    st.builds(ItemDone, request=texts, item=numbers, fence=numbers, signature=data),
    st.builds(
        ItemRefused,
        request=texts,
        item=numbers,
        fence=numbers,
        branch=texts,
        code=texts,
        message=texts,
        unknown=st.booleans(),
    ),
)
agent_messages: st.SearchStrategy[AgentMessage] = st.one_of(
    st.builds(Hello, version=numbers, checkpoint_size=numbers, checkpoint_root=data),
    st.builds(Announce, profiles=st.lists(_profiles, max_size=2).map(tuple)),
    st.builds(
        UnlockAnswer,
        ask=numbers,
        serial=texts,
        nonce=texts,
        keys=numbers,
        branch=texts,
        code=texts,
        message=texts,
        hint=texts,
    ),
    st.builds(Held, size=numbers),
    st.builds(Answers, items=st.lists(_answers, max_size=3).map(tuple)),
    st.builds(
        OutcomeReply,
        request=texts,
        item=numbers,
        fence=numbers,
        state=texts,
        signature=data,
        branch=texts,
        code=texts,
        message=texts,
    ),
)
_parts = st.builds(
    JobPart,
    envelope=data,
    membership=st.builds(Membership, entry=data, index=numbers, inclusion=hashes, request_key=data, grant=data),
    items=st.lists(
        st.builds(JobItem, item=numbers, signed=data, detail=data, entry=data, index=numbers, inclusion=hashes),
        max_size=2,
    ).map(tuple),
)
hub_messages: st.SearchStrategy[HubMessage] = st.one_of(
    st.builds(UnlockQuery, ask=numbers, token=texts),
    st.builds(UnlockOrder, ask=numbers, envelope=data),
    st.builds(Welcome, name=texts, recorded=numbers),
    st.builds(Refused, code=texts, message=texts),
    st.builds(OutcomeQuery, request=texts, item=numbers, fence=numbers),
    st.builds(
        Job,
        profile=texts,
        token=texts,
        fence=numbers,
        lease_ms=numbers,
        checkpoint=texts,
        old_size=numbers,
        consistency=hashes,
        parts=st.lists(_parts, max_size=2).map(tuple),
    ),
    st.builds(Recall, token=texts, requests=st.lists(texts, max_size=2).map(tuple)),
    st.builds(LeaseRenewed, token=texts, fence=numbers, lease_ms=numbers),
)


def malformed_at_both_ends(frame: bytes) -> None:
    for decode in (decode_agent, decode_hub):
        with pytest.raises(MalformedInputError) as caught:
            decode(frame)
        assert caught.value.code == "link.malformed"


@given(agent_messages)
def test_the_hub_reads_what_an_agent_says_and_the_agent_does_not(message: AgentMessage) -> None:
    frame = encode(message)

    assert decode_agent(frame) == message
    with pytest.raises(MalformedInputError):
        decode_hub(frame)


@given(hub_messages)
def test_an_agent_reads_what_the_hub_says_and_the_hub_does_not(message: HubMessage) -> None:
    frame = encode(message)

    assert decode_hub(frame) == message
    with pytest.raises(MalformedInputError):
        decode_agent(frame)


@given(st.data())
def test_changed_bytes_are_refused_or_are_another_message(draw: st.DataObject) -> None:
    message = draw.draw(hub_messages)
    frame = draw.draw(mutated(encode(message)))
    try:
        read = decode_hub(frame)
    except MalformedInputError as error:
        code = error.code
    else:
        code = "link.malformed"
        assert decode_hub(encode(read)) == read
    assert code == "link.malformed"


@given(st.data())
def test_a_message_that_ends_early_is_malformed(draw: st.DataObject) -> None:
    frame = encode(draw.draw(agent_messages))

    malformed_at_both_ends(frame[: draw.draw(st.integers(0, len(frame) - 1))])


@given(agent_messages, data)
def test_nothing_follows_a_message(message: AgentMessage, tail: bytes) -> None:
    malformed_at_both_ends(encode(message) + (tail or b"\0"))


@given(st.binary(max_size=200))
def test_noise_is_malformed(noise: bytes) -> None:
    malformed_at_both_ends(noise)


BOMBS = {
    "deep arrays": b"\x91" * 100_000,
    "deep maps": b"\x81\xa1t" * 50_000,
    "array of 2^32": b"\xdd\xff\xff\xff\xff",
    "map of 2^32": b"\xdf\xff\xff\xff\xff",
    "string of 2^32": b"\xdb\xff\xff\xff\xff",
    "bytes of 2^32": b"\xc6\xff\xff\xff\xff",
    "extension of 2^32": b"\xc9\xff\xff\xff\xff\x01",
    "never used": b"\xc1",
    "nil": b"\xc0",
    "timestamp": b"\xd6\xff\0\0\0\0",
    "deep in a known field": msgspec.msgpack.encode({"t": "welcome"})[:-1] + b"\x91" * 10_000,
    "tag not a string": msgspec.msgpack.encode({"t": 1}),
    "unknown tag": msgspec.msgpack.encode({"t": "goodbye"}),
    "no tag": msgspec.msgpack.encode({"name": "agent"}),
    "unknown field": msgspec.msgpack.encode({"t": "welcome", "name": "", "more": 1}),
    "missing field": msgspec.msgpack.encode({"t": "welcome"}),
    "number for a name": msgspec.msgpack.encode({"t": "welcome", "name": 1}),
    "name not UTF-8": b"\x82\xa1t\xa7welcome\xa4name\xa1\xff",
    "float for a number": msgspec.msgpack.encode({"t": "outcome?", "request": "", "item": 1.5, "fence": 1}),
    "NaN": msgspec.msgpack.encode({"t": "outcome?", "request": "", "item": float("nan"), "fence": 1}),
    "true for a number": msgspec.msgpack.encode({"t": "outcome?", "request": "", "item": True, "fence": 1}),
    "text for bytes": msgspec.msgpack.encode({"t": "done", "request": "", "item": 1, "fence": 1, "signature": "x"}),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_is_no_message_is_malformed(kind: str) -> None:
    malformed_at_both_ends(BOMBS[kind])
