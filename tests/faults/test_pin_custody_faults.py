# SPDX-License-Identifier: Apache-2.0
"""A PIN that no person knows: whatever breaks on the way, the old PIN is known, or a recovery copy has the new one."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lab.fault_shim import FaultyToken, around
from privyseal.agent.outbox import EntryMaker
from privyseal.agent.pins import CustodyArguments, InCustody, TokenPins, TokenWithPin
from privyseal.agent.token_record import TokenRecord
from privyseal.errors import PrivysealError
from privyseal.identity.pin_recovery import open_recovery, parse_recovery
from privyseal.tlog.entry import PinEvent
from privyseal.tokens.factory import open_token
from privyseal.tokens.supervisor import WorkerToken
from softhsm import PIN, fresh_softhsm

KEYS = tuple(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(1, 4))
ASKED = CustodyArguments(
    token="lab", authorities=tuple(key.public_key().public_bytes_raw() for key in KEYS), threshold=2
)


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


class Lab:
    """The PINs of one token; what was told."""

    def __init__(self, faulty: FaultyToken, token: WorkerToken) -> None:
        self.events: list[str] = []
        self.token = token
        record = TokenRecord("lab", self)
        one = TokenWithPin(token=token, glance=token.info, config=token.config, record=record, retry=self.retry)
        self.pins = TokenPins({"lab": one}, directory=faulty.hsm.directory)

    async def tell(self, make: EntryMaker) -> None:
        entry = make(1, "agent")
        assert isinstance(entry, PinEvent)
        self.events.append(entry.event)

    async def retry(self) -> None:
        """Nobody keeps the token."""


@asynccontextmanager
async def lab(faulty: FaultyToken, **changes: object) -> AsyncIterator[Lab]:
    journal = str(faulty.hsm.directory / "pin-journal")
    token = open_token(faulty.config(journal=journal, **changes))
    try:
        yield Lab(faulty, token)
    finally:
        await token.close()


async def works(faulty: FaultyToken) -> bool:
    """Whether an agent that starts now gets in, with nobody's help."""
    async with lab(faulty) as started:
        try:
            return bool(await started.token.keys())
        except PrivysealError:
            return False


def copies(faulty: FaultyToken, keys: Sequence[Ed25519PrivateKey] = KEYS[:2]) -> list[bytes]:
    """The PINs in recovery copies."""
    found = sorted(faulty.hsm.directory.glob("*.recovery"))
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in found)
    return [bytes(open_recovery(parse_recovery(path.read_bytes()), tuple(keys))) for path in found]


def files(faulty: FaultyToken) -> dict[str, bytes]:
    found = [path for path in faulty.hsm.directory.glob("pin*") if path.name in ("pin", "pin.new")]
    return {path.name: path.read_bytes().strip() for path in found}


async def refusal(faulty: FaultyToken, *orders: str, **changes: object) -> str:
    faulty.break_with(*orders)
    async with lab(faulty, **changes) as broken:
        try:
            await broken.pins.custody(ASKED)
        except PrivysealError as error:
            return error.code
        finally:
            faulty.heal()
    pytest.fail("it went well")


async def test_the_agent_alone_has_the_new_pin(faulty: FaultyToken) -> None:
    async with lab(faulty) as running:
        done = await running.pins.custody(ASKED)

        assert isinstance(done, InCustody)
        assert running.events == ["custody"]
    (pin,) = copies(faulty)
    assert files(faulty) == {"pin": pin}
    assert len(pin) == 32
    assert pin != PIN
    assert await works(faulty)
    assert copies(faulty, KEYS[1:]) == [pin]


async def test_twice_leaves_both_copies(faulty: FaultyToken) -> None:
    for _ in range(2):
        async with lab(faulty) as running:
            await running.pins.custody(ASKED)

    first, second = copies(faulty)
    assert files(faulty) == {"pin": second}
    assert first != second


async def test_a_typed_pin_does_not_take_the_place_of_the_file(faulty: FaultyToken) -> None:
    async with lab(faulty) as running:
        await running.token.unlock(PIN)
        await running.pins.custody(ASKED)

    assert files(faulty) == {"pin": copies(faulty)[0]}
    assert await works(faulty)


@pytest.mark.parametrize(
    ("order", "code"), [("hang", "token.timeout"), ("abort", "token.crashed"), ("rv 5", "token.failed")]
)
async def test_a_change_that_did_not_happen_leaves_the_old_pin(faulty: FaultyToken, order: str, code: str) -> None:
    assert await refusal(faulty, f"C_SetPIN {order}", call_seconds=2.5) == code

    assert files(faulty)["pin"] == PIN
    assert len(copies(faulty)) == 1
    assert await works(faulty)
    assert files(faulty) == {"pin": PIN}


async def test_a_change_that_happened_and_was_not_told_leaves_a_copy_of_the_new_pin(faulty: FaultyToken) -> None:
    assert await refusal(faulty, "C_SetPIN late", call_seconds=2.5) == "token.timeout"

    (pin,) = copies(faulty)
    assert files(faulty) == {"pin": PIN, "pin.new": pin}
    assert not await works(faulty)
    async with lab(faulty) as started:
        await started.pins.unlock("lab", forgive_refused=False, pin=None)
        assert started.events == ["unlocked"]
    assert files(faulty) == {"pin": pin}
    assert await works(faulty)


async def test_a_kill_before_the_token_hears_of_it_leaves_old_pin_and_copy(faulty: FaultyToken) -> None:
    faulty.break_with("C_SetPIN hang")
    async with lab(faulty) as running:
        work = asyncio.ensure_future(running.pins.custody(ASKED))
        await faulty.until_called("C_SetPIN")
        assert len(copies(faulty)) == 1, "the copy is on disk before the token hears of the PIN"
        assert running.token._worker is not None
        os.kill(running.token._worker.pid, signal.SIGKILL)
        with pytest.raises(PrivysealError):
            await work
        assert running.events == ["unknown"]
    faulty.heal()
    assert await works(faulty)
    assert files(faulty) == {"pin": PIN}


async def test_without_a_copy_nothing_is_changed(faulty: FaultyToken, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def full(descriptor: int) -> None:
        if ".recovery" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert await refusal(faulty) == "custody.recovery"
    assert faulty.calls("C_SetPIN") == 0
    assert files(faulty) == {"pin": PIN}


async def test_a_token_without_a_pin_file_is_refused(faulty: FaultyToken) -> None:
    assert await refusal(faulty, pin_file="", pin_prompt=True) == "custody.source"
    assert copies(faulty) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"threshold": 4}, "shares.count"),
        ({"authorities": (ASKED.authorities[0],) * 2}, "recovery.twice"),
        ({"authorities": (b"\x02" + bytes(31),), "threshold": 1}, "key.text"),
        ({"length": 3}, "token.pin_length"),
        ({"token": "other"}, "token.unknown"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_happens(
    faulty: FaultyToken, change: dict[str, object], code: str
) -> None:
    fields = {name: getattr(ASKED, name) for name in ASKED.__struct_fields__} | change
    async with lab(faulty) as running:
        with pytest.raises(PrivysealError) as caught:
            await running.pins.custody(CustodyArguments(**fields))

    assert caught.value.code == code
    assert copies(faulty) == []
    assert files(faulty) == {"pin": PIN}
