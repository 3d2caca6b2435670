# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for what travels and what is logged, and spoilers for its bytes."""

from collections.abc import Callable
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st

from privyseal.tlog.entry import (
    Admin,
    Anchor,
    ArtifactDigest,
    Claimed,
    Deny,
    Enrol,
    Entry,
    GrantEntry,
    Intent,
    KeyEntry,
    Result,
    TimestampEntry,
    Unknown,
)

__all__ = ["JSON_SPOILERS", "digests", "entries", "integers", "key", "mutated", "texts"]

#: Strings as JSON may hold them: anything but lone surrogates.
texts = st.text(st.characters(codec="utf-8"), max_size=20)
integers = st.integers(min_value=-(2**53) + 1, max_value=2**53 - 1)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)

_artifacts = st.builds(ArtifactDigest, alg=texts, digest=digests)
_names = st.lists(texts, max_size=3).map(tuple)

#: Entries of every type.
entries: st.SearchStrategy[Entry] = st.one_of(
    st.builds(
        Intent,
        ts=integers,
        request=digests,
        item=integers,
        profile=texts,
        key=digests,
        format=texts,
        binding=texts,
        mechanism=texts,
        preimage=digests,
        digest=digests,
        artifact=_artifacts,
        claimed=st.builds(Claimed, sha256=digests, size=integers),
        client=digests,
        agent=digests,
        authority=integers,
        fence=integers,
    ),
    st.builds(
        Result,
        ts=integers,
        intent=integers,
        request=digests,
        item=integers,
        profile=texts,
        key=digests,
        format=texts,
        artifact=_artifacts,
        fence=integers,
        outcome=texts,
        signature=st.one_of(st.just(""), digests),
        code=texts,
    ),
    st.builds(
        Unknown,
        ts=integers,
        intent=integers,
        request=digests,
        item=integers,
        profile=texts,
        fence=integers,
        code=texts,
    ),
    st.builds(Deny, ts=integers, client=digests, profile=texts, request=digests, code=texts),
    st.builds(
        Enrol,
        ts=integers,
        action=texts,
        role=texts,
        name=digests,
        key=digests,
        certificate=digests,
        profiles=_names,
        statement=digests,
    ),
    st.builds(GrantEntry, ts=integers, client=digests, profile=texts, statement=digests, authorities=_names),
    st.builds(
        KeyEntry,
        ts=integers,
        profile=texts,
        agent=digests,
        key=digests,
        certificate=digests,
        level=texts,
        opaque=_names,
        token=texts,
        hardware=st.booleans(),
        test=st.booleans(),
    ),
    st.builds(TimestampEntry, ts=integers, client=digests, token=digests, imprint=digests, tsa=digests),
    st.builds(
        Anchor,
        ts=integers,
        size=integers,
        root=digests,
        imprint=digests,
        token=digests,
        der=texts,
        tsa=digests,
        client=digests,
    ),
    st.builds(Admin, ts=integers, action=texts, bundle=digests),
)


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """The bytes with one of them changed, removed, or doubled."""
    place = draw(st.integers(0, len(original) - 1))
    middle = draw(st.sampled_from((b"", original[place : place + 1] * 2, None)))
    if middle is None:
        middle = bytes([original[place] ^ draw(st.integers(1, 255))])
    return original[:place] + middle + original[place + 1 :]


#: What may be wrong with canonical JSON of an object: each makes other bytes, or no JSON at all, of it.
JSON_SPOILERS: dict[str, Callable[[bytes], bytes]] = {
    "leading space": lambda data: b" " + data,
    "trailing newline": lambda data: data + b"\n",
    "space in between": lambda data: data.replace(b":", b": ", 1),
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "unknown field": lambda data: data[:-1] + b',"zz":1}',
    "key not ASCII": lambda data: data[:-1] + ',"ä":1}'.encode(),
    "key twice": lambda data: data[:-1] + b',"v":1}',
    "key escaped": lambda data: data.replace(b'"v"', b'"\\u0076"'),
    "order": lambda data: b'{"v":1,' + data[1:].replace(b',"v":1', b""),
    "two values": lambda data: data * 2,
    "in a list": lambda data: b"[" + data + b"]",
    "float": lambda data: data.replace(b'"v":1', b'"v":1.0'),
    "exponent": lambda data: data.replace(b'"v":1', b'"v":1e0'),
    "minus zero": lambda data: data.replace(b'"v":1', b'"v":-0'),
    "leading zero": lambda data: data.replace(b'"v":1', b'"v":01'),
    "NaN": lambda data: data.replace(b'"v":1', b'"v":NaN'),
    "true": lambda data: data.replace(b'"v":1', b'"v":true'),
    "string": lambda data: data.replace(b'"v":1', b'"v":"1"'),
    "null": lambda data: data.replace(b'"v":1', b'"v":null'),
    "left out": lambda data: data.replace(b',"v":1', b""),
    "2^53": lambda data: data.replace(b'"v":1', b'"v":9007199254740992'),
    "huge integer": lambda data: data.replace(b'"v":1', b'"v":' + b"9" * 6000),
    "empty": lambda _: b"",
    "deep": lambda _: b'{"a":' * 10_000,
    "deep list": lambda _: b"[" * 60_000,
    "not UTF-8": lambda data: data.replace(b'"v"', b'"\xff"'),
    "lone surrogate": lambda data: data[:-1] + b',"zz":"\\ud800"}',
}


@cache
def key(seed: int = 0) -> Ed25519PrivateKey:
    """An Ed25519 key that is the same in every run."""
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
