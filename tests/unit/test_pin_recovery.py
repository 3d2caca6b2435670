# SPDX-License-Identifier: Apache-2.0
"""Recovery copies of PINs: m of n keys open one, fewer learn nothing, and every change is noticed."""

import itertools
import secrets

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import ConfigError, MalformedInputError, PrivysealError, VerificationError
from privyseal.identity.keyfile import parse_sealing_key, sealing_key_text
from privyseal.identity.pin_recovery import (
    PinRecovery,
    RecoveryHeader,
    make_recovery,
    open_recovery,
    parse_recovery,
)
from privyseal.identity.sealing import (
    authority_sealing_key,
    authority_sealing_public_key,
    open_sealed,
    seal_to,
)
from privyseal.identity.shares import MAX_SHARES, _inverse, _multiply, combine, split

PIN = b"canary-recovered-77"
KEYS = tuple(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(1, 6))


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def header(threshold: int = 3, keys: tuple[Ed25519PrivateKey, ...] = KEYS) -> RecoveryHeader:
    return RecoveryHeader(
        token="lab", serial="S1", created=7, threshold=threshold, authorities=tuple(public(key) for key in keys)
    )


def made(threshold: int = 3, keys: tuple[Ed25519PrivateKey, ...] = KEYS, pin: bytes = PIN) -> PinRecovery:
    return parse_recovery(make_recovery(header(threshold, keys), pin))


def refusal(recovery: PinRecovery, keys: tuple[Ed25519PrivateKey, ...]) -> str:
    with pytest.raises(PrivysealError) as caught:
        open_recovery(recovery, keys)
    return caught.value.code


# Shares


def test_the_field_is_that_of_aes() -> None:
    """FIPS 197 §4.2: {57}x{83} = {c1}; §4.2.1: {57}x{13} = {fe}."""
    assert (_multiply(0x57, 0x83), _multiply(0x57, 0x13)) == (0xC1, 0xFE)
    assert all(_multiply(a, _inverse(a)) == 1 for a in range(1, 256))


@given(secret=st.binary(min_size=1, max_size=40), data=st.data())
def test_any_m_shares_give_the_secret_back(secret: bytes, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, MAX_SHARES))
    threshold = data.draw(st.integers(1, count))
    shares = dict(enumerate(split(secret, threshold=threshold, count=count), 1))
    chosen = data.draw(st.permutations(sorted(shares)))[:threshold]

    assert combine({number: shares[number] for number in chosen}) == secret


@pytest.mark.parametrize("threshold", [2, 3, 4])
def test_fewer_shares_fit_every_secret_equally(threshold: int) -> None:
    """With m - 1 shares given, each value of one more share leads to another secret: all 256 are possible, once."""
    shares = split(b"\x5a", threshold=threshold, count=5)
    known = {number: shares[number - 1] for number in range(1, threshold)}

    possible = {combine(known | {5: bytes([value])}) for value in range(256)}

    assert len(possible) == 256


def test_shares_are_made_anew_each_time() -> None:
    assert len({split(b"x" * 16, threshold=2, count=2) for _ in range(20)}) == 20


@pytest.mark.parametrize(("threshold", "count"), [(0, 1), (2, 1), (1, 17), (-1, 3)])
def test_a_split_that_makes_no_sense_is_refused(threshold: int, count: int) -> None:
    with pytest.raises(ConfigError) as caught:
        split(b"secret", threshold=threshold, count=count)
    assert caught.value.code == "shares.count"


# Sealing


def test_the_sealing_key_of_an_authority_key_is_the_one_that_others_compute() -> None:
    """libsodium's test of crypto_sign_ed25519_pk_to_curve25519."""
    key = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("421151a459faeade3d247115f94aedae42318124095afabe4d1451a559faedee")
    )

    assert authority_sealing_public_key(public(key)).hex() == (
        "f1814f0e8ff1043d8a44d25babff3cedcae6c22c3edaa48f857ae70de2baae50"
    )


@given(st.binary(min_size=32, max_size=32))
def test_both_halves_of_a_sealing_key_belong_together(seed: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)

    assert authority_sealing_key(key).public_key().public_bytes_raw() == authority_sealing_public_key(public(key))


@pytest.mark.parametrize(
    "raw",
    [
        bytes(31),
        b"\x01" + bytes(31),  # the neutral element
        (2**255 - 20).to_bytes(32, "little"),  # y = -1
        (2**255 - 19).to_bytes(32, "little"),  # not below p
        b"\x02" + bytes(31),  # no point of the curve
    ],
)
def test_what_is_no_point_is_no_key(raw: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        authority_sealing_public_key(raw)
    assert caught.value.code == "key.text"


def test_what_is_sealed_opens_for_the_same_key_and_use_alone() -> None:
    to = authority_sealing_public_key(public(KEYS[0]))
    sealed = seal_to(to, PIN, b"use")

    assert open_sealed(authority_sealing_key(KEYS[0]), sealed, b"use") == PIN
    for key, changed, info in (
        (KEYS[1], sealed, b"use"),
        (KEYS[0], sealed, b"other use"),
        (KEYS[0], sealed[:-1], b"use"),
        (KEYS[0], b"", b"use"),
        (KEYS[0], bytes([sealed[0] ^ 1]) + sealed[1:], b"use"),
    ):
        with pytest.raises(VerificationError) as caught:
            open_sealed(authority_sealing_key(key), changed, info)
        assert caught.value.code == "sealed.closed"


def test_a_sealing_key_is_passed_around_as_text() -> None:
    raw = secrets.token_bytes(32)
    assert parse_sealing_key(sealing_key_text(raw)) == raw
    for text in ("ed25519:" + sealing_key_text(raw)[7:], "x25519:AAAA", "x25519:!", ""):
        with pytest.raises(ConfigError):
            parse_sealing_key(text)


# Recovery copies


@pytest.mark.parametrize(("threshold", "count"), [(1, 1), (1, 3), (2, 3), (3, 5), (5, 5)])
def test_exactly_the_sets_of_keys_that_are_large_enough_open_it(threshold: int, count: int) -> None:
    recovery = made(threshold, KEYS[:count])

    for number in range(count + 1):
        for keys in itertools.combinations(KEYS[:count], number):
            if number >= threshold:
                assert open_recovery(recovery, keys) == PIN
            else:
                assert refusal(recovery, keys) == "recovery.threshold"


def test_one_key_given_twice_counts_once() -> None:
    assert refusal(made(2), (KEYS[0], KEYS[0])) == "recovery.threshold"
    with pytest.raises(ConfigError) as caught:
        make_recovery(header(2, (KEYS[0], KEYS[1], KEYS[0])), PIN)
    assert caught.value.code == "recovery.twice"


def test_a_foreign_key_is_refused() -> None:
    assert refusal(made(1, KEYS[:2]), (KEYS[4],)) == "recovery.authority"


def test_the_length_of_the_pin_does_not_show() -> None:
    assert len({len(make_recovery(header(), bytes(length))) for length in (1, 4, 32, 255)}) == 1
    assert open_recovery(made(pin=b"x" * 255), KEYS[:3]) == b"x" * 255


def test_nothing_of_the_pin_is_in_it() -> None:
    assert PIN not in make_recovery(header(), PIN)


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_every_changed_share_is_noticed() -> None:
    recovery = made(2, KEYS[:3])
    for place in range(len(recovery.shares[0])):
        shares = (flipped(recovery.shares[0], place), *recovery.shares[1:])
        tampered = PinRecovery(header=recovery.header, shares=shares, pin=recovery.pin)
        assert refusal(tampered, KEYS[:2]) == "recovery.tampered"
        assert open_recovery(tampered, KEYS[1:3]) == PIN, "others are not needed"


def test_every_change_of_the_encrypted_pin_is_noticed() -> None:
    recovery = made(2)
    for place in range(len(recovery.pin)):
        tampered = PinRecovery(header=recovery.header, shares=recovery.shares, pin=flipped(recovery.pin, place))
        assert refusal(tampered, KEYS[:2]) == "recovery.tampered"


@pytest.mark.parametrize(
    "change",
    [{"token": "x"}, {"serial": "x"}, {"created": 8}, {"threshold": 2}, {"authorities": header().authorities[:4]}],
)
def test_every_change_of_what_it_says_of_itself_is_noticed(change: dict[str, object]) -> None:
    recovery = made(3)
    changed = msgspec.structs.replace(recovery.header, **change)
    tampered = PinRecovery(header=changed, shares=recovery.shares[: len(changed.authorities)], pin=recovery.pin)

    assert refusal(tampered, KEYS[:3]) == "recovery.tampered"


def test_shares_of_another_copy_do_not_fit() -> None:
    one, other = made(2), made(2)
    mixed = PinRecovery(header=one.header, shares=(other.shares[0], *one.shares[1:]), pin=one.pin)
    assert refusal(mixed, KEYS[:2]) == "recovery.tampered"
    swapped = PinRecovery(header=one.header, shares=(one.shares[1], one.shares[0], *one.shares[2:]), pin=one.pin)
    assert refusal(swapped, KEYS[:2]) == "recovery.tampered"


@given(st.binary(max_size=200))
def test_what_is_no_recovery_copy_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_recovery(data)
    assert caught.value.code == "recovery.malformed"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"threshold": 3', b'"threshold": 0'),
        (b'"threshold": 3', b'"threshold": 6'),
        (b'"v": 1', b'"v": 2'),
        (b'"kind": "privyseal-pin-recovery"', b'"kind": "x"'),
        (b'"shares": [', b'"shares": ["AA==",'),
        (b'"pin": ', b'"more": 1, "pin": '),
    ],
)
def test_a_copy_that_makes_no_sense_is_refused(before: bytes, after: bytes) -> None:
    data = make_recovery(header(), PIN)
    assert before in data
    with pytest.raises(MalformedInputError) as caught:
        parse_recovery(data.replace(before, after))
    assert caught.value.code == "recovery.malformed"
