# SPDX-License-Identifier: Apache-2.0
"""Signed HTTP requests: RFC 9421's own vector, a peer that we did not write, and no spelling but one."""

import base64
import datetime as dt
from dataclasses import dataclass, field, replace

import http_message_signatures as peer
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from http_message_signatures.algorithms import ED25519
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import IdentityError
from privyseal.wire.http_signature import (
    CONTENT_DIGEST,
    LIFE_SECONDS,
    SIGNATURE,
    SIGNATURE_INPUT,
    Message,
    Proof,
    check_body,
    check_proof,
    content_digest,
    message_to_sign,
    parse_proof,
    sign_message,
    signature_base,
)

HUB = "hub.example/log"
NOW_S = 1_790_000_000
NONCE = bytes(range(16))
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
BODY = b'{"hello": "world"}'
POST = message_to_sign("POST", "/v1/signatures?wait=30.000&enough=1", BODY)
GET = message_to_sign("GET", "/v1/status", None)

#: RFC 9421, appendix B.1.4 and B.2.6.
RFC_KEY = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF
-----END PRIVATE KEY-----
"""
RFC_PARAMETERS = (
    '("date" "@method" "@path" "@authority" "content-type" "content-length")'
    ';created=1618884473;keyid="test-key-ed25519"'
)
RFC_COMPONENTS = (
    ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
    ("@method", "POST"),
    ("@path", "/foo"),
    ("@authority", "example.com"),
    ("content-type", "application/json"),
    ("content-length", "18"),
)
RFC_SIGNATURE = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="


def fields(message: Message = POST, *, created_s: int = NOW_S, hub: str = HUB) -> dict[str, str]:
    return sign_message(message, KEY, hub=hub, created_s=created_s, nonce=NONCE)


def read(sent: dict[str, str]) -> Proof:
    return parse_proof(sent[SIGNATURE_INPUT], sent[SIGNATURE])


def judge(sent: dict[str, str], message: Message = POST, *, now_s: float = NOW_S, hub: str = HUB) -> Proof:
    proof = read(sent)
    check_proof(replace(message, digest=sent.get(CONTENT_DIGEST, "")), proof, hub=hub, now_s=now_s)
    return proof


def refusal(sent: dict[str, str], message: Message = POST, *, now_s: float = NOW_S, hub: str = HUB) -> str:
    with pytest.raises(IdentityError) as caught:
        judge(sent, message, now_s=now_s, hub=hub)
    return caught.value.code


def test_the_vector_of_the_rfc() -> None:
    key = load_pem_private_key(RFC_KEY, None)
    assert isinstance(key, Ed25519PrivateKey)

    signature = key.sign(signature_base(RFC_COMPONENTS, RFC_PARAMETERS))

    assert base64.b64encode(signature).decode() == RFC_SIGNATURE


def test_the_digest_of_the_rfc() -> None:
    """RFC 9421, appendix B.2, gives SHA-512 there; this is RFC 9530, appendix A's, for the same words."""
    assert content_digest(b'{"hello": "world"}\n') == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


def test_what_is_sent() -> None:
    sent = fields()

    assert sent[SIGNATURE_INPUT] == (
        'privyseal=("@method" "@path" "@query" "content-digest");created=1790000000'
        f';keyid="{KEY.public_key().public_bytes_raw().hex()}";alg="ed25519";expires=1790000060'
        ';nonce="000102030405060708090a0b0c0d0e0f";tag="hub.example/log"'
    )
    proof = judge(sent)
    assert (proof.hub, proof.nonce, proof.key) == (HUB, NONCE, KEY.public_key().public_bytes_raw())
    assert CONTENT_DIGEST not in fields(GET)
    judge(fields(GET), GET)


@dataclass(kw_only=True)
class Peers:
    """A request as the peer library takes it."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)


class Keys(peer.HTTPSignatureKeyResolver):
    def resolve_private_key(self, key_id: str) -> Ed25519PrivateKey:
        assert key_id == KEY.public_key().public_bytes_raw().hex()
        return KEY

    def resolve_public_key(self, key_id: str) -> object:
        return self.resolve_private_key(key_id).public_key()


@pytest.mark.parametrize(("message", "body"), [(POST, BODY), (GET, b"")], ids=["POST", "GET"])
def test_a_peer_takes_what_we_sign(message: Message, body: bytes) -> None:
    now_s = int(dt.datetime.now(dt.UTC).timestamp())
    request = Peers(method=message.method, url="https://hub.example" + message.target)
    request.headers |= fields(message, created_s=now_s)

    (found,) = peer.HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=Keys()).verify(
        request, expect_tag=HUB, body=body
    )

    assert found.parameters["nonce"] == NONCE.hex()
    assert '"@path"' in found.covered_components


def test_a_peer_refuses_what_was_changed() -> None:
    now_s = int(dt.datetime.now(dt.UTC).timestamp())
    request = Peers(method="POST", url="https://hub.example/v1/signatures?wait=31.000&enough=1")
    request.headers |= fields(POST, created_s=now_s)

    with pytest.raises(peer.InvalidSignature):
        peer.HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=Keys()).verify(request, expect_tag=HUB)


@pytest.mark.parametrize("query", ["", "?", "?a=b&c=%20d", "?wait=1"])
@pytest.mark.parametrize("body", [b"", BODY])
def test_we_take_what_a_peer_signs(query: str, body: bytes) -> None:
    target = "/v1/signatures/" + "ab" * 32 + query
    request = Peers(method="POST", url="https://hub.example" + target)
    moment = dt.datetime.fromtimestamp(NOW_S, dt.UTC)
    covered = ["@method", "@path", "@query"]
    if body:
        request.headers[CONTENT_DIGEST] = content_digest(body)
        covered.append("content-digest")

    peer.HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=Keys()).sign(
        request,
        key_id=KEY.public_key().public_bytes_raw().hex(),
        created=moment,
        expires=moment + dt.timedelta(seconds=LIFE_SECONDS),
        nonce=NONCE.hex(),
        label="privyseal",
        tag=HUB,
        covered_component_ids=covered,
        use_existing_digest=bool(body),
    )

    judge(request.headers, Message(method="POST", target=target))


@given(
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    target=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=60),
    body=st.binary(max_size=60),
    created_s=st.integers(1, 10**12),
    late=st.integers(-LIFE_SECONDS, LIFE_SECONDS),
)
def test_round_trip(method: str, target: str, body: bytes, created_s: int, late: int) -> None:
    message = message_to_sign(method, "/" + target, body)

    proof = judge(fields(message, created_s=created_s), message, now_s=created_s + late)

    assert (proof.created_s, proof.nonce, proof.covers_body) == (created_s, NONCE, bool(body))
    check_body(message, body)


@given(data=st.data())
def test_any_change_of_the_fields_is_refused(data: st.DataObject) -> None:
    """One character more, less or another: either it cannot be read, or it does not hold."""
    sent = fields()
    name = data.draw(st.sampled_from(sorted(sent)))
    text = sent[name]
    place = data.draw(st.integers(0, len(text)))
    put = data.draw(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=2))
    gone = data.draw(st.integers(0, 2))
    changed = text[:place] + put + text[place + gone :]
    if changed == text:
        return

    assert refusal(sent | {name: changed}) in {"proof.malformed", "proof.signature", "proof.time", "proof.hub"}


@pytest.mark.parametrize("name", [SIGNATURE_INPUT, SIGNATURE, CONTENT_DIGEST])
def test_whatever_is_cut_off_is_refused(name: str) -> None:
    sent = fields()

    for end in range(len(sent[name])):
        assert refusal(sent | {name: sent[name][:end]}) == "proof.malformed"


@pytest.mark.parametrize(
    "message",
    [
        replace(POST, method="PUT"),
        replace(POST, target="/v1/signatures?wait=30.000&enough=2"),
        replace(POST, target="/v1/signatures"),
        replace(POST, target="/v1/signatures/?wait=30.000&enough=1"),
        replace(POST, target="//v1/signatures?wait=30.000&enough=1"),
        replace(POST, target="/v1/%73ignatures?wait=30.000&enough=1"),
    ],
    ids=["method", "query", "no query", "slash", "slashes", "escaped"],
)
def test_another_request_than_the_signed_one(message: Message) -> None:
    assert refusal(fields(), message) == "proof.signature"


@pytest.mark.parametrize("target", ["", "v1/status", "https://hub/v1/status", "*", "/a b", "/a\n", "/é", "/a#b"])
def test_what_is_no_target(target: str) -> None:
    assert refusal(fields(GET), replace(GET, target=target)) == "proof.malformed"


def test_a_digest_that_is_not_signed_counts_for_nothing() -> None:
    bare = fields(message_to_sign("POST", POST.target, None))

    assert refusal(bare | {CONTENT_DIGEST: POST.digest}) == "proof.malformed"


@pytest.mark.parametrize(
    "digest", [POST.digest.replace("256", "512"), POST.digest + ", " + POST.digest, POST.digest.upper()]
)
def test_no_other_digest_is_taken(digest: str) -> None:
    message = replace(POST, digest=digest)

    assert refusal(sign_message(message, KEY, hub=HUB, created_s=NOW_S, nonce=NONCE)) in {
        "proof.malformed",
        "proof.signature",
    }


@pytest.mark.parametrize("seconds", [-LIFE_SECONDS - 1, LIFE_SECONDS + 1, 10**9])
def test_what_was_not_signed_now(seconds: int) -> None:
    assert refusal(fields(), now_s=NOW_S + seconds) == "proof.time"


def test_a_signature_for_long_is_none() -> None:
    sent = fields()
    longer = sent[SIGNATURE_INPUT].replace(f"expires={NOW_S + 60}", f"expires={NOW_S + 61}")

    assert refusal(sent | {SIGNATURE_INPUT: longer}) == "proof.malformed"


def test_another_hub() -> None:
    assert refusal(fields(hub="other.example/log")) == "proof.hub"


@pytest.mark.parametrize("body", [b"", BODY + b" ", b"{}"])
def test_another_body_than_the_signed_one(body: bytes) -> None:
    with pytest.raises(IdentityError, match=r"proof\.digest"):
        check_body(POST, body)


def test_a_body_where_none_was_signed() -> None:
    with pytest.raises(IdentityError, match=r"proof\.digest"):
        check_body(GET, b"x")


def test_a_signature_has_one_spelling() -> None:
    """The last character but the padding carries four bits that count for nothing."""
    sent = fields()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = sent[SIGNATURE][-4]
    other = alphabet[alphabet.index(last) + 1]
    changed = sent[SIGNATURE][:-4] + other + "==:"
    assert base64.b64decode(changed[11:-1]) == base64.b64decode(sent[SIGNATURE][11:-1])

    assert refusal(sent | {SIGNATURE: changed}) == "proof.malformed"
