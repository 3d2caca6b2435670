# SPDX-License-Identifier: Apache-2.0
"""What watches a hub sees of it: readiness, metrics, events; with agents that say how their tokens are."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from api_client import Reply, web_of
from privyseal.hub.config import MetricsTable
from privyseal.tlog.entry import PinEvent, Recover
from privyseal.wire.link import TokenHealth
from programs import Running, privyseal, succeeded, until
from witnessed import WitnessedSite, running_site

_ROW = re.compile(r"software +other ")
TOKEN = TokenHealth(
    name="software",
    state="ready",
    label="software",
    serial="",
    model="Software",
    pin_state="ok",
    signatures=40,
    failures=2,
    restarts=3,
    recoveries={"worker": 2, "session": 1},
    sign_seconds=9.5,
    sign_counts=(0, 0, 0, 0, 20, 19, 1),
)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[WitnessedSite]:
    async with running_site(tmp_path, level="off") as running:
        yield running


async def get(site: WitnessedSite, path: str) -> Reply:
    return await asyncio.to_thread(web_of(site.client), "GET", path)


async def metrics(site: WitnessedSite) -> dict[str, float]:
    """Each series as it is written, and its value."""
    reply = await get(site, "/metrics")
    assert reply.status == 200, reply
    assert reply.kind.startswith("text/plain; version=0.0.4")
    lines = [line for line in reply.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def serial(site: WitnessedSite) -> str:
    served = site.hub.hub.dispatch.profile("demo")
    assert served is not None
    return served.profile.token_serial


async def report(site: WitnessedSite, *, by: str = "other", **changes: Any) -> None:
    """An agent says how a token is, and the hub has heard it. The agent `other` has none of its own to speak of."""
    token = replace(TOKEN, serial=await serial(site), **changes)
    await site.agents[by].links.report((token,))
    await site.until(lambda: site.hub.hub.token_board.tokens.get(by) == (token,))


# -- /readyz ----------------------------------------------------------------------------------------------------------


async def test_a_key_profile_is_ready_until_its_token_or_agent_is_not(site: WitnessedSite) -> None:
    assert (await get(site, "/readyz?profile=demo")).document == {"status": "ok"}
    await report(site, by="signer")
    assert (await get(site, "/readyz?profile=demo")).status == 200

    await report(
        site, by="signer", state="blocked", code="token.pin_blocked", problem="its PIN was refused", hint="unlock it"
    )
    reply = await get(site, "/readyz?profile=demo")
    assert (reply.status, reply.document) == (
        503,
        {"status": "unready", "code": "token.pin_blocked", "reason": "its PIN was refused", "next": "unlock it"},
    )
    assert (await get(site, "/readyz")).status == 200  # the hub itself is well

    await report(site, by="signer")
    await site.stop_agent("signer")
    reply = await get(site, "/readyz?profile=demo")
    assert (reply.status, reply.document["code"]) == (503, "agent.offline")
    assert "agent run" in reply.document["next"]
    assert (await get(site, "/readyz?profile=none")).document["code"] == "profile.unknown"


# -- /metrics ---------------------------------------------------------------------------------------------------------


async def test_metrics_follow_what_happens(site: WitnessedSite) -> None:
    before = await metrics(site)
    assert before['privyseal_jobs_total{outcome="signed",profile="demo"}'] == 0
    await report(site)
    await site.send(await site.ask())

    after = await metrics(site)
    token = 'agent="other",token="software"'
    assert after['privyseal_jobs_total{outcome="signed",profile="demo"}'] == 1
    assert after["privyseal_log_entries"] == before["privyseal_log_entries"] + 2
    assert after["privyseal_last_commit_timestamp_seconds"] >= before["privyseal_last_commit_timestamp_seconds"]
    assert (after["privyseal_ready"], after["privyseal_log_confirmed"], after["privyseal_signing_stopped"]) == (1, 1, 0)
    assert after['privyseal_agent_linked{agent="other"}'] == 1
    assert after[f"privyseal_token_ready{{{token}}}"] == 1
    assert after['privyseal_token_state{agent="other",state="ready",token="software"}'] == 1
    assert after['privyseal_token_state{agent="other",state="blocked",token="software"}'] == 0
    assert after['privyseal_token_pin_state{agent="other",state="ok",token="software"}'] == 1
    assert after['privyseal_token_recoveries_total{agent="other",step="worker",token="software"}'] == 2
    assert after[f"privyseal_token_worker_starts_total{{{token}}}"] == 3
    assert after[f"privyseal_token_sign_duration_seconds_sum{{{token}}}"] == 9.5
    assert after[f"privyseal_token_sign_duration_seconds_count{{{token}}}"] == 40
    assert after['privyseal_token_sign_duration_seconds_bucket{agent="other",le="0.1",token="software"}'] == 20
    assert after['privyseal_token_sign_duration_seconds_bucket{agent="other",le="+Inf",token="software"}'] == 40
    assert after["process_resident_memory_bytes"] > 0

    await site.stop_agent("other")
    await site.stop_agent("signer")
    gone = await metrics(site)
    assert gone['privyseal_agent_linked{agent="other"}'] == 0
    assert gone[f"privyseal_token_ready{{{token}}}"] == 0
    assert gone['privyseal_profile_ready{profile="demo"}'] == 0


async def test_the_queue_has_a_length_and_an_age(site: WitnessedSite) -> None:
    """The token is held, so that what is sent waits."""
    served = site.agents["signer"].executor._keys["demo", "software"]
    async with served.turns.rest():
        for _ in range(4):  # one after the other: what waits together is sent together
            await site.send(await site.ask(), wait_seconds=0)
        found = await metrics(site)
        assert found['privyseal_queue_jobs{profile="demo",state="queued"}'] == 2
        assert found['privyseal_queue_jobs{profile="demo",state="under-way"}'] == 2
        assert found['privyseal_queue_oldest_age_seconds{priority="normal",profile="demo"}'] > 0
    await site.until(lambda: site.hub.hub.observer.outcomes["demo", "signed"] == 4)
    assert (await metrics(site))['privyseal_queue_oldest_age_seconds{priority="normal",profile="demo"}'] == 0


async def test_what_is_refused_in_the_queue_is_counted(site: WitnessedSite) -> None:
    served = site.agents["signer"].executor._keys["demo", "software"]
    async with served.turns.rest():
        for _ in range(4):
            await site.send(await site.ask(), wait_seconds=0)
        await asyncio.to_thread(site.desk().revoke, "client", "client")
    outcomes = site.hub.hub.observer.outcomes
    await site.until(lambda: sum(outcomes.values()) == 4)

    assert outcomes == {("demo", "signed"): 2, ("demo", "denied"): 2}


async def test_an_agent_that_lies_breaks_no_line_and_chooses_no_label(site: WitnessedSite) -> None:
    evil = 'a"}\n evil{x="1'
    await report(
        site,
        state=evil,
        pin_state=evil,
        label=evil,
        model=evil,
        signatures=-5,
        recoveries={evil: 7, "worker": -1},
        sign_counts=(1, -3),
        sign_seconds=-1.0,
    )

    found = await metrics(site)
    assert not [name for name in found if name.startswith((" ", "evil"))]
    assert found['privyseal_token_recoveries_total{agent="other",step="other",token="software"}'] == 7
    assert found['privyseal_token_recoveries_total{agent="other",step="worker",token="software"}'] == 0
    assert found['privyseal_token_signatures_total{agent="other",token="software"}'] == 0
    await site.agents["other"].links.report((TOKEN, TOKEN))  # two tokens of one name: the link ends
    await site.until(lambda: "other" not in site.hub.hub.dispatch.links)


async def test_metrics_name_no_client(site: WitnessedSite) -> None:
    await report(site)
    await site.send(await site.ask())

    lines = (await get(site, "/metrics")).body.splitlines()
    samples = [line for line in lines if line and not line.startswith(b"#")]
    assert samples
    assert not [line for line in samples if b"client" in line]


async def test_metrics_are_shown_to_nobody_else(site: WitnessedSite) -> None:
    site.hub.hub.config = replace(site.hub.hub.config, metrics=MetricsTable(allow=("192.0.2.0/24",)))

    reply = await get(site, "/metrics")
    assert reply.problem == (403, "metrics.address")
    assert "[metrics]" in reply.document["hint"]
    assert b"privyseal_" not in reply.body


# -- privyseal status -------------------------------------------------------------------------------------------------


async def shown(site: WitnessedSite) -> str:
    config = str(site.directory / "client.toml")
    return succeeded(await asyncio.to_thread(privyseal, "status", "--config", config)).out


async def test_status_says_what_is_wrong_with_a_token_and_what_to_do(site: WitnessedSite) -> None:
    await report(site)
    text = await shown(site)
    head, row = (line for line in text.splitlines() if line.startswith("TOKEN ") or _ROW.match(line))
    columns = {name: head.index(name) for name in ("AGENT", "STATE", "PIN", "SIGNED", "TIME P50/P99", "RECOVERIES")}
    values = ("other", "ready", "ok", "40", "≤100 ms / ≤500 ms", "session 1, worker 2")
    assert [row.find(value) for value in values] == list(columns.values())
    assert "next:" not in text.partition("TOKEN ")[2].partition("\n\n")[0]

    await report(site, state="blocked", pin_state="final-try", code="token.pin_blocked", problem="why", hint="act")
    lines = (await shown(site)).splitlines()
    place = lines.index("  software: why [token.pin_blocked]")
    assert lines[place + 1] == "    next: act"
    assert [line for line in lines if _ROW.match(line) and "FINAL TRY" in line]

    await site.stop_agent("other")
    (row,) = (line for line in (await shown(site)).splitlines() if _ROW.match(line))
    assert "agent offline" in row


async def test_status_warns_of_a_certificate_that_ends(site: WitnessedSite) -> None:
    """That of this site ends within a month."""
    lines = (await shown(site)).splitlines()

    (place,) = (
        place
        for place, line in enumerate(lines)
        if line.startswith("WARNING  certificate of demo (signer/software) ends in 29 d")
    )
    assert place < next(place for place, line in enumerate(lines) if line.startswith("KEY PROFILE"))
    assert lines[place + 1].startswith("  next: order the renewal now")


# -- /v1/events -------------------------------------------------------------------------------------------------------


@contextmanager
def listening(site: WitnessedSite, *more: str) -> Iterator[Running]:
    """`privyseal status --events --json`, once it listens."""
    config = str(site.directory / "client.toml")
    running = Running("status", "--events", *more, "--config", config, said=site.directory / "listener")
    try:
        yield running
    finally:
        running.signal(signal.SIGINT)
        assert running.process.wait(timeout=20) == 130, running.log
        assert "Traceback" not in running.log


def told(running: Running) -> list[dict[str, Any]]:
    return [json.loads(line) for line in running.out.read_text().splitlines(keepends=True) if line.endswith("\n")]


async def until_told(running: Running, **wanted: object) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        return next((event for event in told(running) if event.items() >= wanted.items()), None)

    return await asyncio.to_thread(until, look, f"event {wanted}")


async def test_events_reach_whoever_listens(site: WitnessedSite) -> None:
    stream = site.hub.hub.observer.stream
    with listening(site, "--json") as running:
        await site.until(lambda: stream.subscribers == 1)
        await report(site)
        assert (await until_told(running, event="token-state", agent="other", state="ready"))["pin_state"] == "ok"
        await report(site, state="absent", code="token.not_found", problem="it is gone", hint="insert it")
        gone = await until_told(running, event="token-state", agent="other", state="absent")
        assert (gone["code"], gone["hint"]) == ("token.not_found", "insert it")

        outbox = site.agents["signer"].outbox
        await outbox.tell(
            lambda at, agent: Recover(
                ts=at,
                agent=agent,
                seq=0,
                at=at,
                token="0001",
                step="worker",
                code="token.timeout",
                function="C_Sign",
                ckr=-1,
                outcome="done",
            )
        )
        await outbox.tell(lambda at, agent: PinEvent(ts=at, agent=agent, seq=0, at=at, token="0001", event="blocked"))
        recovered = await until_told(running, event="recorded", kind="recover")
        assert recovered["detail"]["step"] == "worker"
        entries = await site.entries()
        assert isinstance(entries[recovered["index"]], Recover)
        assert (await until_told(running, event="recorded", kind="pin"))["detail"]["event"] == "blocked"

        reply = await site.send(await site.ask())
        mine = [await until_told(running, event="job", state=state) for state in ("queued", "intent", "signed")]
        assert {job["request"] for job in mine} == {reply.document["id"]}
        assert {job["items"] for job in mine} == {"0"}

        await site.stop_agent("signer")
        await until_told(running, event="agent", agent="signer", linked=False)

        # The hub's end of the stream breaks: the listener comes back and misses nothing.
        (subscription,) = stream._subscriptions
        subscription.ended = True
        subscription.news.set()
        await site.until(lambda: stream.dropped == 1)
        await report(site, state="drained")
        await site.until(lambda: stream.subscribers == 1)
        await until_told(running, event="token-state", agent="other", state="drained")
        assert not [one for one in told(running) if one["event"] == "gap"]


async def test_a_stream_ends_with_its_client_s_standing(site: WitnessedSite) -> None:
    stream = site.hub.hub.observer.stream
    running = Running("status", "--events", "--config", site.directory / "client.toml", said=site.directory / "leaver")
    await site.until(lambda: stream.subscribers == 1)
    await asyncio.to_thread(site.desk().revoke, "client", "client")

    await asyncio.to_thread(running.process.wait, 20)
    assert running.process.returncode == 6
    assert "identity.revoked" in running.log
    assert stream.subscribers == 0
