# SPDX-License-Identifier: Apache-2.0
"""A token over time: taken out and put back, changed, drained, recycled, its PIN refused; what is served then."""

import asyncio
import shutil
from pathlib import Path

import pytest

from failing_journal import Faults
from kept_token import kept
from lab.fault_shim import FaultyToken, around
from privyseal.agent.ladder import Rung
from privyseal.errors import TokenError
from privyseal.tokens.pin_journal import PinJournal
from softhsm import EC_ID, PIN, fresh_softhsm

ABSENT = "C_GetSlotList empty"


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


async def test_a_token_that_goes_and_comes_back_is_used_again(faulty: FaultyToken) -> None:
    async with kept(faulty) as site:
        assert site.served
        faulty.break_with(ABSENT, "C_GetTokenInfo rv e0")
        await site.keeper.look()
        assert (site.keeper.state.value, site.problem, site.served) == ("absent", "token.not_found", False)
        starts = site.token.starts
        for _ in range(3):
            await site.keeper.look()
        assert site.token.starts == starts, "an empty reader is not recovered from again and again"
        faulty.heal()
        await site.keeper.look()

        assert site.served
        assert await site.sign()
        events = [event for event in await site.events() if not event.startswith("recover")]
        assert events == ["attached", "detached token.not_found", "attached"]
        assert site.changes == ["ready", "absent", "ready"]


async def test_a_token_that_failed_at_a_signature_is_out_of_use_until_a_look_finds_it_well(faulty: FaultyToken) -> None:
    async with kept(faulty, watch_seconds=3600.0) as site:
        watching = asyncio.create_task(site.keeper.run())
        site.keeper.failed(TokenError("token.timeout", "C_Login did not answer"))
        async with asyncio.timeout(20):
            while site.changes[-1] != "failed":  # noqa: ASYNC110 - the keeper has no event for what tests look at
                await asyncio.sleep(0.001)
        assert (site.problem, site.served) == ("token.timeout", False), "at once, and not with the next look"
        watching.cancel()
        await site.keeper.look()
        assert site.changes == ["ready", "failed", "ready"]


async def test_a_token_that_shows_itself_and_no_keys_is_not_recovered_with_each_look(faulty: FaultyToken) -> None:
    resets: list[str] = []

    async def reset() -> None:
        resets.append("usb")

    async with kept(faulty, steps={Rung.USB_RESET: reset}) as site:
        faulty.break_with("C_FindObjectsInit rv 30", "C_GetTokenInfo rv 30")
        await site.keeper.look()
        faulty.break_with("C_FindObjectsInit rv 30")
        told, starts = await site.events(), site.token.starts
        for _ in range(5):
            await site.keeper.look()

        assert (site.keeper.state.value, resets, site.token.starts) == ("failed", ["usb"], starts)
        assert await site.events() == told
        faulty.heal()
        await site.keeper.look()
        assert site.served


async def test_a_token_whose_counter_cannot_be_read_does_not_fill_the_log(faulty: FaultyToken) -> None:
    async with kept(faulty, counter="openpgp") as site:
        assert site.keeper.state.value == "failed"
        told = await site.events()
        for _ in range(5):
            await site.keeper.look()

        assert site.keeper.state.value == "failed"
        assert await site.events() == told


async def test_a_full_disk_ends_no_watch(faulty: FaultyToken) -> None:
    faults = Faults()
    async with kept(faulty, connect=faults.connect) as site:
        faults.fail_at = "INSERT"
        faulty.break_with(ABSENT, "C_GetTokenInfo rv e0")
        await site.keeper.look()
        assert (site.keeper.state.value, site.served) == ("absent", False)
        faulty.heal()
        for _ in range(5):
            await site.keeper.look()
        assert site.problem == "token.not_found", "what comes is held against the journal first"
        faults.fail_at = ""
        await site.keeper.look()

        assert site.served
        told = [event for event in await site.events() if not event.startswith("recover")]
        assert told == ["attached", "detached token.not_found", "attached"]


async def test_looks_are_taken_by_themselves(faulty: FaultyToken) -> None:
    async with kept(faulty) as site:
        watching = asyncio.create_task(site.keeper.run())
        faulty.break_with(ABSENT, "C_GetTokenInfo rv e0")
        async with asyncio.timeout(20):
            while site.keeper.state.value != "absent":  # noqa: ASYNC110 - the state has no event of its own
                await asyncio.sleep(0.01)
            faulty.heal()
            while site.keeper.state.value != "ready":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_token_that_is_not_there_at_first_is_found(faulty: FaultyToken) -> None:
    faulty.break_with(ABSENT)
    async with kept(faulty) as site:
        assert not site.served
        assert "detached token.not_found" in await site.events()
        faulty.heal()
        await site.keeper.look()

        assert site.served


async def test_a_token_that_comes_back_with_other_certificates_is_quarantined(faulty: FaultyToken) -> None:
    async with kept(faulty) as site:
        faulty.break_with(ABSENT, "C_GetTokenInfo rv e0")
        await site.keeper.look()
        faulty.hsm.pkcs11_tool("--delete-object", "--type", "cert", "--id", EC_ID.hex())
        faulty.heal()
        for _ in range(2):
            await site.keeper.look()

        assert (site.keeper.state.value, site.problem) == ("quarantined", "token.other_certificates")
        assert not site.served
        assert (await site.events())[-1] == "quarantined token.other_certificates"
        await site.keeper.resume()
        assert site.keeper.state.value == "ready", "a person has taken it as it is"


async def test_another_token_in_its_place_is_quarantined_also_over_a_restart(
    faulty: FaultyToken, tmp_path: Path
) -> None:
    async with kept(faulty, tmp_path / "journal.db") as site:
        assert site.served
    logins = faulty.calls("C_Login")
    shutil.rmtree(faulty.hsm.directory / "tokens")
    (faulty.hsm.directory / "tokens").mkdir()
    faulty.hsm.run(
        "softhsm2-util", "--init-token", "--free", "--label", "hub", "--pin", PIN.decode(), "--so-pin", "87654321"
    )
    async with kept(faulty, tmp_path / "journal.db") as site:
        assert (site.keeper.state.value, site.problem) == ("quarantined", "token.other_serial")
        assert (await site.events())[-1] == "quarantined token.other_serial"
        assert faulty.calls("C_Login") == logins, "the PIN is presented to no other token"
        serial = site.keeper.health().serial
    async with kept(faulty, tmp_path / "journal.db", serial=serial) as site:
        assert site.keeper.state.value == "ready", "agent.toml names the new one"


async def test_a_drained_token_stays_so_until_it_is_resumed(faulty: FaultyToken, tmp_path: Path) -> None:
    async with kept(faulty, tmp_path / "journal.db") as site:
        await site.keeper.drain()
        assert (site.problem, site.served) == ("token.drained", False)
    logins = faulty.calls("C_Login")
    async with kept(faulty, tmp_path / "journal.db") as site:
        await site.keeper.look()
        assert site.problem == "token.drained"
        assert faulty.calls("C_Login") == logins, "nobody touches it meanwhile"
        await site.keeper.resume()

        assert site.served
        assert (await site.events())[-3:] == ["drained", "resumed", "attached"]


async def test_draining_waits_for_what_is_being_signed(faulty: FaultyToken) -> None:
    async with kept(faulty) as site:
        (profile,) = site.keeper.profiles
        assert profile.served is not None
        async with profile.served.turns:
            draining = asyncio.create_task(site.keeper.drain())
            while site.served:  # noqa: ASYNC110 - the state has no event of its own
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not draining.done()
        await draining


async def test_draining_waits_for_each_of_several_workers(faulty: FaultyToken) -> None:
    async with kept(faulty, workers=2) as site:
        (profile,) = site.keeper.profiles
        assert profile.served is not None
        async with profile.served.turns:
            draining = asyncio.create_task(site.keeper.drain())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(draining), 0.2)
        await draining


async def test_a_refused_pin_blocks_and_is_on_record_once(faulty: FaultyToken) -> None:
    faulty.hsm.set_pin_file(b"000000")
    async with kept(faulty) as site:
        for _ in range(5):
            await site.keeper.look()
        assert (site.keeper.state.value, site.problem) == ("blocked", "token.pin_incorrect")
        assert faulty.calls("C_Login") == 1
        assert await site.events() == ["pin refused token.pin_incorrect"]
        faulty.hsm.set_pin_file(PIN)
        PinJournal(str(faulty.hsm.journal)).clear(site.keeper.health().serial)
        await site.keeper.retry()

        assert site.served
        assert faulty.calls("C_Login") == 2


async def test_what_a_person_did_to_a_pin_is_found_out_at_once(faulty: FaultyToken) -> None:
    """Not by the next job."""
    async with kept(faulty) as site:
        assert await site.keeper.retry() is None
        assert faulty.calls("C_Login") == 1, "a session that is good needs no login"
        faulty.hsm.set_pin_file(b"000000")
        await site.token.forget_pin()
        problem = await site.keeper.retry()

        assert problem is not None
        assert (problem.code, site.keeper.state.value) == ("token.pin_incorrect", "blocked")
        assert faulty.calls("C_Login") == 2
        assert (await site.events())[-1] == "pin refused token.pin_incorrect"


async def test_a_pin_that_is_refused_while_signing_takes_the_token_out_of_use(faulty: FaultyToken) -> None:
    async with kept(faulty) as site:
        faulty.break_with("C_SignInit once a4")
        for _ in range(2):
            with pytest.raises(Exception, match="pin"):
                await site.sign()
        await site.keeper.look()

        assert site.keeper.state.value == "blocked"
        assert faulty.calls("C_Login") == 1


async def test_workers_are_recycled_between_jobs(faulty: FaultyToken) -> None:
    async with kept(faulty, recycle_signatures=3) as site:
        for _ in range(2):
            await site.sign()
        await site.keeper.look()
        assert site.token.starts == 1
        await site.sign()
        await site.keeper.look()

        assert site.token.starts == 2, "and logged in already"
        assert (await site.events())[-1] == "recycled"
        await site.keeper.look()
        assert site.token.starts == 2


async def test_a_reset_takes_the_device_if_it_can(faulty: FaultyToken) -> None:
    resets: list[str] = []

    async def reset() -> None:
        resets.append("usb")

    async with kept(faulty) as site:
        assert await site.keeper.reset() is Rung.WORKER
    async with kept(faulty, steps={Rung.USB_RESET: reset}) as site:
        assert await site.keeper.reset() is Rung.USB_RESET
        assert "recover usb-reset done" in await site.events()
    assert resets == ["usb"]


async def test_its_health_says_why(faulty: FaultyToken) -> None:
    async with kept(faulty) as site:
        await site.sign()
        well = site.keeper.health()
        assert (well.state, well.signatures, well.pin_state, well.code) == ("ready", 1, "ok", "")
        faulty.break_with(ABSENT, "C_GetTokenInfo rv e0")
        await site.keeper.look()
        ill = site.keeper.health()

        assert (ill.state, ill.code, ill.serial) == ("absent", "token.not_found", well.serial)
        assert ill.problem
        assert ill.hint
        assert ill.recoveries
