# SPDX-License-Identifier: Apache-2.0
"""An installation moves from SQLite to PostgreSQL, and nobody but the operator has anything to do."""

import asyncio
import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api_client import Asked, Reply, api_of, ask
from installation import Site, add_to_agent, copy_of_program, make_site, software_token
from postgres_server import PostgresServer
from privyseal.client.receipts import check_receipt
from programs import Outcome, privyseal, refused, succeeded

pytestmark = pytest.mark.interop


@dataclass(kw_only=True)
class Before:
    """What there was before the move.

    Attributes:
        done: A request, and what the hub answered.
        waiting: Requests whose jobs are queued, or with an agent that answers no more.
        app: A signed file with its receipt.
        code: A join code that nobody has used.
        size: How many entries the client's checkpoint has.
        head: head.checkpoint.
        moved: What the command said.
    """

    done: tuple[Asked, Any]
    waiting: tuple[Asked, ...]
    app: Path
    code: str
    size: int
    head: str
    moved: dict[str, Any]


def send(site: Site, asked: Asked, wait_seconds: int = 60, enough: int = 1) -> Reply:
    api = api_of(site.client())
    try:
        return api("POST", f"/v1/signatures?wait={wait_seconds}&enough={enough}", asked.body)
    finally:
        api.close()


def migrate(site: Site, url: str, *more: str) -> Outcome:
    return privyseal("hub", "migrate", "--dir", site.hub_directory, "--to", url, "--json", *more)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = make_site(tmp_path_factory.mktemp("move"))
    try:
        add_to_agent(site, software_token(site.agent_directory, level="pinned"))
        site.start_agent()
        site.until_online("demo")
        site.save_roots("demo")
        yield site
        site.stop()
    finally:
        site.end()


@pytest.fixture(scope="module")
def before(site: Site, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Before:
    """Everything that is asked about later; then the move."""
    key = succeeded(site.run("client", "show", "--json")).document["request_key"]
    succeeded(site.run("client", "grant", key, "--key", "demo", "--authority", site.authority))
    site.add_client("leaver")
    succeeded(site.administer("hub", "revoke", "client", "leaver"))
    code = site.invite("client", "late")
    done = ask(site.client())
    answer = send(site, done).document
    assert answer["items"][0]["state"] == "signed"
    app = copy_of_program(tmp_path_factory.mktemp("app"))
    succeeded(site.run("sign", "--key", "demo", app))
    size = succeeded(site.run("log", "verify", "--json")).document["size"]
    site.running["agent"].signal(signal.SIGSTOP)
    waiting = tuple(ask(site.client(), items=40) for _ in range(3))
    for asked in waiting:
        assert send(site, asked, wait_seconds=0).status == 202

    url = postgres.url(asyncio.run(postgres.make_database()))
    refused(migrate(site, url), 2, "store.in_use")
    site.running["hub"].stop()
    site.running["agent"].kill()
    with closing(sqlite3.connect(site.hub_directory / "hub.db")) as connection:
        found = dict(connection.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall())
    assert found["queued"] > 0
    assert found["intent"] > 0
    head = (site.hub_directory / "head.checkpoint").read_text()
    looked = succeeded(migrate(site, url, "--dry-run")).document
    moved = succeeded(migrate(site, url)).document
    assert (looked["tables"], looked["entries"], looked["aside"]) == (moved["tables"], moved["entries"], None)
    refused(migrate(site, url), 2, "move.already")

    site.start_hub()
    site.start_agent()
    site.until_online("demo")
    return Before(done=(done, answer), waiting=waiting, app=app, code=code, size=size, head=head, moved=moved)


def test_the_command_says_what_it_did(site: Site, before: Before) -> None:
    assert before.moved["entries"] == before.moved["index"] == int(before.head.splitlines()[1])
    assert before.moved["rows"] == sum(before.moved["tables"].values()) > before.moved["entries"]
    assert before.moved["seconds"] > 0
    assert Path(before.moved["aside"]).is_file()
    assert not (site.hub_directory / "hub.db").exists()
    shown = succeeded(site.run("log", "show", "--type", "admin", "--json")).out.splitlines()
    entry = json.loads(shown[-1])
    assert (entry["index"], entry["entry"]["action"]) == (before.moved["index"], "move")


def test_what_was_queued_is_signed(site: Site, before: Before) -> None:
    bundle = site.client().load_bundle()
    for asked in before.waiting:
        items = send(site, asked, 60, len(asked.preimages)).document["items"]
        assert [item["state"] for item in items] == ["signed"] * 40
        assert {check_receipt(item["receipt"], bundle).index > before.moved["index"] for item in items} == {True}


def test_what_was_done_is_answered_alike(site: Site, before: Before) -> None:
    asked, answer = before.done

    assert send(site, asked).document == answer


def test_the_log_holds_for_a_client_that_knew_it_before(site: Site, before: Before) -> None:
    verified = succeeded(site.run("log", "verify", "--json")).document

    assert verified["size"] > before.size
    succeeded(site.run("verify", "--trust", site.roots, before.app))


def test_standing_is_what_it_was(site: Site, before: Before, tmp_path: Path) -> None:
    refused(site.run("status", "--json", client="leaver"), 6, "identity.revoked")
    succeeded(privyseal("client", "join", "--dir", site.directory / "late", told=before.code))
    app = copy_of_program(tmp_path)
    refused(site.run("sign", "--key", "demo", app, "--json", client="late"), 4, "policy.grant")
    succeeded(site.run("sign", "--key", "demo", app))
    succeeded(site.run("log", "verify", "--json"))


def test_the_doctor_finds_head_and_file_agreed(site: Site, before: Before) -> None:
    found = privyseal("doctor", "--dir", site.hub_directory, "--json")

    rows = {row["subject"]: row for row in json.loads(found.out)["rows"]}
    assert "agree" in rows["log head"]["found"]
