# SPDX-License-Identifier: Apache-2.0
"""Certificates that end soon are told of at 60, 30 and 7 days, and once they have ended; once a day, to everybody."""

import asyncio
import datetime as dt
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from structlog.testing import capture_logs

from privyseal.hub.services.certificates import CertificateWatch, warning
from privyseal.ports.store import ProfileRow
from privyseal.tokens.testca import make_test_ca
from privyseal.wire.events import CertificateEvent

SPKI = (
    ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)
BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
END = dt.datetime(2026, 12, 31, 12, tzinfo=dt.UTC)
CHAIN = make_test_ca(not_before=BEGIN, not_after=END).issue_code_signing(
    spki=SPKI, common_name="Acme", not_before=BEGIN, not_after=END
)
PROFILE = ProfileRow(
    name="acme",
    agent="pi",
    token="ev",
    chain=CHAIN,
    level="traced",
    opaque=(),
    token_label="",
    token_serial="",
    hardware=True,
    entry_index=0,
)
DAY_MS = 86_400_000
END_MS = int(END.timestamp() * 1000)


@pytest.mark.parametrize(
    ("left_ms", "level", "days"),
    [
        (61 * DAY_MS, "", 0),
        (61 * DAY_MS - 1000, "notice", 60),
        (31 * DAY_MS, "notice", 31),
        (31 * DAY_MS - 1000, "warning", 30),
        (8 * DAY_MS, "warning", 8),
        (8 * DAY_MS - 1000, "urgent", 7),
        (0, "urgent", 0),
        (-1000, "expired", -1),
    ],
)
def test_levels(left_ms: int, level: str, days: int) -> None:
    found = warning(PROFILE, END_MS - left_ms)

    assert (found.level if found else "", found.days if found else 0) == (level, days)


@pytest.mark.parametrize("chain", [(), (b"no certificate",)])
def test_a_profile_without_a_certificate_has_nothing_to_warn_of(chain: tuple[bytes, ...]) -> None:
    assert warning(replace(PROFILE, chain=chain), END_MS) is None


async def test_the_watch_tells_each_warning_once_a_day_and_when_it_grows_worse() -> None:
    now_ms = END_MS - 40 * DAY_MS
    told: list[CertificateEvent] = []
    watch = CertificateWatch(profiles=lambda: (PROFILE,), clock=lambda: now_ms, told=told.append)
    with capture_logs() as logs:
        watch.look()
        watch.look()
        assert [one.level for one in told] == ["notice"]
        now_ms += 15 * DAY_MS
        watch.look()
        now_ms = END_MS + DAY_MS
        watch.look()

    assert [(one.level, one.days) for one in told] == [("notice", 40), ("warning", 25), ("expired", -1)]
    assert [(log["log_level"], log["profile"]) for log in logs] == [
        ("info", "acme"),
        ("warning", "acme"),
        ("error", "acme"),
    ]


async def test_the_watch_tells_of_each_token_of_a_pool_once() -> None:
    told: list[CertificateEvent] = []
    rows = (PROFILE, replace(PROFILE, token="hsm"))
    watch = CertificateWatch(profiles=lambda: rows, clock=lambda: END_MS - DAY_MS, told=told.append)
    for _ in range(3):
        watch.look()

    assert [one.token for one in told] == ["pi/ev", "pi/hsm"]


async def test_the_watch_repeats_itself_day_by_day() -> None:
    told: list[CertificateEvent] = []
    thrice = asyncio.Event()

    def hear(event: CertificateEvent) -> None:
        told.append(event)
        if len(told) == 3:
            thrice.set()

    watch = CertificateWatch(profiles=lambda: (PROFILE,), clock=lambda: END_MS - DAY_MS, told=hear, every_seconds=0.001)
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(5):
        await thrice.wait()
    task.cancel()

    assert {one.level for one in told} == {"urgent"}
