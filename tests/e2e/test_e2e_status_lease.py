# SPDX-License-Identifier: Apache-2.0
"""Which hub process uses a token, as the status of one of them tells it."""

import asyncio
from pathlib import Path

import pytest

from postgres_server import PostgresServer
from privyseal.client.hub import HubClient
from privyseal.ports.queue import Lease
from privyseal.ports.store import Tx
from witnessed import WitnessedSite, running_site

PLACE = "signer/software"


async def lease(site: WitnessedSite) -> str:
    """What the hub says of the token's lease."""
    status = await asyncio.to_thread(HubClient(site.client).status)
    (found,) = [one.lease for one in status.tokens if f"{one.agent}/{one.token}" == PLACE]
    return found


@pytest.mark.interop
async def test_a_token_that_another_hub_process_uses_is_said_to_be_elsewhere(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    database = postgres.url(await postgres.make_database())
    async with running_site(tmp_path, level="off", database=database) as site:
        hub = site.hub.hub
        (lane,) = [one for one in hub.dispatch.lanes if one.place == PLACE]
        await site.until(lambda: "signer" in hub.token_board.tokens and lane.lease.held)
        assert await lease(site) == "here"

        async def hand_over(tx: Tx) -> None:
            own = await tx.lease(PLACE)
            assert own is not None
            until_ms = await tx.database_ms() + 600_000
            await tx.put_lease(Lease(token=PLACE, holder="another", fence=own.fence + 1, expires_ms=until_ms))

        await hub.store.write(hand_over)
        lane.lease.lose()
        assert await lease(site) == "elsewhere"

        async def give_back(tx: Tx) -> None:
            other = await tx.lease(PLACE)
            assert other is not None
            await tx.put_lease(Lease(token=PLACE, holder="another", fence=other.fence, expires_ms=1))

        await hub.store.write(give_back)
        assert await lease(site) in ("free", "here"), "this one may have taken it meanwhile"
        await site.until(lambda: lane.lease.held)
        assert await lease(site) == "here"
