# SPDX-License-Identifier: Apache-2.0
"""What the token adapter signs, judged by OpenSSL and held against OpenSC's pkcs11-tool on the same SoftHSM2 token."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.tokens.factory import open_token
from privyseal.tokens.supervisor import WorkerToken
from softhsm import EC_ID, RSA_ID, SoftHsm, fresh_softhsm, need

pytestmark = pytest.mark.interop

ARTIFACT = b"the artifact"


@pytest.fixture
def hsm(tmp_path: Path) -> SoftHsm:
    return fresh_softhsm(tmp_path)


@pytest.fixture
async def token(hsm: SoftHsm) -> AsyncIterator[WorkerToken]:
    opened = open_token(hsm.config())
    yield opened
    await opened.close()


async def spki_of(token: WorkerToken, key_id: bytes) -> bytes:
    return next(key.spki for key in await token.keys() if key.key_id == key_id)


@pytest.mark.parametrize("mechanism", [Mechanism.RSA_SHA256, Mechanism.RSA_SHA384, Mechanism.ECDSA_SHA256])
async def test_openssl_verifies_what_the_token_signs(
    hsm: SoftHsm, token: WorkerToken, tmp_path: Path, mechanism: Mechanism
) -> None:
    need(programs=("openssl",))
    key_id = RSA_ID if mechanism.is_rsa else EC_ID
    digest = hashlib.new(mechanism.digest_algorithm, ARTIFACT).digest()
    artifact, signature, public = (tmp_path / name for name in ("artifact", "signature", "public.der"))
    artifact.write_bytes(ARTIFACT)
    public.write_bytes(await spki_of(token, key_id))

    signature.write_bytes(await token.sign(key_id=key_id, mechanism=mechanism, digest=digest))

    judgement = hsm.run(
        "openssl", "dgst", f"-{mechanism.digest_algorithm}",
        "-keyform", "DER", "-verify", str(public), "-signature", str(signature), str(artifact),
    )  # fmt: skip
    assert judgement == b"Verified OK\n"


async def test_pkcs11_tool_makes_the_same_rsa_signature(hsm: SoftHsm, token: WorkerToken, tmp_path: Path) -> None:
    (tmp_path / "artifact").write_bytes(ARTIFACT)

    ours = await token.sign(key_id=RSA_ID, mechanism=Mechanism.RSA_SHA256, digest=hashlib.sha256(ARTIFACT).digest())

    hsm.pkcs11_tool(
        "--sign", "--mechanism", "SHA256-RSA-PKCS", "--id", RSA_ID.hex(),
        "--input-file", str(tmp_path / "artifact"), "--output-file", str(tmp_path / "theirs"),
    )  # fmt: skip
    assert ours == (tmp_path / "theirs").read_bytes(), "PKCS #1 v1.5 is deterministic"


async def test_a_signature_by_pkcs11_tool_holds_under_the_public_key_we_read(
    hsm: SoftHsm, token: WorkerToken, tmp_path: Path
) -> None:
    digest = os.urandom(32)
    (tmp_path / "digest").write_bytes(digest)
    hsm.pkcs11_tool(
        "--sign", "--mechanism", "ECDSA", "--signature-format", "sequence", "--id", EC_ID.hex(),
        "--input-file", str(tmp_path / "digest"), "--output-file", str(tmp_path / "theirs"),
    )  # fmt: skip

    theirs = (tmp_path / "theirs").read_bytes()

    verify_digest(await spki_of(token, EC_ID), Mechanism.ECDSA_SHA256, digest, theirs)


async def test_public_keys_are_those_that_pkcs11_tool_reads(hsm: SoftHsm, token: WorkerToken) -> None:
    for key_id in (RSA_ID, EC_ID):
        theirs = hsm.pkcs11_tool("--read-object", "--type", "pubkey", "--id", key_id.hex())

        assert await spki_of(token, key_id) == theirs


async def test_a_key_without_a_public_key_object_is_known_by_its_own_attributes_or_its_certificate(
    hsm: SoftHsm, token: WorkerToken
) -> None:
    expected = {key_id: await spki_of(token, key_id) for key_id in (RSA_ID, EC_ID)}
    for key_id in expected:
        hsm.pkcs11_tool("--delete-object", "--type", "pubkey", "--id", key_id.hex())
    await token.recycle()

    assert {key.key_id: key.spki for key in await token.keys() if key.key_id in expected} == expected


async def test_a_token_is_found_by_its_serial_and_by_its_slot(hsm: SoftHsm, token: WorkerToken) -> None:
    serial = (await token.info()).serial
    listing = hsm.run("pkcs11-tool", "--module", hsm.module, "--list-token-slots").decode()
    slot = int(listing.split("(", 1)[1].split(")", 1)[0], 16)

    for config in (hsm.config(token_label="", serial=serial), hsm.config(token_label="", slot=slot)):
        again = open_token(config)
        assert (await again.info()).serial == serial
        await again.close()


async def test_of_two_tokens_one_must_be_named(hsm: SoftHsm) -> None:
    hsm.run("softhsm2-util", "--init-token", "--free", "--label", "other", "--pin", "1234", "--so-pin", "87654321")
    token = open_token(hsm.config(token_label=""))

    with pytest.raises(Exception, match=r"shows 2 tokens that are initialised \[token\.ambiguous\]"):
        await token.info()
    await token.close()


async def test_what_is_no_pkcs11_module_is_told(hsm: SoftHsm, tmp_path: Path) -> None:
    (tmp_path / "not-a-module.so").write_bytes(b"\x7fELF nothing")
    for place in (tmp_path / "not-a-module.so", tmp_path / "missing.so"):
        token = open_token(hsm.config(module=str(place)))
        with pytest.raises(Exception, match=rf"{place.name}.*\[token\.module\]"):
            await token.info()
        await token.close()
