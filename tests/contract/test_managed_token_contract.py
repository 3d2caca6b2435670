# SPDX-License-Identifier: Apache-2.0
"""The contract of the ManagedToken port, held against every adapter: new keys, and certificates beside them."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from privyseal.errors import TokenError
from privyseal.pki.mechanism import Mechanism, mechanism_for, verify_digest
from privyseal.ports.token import KeyKind, ManagedToken, TokenInfo, TokenKey
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.factory import open_token
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_journal import PinJournal
from privyseal.tokens.software import create_software_token
from privyseal.tokens.testca import make_test_ca
from softhsm import PIN, fresh_softhsm

KINDS: tuple[KeyKind, ...] = get_args(KeyKind)
SIZES = {"rsa2048": 2048, "rsa3072": 3072, "rsa4096": 4096, "p256": 256, "p384": 384}
DAY = timedelta(days=1)


def software(directory: Path) -> TokenConfig:
    create_software_token(directory / "token", pin=PIN, label="hub")
    pin_file = directory / "pin"
    pin_file.touch(mode=0o600)
    pin_file.write_bytes(PIN)
    return TokenConfig(
        name="lab",
        kind="software",
        path=str(directory / "token"),
        pin_file=str(pin_file),
        journal=str(directory / "pin.journal"),
        respawn_seconds=0.0,
    )


@pytest.fixture(params=["pkcs11", "software"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> TokenConfig:
    return fresh_softhsm(tmp_path).config() if request.param == "pkcs11" else software(tmp_path)


@pytest.fixture
async def token(config: TokenConfig) -> AsyncIterator[ManagedToken]:
    opened = open_token(config)
    yield opened
    await opened.close()


def certified(key: TokenKey, *, age: timedelta = DAY) -> tuple[bytes, ...]:
    begin = datetime.now(UTC) - age
    ca = make_test_ca(not_before=begin, not_after=begin + 100 * DAY)
    return ca.issue_code_signing(spki=key.spki, common_name="Lab", not_before=begin, not_after=begin + 50 * DAY)


async def key_of(token: ManagedToken, key_id: bytes) -> TokenKey:
    return next(key for key in await token.keys() if key.key_id == key_id)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_new_key_signs(token: ManagedToken, kind: KeyKind) -> None:
    made = await token.generate_key(kind=kind, key_id=b"\xab\xcd", label="new key")

    assert await key_of(token, b"\xab\xcd") == made
    assert (made.label, made.certificates) == ("new key", ())
    public = load_der_public_key(made.spki)
    assert isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    assert isinstance(public, rsa.RSAPublicKey) == kind.startswith("rsa")
    assert public.key_size == SIZES[kind]
    digest = hashlib.sha256(b"artifact").digest()
    mechanism = mechanism_for(made.spki, "sha256")
    signature = await token.sign(key_id=made.key_id, mechanism=mechanism, digest=digest)
    verify_digest(made.spki, mechanism, digest, signature)


async def test_a_new_key_stays_for_the_next_worker(token: ManagedToken, config: TokenConfig) -> None:
    made = await token.generate_key(kind="p256", key_id=b"", label="new key")
    await token.close()
    again = open_token(config)
    try:
        assert await key_of(again, made.key_id) == made
    finally:
        await again.close()


async def test_without_an_id_the_first_free_one_is_taken(token: ManagedToken) -> None:
    before = {key.key_id for key in await token.keys()}

    made = [(await token.generate_key(kind="p256", key_id=b"", label=label)).key_id for label in ("one", "two")]

    assert len({*made, *before}) == len(before) + 2
    assert all(len(key_id) == 1 for key_id in made)
    assert made == sorted(made)


@pytest.mark.parametrize(("key_id", "label"), [(b"\x77", "other"), (b"\x78", "taken"), (b"", "taken")])
async def test_an_id_or_label_in_use_is_refused(token: ManagedToken, key_id: bytes, label: str) -> None:
    await token.generate_key(kind="p256", key_id=b"\x77", label="taken")
    before = await token.keys()

    with pytest.raises(TokenError) as caught:
        await token.generate_key(kind="p256", key_id=key_id, label=label)

    assert caught.value.code == "token.key_exists"
    assert await token.keys() == before


async def test_certificates_stand_beside_their_key(token: ManagedToken) -> None:
    made = await token.generate_key(kind="p256", key_id=b"\x77", label="new key")
    chain = certified(made)

    await token.store_certificates(key_id=b"\x77", chain=chain)
    await token.store_certificates(key_id=b"\x77", chain=chain)

    assert (await key_of(token, b"\x77")).certificates == chain


async def test_a_renewed_certificate_takes_the_place_of_the_old_one(token: ManagedToken) -> None:
    made = await token.generate_key(kind="p256", key_id=b"\x77", label="new key")
    await token.store_certificates(key_id=b"\x77", chain=certified(made, age=2 * DAY))
    renewed = certified(made, age=DAY)

    await token.store_certificates(key_id=b"\x77", chain=renewed)

    assert (await key_of(token, b"\x77")).certificates == renewed


async def test_certificates_for_a_key_that_is_not_there_are_refused(token: ManagedToken) -> None:
    made = await token.generate_key(kind="p256", key_id=b"\x77", label="new key")

    with pytest.raises(TokenError) as caught:
        await token.store_certificates(key_id=b"\x79", chain=certified(made))

    assert caught.value.code == "token.key_not_found"


async def test_what_is_no_certificate_is_refused(token: ManagedToken) -> None:
    await token.generate_key(kind="p256", key_id=b"\x77", label="new key")

    with pytest.raises(TokenError) as caught:
        await token.store_certificates(key_id=b"\x77", chain=(b"\x30\x03abc",))

    assert caught.value.code == "token.certificate"
    assert (await key_of(token, b"\x77")).certificates == ()


NEW_PIN = b"fresh-canary-5521"


def buffer(pin: bytes) -> PinBuffer:
    filled = PinBuffer()
    filled.fill(pin)
    return filled


def kept(config: TokenConfig) -> dict[str, bytes]:
    """PIN files by name; all are private."""
    found = [path for path in Path(config.journal).parent.glob("pin*") if path.name in ("pin", "pin.new")]
    assert [path.stat().st_mode & 0o777 for path in found] == [0o600] * len(found)
    return {path.name: path.read_bytes().strip() for path in found}


def write_pin(config: TokenConfig, pin: bytes) -> None:
    Path(config.pin_file).write_bytes(pin)


async def test_a_changed_pin_is_used_from_then_on_and_kept_in_its_file(
    token: ManagedToken, config: TokenConfig
) -> None:
    made = await token.generate_key(kind="p256", key_id=b"\x77", label="new key")
    new = buffer(NEW_PIN)

    await token.change_pin(new)

    new.wipe()
    assert made in await token.keys()
    assert kept(config) == {"pin": NEW_PIN}
    again = open_token(config)
    try:
        signature = await again.sign(key_id=b"\x77", mechanism=Mechanism.ECDSA_SHA256, digest=bytes(32))
        verify_digest(made.spki, Mechanism.ECDSA_SHA256, bytes(32), signature)
    finally:
        await again.close()


async def test_the_former_pin_is_not_presented_any_more(token: ManagedToken, config: TokenConfig) -> None:
    await token.change_pin(buffer(NEW_PIN))
    await token.close()
    write_pin(config, PIN)

    again = open_token(config)
    with pytest.raises(TokenError) as caught:
        await again.keys()
    await again.close()

    assert caught.value.code == "token.pin_blocked"
    assert not PinJournal(config.journal).history((await token_info(config)).serial).blocked, "nothing was refused"


async def token_info(config: TokenConfig) -> TokenInfo:
    token = open_token(config)
    try:
        return await token.info()
    finally:
        await token.close()


async def test_a_changed_pin_that_was_typed_is_remembered_until_the_token_is_closed(config: TokenConfig) -> None:
    typed = replace(config, pin_file="", pin_prompt=True)
    token = open_token(typed, pin=buffer(PIN))
    try:
        await token.change_pin(buffer(NEW_PIN))
        await token.recycle()
        assert isinstance(await token.keys(), tuple)
    finally:
        await token.close()
    assert kept(config) == {"pin": PIN}, "nobody's file was touched"


async def test_a_pin_of_a_length_that_the_token_does_not_take_is_refused(
    token: ManagedToken, config: TokenConfig
) -> None:
    info = await token.info()
    assert 3 < info.min_pin_bytes < info.max_pin_bytes <= 255

    with pytest.raises(TokenError) as caught:
        await token.change_pin(buffer(b"abc"))

    assert caught.value.code == "token.pin_length"
    assert kept(config) == {"pin": PIN}
    assert isinstance(await token.keys(), tuple)


async def test_the_present_pin_is_no_new_one(token: ManagedToken) -> None:
    with pytest.raises(TokenError) as caught:
        await token.change_pin(buffer(PIN))

    assert caught.value.code == "token.pin_new"


async def test_a_refused_pin_changes_nothing(config: TokenConfig, token: ManagedToken) -> None:
    write_pin(config, b"000000")

    codes = []
    for _ in range(2):
        with pytest.raises(TokenError) as caught:
            await token.change_pin(buffer(NEW_PIN))
        codes.append(caught.value.code)

    assert codes == ["token.pin_incorrect", "token.pin_blocked"]
    assert kept(config) == {"pin": b"000000"}


async def test_a_refused_pin_makes_no_key(config: TokenConfig, token: ManagedToken, tmp_path: Path) -> None:
    (tmp_path / "pin").write_bytes(b"000000")

    codes = []
    for _ in range(2):
        with pytest.raises(TokenError) as caught:
            await token.generate_key(kind="p256", key_id=b"", label="new key")
        codes.append(caught.value.code)

    assert codes == ["token.pin_incorrect", "token.pin_blocked"]
    assert PinJournal(config.journal).history((await token.info()).serial).blocked
