# SPDX-License-Identifier: Apache-2.0
"""DSSE envelopes: the payload's bytes and its type are signed together, and only the keys that are asked for count."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError, PrivysealError, VerificationError
from privyseal.wire.dsse import key_id, open_envelope, parse_envelope, seal, signers
from wire_samples import key, mutated

TYPE = "application/vnd.example+json"
PAYLOAD = b'{"a":1}'
PUBLIC = key().public_key().public_bytes_raw()
OTHER = key(1).public_key().public_bytes_raw()
SEALED = seal(TYPE, PAYLOAD, (key(),))


def changed(**changes: Any) -> bytes:
    """The envelope with members replaced."""
    return json.dumps({**json.loads(SEALED), **changes}).encode()


def refused(data: bytes, code: str, public: bytes = PUBLIC, payload_type: str = TYPE) -> None:
    with pytest.raises(PrivysealError) as caught:
        open_envelope(data, payload_type, public)
    assert caught.value.code == code
    assert isinstance(caught.value, MalformedInputError if code == "envelope.malformed" else VerificationError)


@given(st.binary(max_size=300), st.text(st.characters(codec="utf-8"), max_size=40))
def test_what_was_sealed_is_opened(payload: bytes, payload_type: str) -> None:
    assert open_envelope(seal(payload_type, payload, (key(),)), payload_type, PUBLIC) == payload


def test_the_signature_is_over_the_pre_authentication_encoding_of_the_specification() -> None:
    # The example of the DSSE protocol: PAE("http://example.com/HelloWorld", "hello world").
    pae = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    envelope = json.loads(seal("http://example.com/HelloWorld", b"hello world", (key(),)))

    assert base64.b64decode(envelope["payload"]) == b"hello world"
    (signature,) = envelope["signatures"]
    key().public_key().verify(base64.b64decode(signature["sig"]), pae)
    assert signature["keyid"] == key_id(PUBLIC)


@given(st.data())
def test_no_other_payload_comes_out_of_changed_bytes(data: st.DataObject) -> None:
    spoilt = data.draw(mutated(SEALED))
    try:
        opened = open_envelope(spoilt, TYPE, PUBLIC)
    except (MalformedInputError, VerificationError):
        return
    assert opened == PAYLOAD


@given(st.integers(0, len(SEALED) - 1))
def test_an_envelope_that_ends_early_is_malformed(length: int) -> None:
    refused(SEALED[:length], "envelope.malformed")


@given(st.binary(max_size=100))
def test_noise_is_malformed(noise: bytes) -> None:
    refused(noise, "envelope.malformed")


def test_another_type_is_refused_though_the_bytes_are_signed() -> None:
    refused(SEALED, "envelope.malformed", payload_type="application/vnd.other+json")
    refused(changed(payloadType=TYPE + " "), "envelope.malformed")


def test_a_payload_does_not_change_its_type() -> None:
    relabelled = changed(payloadType="application/vnd.other+json")

    refused(relabelled, "envelope.signature", payload_type="application/vnd.other+json")


def test_type_and_payload_cannot_lend_each_other_bytes() -> None:
    whole = json.loads(seal("ab", b"cd", (key(),)))
    shifted = {**whole, "payloadType": "abc", "payload": base64.b64encode(b"d").decode()}

    refused(json.dumps(shifted).encode(), "envelope.signature", payload_type="abc")


def test_another_key_is_refused() -> None:
    refused(SEALED, "envelope.signature", public=OTHER)
    (signature,) = json.loads(SEALED)["signatures"]
    refused(changed(signatures=[{**signature, "keyid": key_id(OTHER)}]), "envelope.signature", public=OTHER)
    refused(changed(signatures=[{**signature, "keyid": ""}]), "envelope.signature")


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_key_of_another_length_signs_nothing(length: int) -> None:
    stump = bytes(length)
    (signature,) = json.loads(SEALED)["signatures"]

    refused(changed(signatures=[{**signature, "keyid": key_id(stump)}]), "envelope.signature", public=stump)


@pytest.mark.parametrize("signature", [b"", b"short", bytes(63), bytes(64), bytes(65)])
def test_a_signature_of_any_length_is_judged(signature: bytes) -> None:
    forged = {"keyid": key_id(PUBLIC), "sig": base64.b64encode(signature).decode()}

    refused(changed(signatures=[forged]), "envelope.signature")


def test_no_signature_at_all() -> None:
    refused(seal(TYPE, PAYLOAD, ()), "envelope.signature")


def test_each_key_counts_once_and_strangers_not_at_all() -> None:
    keys = (PUBLIC, OTHER)
    twice = parse_envelope(seal(TYPE, PAYLOAD, (key(), key(), key(2))), TYPE)
    both = parse_envelope(seal(TYPE, PAYLOAD, (key(1), key(), key(2))), TYPE)

    assert signers(twice, keys) == {PUBLIC}
    assert signers(twice, (PUBLIC, PUBLIC)) == {PUBLIC}
    assert signers(both, keys) == {PUBLIC, OTHER}
    assert signers(both, ()) == frozenset()


def test_a_forged_line_before_the_true_one_does_not_hide_it() -> None:
    (true,) = json.loads(SEALED)["signatures"]
    forged = {**true, "sig": base64.b64encode(bytes(64)).decode()}

    assert open_envelope(changed(signatures=[forged, true]), TYPE, PUBLIC) == PAYLOAD


def test_at_most_sixteen_signatures() -> None:
    (one,) = json.loads(SEALED)["signatures"]

    assert open_envelope(changed(signatures=[one] * 16), TYPE, PUBLIC) == PAYLOAD
    refused(changed(signatures=[one] * 17), "envelope.malformed")


def test_an_envelope_has_a_largest_size() -> None:
    refused(SEALED + b" " * (8 * 1024 * 1024), "envelope.malformed")


NO_ENVELOPES = {
    "deep list": b"[" * 100_000,
    "deep object": b'{"payload":' * 10_000,
    "null": b"null",
    "list": b"[]",
    "empty object": b"{}",
    "not UTF-8": b"\xff",
    "unknown field": changed(extra=1),
    "payload not base64": changed(payload="not base64!"),
    "payload null": changed(payload=None),
    "payload cut": changed(payload="YQ="),
    "type a number": changed(payloadType=1),
    "signatures an object": changed(signatures={}),
    "signature empty": changed(signatures=[{}]),
    "signature with more": changed(signatures=[{"keyid": "", "sig": "", "cert": ""}]),
    "lone surrogate": SEALED[:-1] + b',"payloadType":"\\ud800"}',
}


@pytest.mark.parametrize("kind", NO_ENVELOPES)
def test_what_is_no_envelope_is_malformed(kind: str) -> None:
    refused(NO_ENVELOPES[kind], "envelope.malformed")
