# SPDX-License-Identifier: Apache-2.0
"""The trust bundle: believed by its hash, and only if a quorum of its own authority keys signed it."""

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from privyseal.errors import ConfigError, MalformedInputError, PrivysealError, VerificationError
from privyseal.identity.bundle import (
    BUNDLE_TYPE,
    AuthorityKey,
    BundleStatement,
    load_bundle,
    open_bundle,
    open_successor,
    seal_bundle,
)
from privyseal.identity.ca import make_ca
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.entry import canonical_json
from privyseal.tlog.note import NoteSigner
from privyseal.wire.dsse import seal
from wire_samples import key, mutated

KEYS = (key(1), key(2), key(3))
LOG_MLDSA_KEY = MLDSA44PrivateKey.from_seed_bytes(bytes([9]) * 32)
CA = make_ca("hub.example", ec.generate_private_key(ec.SECP256R1()), dt.datetime(2026, 6, 1, tzinfo=dt.UTC))
STATEMENT = BundleStatement(
    serial=1,
    hub="hub.example",
    ca=CA.public_bytes(Encoding.PEM).decode(),
    log_key=NoteSigner(name="hub.example", key=key(9)).verifier.vkey,
    log_mldsa_key=Cosigner(name="hub.example", key=LOG_MLDSA_KEY).verifier.vkey,
    authorities=tuple(
        AuthorityKey(name=f"key {place}", key=one.public_key().public_bytes_raw()) for place, one in enumerate(KEYS)
    ),
    quorum=2,
)
BUNDLE = seal_bundle(STATEMENT, KEYS[:2])


def refused(envelope: bytes, code: str, expected: bytes | None = None) -> None:
    with pytest.raises(PrivysealError) as caught:
        open_bundle(envelope, expected)
    assert caught.value.code == code


def sealed(*keys: Ed25519PrivateKey, **changes: Any) -> bytes:
    return seal(BUNDLE_TYPE, canonical_json(replace(STATEMENT, **changes)), keys)


def test_what_was_sealed_is_opened() -> None:
    opened = open_bundle(BUNDLE.envelope, BUNDLE.sha256)

    assert opened == BUNDLE
    assert opened.hub == "hub.example"
    assert opened.authority_keys == tuple(one.public_key().public_bytes_raw() for one in KEYS)
    assert opened.sha256 == hashlib.sha256(canonical_json(STATEMENT)).digest()


@pytest.mark.parametrize("keys", [KEYS[:2], KEYS[1:], KEYS[::2], KEYS], ids=["01", "12", "02", "012"])
def test_any_two_of_three_are_enough(keys: tuple[Ed25519PrivateKey, ...]) -> None:
    assert open_bundle(sealed(*keys)).statement == STATEMENT


@pytest.mark.parametrize(
    "keys",
    [(), KEYS[:1], KEYS[:1] * 3, (KEYS[0], key(7)), (key(7), key(8)), (KEYS[0], key(9))],
    ids=["none", "one", "one-thrice", "stranger", "strangers", "log-key"],
)
def test_fewer_than_the_quorum_are_not(keys: tuple[Ed25519PrivateKey, ...]) -> None:
    refused(sealed(*keys), "bundle.quorum")


def test_an_authority_that_stands_there_twice_counts_once() -> None:
    twice = (STATEMENT.authorities[0], replace(STATEMENT.authorities[0], name="again"))

    refused(sealed(KEYS[0], authorities=twice), "bundle.malformed")
    refused(sealed(KEYS[0], authorities=(*twice, STATEMENT.authorities[1])), "bundle.quorum")


def test_another_bundle_than_the_one_named_is_refused_though_it_is_sound() -> None:
    other = seal_bundle(replace(STATEMENT, serial=2), KEYS)

    refused(other.envelope, "bundle.hash", BUNDLE.sha256)
    refused(BUNDLE.envelope, "bundle.hash", bytes(32))
    refused(BUNDLE.envelope, "bundle.hash", b"")


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"quorum": 0},
        {"quorum": -1},
        {"quorum": 4},
        {"authorities": ()},
        {"authorities": (*STATEMENT.authorities, AuthorityKey(name="short", key=bytes(31)))},
        {"ca": ""},
        {"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
    ],
    ids=["version", "quorum-0", "quorum-minus", "quorum-4", "nobody", "short-key", "no-ca", "bad-ca"],
)
def test_a_bundle_that_makes_no_sense_is_malformed(changes: dict[str, Any]) -> None:
    refused(sealed(*KEYS, **changes), "bundle.malformed")


def test_a_log_key_that_is_none_is_refused_when_the_bundle_is_opened() -> None:
    refused(sealed(*KEYS, log_key="hub.example+00000000+AAAA"), "bundle.malformed")


@pytest.mark.parametrize(
    "changes",
    [
        {"log_mldsa_key": "hub.example+00000000+AAAA"},
        {"log_mldsa_key": Cosigner(name="hub.example", key=key(9)).verifier.vkey},
        {"log_mldsa_key": Cosigner(name="other.example", key=LOG_MLDSA_KEY).verifier.vkey},
        {"log_key": Cosigner(name="hub.example", key=LOG_MLDSA_KEY).verifier.vkey},
        {"log_key": NoteSigner(name="other.example", key=key(9)).verifier.vkey},
    ],
    ids=["none", "Ed25519", "another name", "ML-DSA as the first", "the first of another name"],
)
def test_the_log_has_a_key_of_each_type_under_one_name(changes: dict[str, str]) -> None:
    refused(sealed(*KEYS, **changes), "bundle.malformed")


@pytest.mark.parametrize(
    "ca",
    [
        "",
        "hub.example",
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        STATEMENT.ca * 2,
    ],
    ids=["empty", "words", "nothing", "no base64", "no DER", "two"],
)
def test_a_ca_that_is_none_is_malformed(ca: str) -> None:
    refused(sealed(*KEYS, ca=ca), "bundle.malformed")


def test_a_damaged_ca_is_not_signed() -> None:
    damaged = "-----BEGIN CERTIFICATE-----\nMIIBCg==\n-----END CERTIFICATE-----\n"
    with pytest.raises(MalformedInputError) as caught:
        seal_bundle(msgspec.structs.replace(STATEMENT, ca=damaged), KEYS)
    assert caught.value.code == "bundle.malformed"


def test_the_log_s_ml_dsa_key_is_told() -> None:
    assert BUNDLE.log_mldsa_key.public_key == LOG_MLDSA_KEY.public_key().public_bytes_raw()


@pytest.mark.parametrize("payload", [b"", b"{}", b"[" * 100_000, b"\xff", b"null", b'{"v":NaN}'])
def test_a_payload_that_is_no_bundle_is_malformed(payload: bytes) -> None:
    refused(seal(BUNDLE_TYPE, payload, KEYS), "bundle.malformed")


@pytest.mark.parametrize("field", ["v", "hub", "quorum", "authorities"])
def test_a_field_of_another_kind_is_malformed(field: str) -> None:
    whole = msgspec.json.decode(canonical_json(STATEMENT))

    refused(seal(BUNDLE_TYPE, canonical_json({**whole, field: 1.5}), KEYS), "bundle.malformed")
    refused(seal(BUNDLE_TYPE, canonical_json({**whole, "more": 1}), KEYS), "bundle.malformed")


def test_another_type_of_payload_is_no_bundle() -> None:
    refused(seal("application/vnd.privyseal.authority+json", canonical_json(STATEMENT), KEYS), "envelope.malformed")


@given(st.data())
def test_changed_bytes_never_make_another_bundle(data: st.DataObject) -> None:
    spoilt = data.draw(mutated(BUNDLE.envelope))
    try:
        opened = open_bundle(spoilt)
    except PrivysealError:
        return
    assert opened.statement == STATEMENT


def test_a_bundle_that_was_pinned_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    path.write_bytes(BUNDLE.envelope)

    assert load_bundle(path) == BUNDLE


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bundle(tmp_path / "bundle.json")

    assert caught.value.code == "file.missing"
    assert "bundle.json" in caught.value.message


NEW_KEYS = (key(4), key(5), key(6))
NEW_AUTHORITIES = tuple(
    AuthorityKey(name=f"new key {place}", key=one.public_key().public_bytes_raw()) for place, one in enumerate(NEW_KEYS)
)


@pytest.mark.parametrize("keys", [KEYS[:2], KEYS[1:], KEYS], ids=["01", "12", "012"])
def test_a_quorum_of_the_pinned_authorities_replaces_a_bundle_and_its_authorities(
    keys: tuple[Ed25519PrivateKey, ...],
) -> None:
    assert open_successor(sealed(*keys, serial=2), BUNDLE).statement.serial == 2

    new = open_successor(sealed(*keys, *NEW_KEYS, serial=7, authorities=NEW_AUTHORITIES), BUNDLE)
    assert new.authority_keys == tuple(one.public_key().public_bytes_raw() for one in NEW_KEYS)


@pytest.mark.parametrize(
    ("keys", "changes", "why"),
    [
        (KEYS, {"serial": 1}, "serial 1"),
        (KEYS, {"serial": 0}, "serial 0"),
        (NEW_KEYS, {"authorities": NEW_AUTHORITIES}, "0 of the authority keys"),
        ((*NEW_KEYS, KEYS[0]), {"authorities": NEW_AUTHORITIES}, "1 of the authority keys"),
        ((*NEW_KEYS, KEYS[0], KEYS[0]), {"authorities": NEW_AUTHORITIES}, "1 of the authority keys"),
        (KEYS[:1], {"quorum": 1}, "1 of the authority keys"),
    ],
    ids=["same serial", "lower serial", "new keys alone", "one of the old", "one of the old twice", "lower quorum"],
)
def test_no_other_bundle_replaces_it(keys: tuple[Ed25519PrivateKey, ...], changes: dict[str, Any], why: str) -> None:
    with pytest.raises(VerificationError) as caught:
        open_successor(sealed(*keys, **{"serial": 2, **changes}), BUNDLE)

    assert caught.value.code == "bundle.successor"
    assert why in caught.value.message


def test_a_bundle_of_another_hub_does_not_replace_it_though_the_same_keys_signed_it() -> None:
    names = {
        "hub": "other.example",
        "log_key": NoteSigner(name="other.example", key=key(9)).verifier.vkey,
        "log_mldsa_key": Cosigner(name="other.example", key=LOG_MLDSA_KEY).verifier.vkey,
    }
    with pytest.raises(VerificationError) as caught:
        open_successor(sealed(*KEYS, serial=2, **names), BUNDLE)

    assert caught.value.code == "bundle.successor"
