# SPDX-License-Identifier: Apache-2.0
"""An installation with several clients and a slow token, so that something waits."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api_client import Reply, api_of, ask
from installation import Site, add_to_agent, agent_text, make_site
from lab.fault_shim import FaultyToken, around
from lab.shim_orders import delays
from privyseal.client.administration import Administration
from privyseal.client.hub import HubClient
from privyseal.errors import ConfigError
from privyseal.wire.queue import QueuedView, RequestRecord
from programs import until
from softhsm import fresh_softhsm

__all__ = ["MOST_PER_CLIENT", "PROFILE", "QueueSite", "queue_site"]

PROFILE = "release"
MOST_PER_CLIENT = 60
SIGN_MS = 150
_CONFIG = f"""
[queue]
most_per_client = {MOST_PER_CLIENT}

[[team]]
name = "night"
clients = ["night-*"]
priority = "nightly"
"""


@dataclass(frozen=True, kw_only=True)
class QueueSite:
    """Clients `client`, `ci-7` and `night-1`, of which the last may only ask for `nightly`."""

    site: Site
    token: FaultyToken

    def send(self, client: str, items: int, priority: str = "normal") -> Reply:
        """Hand a request in, and wait for nothing."""
        config = self.site.client(client)
        body = json.loads(ask(config, PROFILE, items=items).body) | {"priority": priority}
        api = api_of(config)
        try:
            return api("POST", "/v1/signatures", json.dumps(body).encode())
        finally:
            api.close()

    def queued(self, client: str, items: int, priority: str = "normal") -> str:
        """The same; the id of the request."""
        reply = self.send(client, items, priority)
        assert reply.status == 202, reply
        request_id: str = reply.document["id"]
        return request_id

    def hub(self, client: str = "client") -> HubClient:
        return HubClient(self.site.client(client))

    def waiting(self) -> tuple[QueuedView, ...]:
        return self.hub().queue().requests

    def record(self, client: str, request_id: str) -> RequestRecord:
        return self.hub(client).request(request_id)

    def until_done(self, client: str, request_id: str) -> RequestRecord:
        def look() -> RequestRecord | None:
            found = self.record(client, request_id)
            return found if found.progress.state == "done" else None

        return until(look, "the end of a request")

    def desk(self) -> Administration:
        config = self.site.client()
        return Administration(
            bundle=config.load_bundle(), web_url=config.web_urls[0], authority_paths=(self.site.authority,)
        )

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """All log entries of a type."""
        out = self.site.run("log", "show", "--type", kind, "--since", "2020-01-01", "--json").out
        return [json.loads(line)["entry"] for line in out.splitlines()]

    @contextmanager
    def slow(self) -> Iterator[None]:
        """The token takes its time; at the end nothing waits any more."""
        self.token.break_with(delays("C_Sign", SIGN_MS))
        try:
            yield
        finally:
            self.token.heal()
            for one in self.waiting():
                with suppress(ConfigError):  # it has ended meanwhile
                    self.desk().cancel_request(one.id)
            until(lambda: not self.waiting(), "an empty queue")


@contextmanager
def queue_site(directory: Path) -> Iterator[QueueSite]:
    """Make one, and stop it."""
    (directory / "hsm").mkdir()
    token = around(fresh_softhsm(directory / "hsm"))
    site = make_site(directory / "site", more=_CONFIG)
    try:
        add_to_agent(site, agent_text(token))
        site.start_agent()
        site.until_online(PROFILE)
        for name in ("ci-7", "night-1"):
            site.add_client(name)
        yield QueueSite(site=site, token=token)
        site.stop()
    finally:
        site.end()
