# SPDX-License-Identifier: Apache-2.0
"""Request statements: canonical, signed by the request key, and never more than what an entry can hold."""

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from privyseal.errors import MalformedInputError, PrivysealError
from privyseal.tlog.entry import ArtifactDigest, canonical_json
from privyseal.wire.dsse import seal
from privyseal.wire.statement import (
    MAX_ITEMS,
    REQUEST_TYPE,
    ClaimedFile,
    RequestItem,
    RequestStatement,
    accepted_statement,
    open_request,
    seal_request,
    statement_id,
)
from wire_samples import JSON_SPOILERS, digests, key, mutated, texts

PUBLIC = key().public_key().public_bytes_raw()
ITEM = RequestItem(
    preimage="11" * 32,
    artifact=ArtifactDigest(alg="sha256", digest="22" * 32),
    claimed=ClaimedFile(name="app.exe", sha256="33" * 32, size=1000),
)
STATEMENT = RequestStatement(
    hub="hub.example/log",
    profile="release",
    format="authenticode-pe",
    items=(ITEM,),
    idempotency_key="build 1",
    created=1,
    not_after=2,
)
PAYLOAD = canonical_json(STATEMENT)

sizes = st.integers(0, 2**53 - 1)
statements = st.builds(
    RequestStatement,
    v=st.just(1),
    hub=texts,
    profile=texts,
    format=texts,
    items=st.lists(
        st.builds(
            RequestItem,
            preimage=digests,
            artifact=st.builds(ArtifactDigest, alg=st.just("sha256"), digest=digests),
            claimed=st.builds(ClaimedFile, name=texts, sha256=digests, size=sizes),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
    idempotency_key=texts,
    created=sizes,
    not_after=sizes,
)


def refused(payload: bytes, code: str = "request.malformed") -> None:
    """The payload is refused although the right key signed it."""
    with pytest.raises(PrivysealError) as caught:
        open_request(seal(REQUEST_TYPE, payload, (key(),)), PUBLIC)
    assert caught.value.code == code


def with_claim(**changes: Any) -> RequestStatement:
    return replace(STATEMENT, items=(replace(ITEM, claimed=replace(ITEM.claimed, **changes)),))


@given(statements)
def test_what_was_sealed_is_opened(statement: RequestStatement) -> None:
    envelope = seal_request(statement, key())

    opened, name = open_request(envelope, PUBLIC)

    assert opened == statement == accepted_statement(envelope)
    assert name == statement_id(PUBLIC, canonical_json(statement))


@given(st.data())
def test_changed_bytes_are_refused_or_mean_something_else(data: st.DataObject) -> None:
    payload = data.draw(mutated(PAYLOAD))
    try:
        opened, name = open_request(seal(REQUEST_TYPE, payload, (key(),)), PUBLIC)
    except MalformedInputError:
        return
    assert canonical_json(opened) == payload
    assert (opened == STATEMENT) == (payload == PAYLOAD)
    assert name == statement_id(PUBLIC, payload)


@given(st.integers(0, len(PAYLOAD) - 1))
def test_a_statement_that_ends_early_is_refused(length: int) -> None:
    refused(PAYLOAD[:length])


@pytest.mark.parametrize("spoiler", JSON_SPOILERS)
def test_another_form_is_refused(spoiler: str) -> None:
    refused(JSON_SPOILERS[spoiler](PAYLOAD))


@pytest.mark.parametrize(
    "statement",
    [
        replace(STATEMENT, v=0),
        replace(STATEMENT, v=2),
        replace(STATEMENT, items=()),
        replace(STATEMENT, items=(ITEM,) * (MAX_ITEMS + 1)),
        replace(STATEMENT, hub="h" * 4097),
        replace(STATEMENT, profile="p" * 4097),
        replace(STATEMENT, format="f" * 4097),
        replace(STATEMENT, idempotency_key="i" * 4097),
        with_claim(name="n" * 4097),
    ],
    ids=["v0", "v2", "no-item", "items", "hub", "profile", "format", "key", "name"],
)
def test_a_statement_beyond_its_limits_is_refused(statement: RequestStatement) -> None:
    refused(canonical_json(statement))


def test_the_limits_themselves_are_accepted() -> None:
    statement = replace(with_claim(name="n" * 4096), items=(ITEM,) * MAX_ITEMS)

    assert open_request(seal_request(statement, key()), PUBLIC)[0] == statement


@pytest.mark.parametrize("number", [2**53, 2**63, 2**64, 2**70, -(2**53)])
@pytest.mark.parametrize("field", ["created", "not_after", "size"])
def test_a_number_that_no_entry_or_table_can_hold_is_refused(field: str, number: int) -> None:
    statement = with_claim(size=number) if field == "size" else replace(STATEMENT, **{field: number})

    refused(canonical_json(statement))


def test_a_negative_size_is_refused() -> None:
    refused(canonical_json(with_claim(size=-1)))


@pytest.mark.parametrize(
    "claimed", ["a" * 70_000, "Jane Doe", "33" * 31, "AB" * 32], ids=["huge", "name", "short", "case"]
)
def test_a_claimed_digest_is_a_digest_for_it_will_stand_in_the_log(claimed: str) -> None:
    refused(canonical_json(with_claim(sha256=claimed)))


def test_another_keys_signature_is_refused() -> None:
    with pytest.raises(PrivysealError) as caught:
        open_request(seal_request(STATEMENT, key(1)), PUBLIC)

    assert caught.value.code == "envelope.signature"


def test_clients_whose_statements_are_alike_have_requests_of_their_own() -> None:
    other = key(1).public_key().public_bytes_raw()

    mine, my_name = open_request(seal_request(STATEMENT, key()), PUBLIC)
    yours, your_name = open_request(seal_request(STATEMENT, key(1)), other)

    assert mine == yours
    assert my_name != your_name
    assert my_name == hashlib.sha256(PUBLIC + PAYLOAD).hexdigest()


def test_a_statement_under_another_type_is_refused() -> None:
    with pytest.raises(PrivysealError) as caught:
        open_request(seal("application/vnd.privyseal.authority+json", PAYLOAD, (key(),)), PUBLIC)

    assert caught.value.code == "envelope.malformed"


def test_an_item_has_no_room_for_more() -> None:
    whole = msgspec.json.decode(PAYLOAD)
    for part in (whole["items"][0], whole["items"][0]["claimed"], whole["items"][0]["artifact"]):
        part["zz"] = 1
        refused(canonical_json(whole))
        del part["zz"]
    assert canonical_json(whole) == PAYLOAD
