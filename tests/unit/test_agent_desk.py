# SPDX-License-Identifier: Apache-2.0
"""A PIN from a desk: what is not for this agent, this token and this moment, once, is refused; so is a hub's own."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from canaries import shown
from lying_hub import HUB, make_trust
from privyseal.agent.desk import Desk
from privyseal.agent.outbox import EntryMaker
from privyseal.agent.pins import TokenPins, TokenWithPin
from privyseal.agent.token_record import TokenRecord
from privyseal.errors import PrivysealError, TokenError
from privyseal.identity.authority import Revocation, Unlock, UnlockQuestion, seal_authority
from privyseal.identity.trust import PinnedTrust
from privyseal.identity.unlocking import UNLOCK_MS, seal_unlock
from privyseal.tlog.entry import AgentEntry, PinEvent
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.factory import open_token
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_journal import PinJournal
from privyseal.tokens.software import create_software_token, generate_key
from privyseal.tokens.supervisor import WorkerToken
from privyseal.wire.dsse import key_id
from privyseal.wire.link import UnlockAnswer, UnlockOrder, UnlockQuery, encode

PIN = b"canary-from-a-desk-31"
TRUST = make_trust()
KEY = X25519PrivateKey.generate()
SEALED_TO = KEY.public_key().public_bytes_raw()
START_MS = 1_700_000_000_000


class Lab:
    """An agent with two software tokens whose PIN somebody must type, both blocked after a wrong one."""

    def __init__(self, directory: Path) -> None:
        self.now_ms = START_MS
        self.told: list[AgentEntry] = []
        self.looks = 0
        self.directory = directory
        self.tokens = {name: self._token(name) for name in ("one", "two")}
        self.pins = TokenPins({name: self._with_pin(name) for name in self.tokens}, directory=directory)
        trust = PinnedTrust(directory / "bundle.json", TRUST.bundle)
        self.desk = Desk(name="lab", key=KEY, trust=trust, pins=self.pins, clock=lambda: self.now_ms)

    def _token(self, name: str) -> WorkerToken:
        place = self.directory / name
        create_software_token(place, pin=PIN, label=name)
        generate_key(place, pin=PIN, kind="p256", key_id=b"\x01", label="key")
        return open_token(
            TokenConfig(
                name=name,
                kind="software",
                path=str(place),
                journal=str(self.directory / "pin-journal"),
                pin_prompt=True,
                respawn_seconds=0.0,
            )
        )

    def _with_pin(self, name: str) -> TokenWithPin:
        token = self.tokens[name]

        async def retry() -> PrivysealError | None:
            self.looks += 1
            try:
                await token.keys()
            except PrivysealError as error:
                return error
            return None

        record = TokenRecord(name, self)
        return TokenWithPin(token=token, glance=token.info, config=token.config, record=record, retry=retry)

    async def tell(self, make: EntryMaker) -> None:
        self.told.append(make(self.now_ms, "agent"))

    async def ask(self, token: str = "one") -> UnlockAnswer:
        return await self.desk.answer(UnlockQuery(ask=7, token=token))

    async def unlock(self, **changes: Any) -> Unlock:
        """A statement as a desk makes it, with a nonce of now; `changes` to what is sealed and signed."""
        asked = await self.ask()
        statement = Unlock(
            hub=HUB,
            issued=self.now_ms,
            not_after=self.now_ms + UNLOCK_MS,
            agent="lab",
            token="one",
            serial=asked.serial,
            nonce=asked.nonce,
            forgive_refused=False,
            sealed=b"",
        )
        return seal_unlock(msgspec.structs.replace(statement, **changes), PIN, SEALED_TO)

    async def hand_in(self, statement: Unlock, *keys: Ed25519PrivateKey) -> UnlockAnswer:
        return await self.desk.answer(UnlockOrder(ask=9, envelope=seal_authority(statement, keys or TRUST.authority)))

    async def refused(self, statement: Unlock, *keys: Ed25519PrivateKey) -> str:
        """Its code; nothing has happened to any token."""
        answer = await self.hand_in(statement, *keys)
        assert self.told == []
        for token in self.tokens.values():
            assert PinJournal(str(self.directory / "pin-journal")).history((await token.info()).serial).blocked
        return answer.code


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    for token in made.tokens.values():
        await block(token)
    yield made
    for token in made.tokens.values():
        await token.close()


async def block(token: WorkerToken) -> None:
    wrong = PinBuffer()
    wrong.fill(b"wrong-one")
    await token.unlock(wrong.view)
    with pytest.raises(TokenError, match="pin_incorrect"):
        await token.keys()
    await token.forget_pin()


async def test_a_pin_from_a_desk_opens_the_token_and_is_on_record(lab: Lab) -> None:
    answer = await lab.hand_in(await lab.unlock())

    assert (answer.ask, answer.code, answer.keys) == (9, "", 1)
    assert answer.serial == (await lab.tokens["one"].info()).serial
    (entry,) = lab.told
    assert isinstance(entry, PinEvent)
    assert (entry.event, entry.token) == ("unlocked", answer.serial)
    assert entry.authority == key_id(TRUST.authority[0].public_key().public_bytes_raw())
    assert lab.looks == 1
    assert await lab.tokens["one"].keys()


async def test_what_passes_the_hub_shows_no_pin(lab: Lab) -> None:
    statement = await lab.unlock()
    envelope = seal_authority(statement, TRUST.authority)

    for data in (envelope, statement.sealed, encode(UnlockOrder(ask=1, envelope=envelope))):
        assert not shown(PIN, data)
    again = seal_unlock(msgspec.structs.replace(statement, sealed=b""), PIN, SEALED_TO)
    assert again.sealed != statement.sealed, "the same PIN never looks the same"


async def test_a_replay_is_refused(lab: Lab) -> None:
    statement = await lab.unlock()
    assert (await lab.hand_in(statement)).code == ""
    lab.told.clear()

    assert (await lab.hand_in(statement)).code == "unlock.nonce"
    assert lab.told == []


async def test_a_nonce_is_spent_by_a_statement_that_is_refused(lab: Lab) -> None:
    statement = await lab.unlock()
    bad = msgspec.structs.replace(statement, sealed=statement.sealed[:-1])
    assert await lab.refused(bad) == "sealed.closed"

    assert await lab.refused(statement) == "unlock.nonce"


async def test_a_nonce_that_the_agent_did_not_give_out_is_refused(lab: Lab) -> None:
    assert await lab.refused(await lab.unlock(nonce="00" * 16)) == "unlock.nonce"
    assert await lab.refused(await lab.unlock(nonce="")) == "unlock.nonce"


async def test_many_questions_push_the_oldest_out_and_no_more(lab: Lab) -> None:
    first = await lab.unlock()
    for _ in range(40):
        last = await lab.unlock()

    assert await lab.refused(first) == "unlock.nonce"
    assert (await lab.hand_in(last)).code == ""


async def test_another_agent_is_refused(lab: Lab) -> None:
    assert await lab.refused(await lab.unlock(agent="other")) == "unlock.agent"


async def test_another_serial_is_refused(lab: Lab) -> None:
    assert await lab.refused(await lab.unlock(serial="other")) == "unlock.serial"
    serial = (await lab.tokens["two"].info()).serial
    assert await lab.refused(await lab.unlock(token="two", serial=serial)) == "unlock.serial"


async def test_a_token_that_was_exchanged_meanwhile_is_refused(lab: Lab) -> None:
    statement = await lab.unlock()
    exchange(lab.directory / "one", lab.directory / "two")

    assert await lab.refused(statement) == "unlock.serial"


def exchange(one: Path, other: Path) -> None:
    away = one.with_name("away")
    one.rename(away)
    other.rename(one)
    away.rename(other)


@pytest.mark.parametrize(("later_ms", "code"), [(UNLOCK_MS, ""), (UNLOCK_MS + 1, "authority.expired")])
async def test_two_minutes_count_by_the_agent_s_clock(lab: Lab, later_ms: int, code: str) -> None:
    statement = await lab.unlock()
    lab.now_ms += later_ms

    assert (await lab.hand_in(statement)).code == code


async def test_a_statement_that_is_good_for_longer_is_refused(lab: Lab) -> None:
    longer = await lab.unlock(not_after=START_MS + UNLOCK_MS + 1)
    assert await lab.refused(longer) == "unlock.late"


async def test_a_nonce_is_good_for_two_minutes_whatever_the_statement_says(lab: Lab) -> None:
    """A desk whose clock is ahead."""
    ahead = await lab.unlock(issued=START_MS + UNLOCK_MS, not_after=START_MS + 2 * UNLOCK_MS)
    lab.now_ms += UNLOCK_MS + 1
    assert await lab.refused(ahead) == "unlock.late"

    before = await lab.unlock(not_after=START_MS + 2 * UNLOCK_MS)
    lab.now_ms -= 10
    assert await lab.refused(before) == "unlock.late"


async def test_another_signer_is_refused(lab: Lab) -> None:
    assert await lab.refused(await lab.unlock(), Ed25519PrivateKey.generate()) == "authority.quorum"
    assert await lab.refused(await lab.unlock(), TRUST.log_key) == "authority.quorum"


async def test_another_hub_is_refused(lab: Lab) -> None:
    assert await lab.refused(await lab.unlock(hub="other.example")) == "authority.hub"


@pytest.mark.parametrize(
    "change", [{"forgive_refused": True}, {"not_after": START_MS + UNLOCK_MS - 1}, {"issued": START_MS + 1}]
)
async def test_a_sealed_pin_cannot_be_moved_into_another_statement(lab: Lab, change: dict[str, Any]) -> None:
    """Also not by somebody with an authority key."""
    moved = msgspec.structs.replace(await lab.unlock(), **change)
    assert await lab.refused(moved) == "sealed.closed"

    old, fresh = await lab.unlock(), await lab.unlock()
    assert await lab.refused(msgspec.structs.replace(fresh, sealed=old.sealed)) == "sealed.closed"


async def test_a_pin_that_was_sealed_to_another_agent_is_refused(lab: Lab) -> None:
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    statement = seal_unlock(msgspec.structs.replace(await lab.unlock(), sealed=b""), PIN, other)
    assert await lab.refused(statement) == "sealed.closed"


async def test_every_changed_byte_is_refused(lab: Lab) -> None:
    envelope = seal_authority(await lab.unlock(), TRUST.authority)
    for place in range(0, len(envelope), 7):
        changed = envelope[:place] + bytes([envelope[place] ^ 2]) + envelope[place + 1 :]
        assert (await lab.desk.answer(UnlockOrder(ask=1, envelope=changed))).code, place
    assert lab.told == []


async def test_other_statements_hand_nothing_in(lab: Lab) -> None:
    dates: dict[str, Any] = {"hub": HUB, "issued": START_MS, "not_after": START_MS + 1}
    for statement in (
        Revocation(role="agent", name="lab", **dates),
        UnlockQuestion(agent="lab", token="one", **dates),
    ):
        order = UnlockOrder(ask=1, envelope=seal_authority(statement, TRUST.authority))
        assert (await lab.desk.answer(order)).code == "authority.misplaced"


async def test_a_wrong_pin_from_a_desk_is_told_and_forgotten(lab: Lab) -> None:
    statement = seal_unlock(msgspec.structs.replace(await lab.unlock(), sealed=b""), b"another-wrong", SEALED_TO)

    answer = await lab.hand_in(statement)

    assert (answer.branch, answer.code) == ("token", "token.pin_incorrect")
    assert "another-wrong" not in answer.message + answer.hint
    assert (await lab.hand_in(await lab.unlock())).code == ""


async def test_what_cannot_be_a_pin_is_refused(lab: Lab) -> None:
    for pin in (b"", b"a\nb", b"x" * 300):
        statement = seal_unlock(msgspec.structs.replace(await lab.unlock(), sealed=b""), pin, SEALED_TO)
        assert await lab.refused(statement) in ("token.pin_missing", "token.pin_file")


async def test_a_token_that_is_not_there_is_told(lab: Lab) -> None:
    answer = await lab.ask("three")
    assert (answer.ask, answer.code, answer.nonce) == (7, "token.unknown", "")
