# SPDX-License-Identifier: Apache-2.0
"""A keeper over the lab's card, behind a real pcscd and OpenSC: a card pulled while it signs, and its own counter."""

import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from card_calls import RELEASE_ID
from failing_journal import Faults
from lab.card_lab import CardLab, card_lab
from lab.piv.orders import Set
from log_samples import intent_at
from privyseal.agent.config import KeyConfig, TokenTable
from privyseal.agent.custody import Custodian, accept_counter, system_moment
from privyseal.agent.custody_spans import Moment
from privyseal.agent.keeper import TokenKeeper
from privyseal.agent.keys import ProfileOpener
from privyseal.agent.outbox import Outbox
from privyseal.agent.recovery import RecoveringToken
from privyseal.agent.token_custody import TokenCustody
from privyseal.agent.token_record import TokenRecord
from privyseal.agent.turns import Turns
from privyseal.pki.mechanism import Mechanism
from privyseal.ports.journal import JournalPart
from privyseal.storage.connection import Connect
from privyseal.storage.connection import connect as sqlite_connect
from privyseal.storage.journal import SqliteJournal
from privyseal.tlog.entry import Custody, Freeze, Reconcile, TokenEvent, encode_entry, parse_entry
from privyseal.tokens.factory import open_token
from relocating import place_watch

pytestmark = pytest.mark.interop


@dataclass(kw_only=True)
class Site:
    lab: CardLab
    journal: SqliteJournal
    token: RecoveringToken
    keeper: TokenKeeper
    served: list[bool]
    requests: int = 0

    @property
    def key(self) -> str:
        return hashlib.sha256(self.lab.spki(0x9A)).hexdigest()

    async def entries(self, *kinds: type) -> list[Any]:
        told = [parse_entry(event.entry) for event in await self.journal.events(1000)]
        return [entry for entry in told if isinstance(entry, kinds)]

    async def sign(self) -> None:
        await self.token.sign(key_id=RELEASE_ID, mechanism=Mechanism.RSA_SHA256, digest=bytes(32))

    async def sign_on_record(self) -> None:
        """As the executor does: begun in the journal, signed, ended there."""
        self.requests += 1
        intent = replace(intent_at(1, self.requests), key=self.key)
        await self.journal.begin(
            checkpoint_note=f"note {self.requests}",
            size=self.requests,
            root=bytes(32),
            token="lab",
            profile="release",
            fence=1,
            parts=(JournalPart(request_id=intent.request, items=((0, encode_entry(intent)),)),),
        )
        await self.sign()
        await self.journal.finish(intent.request, 0, 1, signature=b"s", branch="", code="", message="")

    @property
    def problem(self) -> str:
        (profile,) = self.keeper.profiles
        return profile.announcement.problem_code


@pytest.fixture(scope="module")
def opened() -> Iterator[CardLab]:
    with card_lab() as lab:
        yield lab


@pytest.fixture
def lab(opened: CardLab) -> Iterator[CardLab]:
    yield opened
    opened.renew()


@asynccontextmanager
async def kept(
    lab: CardLab,
    directory: Path,
    *,
    connect: Connect = sqlite_connect,
    relocation: Literal["off", "record", "quarantine"] = "record",
    clocks: Callable[[], Moment] = system_moment,
    **table: Any,
) -> AsyncIterator[Site]:
    journal = await SqliteJournal.open(directory / "journal.db", origin="hub.example", connect=connect)
    outbox = Outbox(journal=journal, clock=lambda: 5, request_key=b"a" * 32)
    record = TokenRecord("card", outbox)
    config = lab.config(environment=lab.locking_environment, call_seconds=5.0, hardware=True, **table)
    token = RecoveringToken(open_token(config), told=record.stepped, pause_seconds=0.05)
    chain = directory / "chain.pem"
    chain.write_bytes(lab.certificate(0x9A).public_bytes(Encoding.PEM))
    turns = Turns()
    wanted = (KeyConfig(profile="release", token="card", id=RELEASE_ID.hex(), chain=str(chain)),)
    opener = ProfileOpener(wanted=wanted, token=token, turns=turns, directory=directory)
    custodian = await Custodian.open(name="card", journal=journal, outbox=outbox, clocks=clocks)
    here = TokenTable(name="card", kind="pkcs11", relocation=relocation)
    custody = TokenCustody(
        custodian,
        token,
        turns=turns,
        count_seconds=1e-9 if table.get("counter") else 0.0,
        beside=lambda: (),
        place=place_watch(here, token, turns=turns, journal=journal),
    )

    served: list[bool] = []

    async def changed() -> None:
        served.append(any(profile.served for profile in keeper.profiles))

    keeper = TokenKeeper(
        here,
        opener,
        token=token,
        record=record,
        journal=journal,
        custody=custody,
        changed=changed,
    )
    await keeper.start()
    try:
        yield Site(lab=lab, journal=journal, token=token, keeper=keeper, served=served)
    finally:
        await keeper.close()
        await journal.close()


async def test_a_card_that_is_pulled_out_and_put_back_is_used_again(lab: CardLab, tmp_path: Path) -> None:
    async with kept(lab, tmp_path) as site:
        await site.sign()
        lab.remove_card()
        await site.keeper.look()
        assert site.keeper.state.value == "absent"
        lab.insert_card()
        await site.keeper.look()

        assert site.keeper.state.value == "ready"
        await site.sign()
        assert [event.event for event in await site.entries(TokenEvent)] == ["attached", "detached", "attached"]


async def test_a_card_that_was_away_between_two_looks_is_looked_at_as_a_new_one(lab: CardLab, tmp_path: Path) -> None:
    async with kept(lab, tmp_path) as site:
        await site.sign()
        lab.remove_card()
        lab.insert_card()
        await site.keeper.look()

        assert site.keeper.state.value == "ready"
        assert [event.event for event in await site.entries(TokenEvent)] == ["attached", "detached", "attached"]
        assert site.served == [True, False, True], "nothing is signed with it before it was looked at"
        await site.sign()


async def test_a_card_that_was_away_is_noticed_although_the_disk_was_full(lab: CardLab, tmp_path: Path) -> None:
    faults = Faults()
    async with kept(lab, tmp_path, connect=faults.connect) as site:
        faults.fail_at = "INSERT"
        lab.remove_card()
        lab.insert_card()
        await site.keeper.look()
        faults.fail_at = ""
        await site.keeper.look()

        assert site.keeper.state.value == "ready"
        assert [event.event for event in await site.entries(TokenEvent)] == ["attached", "detached", "attached"]


async def test_a_drained_card_hides_no_other_program_from_its_neighbours(lab: CardLab, tmp_path: Path) -> None:
    async with kept(lab, tmp_path) as site:
        await site.sign()
        await site.keeper.look()
        use = site.keeper.custody.use
        assert use is not None
        assert use.own >= 1
        await site.keeper.drain()
        await site.keeper.recycle()

        assert site.keeper.custody.use is None, "its worker is gone, and takes up none of pcscd's connections"


async def test_a_pcscd_that_is_started_again_is_found_again(lab: CardLab, tmp_path: Path) -> None:
    async with kept(lab, tmp_path) as site:
        await site.sign()
        lab.kill_pcscd()
        await site.keeper.look()
        assert site.keeper.state.value != "ready"
        lab.start_pcscd()
        await site.keeper.look()

        assert site.keeper.state.value == "ready"
        await site.sign()


async def test_the_cards_counter_agrees_with_what_was_signed(lab: CardLab, tmp_path: Path) -> None:
    async with kept(lab, tmp_path, counter="openpgp") as site:
        for _ in range(5):
            await site.sign_on_record()
        await site.keeper.look()

        counted = await site.entries(Reconcile)
        assert [one.verdict for one in counted] == ["match"] * len(counted)
        assert site.keeper.health().counter == lab.card.state.operations
        assert site.problem == ""


async def test_a_signature_that_nobody_asked_for_freezes_the_key(lab: CardLab, tmp_path: Path) -> None:
    async with kept(lab, tmp_path, counter="openpgp") as site:
        await site.sign_on_record()
        await site.keeper.look()
        await site.sign()  # beside the journal: by whoever else has card and PIN
        await site.keeper.look()

        assert site.problem == "key.frozen"
        (last,) = (await site.entries(Reconcile))[-1:]
        assert (last.verdict, last.now - last.enrolled - last.results) == ("mismatch", 1)
        assert [(one.key, one.frozen) for one in await site.entries(Freeze)] == [(site.key, True)]
    async with kept(lab, tmp_path, counter="openpgp") as site:
        assert site.problem == "key.frozen", "also after a restart"
        await accept_counter(site.journal, "card", site.key)
        await site.keeper.look()

        assert site.problem == ""
        assert [one.frozen for one in await site.entries(Freeze)] == [True, False]


async def test_while_the_agent_alone_holds_the_card_its_custody_is_proven(lab: CardLab, tmp_path: Path) -> None:
    async with kept(lab, tmp_path) as site:
        for _ in range(3):
            await site.keeper.look()
    async with kept(lab, tmp_path) as site:
        told = await site.entries(Custody)

        assert "proven" in {one.state for one in told}
        assert {one.key for one in told} >= {site.key}


async def test_a_card_behind_a_relay_is_quarantined_and_its_custody_says_why(lab: CardLab, tmp_path: Path) -> None:
    seconds = itertools.count(1_700_000_000, 25)

    def clocks() -> Moment:
        now_ms = next(seconds) * 1000
        return Moment(wall_ms=now_ms, awake_ms=now_ms, boot_ms=now_ms)

    async with kept(lab, tmp_path, relocation="quarantine", clocks=clocks) as site:
        for _ in range(4):
            await site.keeper.look()
        assert site.keeper.state.value == "ready"
    lab.card.turn(Set(delays_ms={0xCA: 20}))
    async with kept(lab, tmp_path, relocation="quarantine", clocks=clocks) as site:
        for _ in range(3):
            await site.keeper.look()
        assert (site.keeper.state.value, site.problem) == ("quarantined", "token.relocated")
        await site.keeper.resume()

        assert site.keeper.state.value == "ready"
        for _ in range(4):
            await site.keeper.look()
        assert [(one.event, one.code) for one in await site.entries(TokenEvent)][-3:] == [
            ("quarantined", "token.relocated"),
            ("resumed", "token.relocated"),
            ("attached", ""),
        ]
    async with kept(lab, tmp_path) as site:
        assert "card-timing" in {one.reason for one in await site.entries(Custody)}
