# SPDX-License-Identifier: Apache-2.0
"""A hub that lies about what was asked, or about who asked it, gets no signature (promises 2 and 3)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from lied_to_agent import Bench, resent, with_item, with_member, with_part
from lying_hub import HOUR_MS, HUB, NOW_MS, Ask, Trust, pe_preimage, raw_key, sha256
from privyseal.agent.served import ServedKey
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint
from privyseal.tlog.entry import Intent, parse_entry
from privyseal.tlog.note import parse_vkey
from privyseal.wire.statement import seal_request

pytest_plugins = ["lying_hub_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER = sha256(b"another")


async def test_a_preimage_of_another_program_is_refused(bench: Bench, ask: Ask) -> None:
    job = bench.hub.job(ask)
    other = pe_preimage(9)

    await bench.refuses(with_item(job, signed=other.signed, detail=other.detail), "job.artifact")


async def test_preimages_of_two_items_cannot_change_places(bench: Bench) -> None:
    first, second = pe_preimage(1), pe_preimage(2)
    job = bench.hub.job(bench.hub.ask(bench.hub.enrol(), first, second))
    one, two = job.parts[0].items
    swapped = (
        replace(one, signed=second.signed, detail=second.detail),
        replace(two, signed=first.signed, detail=first.detail),
    )

    await bench.refuses(with_part(job, items=swapped), "job.artifact")
    job = resent(job, bench)
    await bench.refuses(with_part(job, items=(replace(one, item=1), replace(two, item=0))), "job.artifact")
    await bench.refuses(with_part(job, items=(one, replace(one, item=1))), "job.artifact")
    await bench.signs(job)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"hub": "other.example/log"}, "job.statement"),
        ({"profile": "demo"}, "job.statement"),
        ({"not_after": NOW_MS - 1}, "job.expired"),
        ({"format": "authenticode-msi"}, "format.unknown"),
        ({"v": 2}, "request.malformed"),
        ({"idempotency_key": "k" * 5000}, "request.malformed"),
    ],
    ids=["hub", "profile", "expired", "format", "version", "long"],
)
async def test_a_statement_that_is_not_for_this_is_refused(bench: Bench, changes: dict[str, Any], code: str) -> None:
    honest = bench.hub.ask(bench.hub.enrol())
    statement = replace(honest.statement, **changes)
    job = with_part(bench.hub.job(honest), envelope=seal_request(statement, honest.member.key))

    await bench.refuses(job, code)


async def test_a_job_for_another_profile_than_its_statement_is_refused(bench: Bench, ask: Ask) -> None:
    await bench.refuses(replace(bench.hub.job(ask), profile="demo"), "profile.not_served")


async def test_the_last_millisecond_of_a_statement_still_counts(bench: Bench, ask: Ask) -> None:
    job = bench.hub.job(ask)

    bench.now_ms[0] = NOW_MS + HOUR_MS + 1
    await bench.refuses(job, "job.expired")
    bench.now_ms[0] = NOW_MS + HOUR_MS
    await bench.signs(resent(job, bench))


async def test_no_job_is_signed_outside_the_certificates_dates(bench: Bench, ask: Ask) -> None:
    served = bench.executor._keys[bench.profile.name, bench.profile.token]
    assert isinstance(served, ServedKey)
    expired = dataclasses.replace(bench.profile, not_after_ms=NOW_MS - 1)
    bench.executor.serve((dataclasses.replace(served, profile=expired),))

    await bench.refuses(bench.hub.job(ask), "certificate.expired")


async def test_a_statement_that_the_client_did_not_sign_is_refused(bench: Bench, ask: Ask) -> None:
    job = bench.hub.job(ask)
    forged = with_part(job, envelope=seal_request(ask.statement, Ed25519PrivateKey.generate()))

    await bench.refuses(forged, "envelope.signature")
    for envelope in (b"{}", b"", b"[" * 100_000, b"\xff"):
        await bench.refuses(with_part(resent(job, bench), envelope=envelope), "envelope.malformed")


@pytest.mark.parametrize("length", [0, 31, 33])
async def test_a_request_key_that_is_no_key_is_refused(bench: Bench, ask: Ask, length: int) -> None:
    job = bench.hub.job(ask)
    stump = (raw_key(ask.member.key) + b"\0")[:length]
    envelope = job.parts[0].envelope.replace(sha256(raw_key(ask.member.key)).encode(), sha256(stump).encode())

    await bench.refuses(with_member(with_part(job, envelope=envelope), request_key=stump), "envelope.signature")


@pytest.mark.parametrize(
    "changes",
    [
        {"key": OTHER},
        {"role": "agent"},
        {"role": "admin"},
        {"action": "revoke"},
        {"profiles": ()},
        {"profiles": ("demo", "release2", "rel", "RELEASE")},
    ],
    ids=["key", "agent", "admin", "revoke", "no-profile", "other-profiles"],
)
async def test_an_enrolment_that_does_not_allow_it_is_refused(bench: Bench, changes: dict[str, Any]) -> None:
    ask = bench.hub.ask(bench.hub.enrol(**changes))

    await bench.refuses(bench.hub.job(ask), "job.client")


async def test_an_entry_of_another_type_is_no_enrolment(bench: Bench, ask: Ask) -> None:
    job = bench.hub.job(ask)
    genesis = bench.hub.log.entries[0]

    await bench.refuses(with_member(job, entry=genesis, index=0, inclusion=bench.hub.log.inclusion(0)), "job.client")


async def test_an_enrolment_that_stands_in_no_log_is_refused(bench: Bench, ask: Ask) -> None:
    elsewhere = bench.hub.fork(1)
    stranger = elsewhere.enrol()

    job = with_member(bench.hub.job(ask), entry=stranger.entry, request_key=raw_key(stranger.key))

    statement = seal_request(ask.statement, stranger.key)
    await bench.refuses(with_part(job, envelope=statement), "proof.inclusion")


@pytest.mark.parametrize("profiles", [("*",), ("demo", "release")], ids=["all", "listed"])
async def test_an_enrolment_that_allows_it_is_enough_for_a_traced_profile(
    bench: Bench, profiles: tuple[str, ...]
) -> None:
    await bench.signs(bench.hub.job(bench.hub.ask(bench.hub.enrol(profiles=profiles))))


@pytest.mark.parametrize("item", [-1, 1, 2**40])
async def test_an_item_that_the_statement_does_not_have_is_refused(bench: Bench, ask: Ask, item: int) -> None:
    await bench.refuses(with_item(bench.hub.job(ask), item=item), "job.items")


async def test_an_item_cannot_stand_in_a_job_twice(bench: Bench, ask: Ask) -> None:
    job = bench.hub.job(ask)

    await bench.refuses(with_part(job, items=job.parts[0].items * 2), "job.items")


async def test_a_job_without_items_changes_nothing(bench: Bench, ask: Ask) -> None:
    await bench.refuses(with_part(bench.hub.job(ask), items=()), "job.items")


@pytest.mark.parametrize("field", ["signed", "detail"])
@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda data: data + b"\0", "der.trailing_bytes"),
        (lambda data: data[:-1], "der.malformed"),
        (lambda _: b"", "der.malformed"),
        (lambda data: data + bytes(21 << 20), "authenticode.preimage_too_large"),
    ],
    ids=["trailing", "missing", "empty", "huge"],
)
async def test_a_preimage_that_is_not_exactly_one_structure_is_refused(
    bench: Bench, ask: Ask, field: str, spoil: Callable[[bytes], bytes], code: str
) -> None:
    if (field, code) == ("detail", "der.trailing_bytes"):
        code = "der.malformed"
    preimage = ask.preimages[0]
    spoilt = spoil(getattr(preimage, field))
    signed = spoilt if field == "signed" else preimage.signed
    asked = replace(ask.statement.items[0], preimage=sha256(signed))
    statement = replace(ask.statement, items=(asked,))
    lied = dataclasses.replace(ask, statement=statement, envelope=seal_request(statement, ask.member.key))

    await bench.refuses(with_item(bench.hub.job(lied), **{field: spoilt}), code)


async def test_a_client_of_the_hubs_own_making_is_signed_but_stays_provable(bench: Bench, trust: Trust) -> None:
    invented = bench.hub.enrol(name=sha256(b"nobody"))

    await bench.signs(bench.hub.job(bench.hub.ask(invented)))

    (kept,) = await bench.journal.entries(0, 10)
    key = parse_vkey(trust.bundle.statement.log_key)
    checkpoint = open_checkpoint(kept.checkpoint_note, origin=HUB, verifiers=(key,))
    assert checkpoint == Checkpoint(origin=HUB, size=bench.hub.log.size, root=bench.hub.log.root())
    entry = parse_entry(kept.entry)
    assert isinstance(entry, Intent)
    assert entry.client == sha256(raw_key(invented.key))
    assert bench.hub.log.entries[entry.authority] == invented.entry
