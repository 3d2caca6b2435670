# SPDX-License-Identifier: Apache-2.0
"""A database that was brought back from a copy is noticed by whoever has seen more: hub, agent, client, receipt."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import web_of
from crashes import Lab, running_lab
from installation import Up, copy_of_program, running_up, start_up
from programs import privyseal, refused, succeeded, unchanged


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("restore") / "lab") as lab:
        lab.site.save_roots("demo")
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.begin()
    return shared


def copy_hub(lab: Lab, place: Path) -> None:
    """A copy of the hub's directory, taken while nothing runs."""
    lab.site.stop()
    shutil.copytree(lab.site.hub_directory, place)


def bring_back(lab: Lab, place: Path, *names: str) -> None:
    """Put files of the copy in the place of those of now, while nothing runs."""
    for running in lab.site.running.values():
        running.end()
    for name in names:
        shutil.copyfile(place / name, lab.site.hub_directory / name)
        for rest in ("-wal", "-shm"):
            (lab.site.hub_directory / (name + rest)).unlink(missing_ok=True)


def sign_between_copies(lab: Lab, app: Path, older: Path, newest: Path) -> None:
    copy_hub(lab, older)
    lab.begin()
    succeeded(lab.site.run("sign", "--key", "demo", app))
    copy_hub(lab, newest)


def test_a_database_older_than_the_head_file(lab: Lab, tmp_path: Path) -> None:
    app = copy_of_program(tmp_path)
    sign_between_copies(lab, app, tmp_path / "older", tmp_path / "newest")
    bring_back(lab, tmp_path / "older", "hub.db")

    with unchanged(lab.site.hub_directory / "hub.db", lab.site.hub_directory / "head.checkpoint"):
        refused(privyseal("hub", "run", "--dir", lab.site.hub_directory), 10, "log.rollback")

    bring_back(lab, tmp_path / "newest", "hub.db")
    lab.begin()
    succeeded(lab.site.run("verify", "--trust", lab.site.roots, app))


def test_a_database_older_than_what_the_agent_has_seen(lab: Lab, tmp_path: Path) -> None:
    """The head file was brought back too, so the hub cannot know; the agent can, and so can a client with a receipt."""
    app = copy_of_program(tmp_path)
    sign_between_copies(lab, app, tmp_path / "older", tmp_path / "newest")
    bring_back(lab, tmp_path / "older", "hub.db", "head.checkpoint")
    hub = lab.site.start_hub()
    lab.site.start_agent()
    hub.until_event(event="signing stopped")

    assert web_of(lab.site.client())("GET", "/readyz").status == 503
    with unchanged(app):
        refused(lab.site.run("sign", "--key", "demo", "--json", app), 10, "log.rollback")
        refused(lab.site.run("verify", "--trust", lab.site.roots, "--json", app), 10, "log.rewound")
    succeeded(lab.site.run("verify", "--offline", "--trust", lab.site.roots, app))
    succeeded(lab.site.run("log", "verify"))  # reads go on

    bring_back(lab, tmp_path / "newest", "hub.db", "head.checkpoint")
    lab.begin()
    succeeded(lab.site.run("sign", "--key", "demo", app))


def test_a_head_file_that_is_missing(lab: Lab) -> None:
    lab.site.stop()
    head = lab.site.hub_directory / "head.checkpoint"
    kept = head.read_bytes()
    head.unlink()

    refused(privyseal("hub", "run", "--dir", lab.site.hub_directory), 10, "log.head_missing")
    head.write_bytes(kept[:-10])
    refused(privyseal("hub", "run", "--dir", lab.site.hub_directory), 10, "log.head_unreadable")

    head.write_bytes(kept)
    lab.begin()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with running_up(tmp_path / "home") as up:
        yield up


def test_up_goes_on_in_its_directory(up: Up, tmp_path: Path) -> None:
    """After a good end and after a bad one, with the same addresses, the same log, and receipts that still hold."""
    first, second, third = (copy_of_program(tmp_path, f"{name}.exe") for name in ("first", "second", "third"))
    succeeded(up.run("sign", "--key", "demo", first))
    up.running.stop()

    again = start_up(up.directory)
    try:
        assert again.ready == up.ready
        succeeded(up.run("verify", first))
        succeeded(up.run("sign", "--key", "demo", second))
    finally:
        again.running.kill()

    up.running = start_up(up.directory).running
    for app in (first, second):
        succeeded(up.run("verify", app))
    succeeded(up.run("sign", "--key", "demo", third))
    verified = succeeded(up.run("log", "verify", "--json")).document
    assert (verified["signatures"], verified["open_intents"]) == (3, [])
    genesis = succeeded(up.run("log", "show", "--last", "100", "--json")).out.splitlines()[0]
    assert '"genesis"' in genesis


def test_up_notices_an_older_database(up: Up, tmp_path: Path) -> None:
    up.running.stop()
    database = up.directory / "hub" / "hub.db"
    shutil.copyfile(database, tmp_path / "copy")
    up.running = start_up(up.directory).running
    succeeded(up.run("sign", "--key", "demo", copy_of_program(tmp_path)))
    up.running.stop()
    newest = database.read_bytes()
    shutil.copyfile(tmp_path / "copy", database)

    refused(privyseal("up", "--dir", up.directory), 10, "log.rollback")

    database.write_bytes(newest)
    up.running = start_up(up.directory).running
    succeeded(up.run("log", "verify"))
