# SPDX-License-Identifier: Apache-2.0
"""A hub, two agents and a client in this process, over real sockets: one agent has a token, the other is a witness.

All of it runs on one machine, where no witness counts; the hub is told that every address is somewhere else.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from api_client import Asked, Reply, api_of, ask
from installation import free_port, software_token
from privyseal.agent.joining import remember_checkpoint
from privyseal.agent.wiring import Agent, open_agent
from privyseal.client.administration import Administration
from privyseal.client.config import ClientConfig, client_config_text, load_client_config
from privyseal.client.joining import join
from privyseal.client.log import LogReader
from privyseal.client.log_files import verify_log
from privyseal.hub.config import HubConfig
from privyseal.hub.setup import NewHub, init_hub
from privyseal.hub.wiring import HubProcess, open_hub
from privyseal.identity.keyfile import write_private
from privyseal.tlog.entry import Entry, parse_entry

__all__ = ["WitnessedSite", "elsewhere", "running_site"]

PROFILE = "demo"


def elsewhere(_address: str) -> bool:
    """No address is the hub's own."""
    return False


@dataclass(kw_only=True)
class WitnessedSite:
    """What runs, by the names `signer` and `other`."""

    directory: Path
    config: HubConfig
    is_here: Callable[[str], bool] = elsewhere
    hub: HubProcess = field(init=False)
    agents: dict[str, Agent] = field(default_factory=dict)

    @property
    def client(self) -> ClientConfig:
        return load_client_config(str(self.directory / "client.toml"))

    def desk(self) -> Administration:
        return Administration(
            bundle=self.hub.hub.bundle,
            web_url=self.config.web_url,
            authority_paths=(self.directory / "authority.key",),
        )

    async def start_hub(self, confirmed_size: int | None = None) -> None:
        self.hub = await open_hub(self.directory / "hub", is_here=self.is_here)
        await self.hub.start(confirmed_size)

    async def start_agent(self, name: str) -> None:
        """Start an agent, and wait until it is linked."""
        self.agents[name] = agent = await open_agent(self.directory / name)
        await agent.start()
        async with asyncio.timeout(20):
            await agent.links.all[0].linked.wait()
        await self.until(lambda: name in self.hub.hub.dispatch.links)

    async def stop_agent(self, name: str) -> None:
        await self.agents.pop(name).stop()
        await self.until(lambda: name not in self.hub.hub.dispatch.links)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110 - hub and agents have no event for what tests look at
                await asyncio.sleep(0.001)

    async def rely_on(self, *names: str, quorum: str = "all") -> None:
        """Name agents as witnesses, and wait until everybody goes by the new bundle."""
        keys = {name: self.hub.hub.dispatch.links[name].witness for name in names}
        lines = [f"witness {name} {key}" for name, key in keys.items()]
        await self.name_policy("\n".join([*lines, f"group g {quorum} {' '.join(names)}", "quorum g", ""]))

    async def name_policy(self, policy: str) -> None:
        before = dict(self.hub.hub.dispatch.links)  # an agent takes the new bundle first, and then hangs up
        bundle = await asyncio.to_thread(partial(self.desk().change_trust, witnesses=policy))
        names = tuple(self.agents)
        await self.until(lambda: self.hub.hub.bundle.sha256 == bundle.sha256)
        await self.until(
            lambda: all(
                self._goes_by(name, bundle.sha256) and self.hub.hub.dispatch.links[name] is not before.get(name)
                for name in names
            )
        )
        await self.online()

    def _goes_by(self, name: str, sha256: bytes) -> bool:
        agent = self.agents[name]
        linked = name in self.hub.hub.dispatch.links and agent.links.all[0].linked.is_set()
        return linked and agent.links.trust.bundle.sha256 == sha256

    async def online(self) -> None:
        await self.until(lambda: (served := self.hub.hub.dispatch.profile(PROFILE)) is not None and served.online)

    async def ask(self) -> Asked:
        """A sound request, not sent yet."""
        return await asyncio.to_thread(ask, self.client, PROFILE)

    async def send(self, asked: Asked, wait_seconds: float = 30) -> Reply:
        def call() -> Reply:
            api = api_of(self.client)
            try:
                return api("POST", f"/v1/signatures?wait={wait_seconds}", asked.body)
            finally:
                api.close()

        return await asyncio.to_thread(call)

    async def entries(self) -> list[Entry]:
        """All entries, once the log has been found sound."""

        def read() -> list[Entry]:
            reader = LogReader(self.client)
            verify_log(reader)
            return [parse_entry(entry) for _, entry in reader.entries(0, reader.checkpoint().size)]

        return await asyncio.to_thread(read)

    async def stop(self) -> None:
        for name in tuple(self.agents):
            await self.agents.pop(name).stop()
        await self.hub.stop()


@asynccontextmanager
async def running_site(
    directory: Path, *, level: str, is_here: Callable[[str], bool] = elsewhere, database: str = ""
) -> AsyncIterator[WitnessedSite]:
    """A site whose key profile has this witness level; no witness is named yet."""
    port = free_port()
    config = HubConfig(
        name="hub.example/witnessed",
        listen_mtls=f"127.0.0.1:{port}",
        listen_web=f"127.0.0.1:{port + 1}",
        mtls_url=f"https://localhost:{port}",
        web_url=f"https://localhost:{port + 1}",
    )
    now = dt.datetime.now(dt.UTC)
    init_hub(NewHub(directory=directory / "hub", authority_path=directory / "authority.key", config=config), now)
    if database:
        with (directory / "hub" / "hub.toml").open("a") as written:
            written.write(f'database = "{database}"\n')
    site = WitnessedSite(directory=directory, config=config, is_here=is_here)
    await site.start_hub()
    try:
        await asyncio.to_thread(_enrol, site)
        text = software_token(directory / "signer") + f'witness = "{level}"\n'
        _write_config(site, "signer", text)
        _write_config(site, "other", "")
        for name in ("signer", "other"):
            await site.start_agent(name)
        await site.online()
        yield site
    finally:
        await site.stop()


def _enrol(site: WitnessedSite) -> None:
    for name in ("signer", "other"):
        member = join(site.desk().invite("agent", name, ()), "agent", site.directory / name)
        asyncio.run(remember_checkpoint(site.directory / name, member.bundle, member.checkpoint))
    member = join(site.desk().invite("client", "client", ("*",)), "client", site.directory / "client")
    text = client_config_text(name="client", hubs=member.mtls_urls, web=member.web_url, identity="client")
    (site.directory / "client.toml").write_text(text)


def _write_config(site: WitnessedSite, name: str, text: str) -> None:
    head = f'name = "{name}"\nhub = "{site.config.mtls_url}"\nweb = "{site.config.web_url}"\n'
    write_private(site.directory / name / "agent.toml", (head + text).encode())
