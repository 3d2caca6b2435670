# SPDX-License-Identifier: Apache-2.0
"""Several hubs of one cell, of which some are away: nothing is signed twice, and only "not now" is asked again."""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from api_client import ask
from installation import copy_of_program
from lying_hub import PROFILE
from lying_web import HANG_UP, Answer, WebHub, running_hub, whole
from pe_samples import make_pe
from privyseal.client.cell import Cell, silence_seconds
from privyseal.client.config import load_client_config
from privyseal.client.hub import HubClient
from privyseal.client.hub_cell import hub_transports
from privyseal.client.journal import RequestJournal
from privyseal.client.signing import Outcome, Plan, Signer, Work
from privyseal.client.time_limit import TimeLimit
from privyseal.errors import ConflictError, DeniedError, PrivysealError, TokenError, UnavailableError
from privyseal.wire.api import RequestView, SignatureRequest, problem_from_error
from privyseal.wire.dsse import parse_envelope
from privyseal.wire.statement import REQUEST_TYPE, statement_id
from programs import privyseal, refused, succeeded

FULL = UnavailableError("queue.full", "10000 jobs wait", retry_after_seconds=7.0)
OFFLINE = UnavailableError("agent.offline", "its agent has no link")
GATEWAY = whole(b"<html>no server is available</html>", 503)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[WebHub]:
    (tmp_path / "hub").mkdir()
    with running_hub(tmp_path / "hub", doors=2) as hub:
        yield hub


@pytest.fixture
def works(tmp_path: Path) -> tuple[Work, ...]:
    """Programs enough for several answers."""
    folder = tmp_path / "dist"
    folder.mkdir()
    files = [folder / f"{place:02}.exe" for place in range(12)]
    for place, file in enumerate(files):
        file.write_bytes(make_pe(overlay=bytes([place]) * 8))
    return tuple(Work(path=file, target=file) for file in files)


def said(error: PrivysealError) -> Answer:
    problem = problem_from_error(error)
    return whole(msgspec.json.encode(problem), problem.status)


def sign(hub: WebHub, works: tuple[Work, ...]) -> tuple[Outcome, ...]:
    return Signer(hub.config, profile=PROFILE).sign_all(works, Plan())


def cell(hub: WebHub, pauses: list[float], fraction: float = 0.0) -> Cell:
    """Begins at the first door; its pauses pass at once."""
    return Cell(hub_transports(hub.config), fraction=lambda: fraction, pause=pauses.append)


def kept(hub: WebHub) -> list[str]:
    return [request.id for request in RequestJournal(hub.config.identity.journal).open_requests()]


def test_it_stays_with_the_one_that_works(hub: WebHub) -> None:
    client = HubClient(hub.config, cell(hub, [], 0.99))

    for _ in range(5):
        client.profile(PROFILE)

    assert hub.asked_doors == [1] * 5


def test_clients_are_spread_over_the_hubs(hub: WebHub) -> None:
    transports = hub_transports(hub.config)

    started = Counter(Cell(transports)._at for _ in range(1000))

    assert set(started) == {0, 1}
    assert min(started.values()) > 400


@pytest.mark.parametrize("trouble", [HANG_UP, GATEWAY, said(OFFLINE)], ids=["hung up", "gateway", "unavailable"])
def test_the_next_hub_is_asked_at_once(hub: WebHub, trouble: Answer) -> None:
    hub.doorkeeper = lambda door, _: trouble if door == 0 else None
    pauses: list[float] = []
    client = HubClient(hub.config, cell(hub, pauses))

    client.profile(PROFILE)
    client.profile(PROFILE)

    asked = [door for door, line in zip(hub.asked_doors, hub.asked, strict=True) if "/v1/profiles/" in line]
    assert asked == [0, 1, 1]
    assert pauses == []


def test_a_port_where_nobody_listens_is_passed_over(hub: WebHub, works: tuple[Work, ...]) -> None:
    text = hub.config.path.read_text().replace(hub.doors[0], "https://127.0.0.1:1", 1)
    hub.config.path.write_text(text)
    signer = Signer(load_client_config(str(hub.config.path)), profile=PROFILE)

    assert [one.error for one in signer.sign_all(works, Plan())] == [None] * 12
    assert set(hub.asked_doors) == {1}


@pytest.mark.parametrize("trouble", [HANG_UP, GATEWAY], ids=["hung up", "gateway"])
def test_the_answer_to_a_request_is_lost(hub: WebHub, works: tuple[Work, ...], trouble: Answer) -> None:
    """The hub has taken it and signed; the other hub is sent the very same bytes, and answers the same."""
    lost: list[str] = []

    def keep(_door: int, line: str) -> Answer | None:
        if not line.startswith("POST") or lost:
            return None
        lost.append(line)
        return trouble

    hub.doorkeeper = keep

    assert [one.error for one in sign(hub, works)] == [None] * 12

    assert hub.signatures == 12
    first, second = (
        (door, body) for door, line, body in zip(hub.asked_doors, hub.asked, hub.bodies, strict=True) if "POST" in line
    )
    assert first[0] != second[0]
    assert first[1] == second[1]
    assert kept(hub) == []


def test_a_hub_goes_away_in_the_middle_of_a_batch(hub: WebHub, works: tuple[Work, ...]) -> None:
    hub.lie = lambda view: msgspec.structs.replace(view, state="waiting", items=view.items[:5])
    away: set[int] = set()

    def keep(door: int, line: str) -> Answer | None:
        if line.startswith("GET /v1/signatures") and not away:
            away.add(door)
        return HANG_UP if door in away else None

    hub.doorkeeper = keep

    assert [one.error for one in sign(hub, works)] == [None] * 12

    assert (hub.signatures, len(hub.accepted), len(away)) == (12, 1, 1)
    assert sum("from=5" in line for line in hub.asked) == 2
    assert kept(hub) == []


def test_a_stream_of_events_comes_from_the_next_hub(hub: WebHub) -> None:
    """One hub hangs up before the first word; the other ends its stream after a few, and that is told."""
    hub.answer = lambda line: Answer(pieces=lambda: iter((b":\n\n", b":\n\n"))) if "/v1/events" in line else None
    hub.doorkeeper = lambda door, _: HANG_UP if door == 0 else None
    hubs = cell(hub, [])

    pieces = hubs.stream("/v1/events", {}, silence_seconds=5.0)

    assert next(pieces).startswith(b":")
    asked = [door for door, line in zip(hub.asked_doors, hub.asked, strict=True) if "/v1/events" in line]
    assert asked == [0, 1]


def test_patience_that_a_hub_asks_for_is_given_and_spread(hub: WebHub) -> None:
    """A hub that knows the whole queue speaks for the others, too: none is asked before the time."""
    answers = [said(FULL), said(FULL)]
    hub.doorkeeper = lambda _door, _line: answers.pop() if answers else None
    pauses: list[float] = []
    client = HubClient(hub.config, cell(hub, pauses, 0.25))

    client.profile(PROFILE, TimeLimit(seconds=60).begin())

    assert pauses == [7.0 + 0.25 * 7.0] * 2
    assert hub.asked_doors == [0, 1, 0]


def test_a_gateways_retry_after_counts_too(hub: WebHub) -> None:
    answers = [whole(b"busy", 503, (("Retry-After", "11"),))]
    hub.doorkeeper = lambda _door, _line: answers.pop() if answers else None
    pauses: list[float] = []

    HubClient(hub.config, cell(hub, pauses)).profile(PROFILE, TimeLimit(seconds=60).begin())

    assert pauses == [11.0]


def test_pauses_grow_while_all_are_away(hub: WebHub) -> None:
    answers = [GATEWAY] * 8
    hub.doorkeeper = lambda _door, _line: answers.pop() if answers else None
    pauses: list[float] = []

    HubClient(hub.config, cell(hub, pauses, 0.49)).profile(PROFILE, TimeLimit(seconds=600).begin())

    assert pauses == [0.49 * bound for bound in (0.5, 1.0, 2.0, 4.0)], "one after each round"
    assert hub.asked_doors == [0, 1] * 4 + [0]


@contextmanager
def silent_listener() -> Iterator[str]:
    """Its kernel accepts, and nobody says anything: a process that was stopped."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"


def impatient(hub: WebHub, urls: tuple[str, ...], pauses: list[float]) -> Cell:
    """Begins at the first of these."""
    transports = hub_transports(replace(hub.config, hub_urls=urls))
    return Cell(transports, fraction=lambda: 0.0, pause=pauses.append, patience_seconds=0.2)


def test_one_that_accepts_and_says_nothing_is_left_for_the_next(hub: WebHub) -> None:
    began_s, pauses = time.monotonic(), list[float]()
    with silent_listener() as silent:
        client = HubClient(hub.config, impatient(hub, (silent, hub.doors[0]), pauses))
        for _ in range(3):
            client.profile(PROFILE, TimeLimit(seconds=600).begin())

    assert (hub.asked_doors, pauses) == ([0] * 3, [])
    assert time.monotonic() - began_s < 5.0


def test_one_that_hangs_with_a_request_is_left_for_the_next_which_signs_it_once(hub: WebHub) -> None:
    """It has taken the request, and what was to be signed was: the other one answers for it."""
    pauses: list[float] = []

    def hang(door: int, _line: str) -> Answer | None:
        return HANG_UP if door == 0 and hub.ended.wait(60) else None

    hub.doorkeeper = hang
    client = HubClient(hub.config, impatient(hub, hub.doors, pauses))
    asked = ask(hub.config, PROFILE, items=3, chain=hub.chain)
    request_key = hub.request_key.public_key().public_bytes_raw()
    request_id = statement_id(request_key, parse_envelope(asked.envelope, REQUEST_TYPE).payload)
    body = SignatureRequest(envelope=asked.envelope, preimages=asked.preimages)

    views = list(client.sign(request_id, body, TimeLimit(seconds=0).begin()))

    assert [item.state for view in views for item in view.items] == ["signed"] * 3
    assert (hub.asked_doors, hub.signatures, pauses) == ([0, 1], 3, [])


def test_how_long_a_hub_may_say_nothing() -> None:
    """Ten seconds at first, a long poll among them; each time that all were silent it is twice as long."""
    assert silence_seconds(0, 5.0, 0, 5.0) == 10.0
    assert [silence_seconds(turn, 0.0, 0, 5.0) for turn in range(4)] == [5.0, 10.0, 20.0, 40.0]
    assert silence_seconds(0, 5.0, 32 << 20, 5.0) == 42.0, "an upload takes its time"


def test_each_cause_is_said_once_and_that_it_goes_on(hub: WebHub) -> None:
    answers = [said(OFFLINE)] * 6 + [GATEWAY] * 6 + [said(OFFLINE)] * 6
    hub.doorkeeper = lambda _door, _line: answers.pop() if answers else None
    now_s, told, pauses = [0.0], list[str](), list[float]()
    limit = TimeLimit(seconds=3600, notice=told.append, clock=lambda: now_s[0])

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        now_s[0] += 10.0

    client = HubClient(hub.config, Cell(hub_transports(hub.config), fraction=lambda: 0.0, pause=pause))
    deadline = limit.begin()
    for _ in range(2):
        client.profile(PROFILE, deadline)

    assert len(pauses) == 9
    first, second, third = told
    assert first == "its agent has no link [agent.offline]; trying again for up to 60 min"
    assert second.endswith("[hub.gateway]; trying again for up to 60 min")
    assert third == "it goes on, after 90 s"
    answers += [said(OFFLINE)] * 2
    client.profile(PROFILE, deadline)
    assert told[3:] == [
        "its agent has no link [agent.offline]; trying again for up to 58 min",
        "it goes on, after 10 s",
    ], "another outage is said again"


@pytest.mark.parametrize(
    "error",
    [
        DeniedError("policy.profile", "not you"),
        ConflictError("idempotency.conflict", "another request"),
        TokenError("token.pin_locked", "locked"),
    ],
    ids=lambda error: error.code,
)
def test_what_is_no_not_now_is_asked_once(hub: WebHub, works: tuple[Work, ...], error: PrivysealError) -> None:
    hub.answer = lambda line: said(error) if line.startswith("POST") else None

    with pytest.raises(type(error)) as caught:
        sign(hub, works)

    assert caught.value.code == error.code
    assert sum(line.startswith("POST") for line in hub.asked) == 1


def test_the_end_of_its_patience(hub: WebHub, tmp_path: Path) -> None:
    """Exit 7 with what was last in the way, and what to do; the request is kept, and the same command resumes."""
    app = copy_of_program(tmp_path)
    before = app.read_bytes()
    hub.answer = lambda line: said(OFFLINE) if line.startswith("POST") else None

    given = ("sign", "--key", PROFILE, "--json", app)
    failed = refused(privyseal(*given, "--timeout", "1.5", config=hub.config.path), 7, "agent.offline")

    assert "its agent has no link; tried " in failed.err
    assert "the same command goes on where this one stopped" in failed.err
    assert failed.err.count("trying again for up to ") == 1
    assert app.read_bytes() == before
    (waiting,) = kept(hub)
    hub.answer = lambda _: None
    succeeded(privyseal(*given, config=hub.config.path))
    assert (list(hub.accepted), kept(hub)) == ([waiting], [])


def still_waiting(view: RequestView) -> RequestView:
    return msgspec.structs.replace(view, state="waiting", position=41, items=())


@pytest.mark.parametrize("flag", [("--no-wait",), ("--timeout", "0")], ids=["no-wait", "timeout"])
def test_a_request_is_handed_in_and_fetched_later(hub: WebHub, tmp_path: Path, flag: tuple[str, ...]) -> None:
    app = copy_of_program(tmp_path)
    before = app.read_bytes()
    hub.lie = still_waiting
    given: tuple[str | Path, ...] = ("sign", "--key", PROFILE, "--json", "--priority", "release", *flag, app)

    told = refused(privyseal(*given, config=hub.config.path), 7, "request.waiting").document["error"]

    (request_id,) = hub.accepted
    assert request_id in told["message"]
    assert "41 jobs are before it" in told["message"]
    assert app.read_bytes() == before
    (body,) = (body for line, body in zip(hub.asked, hub.bodies, strict=True) if line.startswith("POST"))
    assert json.loads(body)["priority"] == "release"

    hub.lie = lambda view: view
    succeeded(privyseal(*given, config=hub.config.path))
    assert hub.signatures == 1


def test_without_waiting_all_that_is_ready_comes(hub: WebHub, works: tuple[Work, ...]) -> None:
    hub.lie = still_waiting
    files = [str(work.path) for work in works]
    given = ("sign", "--key", PROFILE, "--no-wait", *files)
    assert privyseal(*given, config=hub.config.path).code == 7
    hub.lie = lambda view: msgspec.structs.replace(view, items=view.items[:5])

    succeeded(privyseal(*given, config=hub.config.path))

    assert (hub.signatures, len(hub.accepted)) == (12, 1)


def test_a_bound_for_all_of_it_ends_it_also_while_signatures_come(hub: WebHub, works: tuple[Work, ...]) -> None:
    hub.lie = lambda view: msgspec.structs.replace(view, state="waiting", items=view.items[:1])
    files = [str(work.path) for work in works]

    done = privyseal("sign", "--key", PROFILE, "--timeout", "0", *files, config=hub.config.path)

    assert done.code == 9, "one was signed, the others wait"
    assert hub.signatures == 12
    hub.lie = lambda view: view
    succeeded(privyseal("sign", "--key", PROFILE, *files[1:], config=hub.config.path))
    assert (hub.signatures, len(hub.accepted)) == (12, 1)


def test_no_request_that_waits_keeps_the_next_one_from_being_handed_in(hub: WebHub, works: tuple[Work, ...]) -> None:
    """Two were handed in by earlier runs; the third is, too, and the words name all of them."""
    hub.lie = still_waiting
    files = [str(work.path) for work in works]
    for some in (files[:3], files[3:6]):
        assert privyseal("sign", "--key", PROFILE, "--no-wait", *some, config=hub.config.path).code == 7

    told = privyseal("sign", "--key", PROFILE, "--no-wait", *files, config=hub.config.path)

    assert (told.code, len(hub.accepted), hub.signatures) == (7, 3, 12)
    assert all(request_id in told.err for request_id in hub.accepted)


@pytest.mark.parametrize("seconds", ["nan", "-1", "soon"])
def test_a_time_that_is_none(hub: WebHub, tmp_path: Path, seconds: str) -> None:
    app = copy_of_program(tmp_path)

    refused(
        privyseal("sign", "--key", PROFILE, "--timeout", seconds, app, config=hub.config.path), 2, "usage.arguments"
    )
