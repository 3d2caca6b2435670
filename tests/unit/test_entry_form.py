# SPDX-License-Identifier: Apache-2.0
"""Log entries have one form: what is read is what was written, byte by byte, and nothing else is read."""

import contextlib
import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError
from privyseal.tlog.entry import (
    MAX_ENTRY_BYTES,
    Admin,
    ArtifactDigest,
    Deny,
    Entry,
    Intent,
    Result,
    canonical_json,
    encode_entry,
    parse_entry,
)
from wire_samples import JSON_SPOILERS, entries, mutated

GENESIS = Admin(ts=1, action="genesis", bundle="00" * 32)
DATA = encode_entry(GENESIS)
CODES = {"entry.malformed", "entry.not_canonical", "entry.too_large"}


def refused(data: bytes) -> str:
    """The code with which these bytes are refused."""
    with pytest.raises(MalformedInputError) as caught:
        parse_entry(data)
    assert caught.value.code in CODES
    return caught.value.code


@given(entries)
def test_what_was_written_is_read(entry: Entry) -> None:
    assert parse_entry(encode_entry(entry)) == entry


@given(entries)
def test_the_encoding_is_rfc_8785(entry: Entry) -> None:
    data = encode_entry(entry)

    assert rfc8785.dumps(json.loads(data)) == data


@given(st.data())
def test_other_bytes_are_refused_or_mean_something_else(data: st.DataObject) -> None:
    entry = data.draw(entries)
    original = encode_entry(entry)
    changed = data.draw(mutated(original))
    with contextlib.suppress(MalformedInputError):
        read = parse_entry(changed)
        assert encode_entry(read) == changed
        assert (read == entry) == (changed == original)


@given(st.data())
def test_an_entry_that_ends_early_is_refused(data: st.DataObject) -> None:
    original = encode_entry(data.draw(entries))

    refused(original[: data.draw(st.integers(0, len(original) - 1))])


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    refused(noise)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_other_json_is_refused(value: object) -> None:
    refused(json.dumps(value).encode())


@pytest.mark.parametrize("spoiler", JSON_SPOILERS)
def test_another_form_is_refused(spoiler: str) -> None:
    spoilt = JSON_SPOILERS[spoiler](DATA)

    assert spoilt != DATA
    refused(spoilt)


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        (b"genesis", b"g\\u0065nesis", "entry.not_canonical"),
        (b"genesis", b"\\/", "entry.not_canonical"),
        (b"genesis", b"\\u00e4", "entry.not_canonical"),
        (b"genesis", b"\\u001F", "entry.not_canonical"),
        (b"genesis", b"\x01", "entry.malformed"),
        (b'"admin"', b'"nobody"', "entry.malformed"),
        (b'"t":"admin"', b'"t":1', "entry.malformed"),
        (b'"t":"admin",', b"", "entry.malformed"),
        (b'"ts":1', b'"ts":"1"', "entry.malformed"),
        (b'"ts":1', b'"ts":-9007199254740992', "entry.malformed"),
        (b'"ts":1', b'"ts":' + b"9" * 300, "entry.malformed"),
        (b',"ts":1', b"", "entry.malformed"),
    ],
)
def test_a_value_in_another_form_is_refused(before: bytes, after: bytes, code: str) -> None:
    assert before in DATA
    assert refused(DATA.replace(before, after)) == code


@pytest.mark.parametrize("number", [0, 1, -1, 2**53 - 1, -(2**53) + 1])
def test_the_whole_range_of_integers_is_read(number: int) -> None:
    entry = Admin(ts=number, action="", bundle="")

    assert parse_entry(encode_entry(entry)) == entry


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**63, 2**64, 2**70])
def test_a_number_that_cannot_be_read_is_not_written(number: int) -> None:
    with pytest.raises(MalformedInputError) as caught:
        encode_entry(Admin(ts=number, action="", bundle=""))

    assert caught.value.code in CODES


def test_the_largest_entry_fits_and_the_next_does_not() -> None:
    room = MAX_ENTRY_BYTES - len(encode_entry(Admin(ts=1, action="", bundle="")))
    largest = Admin(ts=1, action="a" * room, bundle="")
    assert len(encode_entry(largest)) == MAX_ENTRY_BYTES
    assert parse_entry(encode_entry(largest)) == largest

    with pytest.raises(MalformedInputError) as caught:
        encode_entry(Admin(ts=1, action="a" * (room + 1), bundle=""))
    assert caught.value.code == "entry.too_large"
    assert refused(b" " * (MAX_ENTRY_BYTES + 1)) == "entry.too_large"


def test_strings_are_counted_in_bytes() -> None:
    with pytest.raises(MalformedInputError) as caught:
        encode_entry(Deny(ts=1, client="", profile="ä" * 40_000, request="", code=""))

    assert caught.value.code == "entry.too_large"


@pytest.mark.parametrize("levels", [8, 9, 500])
def test_nesting_has_an_end(levels: int) -> None:
    nested = b"[" * levels + b"]" * levels
    data = DATA.replace(b'"genesis"', nested)

    assert refused(data) == "entry.malformed"


def test_a_default_is_written_out() -> None:
    assert b'"v":1' in DATA
    result = Result(
        ts=1,
        intent=0,
        request="",
        item=0,
        profile="",
        key="",
        format="",
        artifact=ArtifactDigest(alg="sha256", digest=""),
        fence=0,
        outcome="",
    )
    assert b'"code":""' in encode_entry(result)
    assert refused(encode_entry(result).replace(b'"code":"",', b"")) == "entry.not_canonical"


def test_names_are_sorted_whatever_their_order_in_the_class() -> None:
    names = [one.split(b'"')[0] for one in encode_entry(GENESIS)[2:].split(b',"')]

    assert names == sorted(names)
    assert list(Intent.__struct_fields__) != sorted(Intent.__struct_fields__)
    assert canonical_json({"b": 1, "a": [True, None, "ä/\n"]}) == '{"a":[true,null,"ä/\\n"],"b":1}'.encode()
