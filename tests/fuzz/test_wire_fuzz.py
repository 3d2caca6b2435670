# SPDX-License-Identifier: Apache-2.0
"""Everything that reads what others sent answers with a value or an error of the taxonomy, in bounded time."""

import json
import time
from collections.abc import Callable
from functools import partial

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from lying_hub import NOW_MS, Key, LyingHub, make_trust, pe_preimage
from pki_samples import signer
from privyseal.client.receipts import check_receipt
from privyseal.errors import PrivysealError
from privyseal.identity.authority import AUTHORITY_TYPE, open_authority
from privyseal.identity.bundle import BUNDLE_TYPE, open_bundle
from privyseal.identity.ca import check_csr
from privyseal.identity.joining import parse_join_code
from privyseal.identity.keyfile import parse_public_key
from privyseal.tlog.audit import LogCheck
from privyseal.tlog.entry import parse_entry
from privyseal.wire import api
from privyseal.wire.dsse import open_envelope, seal
from privyseal.wire.http_signature import parse_proof
from privyseal.wire.link import decode_agent, decode_hub, encode
from privyseal.wire.statement import REQUEST_TYPE, accepted_statement, open_request
from wire_samples import key, mutated

TRUST = make_trust()
SPKI = signer().leaf.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
PUBLIC = key().public_key().public_bytes_raw()
BODIES = [kind for name in api.__all__ if isinstance(kind := getattr(api, name), type)]

READERS: dict[str, Callable[[bytes], object]] = {
    "entry": parse_entry,
    "log": lambda data: LogCheck().feed(data),
    "envelope": lambda data: open_envelope(data, "type", PUBLIC),
    "request": lambda data: open_request(data, PUBLIC),
    "accepted request": accepted_statement,
    "bundle": open_bundle,
    "authority": lambda data: open_authority(data, TRUST.bundle, NOW_MS),
    "link, agent": decode_agent,
    "link, hub": decode_hub,
    "receipt": lambda data: check_receipt(data, TRUST.bundle),
    "request for a certificate": check_csr,
    "join code": lambda data: parse_join_code(data.decode("latin-1"), "agent"),
    "signed request": lambda data: parse_proof(data.decode("latin-1"), data.decode("latin-1")),
    "public key": lambda data: parse_public_key(data.decode("latin-1")),
    **{f"body {kind.__name__}": partial(api.decode_body, kind=kind) for kind in BODIES},
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def survives(reader: str, data: bytes) -> bool:
    """Whether these bytes are read or refused, and nothing worse."""
    try:
        READERS[reader](data)
    except PrivysealError as error:
        return bool(error.code and error.message)
    return True


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=60)
@given(
    data=st.binary(max_size=400) | json_values.map(json.dumps).map(str.encode) | json_values.map(msgspec.msgpack.encode)
)
def test_noise_ends_in_the_taxonomy(reader: str, data: bytes) -> None:
    assert survives(reader, data)


JOB_HUB = LyingHub(TRUST, Key(spki=SPKI, agent=bytes(32)))
MEMBER = JOB_HUB.enrol()
JOB = JOB_HUB.job(JOB_HUB.ask(MEMBER, pe_preimage(1)))
SAMPLES = {
    "job": encode(JOB),
    "request": JOB.parts[0].envelope,
    "intent": JOB.parts[0].items[0].entry,
    "enrolment": JOB.parts[0].membership.entry,
    "bundle": TRUST.bundle.envelope,
    "grant": TRUST.grant(MEMBER),
}


@pytest.mark.parametrize("sample", SAMPLES)
@settings(max_examples=60)
@given(data=st.data())
def test_a_changed_message_ends_in_the_taxonomy_wherever_it_arrives(sample: str, data: st.DataObject) -> None:
    spoilt = data.draw(mutated(SAMPLES[sample]))

    assert [reader for reader in READERS if not survives(reader, spoilt)] == []


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_message_that_is_cut_anywhere_ends_in_the_taxonomy(sample: str) -> None:
    whole = SAMPLES[sample]
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        assert [reader for reader in READERS if not survives(reader, whole[:length])] == []


BOMBS = {
    "lists": b"[" * 1_000_000,
    "objects": b'{"a":' * 200_000,
    "digits": b"9" * 1_000_000,
    "field of digits": b'{"v":' + b"9" * 1_000_000 + b"}",
    "blanks": b" " * 1_000_000,
    "lines": b"\n" * 1_000_000,
    "escapes": b'"' + b"\\u0061" * 100_000 + b'"',
    "keys": b"{" + b",".join(b'"%d":1' % number for number in range(50_000)) + b"}",
    "msgpack arrays": b"\x91" * 1_000_000,
    "msgpack lengths": b"\xdd\x7f\xff\xff\xff" * 100_000,
    "DER": b"\x30\x80" * 500_000,
    "nulls": bytes(1_000_000),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_ends_in_the_taxonomy_and_soon(bomb: str) -> None:
    for reader in READERS:
        started = time.process_time()
        assert survives(reader, BOMBS[bomb]), reader
        assert time.process_time() - started < 2.0, reader


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_in_a_sound_envelope_ends_in_the_taxonomy(bomb: str) -> None:
    for payload_type, reader, keys in (
        (REQUEST_TYPE, "request", (key(),)),
        (AUTHORITY_TYPE, "authority", TRUST.authority),
        (BUNDLE_TYPE, "bundle", TRUST.authority),
    ):
        assert survives(reader, seal(payload_type, BOMBS[bomb], keys)), reader
