# SPDX-License-Identifier: Apache-2.0
"""A real token, and agents in front of a hub that lies."""

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from forger import LyingHub, Victim, make_hub, make_victim
from privyseal.ports.token import Token
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.factory import open_token
from privyseal.tokens.software import create_software_token, generate_key, set_certificates
from privyseal.tokens.testca import make_test_ca

replace = msgspec.structs.replace


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def key(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Token]:
    """A real token in its own process, and its certificates."""
    home = tmp_path_factory.mktemp("token")
    create_software_token(home / "token", pin=b"1234567", label="acme")
    spki = generate_key(home / "token", pin=b"1234567", kind="p256", key_id=b"\x01", label="acme")
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    root = make_test_ca(not_before=now - 2 * day, not_after=now + 60 * day)
    chain = root.issue_code_signing(spki=spki, common_name="Acme", not_before=now - day, not_after=now + 30 * day)
    set_certificates(home / "token", key_id=b"\x01", chain=chain)
    pin = home / "pin"
    pin.touch(mode=0o600)
    pin.write_bytes(b"1234567")
    config = TokenConfig(
        name="acme", kind="software", path=str(home / "token"), journal=str(home / "pins"), pin_file=str(pin)
    )
    token = open_token(config)
    yield token
    await token.close()


@pytest_asyncio.fixture(loop_scope="module")
async def hub(key: Token) -> LyingHub:
    (found,) = await key.keys()
    return make_hub(found.spki)


@pytest_asyncio.fixture(loop_scope="module")
async def agent(hub: LyingHub, key: Token, tmp_path: Path) -> AsyncIterator[Victim]:
    victim = await make_victim(hub, key, tmp_path / "journal.db")
    yield victim
    await victim.journal.close()


@pytest_asyncio.fixture(loop_scope="module")
async def pinned(hub: LyingHub, key: Token, tmp_path: Path) -> AsyncIterator[Victim]:
    victim = await make_victim(hub, key, tmp_path / "journal.db", level="pinned")
    yield victim
    await victim.journal.close()
