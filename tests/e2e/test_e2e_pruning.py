# SPDX-License-Identifier: Apache-2.0
"""A hub that let its old entries go: it signs on, its log verifies and says what is gone, receipts stay valid."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from installation import Up, add_refusals, copy_of_program, running_up
from privyseal.hub.pruning import Pruned, Retention, prune_log
from programs import privyseal, refused, succeeded


def pruned(hub: Path, *, after_years: float, dry_run: bool = False, years: float = 2.0) -> Pruned:
    """What happens so many years later: as if the log had been kept for so much less time now."""
    return asyncio.run(prune_log(hub, Retention(years=years - after_years), dry_run=dry_run))


@dataclass(frozen=True, kw_only=True)
class Old:
    """An installation long after a signature."""

    home: Path
    app: Path
    full: Path  #: an export from before
    record: Path  #: what the agent signed under


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Old:
    place = tmp_path_factory.mktemp("pruning")
    made = Old(home=place / "home", app=copy_of_program(place), full=place / "full", record=place / "record")
    with running_up(made.home) as up:
        succeeded(up.run("sign", "--key", "demo", made.app))
        refused(privyseal("log", "prune", "--dir", made.home / "hub"), 2, "store.in_use")
    asyncio.run(add_refusals(made.home / "hub", 600))
    with running_up(made.home) as up:
        succeeded(up.run("log", "export", made.full))
        succeeded(privyseal("agent", "export", "--dir", made.home / "agent", made.record))
    return made


def copied(old: Old, place: Path) -> Path:
    return shutil.copytree(old.home, place / "home", symlinks=True)


@pytest.fixture(scope="module")
def young(old: Old, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The installation after pruning, running."""
    home = copied(old, tmp_path_factory.mktemp("pruned"))
    done = pruned(home / "hub", after_years=20)
    assert (done.entries, done.index) == (512, json.loads((old.full / "checkpoint").read_text().split("\n")[1]))
    with running_up(home) as up:
        yield up


def test_nothing_goes_before_its_time(old: Old, tmp_path: Path) -> None:
    hub = copied(old, tmp_path) / "hub"

    for years, words in ((0, "written too recently"), (1, "written too recently")):
        found = pruned(hub, after_years=years)
        assert (found.entries, found.bodies, found.index) == (0, 0, None)
        assert words in found.stop
    said = succeeded(privyseal("log", "prune", "--dir", hub)).out
    assert "nothing may go" in said
    # The demo's certificate outlives its log entries.
    assert "has not expired" in pruned(hub, after_years=1, years=0.5).stop
    dry = pruned(hub, after_years=20, dry_run=True)
    assert (dry.entries, dry.index) == (512, None)
    assert dry.bodies > 500
    with closing(sqlite3.connect(hub / "hub.db")) as found_in:
        assert found_in.execute("SELECT count(*) FROM log_entry WHERE body = x''").fetchone() == (0,)


def test_a_key_whose_certificate_nobody_knows_keeps_its_entries(old: Old, tmp_path: Path) -> None:
    hub = copied(old, tmp_path) / "hub"
    with closing(sqlite3.connect(hub / "hub.db")) as database:
        database.execute("DELETE FROM key_profile")
        database.commit()

    found = pruned(hub, after_years=20)

    assert found.index is None
    assert "--certificate" in found.stop


def test_the_log_verifies_and_says_what_is_gone(young: Up, old: Old, tmp_path: Path) -> None:
    told = succeeded(young.run("log", "verify", "--json")).document
    assert told["pruned"] == 512
    assert "were pruned" in succeeded(young.run("log", "verify")).out
    (agent,) = succeeded(young.run("log", "verify", "--agent", old.record, "--json")).document["agents"]
    assert agent["pruned"] == agent["operations"] == 1
    shown = succeeded(young.run("log", "show", "--last", "100000", "--json")).out.splitlines()
    assert json.loads(shown[0])["index"] == 512
    refused(young.run("log", "find", old.app, "--json"), 3, "find.not_ours")
    refused(young.run("log", "report", "--key", "nobody"), 2, "report.unknown_key")

    succeeded(young.run("log", "export", tmp_path / "new"))
    assert not (tmp_path / "new/tile/entries/000").exists()
    assert (tmp_path / "new/tile/0/000").read_bytes() == (old.full / "tile/0/000").read_bytes()
    assert succeeded(young.run("log", "verify", tmp_path / "new", "--json")).document["pruned"] == 512


def test_an_export_from_before_goes_on_with_all_its_entries(young: Up, old: Old, tmp_path: Path) -> None:
    shutil.copytree(old.full, tmp_path / "full")
    succeeded(young.run("log", "export", tmp_path / "full"))

    assert succeeded(young.run("log", "verify", tmp_path / "full", "--json")).document["pruned"] == 0


def test_a_receipt_from_before_stays_valid(young: Up, old: Old) -> None:
    trust = ("--trust", young.directory / "test-root.pem", "--require-receipt")

    succeeded(young.run("verify", old.app, *trust))
    succeeded(young.run("verify", "--offline", old.app, *trust))


def test_the_hub_signs_on(young: Up, tmp_path: Path) -> None:
    app = copy_of_program(tmp_path)
    app.write_bytes(app.read_bytes() + b"another program")

    succeeded(young.run("sign", "--key", "demo", app))
    succeeded(young.run("log", "verify"))
