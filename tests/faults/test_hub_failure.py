# SPDX-License-Identifier: Apache-2.0
"""What breaks at the hub is known to all of it: a connection that is gone, a database that takes nothing any more."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from lying_hub import HUB, make_trust
from privyseal.errors import LogIntegrityError, UnavailableError
from privyseal.hub.config import HubConfig
from privyseal.hub.core import Hub
from privyseal.hub.links import AgentLink
from privyseal.hub.services.enrol import TlsAuthority
from privyseal.identity.trust import PinnedTrust
from privyseal.ports.clock import system_clock
from privyseal.ports.store import Enrolment, Tx
from privyseal.storage.sqlite import SqliteStore
from privyseal.tlog.cosignature import Cosigner
from privyseal.wire.jobs import OutcomeQuery
from privyseal.wire.link import HubMessage

AGENT = Enrolment(
    role="agent",
    name="lab",
    certificate_sha256=bytes(32),
    request_key=bytes(32),
    profiles=(),
    salt=bytes(16),
    entry_index=0,
)


async def test_a_connection_that_breaks_while_it_is_sent_to_is_a_lost_link() -> None:
    """It must not count as a failure of the hub, which would sign nothing more."""

    async def send(_: HubMessage) -> None:
        raise ConnectionResetError("Cannot write to closing transport")

    async def hang_up() -> None:
        """Nobody is at the other end."""

    link = AgentLink(AGENT, send, held_size=0, hang_up=hang_up)

    with pytest.raises(UnavailableError) as sending:
        await link.send(OutcomeQuery(request="r", item=0, fence=1))
    with pytest.raises(UnavailableError) as asking:
        await link.outcome(("r", 0, 1))

    assert (sending.value.code, asking.value.code) == ("agent.link_lost", "agent.link_lost")


class DyingMedium:
    """A database whose commits fail from some moment on."""

    def __init__(self) -> None:
        self.dead = False

    def connect(self, path: str) -> sqlite3.Connection:
        medium = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                if medium.dead and sql == "COMMIT":
                    raise sqlite3.OperationalError("disk I/O error")
                return super().execute(sql, parameters)

        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Connection)


async def test_whoever_meets_a_commit_of_unknown_outcome_the_whole_hub_is_unready(tmp_path: Path) -> None:
    """Not only lanes write: an agent that announces itself, or a client whose request is queued, may be the first."""
    trust, medium = make_trust(), DyingMedium()
    store = await SqliteStore.open(
        tmp_path / "hub.db",
        origin=HUB,
        log_key=trust.log_key,
        clock=system_clock,
        head_path=tmp_path / "head.checkpoint",
        connect=medium.connect,
    )
    config = HubConfig(name=HUB, listen_mtls="a:1", listen_web="a:2", mtls_url="https://a:1", web_url="https://a:2")
    authority = TlsAuthority(certificate=trust.ca, key=trust.ca_key)
    hub = Hub(
        config=config,
        trust=PinnedTrust(tmp_path / "bundle.json", trust.bundle),
        store=store,
        authority=authority,
        log_cosigner=Cosigner(name=HUB, key=trust.log_mldsa_key),
        clock=system_clock,
    )
    await hub.start()
    hub.ensure_signing()
    medium.dead = True

    async def write(tx: Tx) -> None:
        await tx.append(b"{}")

    with pytest.raises(LogIntegrityError):
        await hub.store.write(write)

    assert "store.commit_unknown" in str(hub.refusal)
    with pytest.raises(LogIntegrityError, match="last commit"):
        hub.ensure_signing()
    with pytest.raises(UnavailableError) as ended:  # whoever runs it starts it again: the exit status allows it
        await hub.wait(asyncio.Event())
    assert (ended.value.code, ended.value.exit_status) == ("hub.store", 7)
    await hub.stop()
