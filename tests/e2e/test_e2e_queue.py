# SPDX-License-Identifier: Apache-2.0
"""Several clients before one slow token: who sees what, who may cancel and move what, and what becomes of it."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from api_client import api_of, ask, web_of
from installation import copy_of_program
from pe_samples import make_pe
from privyseal.client.transport import web_context
from privyseal.identity.authority import QueueMove, seal_authority
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import system_clock
from privyseal.wire.queue import RequestProgress
from programs import Running, privyseal, refused, succeeded, until
from queue_site import MOST_PER_CLIENT, PROFILE, QueueSite, queue_site


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueSite]:
    with queue_site(tmp_path_factory.mktemp("queue")) as made:
        yield made


@pytest.fixture
def slow(queue: QueueSite) -> Iterator[QueueSite]:
    with queue.slow():
        yield queue


# -- who sees what ----------------------------------------------------------------------------------------------------


def test_everybody_sees_what_waits_in_the_order_in_which_it_will_be_signed(slow: QueueSite) -> None:
    busy = slow.queued("ci-7", 20)
    night = slow.queued("night-1", 5, "nightly")
    normal = slow.queued("client", 4)
    release = slow.queued("ci-7", 3, "release")

    found = succeeded(slow.site.run("queue", "list", "--json", client="night-1")).document

    rows = {row["id"]: row for row in found["requests"]}
    assert (found["total"], found["cut"], set(rows)) == (4, False, {busy, night, normal, release})
    order = [row["id"] for row in found["requests"] if row["waiting"]]
    assert [one for one in order if one in (release, normal, night)] == [
        one for one in (release, normal, night) if one in order
    ]
    assert (rows[night]["client"], rows[night]["priority"], rows[night]["waiting"]) == ("night-1", "nightly", 5)
    assert rows[night]["position"] >= 4
    lines = succeeded(slow.site.run("queue", "list", "--profile", PROFILE)).out.splitlines()
    assert lines[0].split()[:3] == ["REQUEST", "CLIENT", "KEY"]
    assert [line.split()[0] for line in lines[1:] if night[:16] in line] == [night[:16]]
    assert succeeded(slow.site.run("queue", "list", "--profile", "pinned")).out.startswith("nothing waits")


def test_a_client_sees_where_its_own_items_stand_and_nobody_else_does(slow: QueueSite) -> None:
    slow.queued("ci-7", 20)
    mine = slow.queued("client", 4, "nightly")

    shown = succeeded(slow.site.run("queue", "show", mine[:8], "--json")).document

    assert shown["progress"] | {"eta_seconds": None, "position": 0} == {
        "id": mine, "state": "waiting", "priority": "nightly", "position": 0, "eta_seconds": None,
        "total": 4, "waiting": 4, "under_way": 0, "signed": 0, "failed": 0,
    }  # fmt: skip
    assert shown["items"] == [{"items": "0-3", "state": "queued", "token": "", "code": "", "message": ""}]
    assert shown["idempotency_key"]
    assert shown["not_after_ms"] > shown["queued_ms"] > 0
    text = succeeded(slow.site.run("queue", "show", mine[:12])).out
    assert text.startswith(f"request   {mine}\n")
    refused(slow.site.run("queue", "show", mine[:8], client="ci-7"), 4, "request.not_own")
    refused(slow.site.run("queue", "cancel", mine, "--json", client="ci-7"), 4, "request.not_own")
    assert api_of(slow.site.client("ci-7"))("GET", f"/v1/queue/{mine}").problem == (400, "request.unknown")


@pytest.mark.parametrize("name", ["0123abc", "0123ABCD", "../status", "0" * 65, "0123abcg"])
def test_what_is_no_beginning_of_an_id(queue: QueueSite, name: str) -> None:
    refused(queue.site.run("queue", "show", name), 1, "request.id")
    refused(queue.site.run("queue", "move", name, "--priority", "next", "--authority", queue.site.authority), 1,
            "request.id")  # fmt: skip
    api = api_of(queue.site.client())
    assert api("GET", f"/v1/queue?id={name}").problem == (422, "request.id")


def test_an_id_that_nobody_has(queue: QueueSite) -> None:
    refused(queue.site.run("queue", "show", "0123abcd"), 2, "request.unknown")
    refused(queue.site.run("queue", "cancel", "0123abcd"), 2, "request.unknown")
    authority = ("--authority", queue.site.authority)
    refused(queue.site.run("queue", "cancel", "0123abcd", *authority), 2, "request.unknown")
    refused(queue.site.run("queue", "cancel", "0" * 64, *authority), 2, "request.unknown")


# -- cancelling -------------------------------------------------------------------------------------------------------


def test_a_request_that_waits_is_cancelled_and_never_begun(slow: QueueSite) -> None:
    slow.queued("ci-7", 30)
    mine = slow.queued("client", 4)

    told = succeeded(slow.site.run("queue", "cancel", mine[:8], "--json")).document

    assert (told["request"], told["progress"]["failed"], told["progress"]["state"]) == (mine, 4, "done")
    (items,) = slow.record("client", mine).items
    assert (items.items, items.state, items.code) == ("0-3", "failed", "request.cancelled")
    assert mine not in {entry["request"] for entry in slow.entries("intent")}
    refused(slow.site.run("queue", "cancel", mine[:8]), 2, "request.ended")
    assert mine not in {row.id for row in slow.waiting()}


def test_what_is_prepared_is_taken_back_and_what_was_signed_stays_signed(slow: QueueSite) -> None:
    mine = slow.queued("client", 30)
    until(lambda: slow.record("client", mine).progress.signed >= 9, "signatures")

    succeeded(slow.site.run("queue", "cancel", mine))
    done = slow.until_done("client", mine)

    assert done.progress.signed + done.progress.failed == 30
    assert done.progress.failed >= 10
    assert {one.code for one in done.items} == {"", "request.cancelled"}
    assert done.cancelled_ms is not None
    outcomes = Counter(entry["outcome"] for entry in slow.entries("result") if entry["request"] == mine)
    assert outcomes["ok"] == done.progress.signed
    assert outcomes["not-used"] > 0, "the agent handed back what it had prepared"
    succeeded(slow.site.run("log", "verify"))


def test_authority_keys_cancel_any_request_on_record(slow: QueueSite) -> None:
    slow.queued("ci-7", 30)
    other = slow.queued("night-1", 4, "nightly")

    refused(slow.site.run("queue", "cancel", other[:8]), 4, "request.not_own")
    succeeded(slow.site.run("queue", "cancel", other[:8], "--authority", slow.site.authority))

    assert slow.until_done("night-1", other).progress.failed == 4
    entry = slow.entries("admin")[-1]
    assert (entry["action"], entry["request"], entry["bundle"]) == ("queue-cancel", other, "")
    assert len(entry["authorities"]) == 1
    refused(slow.site.run("queue", "cancel", other, "--authority", slow.site.authority), 2, "request.ended")
    assert slow.entries("admin")[-1] == entry, "what is refused leaves no entry"


def test_whoever_waits_for_a_cancelled_request_is_told_and_may_sign_again(slow: QueueSite, tmp_path: Path) -> None:
    slow.queued("ci-7", 40)
    program = copy_of_program(tmp_path)
    before = program.read_bytes()
    arguments = ("sign", "--key", PROFILE, program, "--priority", "nightly", "--config", slow.site.config)
    signing = Running(*arguments, said=tmp_path / "signing")
    mine = until(lambda: next((row.id for row in slow.waiting() if row.client == "client"), ""), "its request")

    succeeded(slow.site.run("queue", "cancel", mine[:8]))

    assert signing.process.wait(timeout=30) == 4, signing.log
    assert "[request.cancelled]" in signing.log
    assert program.read_bytes() == before
    slow.token.heal()
    succeeded(privyseal(*arguments[:-4], "--config", slow.site.config))
    assert program.read_bytes() != before


# -- moving -----------------------------------------------------------------------------------------------------------


def test_a_nightly_request_that_is_moved_goes_before_the_others(slow: QueueSite) -> None:
    busy = slow.queued("ci-7", 40)
    night = slow.queued("night-1", 4, "nightly")

    authority = ("--authority", slow.site.authority)
    told = succeeded(slow.site.run("queue", "move", night[:8], "--priority", "next", *authority, "--json")).document

    assert told == {"request": night, "priority": "next"}
    assert slow.until_done("night-1", night).progress.signed == 4
    assert slow.record("ci-7", busy).progress.waiting > 0
    entry = slow.entries("admin")[-1]
    assert (entry["action"], entry["request"], entry["reason"]) == ("queue-move", night, "next")
    refused(slow.site.run("queue", "move", night, "--priority", "normal", *authority), 2, "request.not_queued")


def test_a_statement_that_is_handed_in_again_changes_nothing(slow: QueueSite) -> None:
    slow.queued("ci-7", 40)
    night = slow.queued("night-1", 4, "nightly")
    config, now_ms = slow.site.client(), system_clock()
    order = QueueMove(
        hub=config.load_bundle().hub, issued=now_ms, not_after=now_ms + 60_000, request=night, priority="normal"
    )
    envelope = seal_authority(order, (load_ed25519(slow.site.authority),))
    web = web_of(config)

    assert web("POST", "/v1/authority", envelope).status == 200
    slow.desk().move_request(night, "nightly")
    before = slow.entries("admin")
    assert web("POST", "/v1/authority", envelope).status == 200

    assert slow.record("night-1", night).progress.priority == "nightly"
    assert slow.entries("admin") == before
    stranger = msgspec.structs.replace(order, priority="next")
    signed = seal_authority(stranger, (load_ed25519(config.identity.request_key),))
    assert web("POST", "/v1/authority", signed).problem == (422, "authority.quorum")


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_full_queue_says_when_to_come_back_and_stays_open_for_others(slow: QueueSite) -> None:
    slow.queued("ci-7", 50)

    config = slow.site.client("ci-7")
    api = api_of(config)
    answer = api._pool.request("POST", f"{api.url}/v1/signatures", body=ask(config, PROFILE, items=50).body)

    problem = answer.json()
    assert (answer.status, problem["code"]) == (503, "queue.full")
    assert int(answer.headers["Retry-After"]) >= 1
    assert f"may have {MOST_PER_CLIENT}" in problem["detail"]
    assert slow.send("client", 20).status == 202


def test_a_team_asks_for_no_higher_class_than_it_may(queue: QueueSite) -> None:
    assert queue.send("night-1", 1, "normal").problem == (403, "policy.priority")
    assert queue.entries("deny")[-1]["code"] == "policy.priority"
    assert queue.send("night-1", 1, "next").problem == (403, "policy.priority")
    assert queue.send("client", 1, "soon").problem == (422, "request.priority")


@pytest.mark.parametrize(
    ("flags", "hours"),
    [(("--no-wait",), 1), (("--no-wait", "--priority", "nightly"), 12)],
    ids=["normal", "nightly"],
)
def test_a_request_waits_as_long_as_its_class_does(
    slow: QueueSite, tmp_path: Path, flags: tuple[str, ...], hours: int
) -> None:
    slow.queued("ci-7", 30)
    app = tmp_path / "app.exe"
    app.write_bytes(make_pe(overlay=bytes([hours]) * 8))
    refused(slow.site.run("sign", "--key", PROFILE, *flags, app), 7, "request.waiting")

    (mine,) = (row.id for row in slow.waiting() if row.client == "client")

    found = slow.record("client", mine)
    assert found.not_after_ms - found.queued_ms == pytest.approx(hours * 3_600_000, abs=60_000)


def test_no_request_waits_for_longer_than_the_hub_lets_it(queue: QueueSite, tmp_path: Path) -> None:
    app = copy_of_program(tmp_path)

    told = refused(queue.site.run("sign", "--key", PROFILE, "--timeout", "90000", app), 4, "request.too_long")

    assert "would wait for 25.0 h, and at this hub none waits for longer than 24 h" in told.err
    assert "--timeout 86400 at most" in told.err
    succeeded(queue.site.run("sign", "--key", PROFILE, "--timeout", "86400", app))


def test_prometheus_is_told_of_all_that(slow: QueueSite) -> None:
    def metrics() -> dict[str, float]:
        shown = web_of(slow.site.client())("GET", "/metrics").body.decode()
        rows = [line.rpartition(" ") for line in shown.splitlines() if line.startswith("privyseal_")]
        return {name: float(value) for name, _, value in rows}

    before = metrics()
    slow.queued("ci-7", 50)
    slow.queued("night-1", 4, "nightly")
    assert slow.send("ci-7", 50).problem == (503, "queue.full")

    def used() -> dict[str, float] | None:
        now = metrics()
        return now if now['privyseal_token_items_under_way{agent="lab",token="lab"}'] else None

    busy = until(used, "a token that is used")
    assert busy["privyseal_queue_refusals_total"] == before["privyseal_queue_refusals_total"] + 1
    assert busy[f'privyseal_queue_waiting_items{{priority="nightly",profile="{PROFILE}"}}'] == 4
    assert 0 < busy[f'privyseal_queue_waiting_items{{priority="normal",profile="{PROFILE}"}}'] <= 50
    assert busy['privyseal_token_lease_held{agent="lab",token="lab"}'] == 1
    recalls = 'privyseal_token_recalls_total{agent="lab",token="lab"}'
    slow.queued("client", 2, "release")
    until(lambda: metrics()[recalls] > busy[recalls], "a recall")
    for row in slow.waiting():
        slow.desk().cancel_request(row.id)
    cancelled = f'privyseal_jobs_total{{outcome="cancelled",profile="{PROFILE}"}}'
    assert metrics()[cancelled] >= before[cancelled] + 4


# -- progress as it happens -------------------------------------------------------------------------------------------


def tls(queue: QueueSite, client: str) -> ssl.SSLContext:
    config = queue.site.client(client)
    context = web_context(config.load_bundle().statement.ca)
    context.load_cert_chain(config.identity.tls_certificate, config.identity.tls_key)
    return context


@asynccontextmanager
async def progress_of(queue: QueueSite, client: str, request_id: str) -> AsyncIterator[asyncio.StreamReader]:
    """A connection on which the progress of a request has been asked for."""
    place = urlsplit(queue.site.client().hub_urls[0])
    reader, writer = await asyncio.open_connection(place.hostname, place.port, ssl=tls(queue, client))
    lines = (f"GET /v1/signatures/{request_id}/events HTTP/1.0", f"Host: {place.netloc}", "", "")
    writer.write("\r\n".join(lines).encode())
    try:
        yield reader
    finally:
        writer.close()


def events(text: bytes) -> list[tuple[str, RequestProgress]]:
    blocks = [block for block in text.decode().split("\n\n") if block.startswith("event: ")]
    return [
        (name.removeprefix("event: "), msgspec.json.decode(data.removeprefix("data: "), type=RequestProgress))
        for name, data in (block.split("\n") for block in blocks)
    ]


async def test_progress_is_told_as_it_changes_and_ends_with_done(slow: QueueSite) -> None:
    await asyncio.to_thread(slow.queued, "ci-7", 10)
    mine = await asyncio.to_thread(slow.queued, "client", 6)
    async with progress_of(slow, "client", mine) as reader, asyncio.timeout(30):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")

    assert b"text/event-stream" in head
    told = events(body)
    assert [name for name, _ in told] == ["progress"] * (len(told) - 1) + ["done"]
    steps = [progress for _, progress in told]
    assert {(step.id, step.total) for step in steps} == {(mine, 6)}
    assert [step.signed for step in steps] == sorted(step.signed for step in steps)
    assert (steps[-1].signed, steps[-1].position, steps[-1].eta_seconds) == (6, 0, None)
    assert steps[0].position > 0
    assert any(step.eta_seconds for step in steps)
    assert len(told) >= 4
    async with progress_of(slow, "client", mine) as reader, asyncio.timeout(10):
        again = events((await reader.read()).partition(b"\r\n\r\n")[2])
    assert [name for name, _ in again] == ["done"], "who comes back is told once more, and no more than that"


async def test_a_moved_place_is_told_though_nothing_became_of_the_request(slow: QueueSite) -> None:
    await asyncio.to_thread(slow.queued, "ci-7", 40)
    mine = await asyncio.to_thread(slow.queued, "client", 2, "nightly")
    async with progress_of(slow, "client", mine) as reader, asyncio.timeout(20):
        text = await reader.readuntil(b'"state":"waiting"')
        await asyncio.to_thread(slow.desk().move_request, mine, "next")
        while b'"priority":"next"' not in text:
            text += await reader.read(4096)


async def test_a_stream_ends_with_its_client_s_standing(slow: QueueSite) -> None:
    await asyncio.to_thread(slow.queued, "ci-7", 40)
    await asyncio.to_thread(slow.site.add_client, "leaver")
    mine = await asyncio.to_thread(slow.queued, "leaver", 3, "nightly")
    async with progress_of(slow, "leaver", mine) as reader, asyncio.timeout(20):
        await reader.readuntil(b"event: progress")
        await asyncio.to_thread(slow.desk().revoke, "client", "leaver")
        rest = await reader.read()
    assert b"event: done" not in rest


async def test_a_request_s_progress_is_its_own_client_s_and_bounded(slow: QueueSite) -> None:
    mine = await asyncio.to_thread(slow.queued, "client", 40)
    other = api_of(slow.site.client("ci-7"))
    path = f"/v1/signatures/{mine}/events"
    assert (await asyncio.to_thread(other, "GET", path)).problem == (400, "request.unknown")
    own = api_of(slow.site.client())
    unknown = f"/v1/signatures/{'0' * 64}/events"
    assert (await asyncio.to_thread(own, "GET", unknown)).problem == (400, "request.unknown")
    async with AsyncExitStack() as stack:
        for _ in range(16):
            reader = await stack.enter_async_context(progress_of(slow, "client", mine))
            await reader.readuntil(b"event: progress")
        assert (await asyncio.to_thread(own, "GET", path)).problem == (503, "events.too_many")
