# SPDX-License-Identifier: Apache-2.0
"""Installations that the end-to-end tests share: made once, used by tests that leave them able to sign."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from installation import Site, Up, add_to_agent, agent_text, copy_of_program, make_site, running_up
from lab.fault_shim import FaultyToken, around
from privyseal.client.journal import RequestJournal
from softhsm import fresh_softhsm


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`privyseal up` in a directory of its own."""
    with running_up(tmp_path_factory.mktemp("up") / "home") as running:
        yield running


@pytest.fixture
def nothing_left_over(up: Up) -> None:
    """The client's journal without what other tests have left there on purpose."""
    journal = RequestJournal(up.client().identity.journal)
    for kept in tuple(journal.open_requests()):
        journal.forget(kept.id)


@pytest.fixture(scope="session")
def site_token(tmp_path_factory: pytest.TempPathFactory) -> FaultyToken:
    """The shared installation's SoftHSM2 token."""
    return around(fresh_softhsm(tmp_path_factory.mktemp("softhsm")))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, site_token: FaultyToken) -> Iterator[Site]:
    """Hub, agent and client as programs of their own, over a SoftHSM2 token."""
    site = make_site(tmp_path_factory.mktemp("site"))
    try:
        add_to_agent(site, agent_text(site_token))
        site.start_agent()
        site.until_online("release", "pinned")
        site.save_roots("release", "pinned")
        yield site
        site.stop()
    finally:
        site.end()


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A Windows program, alone in its directory."""
    folder = tmp_path / "build"
    folder.mkdir()
    return copy_of_program(folder)
