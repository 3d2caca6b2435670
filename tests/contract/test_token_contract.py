# SPDX-License-Identifier: Apache-2.0
"""The contract of the Token port, held against every adapter: a SoftHSM2 token and a software token."""

import asyncio
import base64
import hashlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from privyseal.errors import MalformedInputError, TokenError
from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.ports.token import PinState, Token
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.factory import open_token
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_journal import PinJournal
from privyseal.tokens.software import create_software_token, generate_key, set_certificates
from privyseal.tokens.supervisor import WorkerToken
from privyseal.tokens.testca import make_test_ca
from softhsm import EC_ID, PIN, RSA_ID, fresh_softhsm


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One adapter under test."""

    config: TokenConfig
    manufacturer: str
    #: Config of the same adapter for a token that is not there.
    absent: TokenConfig

    @property
    def pin_file(self) -> Path:
        return Path(self.config.pin_file)


def _pkcs11(directory: Path) -> Adapter:
    hsm = fresh_softhsm(directory)
    config = hsm.config()
    return Adapter(config=config, manufacturer="SoftHSM project", absent=replace(config, token_label="no such"))


@pytest.fixture(scope="module")
def software_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A software token, made once: RSA keys take their time."""
    token = tmp_path_factory.mktemp("software") / "token"
    create_software_token(token, pin=PIN, label="hub")
    now = datetime.now(UTC)
    ca = make_test_ca(not_before=now, not_after=now + timedelta(days=2))
    # In the wrong order on purpose: the port promises that of the CKA_ID.
    generate_key(token, pin=PIN, kind="p256", key_id=EC_ID, label="release ec")
    generate_key(token, pin=PIN, kind="rsa3072", key_id=RSA_ID, label="release")
    for key in msgspec.json.decode((token / "token.json").read_bytes())["keys"]:
        spki = base64.b64decode(key["spki"])
        chain = ca.issue_code_signing(spki=spki, common_name="Lab", not_before=now, not_after=now + timedelta(days=1))
        set_certificates(token, key_id=bytes.fromhex(key["id"]), chain=chain)
    return token


def _software(directory: Path, template: Path) -> Adapter:
    token = directory / "token"
    shutil.copytree(template, token)
    pin_file = directory / "pin"
    pin_file.write_bytes(PIN)
    pin_file.chmod(0o600)
    config = TokenConfig(
        name="lab",
        kind="software",
        path=str(token),
        pin_file=str(pin_file),
        journal=str(directory / "pin.journal"),
        respawn_seconds=0.0,
    )
    return Adapter(config=config, manufacturer="Privyseal", absent=replace(config, path=str(directory / "elsewhere")))


@pytest.fixture(params=["pkcs11", "software"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Adapter:
    if request.param == "pkcs11":
        return _pkcs11(tmp_path)
    return _software(tmp_path, request.getfixturevalue("software_template"))


@pytest.fixture
async def token(adapter: Adapter) -> AsyncIterator[WorkerToken]:
    opened = open_token(adapter.config)
    yield opened
    await opened.close()


async def test_info_needs_no_pin(adapter: Adapter, token: Token) -> None:
    adapter.pin_file.unlink()

    info = await token.info()

    assert info.label == "hub"
    assert info.serial
    assert info.manufacturer == adapter.manufacturer
    assert info.pin_state is PinState.OK


async def test_a_token_in_software_has_no_counter_and_no_reader(token: Token) -> None:
    assert await token.counters() == ()
    assert await token.reader_use() is None
    assert await token.probe(4) is None


async def test_a_token_in_software_says_so(token: Token) -> None:
    assert (await token.info()).hardware is False


async def test_keys_come_in_the_order_of_their_id_with_their_chains(token: Token) -> None:
    keys = await token.keys()

    assert [key.key_id for key in keys][:2] == [RSA_ID, EC_ID]
    assert [key.label for key in keys][:2] == ["release", "release ec"]
    for key in keys[:2]:
        leaf, root = (x509.load_der_x509_certificate(der) for der in key.certificates)
        assert _spki(leaf) == key.spki
        leaf.verify_directly_issued_by(root)


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize("mechanism", Mechanism)
async def test_signatures_hold_under_the_certificate(token: Token, mechanism: Mechanism) -> None:
    key_id = RSA_ID if mechanism.is_rsa else EC_ID
    digest = hashlib.new(mechanism.digest_algorithm, b"artifact").digest()

    signature = await token.sign(key_id=key_id, mechanism=mechanism, digest=digest)

    leaf = next(key for key in await token.keys() if key.key_id == key_id).certificates[0]
    verify_digest(_spki(x509.load_der_x509_certificate(leaf)), mechanism, digest, signature)


async def test_calls_at_once_are_answered_one_by_one(token: Token) -> None:
    digests = [hashlib.sha256(bytes([number])).digest() for number in range(8)]

    signatures = await asyncio.gather(
        *(token.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=digest) for digest in digests)
    )

    spki = next(key.spki for key in await token.keys() if key.key_id == EC_ID)
    for digest, signature in zip(digests, signatures, strict=True):
        verify_digest(spki, Mechanism.ECDSA_SHA256, digest, signature)


async def test_an_unknown_key_is_named(token: Token) -> None:
    with pytest.raises(TokenError) as caught:
        await token.sign(key_id=b"\x77", mechanism=Mechanism.RSA_SHA256, digest=bytes(32))

    assert caught.value.code == "token.key_not_found"
    assert caught.value.begun is False
    assert "77" in caught.value.message


@pytest.mark.parametrize(("key_id", "mechanism"), [(RSA_ID, Mechanism.ECDSA_SHA256), (EC_ID, Mechanism.RSA_SHA256)])
async def test_a_mechanism_of_another_kind_is_refused(token: Token, key_id: bytes, mechanism: Mechanism) -> None:
    with pytest.raises(TokenError) as caught:
        await token.sign(key_id=key_id, mechanism=mechanism, digest=bytes(32))

    assert caught.value.code == "token.mechanism"
    assert caught.value.begun is False


@pytest.mark.parametrize("length", [0, 20, 31, 33, 64])
async def test_a_digest_of_another_length_never_reaches_the_token(token: Token, length: int) -> None:
    with pytest.raises(MalformedInputError) as caught:
        await token.sign(key_id=RSA_ID, mechanism=Mechanism.RSA_SHA256, digest=bytes(length))

    assert caught.value.code == "digest.size"


async def test_an_absent_token_is_not_found(adapter: Adapter) -> None:
    absent = open_token(adapter.absent)
    try:
        with pytest.raises(TokenError) as caught:
            await absent.info()
    finally:
        await absent.close()

    assert caught.value.code == "token.not_found"


async def test_a_refused_pin_is_not_presented_again(adapter: Adapter, token: Token) -> None:
    adapter.pin_file.write_bytes(b"000000")
    serial = (await token.info()).serial

    codes = []
    for _ in range(3):
        with pytest.raises(TokenError) as caught:
            await token.keys()
        codes.append(caught.value.code)
    again = open_token(adapter.config)
    with pytest.raises(TokenError) as caught:
        await again.sign(key_id=RSA_ID, mechanism=Mechanism.RSA_SHA256, digest=bytes(32))
    await again.close()
    codes.append(caught.value.code)

    assert codes == ["token.pin_incorrect", "token.pin_blocked", "token.pin_blocked", "token.pin_blocked"]
    journal = PinJournal(adapter.config.journal)
    assert journal.history(serial).blocked

    adapter.pin_file.write_bytes(PIN)
    journal.clear(serial)
    assert await token.keys()


async def test_clearing_does_not_bring_a_refused_pin_back(adapter: Adapter, token: Token) -> None:
    adapter.pin_file.write_bytes(b"000000")
    serial = (await token.info()).serial
    with pytest.raises(TokenError):
        await token.keys()
    PinJournal(adapter.config.journal).clear(serial)

    with pytest.raises(TokenError) as caught:
        await token.keys()

    assert caught.value.code == "token.pin_blocked"


async def test_without_a_pin_signing_waits_for_a_person(adapter: Adapter) -> None:
    token = open_token(replace(adapter.config, pin_file=""))
    try:
        with pytest.raises(TokenError) as caught:
            await token.keys()
        assert caught.value.code == "token.pin_missing"

        await token.unlock(bytearray(PIN))

        assert await token.keys()
        await token.recycle()
        assert await token.keys(), "a new worker is given the PIN as well"
    finally:
        await token.close()


async def test_a_typed_pin_can_come_with_the_token(adapter: Adapter) -> None:
    pin = PinBuffer()
    pin.fill(PIN)
    token = open_token(replace(adapter.config, pin_file=""), pin=pin)

    assert await token.keys()
    await token.close()

    assert len(pin) == 0, "close wipes it"


async def test_a_wide_pin_file_is_refused(adapter: Adapter, token: Token) -> None:
    adapter.pin_file.chmod(0o640)

    with pytest.raises(TokenError) as caught:
        await token.keys()

    assert caught.value.code == "token.pin_file"
    assert "0640" in caught.value.message


async def test_close_may_be_called_twice_and_ends_the_token(token: Token) -> None:
    await token.info()

    await token.close()
    await token.close()

    with pytest.raises(TokenError) as caught:
        await token.info()
    assert caught.value.code == "token.closed"
