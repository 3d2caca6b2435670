# SPDX-License-Identifier: Apache-2.0
"""Authority statements: a quorum of the bundle's keys, for this hub, in time, in canonical form."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lying_hub import HUB, make_trust
from privyseal.errors import PrivysealError
from privyseal.identity.authority import (
    AUTHORITY_TYPE,
    AuthorityStatement,
    GrantStatement,
    Invitation,
    QueueCancel,
    QueueMove,
    Revocation,
    Unlock,
    UnlockQuestion,
    open_authority,
    seal_authority,
)
from privyseal.tlog.entry import canonical_json
from privyseal.wire.dsse import key_id, seal
from wire_samples import JSON_SPOILERS, digests, key, mutated, texts

TRUST = make_trust(authorities=3, quorum=2)
NOW_MS = 1000
GRANT = GrantStatement(
    hub=HUB, issued=900, not_after=NOW_MS, request_key=bytes(32), profile="release", formats=("authenticode-pe",)
)
INVITATION = Invitation(
    hub=HUB, issued=900, not_after=NOW_MS, role="client", name="build", profiles=("*",), secret_sha256="00" * 32
)
REVOCATION = Revocation(hub=HUB, issued=900, not_after=NOW_MS, role="client", name="build")

names = st.lists(texts, max_size=3).map(tuple)
times = st.integers(0, 2**53 - 1)
late = st.integers(NOW_MS, 2**53 - 1)
statements: st.SearchStrategy[AuthorityStatement] = st.one_of(
    st.builds(
        GrantStatement,
        v=st.just(1),
        hub=st.just(HUB),
        issued=times,
        not_after=late,
        request_key=st.binary(max_size=40),
        profile=texts,
        formats=names,
    ),
    st.builds(
        Invitation,
        v=st.just(1),
        hub=st.just(HUB),
        issued=times,
        not_after=late,
        role=texts,
        name=texts,
        profiles=names,
        secret_sha256=digests,
    ),
    st.builds(UnlockQuestion, v=st.just(1), hub=st.just(HUB), issued=times, not_after=late, agent=texts, token=texts),
    st.builds(
        Unlock,
        v=st.just(1),
        hub=st.just(HUB),
        issued=times,
        not_after=late,
        agent=texts,
        token=texts,
        serial=texts,
        nonce=texts,
        forgive_refused=st.booleans(),
        sealed=st.binary(max_size=40),
    ),
    st.builds(Revocation, v=st.just(1), hub=st.just(HUB), issued=times, not_after=late, role=texts, name=texts),
    st.builds(QueueCancel, v=st.just(1), hub=st.just(HUB), issued=times, not_after=late, request=texts),
    st.builds(
        QueueMove,
        v=st.just(1),
        hub=st.just(HUB),
        issued=times,
        not_after=late,
        request=texts,
        priority=st.sampled_from(("next", "release", "normal", "nightly")),
    ),
)


def refused(envelope: bytes, code: str, now_ms: int = NOW_MS) -> None:
    with pytest.raises(PrivysealError) as caught:
        open_authority(envelope, TRUST.bundle, now_ms)
    assert caught.value.code == code


@given(statements)
def test_what_was_sealed_is_opened(statement: AuthorityStatement) -> None:
    opened = open_authority(seal_authority(statement, TRUST.authority), TRUST.bundle, NOW_MS)

    assert opened.statement == statement
    assert type(opened.statement) is type(statement)


@pytest.mark.parametrize("statement", [GRANT, INVITATION, REVOCATION], ids=["grant", "invite", "revoke"])
def test_two_of_three_keys_and_their_names(statement: AuthorityStatement) -> None:
    two = TRUST.authority[1:]

    opened = open_authority(seal_authority(statement, two), TRUST.bundle, NOW_MS)

    assert opened.statement == statement
    assert opened.authorities == tuple(sorted(key_id(one.public_key().public_bytes_raw()) for one in two))


@pytest.mark.parametrize(
    "keys",
    [
        (),
        TRUST.authority[:1],
        TRUST.authority[:1] * 2,
        TRUST.authority[:1] * 16,
        (TRUST.authority[0], TRUST.log_key),
        (TRUST.authority[0], key(5)),
        (key(5), key(6), key(7)),
    ],
    ids=["none", "one", "one-twice", "one-16-times", "log-key", "stranger", "strangers"],
)
def test_fewer_than_the_quorum_decide_nothing(keys: tuple[Ed25519PrivateKey, ...]) -> None:
    refused(seal_authority(GRANT, keys), "authority.quorum")


def test_signatures_of_two_statements_do_not_add_up() -> None:
    one = seal_authority(GRANT, TRUST.authority[:1])
    other = seal_authority(replace(GRANT, profile="demo"), TRUST.authority[1:2])
    start, end = b'"signatures":[', b"]}"
    line = other[other.index(start) + len(start) : -len(end)]
    joined = one[: -len(end)] + b"," + line + end

    refused(joined, "authority.quorum")


def test_a_statement_ends_after_its_last_millisecond() -> None:
    envelope = seal_authority(GRANT, TRUST.authority)

    assert open_authority(envelope, TRUST.bundle, NOW_MS).statement == GRANT
    refused(envelope, "authority.expired", now_ms=NOW_MS + 1)


@pytest.mark.parametrize("hub", ["", "hub.example", HUB + "/", HUB.upper()])
def test_a_statement_for_another_hub_is_refused(hub: str) -> None:
    refused(seal_authority(replace(GRANT, hub=hub), TRUST.authority), "authority.hub")


@pytest.mark.parametrize("spoiler", JSON_SPOILERS)
@pytest.mark.parametrize("statement", [GRANT, INVITATION, REVOCATION], ids=["grant", "invite", "revoke"])
def test_another_form_is_refused_though_it_is_signed(statement: AuthorityStatement, spoiler: str) -> None:
    payload = JSON_SPOILERS[spoiler](canonical_json(statement))

    refused(seal(AUTHORITY_TYPE, payload, TRUST.authority), "authority.malformed")


@pytest.mark.parametrize(
    "changes",
    [{"v": 0}, {"v": 2}, {"not_after": 2**53}, {"not_after": 2**70}, {"issued": -(2**53)}],
    ids=["v0", "v2", "2^53", "2^70", "minus"],
)
def test_a_version_or_number_that_nobody_writes_is_refused(changes: dict[str, Any]) -> None:
    refused(seal_authority(replace(GRANT, **changes), TRUST.authority), "authority.malformed")


@pytest.mark.parametrize("action", ["admin", "Grant", "", "invite"])
def test_an_action_decides_which_fields_there_are(action: str) -> None:
    payload = canonical_json(GRANT).replace(b'"action":"grant"', b'"action":"%b"' % action.encode())

    refused(seal(AUTHORITY_TYPE, payload, TRUST.authority), "authority.malformed")


def test_a_bundle_is_no_authority_statement() -> None:
    refused(TRUST.bundle.envelope, "envelope.malformed")


@given(st.data())
def test_changed_bytes_decide_nothing_else(data: st.DataObject) -> None:
    spoilt = data.draw(mutated(seal_authority(GRANT, TRUST.authority)))
    try:
        opened = open_authority(spoilt, TRUST.bundle, NOW_MS)
    except PrivysealError:
        return
    assert opened.statement == GRANT
