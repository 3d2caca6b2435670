# SPDX-License-Identifier: Apache-2.0
"""`privyseal key custody` of a hub that runs, and `privyseal key accept` on a token's host."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from installation import Up
from privyseal.agent.custody import Custodian, system_moment
from privyseal.agent.outbox import Outbox
from privyseal.identity.bundle import load_bundle
from privyseal.ports.token import KeyCounter, PinState, TokenInfo, TokenKey
from privyseal.storage.journal import SqliteJournal
from programs import privyseal, refused, succeeded

KEY = TokenKey(key_id=b"\x01", label="release", spki=b"spki", certificates=())
NAME = hashlib.sha256(KEY.spki).hexdigest()
INFO = TokenInfo(
    label="hub", serial="0001", manufacturer="ACME", model="1", hardware=True, pin_state=PinState.OK
)  # fmt: skip


def test_custody_of_a_software_token_is_never_proven(up: Up) -> None:
    found = succeeded(up.run("key", "custody", "demo", "--json")).document

    (key,) = found["keys"]
    assert (key["profiles"], key["coverage_percent"], key["frozen"]) == (["demo"], 0, False)
    assert "0.00 % of " in succeeded(up.run("key", "custody", key["key"])).out
    refused(up.run("key", "custody", "dmeo"), 2, "report.unknown_key")


@pytest.fixture
def host(up: Up, tmp_path: Path) -> Path:
    """An agent's directory, with a token whose counter has not matched."""
    bundle = tmp_path / "bundle.json"
    bundle.write_bytes((up.directory / "agent" / "bundle.json").read_bytes())
    (tmp_path / "agent.toml").write_text(
        'name = "pi"\nhub = "https://hub"\nweb = "https://hub"\n'
        '[[token]]\nname = "card"\nkind = "pkcs11"\nmodule = "/module.so"\ncounter = "openpgp"\n'
    )
    asyncio.run(look(tmp_path, 10, 12))
    return tmp_path


async def look(host: Path, *counts: int) -> frozenset[str]:
    """What the agent does when it sees these counts; the keys that are frozen then."""
    journal = await SqliteJournal.open(host / "journal.db", origin=load_bundle(host / "bundle.json").origin)
    outbox = Outbox(journal=journal, clock=lambda: 1, request_key=b"a" * 32)
    custodian = await Custodian.open(name="card", journal=journal, outbox=outbox, clocks=system_moment)
    await custodian.attached(INFO, (KEY,))
    for count in counts:
        await custodian.reconcile((KeyCounter(key_id=KEY.key_id, count=count, source="card"),))
    await journal.close()
    return custodian.frozen


def test_a_counter_is_accepted_on_the_tokens_host(host: Path) -> None:
    assert asyncio.run(look(host, 12)) == {NAME}

    document = succeeded(privyseal("key", "accept", f"sha256:{NAME}", "--dir", host, "--json")).document

    assert document == {"key": NAME, "token": "card", "accepted": True}
    assert asyncio.run(look(host, 12)) == frozenset()
    refused(privyseal("key", "accept", NAME, "--dir", host), 1, "key.not_frozen")


def test_what_cannot_be_accepted_is_said(host: Path) -> None:
    refused(privyseal("key", "accept", "0" * 64, "--dir", host), 1, "key.not_frozen")
    refused(privyseal("key", "accept", NAME, "--dir", host, "--token", "other"), 2, "token.unknown")
    (host / "journal.db").unlink()
    refused(privyseal("key", "accept", NAME, "--dir", host), 2, "file.missing")
    assert not (host / "journal.db").exists()
