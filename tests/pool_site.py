# SPDX-License-Identifier: Apache-2.0
"""A hub, agents and a client in this process, over real sockets: key profiles over the tokens that a test wants."""

import asyncio
import datetime as dt
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

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
from privyseal.hub.entries import key_sha256
from privyseal.hub.services.served import ServedProfile
from privyseal.hub.setup import NewHub, init_hub
from privyseal.hub.wiring import HubProcess, open_hub
from privyseal.identity.keyfile import write_private
from privyseal.ports.clock import system_clock
from privyseal.tlog.entry import Entry, Intent, KeyEntry, Result, parse_entry
from privyseal.wire.api import RequestView, SignatureRequest
from privyseal.wire.members import MemberStatus

__all__ = ["PROFILE", "PoolSite", "pool_table", "running_pool", "view_of"]

PROFILE = "demo"


def pool_table(tokens: Sequence[str], *, successors: Sequence[str] = (), since_ms: int | None = None) -> str:
    """`[[pool]]` of hub.toml."""

    def named(places: Sequence[str]) -> str:
        return ", ".join(f'"{place}"' for place in places)

    text = f'\n[[pool]]\nprofile = "{PROFILE}"\ntokens = [{named(tokens)}]\n'
    if since_ms is not None:
        moment = dt.datetime.fromtimestamp(since_ms / 1000, dt.UTC)
        text += f'successors = [{named(successors)}]\nsince = "{moment.isoformat()}"\n'
    return text


@dataclass(kw_only=True)
class PoolSite:
    """What runs.

    Attributes:
        ahead_ms: How far the hub's clock is ahead of this machine's.
        leaps_when: Once that holds, the hub's clock is a minute ahead.
    """

    directory: Path
    config: HubConfig
    hub: HubProcess = field(init=False)
    agents: dict[str, Agent] = field(default_factory=dict)
    ahead_ms: int = 0
    leaps_when: Callable[[], bool] = lambda: False

    @property
    def client(self) -> ClientConfig:
        return load_client_config(str(self.directory / "client.toml"))

    @property
    def served(self) -> ServedProfile:
        found = self.hub.hub.dispatch.profile(PROFILE)
        assert found is not None
        return found

    async def members(self) -> dict[str, MemberStatus]:
        """Its tokens as `status` shows them, by place."""
        status = (await self.call("GET", "/v1/status")).document
        (profile,) = [one for one in status["profiles"] if one["name"] == PROFILE]
        return {one["token"]: msgspec.convert(one, MemberStatus) for one in profile["members"]}

    @property
    def keys(self) -> dict[str, str]:
        """SHA-256 of each token's key, by place."""
        return {row.place: key_sha256(row.chain) for row in self.served.rows}

    def clock(self) -> int:
        if not self.ahead_ms and self.leaps_when():
            self.ahead_ms = 60_000
        return system_clock() + self.ahead_ms

    async def start_hub(self, text: str | None = None) -> None:
        """Start the hub; `text` is put in the place of its pools."""
        path = self.directory / "hub" / "hub.toml"
        if text is not None:
            path.write_text(path.read_text().split("\n[[pool]]")[0] + text)
        self.hub = await open_hub(self.directory / "hub", self.clock)
        await self.hub.start()

    async def add_agent(self, name: str, *tables: str) -> None:
        """Join an agent, and write its agent.toml."""
        place = self.directory / name
        member = await asyncio.to_thread(lambda: join(self.desk().invite("agent", name, ()), "agent", place))
        await remember_checkpoint(place, member.bundle, member.checkpoint)
        self.write_agent(name, *tables)

    def write_agent(self, name: str, *tables: str) -> None:
        head = f'name = "{name}"\nhub = "{self.config.mtls_url}"\nweb = "{self.config.web_url}"\n'
        write_private(self.directory / name / "agent.toml", (head + "".join(tables)).encode())

    def token(self, agent: str, name: str = "software", *, days: int = 30, **fields: str) -> str:
        """Make a software token with a key for the profile; what agent.toml says of it, `fields` within [[key]]."""
        place = self.directory / agent
        place.mkdir(exist_ok=True)
        text = software_token(place, name=name, folder=name, expires=dt.timedelta(days=days))
        return text + "".join(f"{field} = {value}\n" for field, value in fields.items())

    async def start_agent(self, name: str, *, linked: bool = True) -> None:
        self.agents[name] = agent = await open_agent(self.directory / name)
        await agent.start()
        if linked:
            await self.until(
                lambda: any(lane.agent_name == name and lane.linked for lane in self.hub.hub.dispatch.lanes)
            )

    async def stop_agent(self, name: str) -> None:
        await self.agents.pop(name).stop()
        await self.until(lambda: name not in self.hub.hub.dispatch.links)

    async def online(self, *places: str) -> None:
        """Wait until exactly these tokens can take what is asked for now."""

        def look() -> bool:
            found = self.hub.hub.dispatch.profile(PROFILE)
            if found is None:
                return not places
            ready = {lane.place for lane in found.lanes if lane.takes(found.line) and lane.lease.held}
            return ready == set(places)

        await self.until(look)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110 - hub and agents have no event for what tests look at
                await asyncio.sleep(0.001)

    def desk(self) -> Administration:
        return Administration(
            bundle=self.hub.hub.bundle,
            web_url=self.config.web_url,
            authority_paths=(self.directory / "authority.key",),
        )

    def rest(self, place: str) -> AbstractAsyncContextManager[None]:
        """Within this nothing gets to the token."""
        agent, _, token = place.partition("/")
        return self.agents[agent].executor._keys[PROFILE, token].turns.rest()

    async def ask(self, items: int = 1) -> Asked:
        """A sound request, not sent yet."""
        return await asyncio.to_thread(lambda: ask(self.client, PROFILE, items=items))

    async def send(self, asked: Asked, *, key: str = "", wait_seconds: float = 20) -> Reply:
        body = SignatureRequest(envelope=asked.envelope, preimages=asked.preimages, key=key)
        enough = len(asked.preimages)
        path = f"/v1/signatures?wait={wait_seconds}&enough={enough}"
        return await self.call("POST", path, msgspec.json.encode(body))

    async def queue(self, *, key: str = "", items: int = 1) -> str:
        """Send a request without waiting for it; its name."""
        return view_of(await self.send(await self.ask(items), key=key, wait_seconds=0)).id

    async def ended(self, request_id: str) -> RequestView:
        """What became of a request, once all of it has ended."""
        view = view_of(await self.call("GET", f"/v1/signatures/{request_id}?wait=20&enough=5000"))
        assert view.state == "done", (view.position, view.total, len(view.items))
        return view

    async def call(self, method: str, path: str, body: bytes | None = None) -> Reply:
        def call() -> Reply:
            api = api_of(self.client)
            try:
                return api(method, path, body)
            finally:
                api.close()

        return await asyncio.to_thread(call)

    async def signed(self, *, key: str = "", items: int = 1) -> RequestView:
        """Send a request, and have all of it signed."""
        view = await self.ended(await self.queue(key=key, items=items))
        assert [item.state for item in view.items] == ["signed"] * items
        return view

    async def entries(self) -> list[Entry]:
        """All entries, once the log has been found sound."""

        def read() -> list[Entry]:
            reader = LogReader(self.client)
            verify_log(reader)
            return [parse_entry(entry) for _, entry in reader.entries(0, reader.checkpoint().size)]

        return await asyncio.to_thread(read)

    async def signatures(self) -> Counter[str]:
        """How many signatures each token has made, by place; no item has two of them."""
        entries = await self.entries()
        done = [entry for entry in entries if isinstance(entry, Result) and entry.outcome == "ok"]
        items = [(entry.request, entry.item) for entry in done]
        assert len(set(items)) == len(items), "an item was signed twice"
        intents = {(one.request, one.item, one.fence): one for one in entries if isinstance(one, Intent)}
        place_of = {key: place for place, key in self.keys.items()}
        return Counter(place_of[intents[one.request, one.item, one.fence].key] for one in done)

    async def key_entries(self) -> list[KeyEntry]:
        return [entry for entry in await self.entries() if isinstance(entry, KeyEntry)]

    async def stop(self) -> None:
        for name in tuple(self.agents):
            await self.agents.pop(name).stop()
        gc.collect()  # a client that is done with its connection closes it when it goes
        await self.hub.stop()


def view_of(reply: Reply) -> RequestView:
    """A request as the hub shows it."""
    assert reply.status in (200, 202), reply
    return msgspec.json.decode(reply.body, type=RequestView)


@asynccontextmanager
async def running_pool(
    directory: Path, agents: Mapping[str, Sequence[str]], pool: str, keys: tuple[str, ...] = ("*",)
) -> AsyncIterator[PoolSite]:
    """A hub with these pools, and agents with software tokens of these names, all of them able to sign."""
    port = free_port()
    config = HubConfig(
        name="hub.example/pools",
        listen_mtls=f"127.0.0.1:{port}",
        listen_web=f"127.0.0.1:{port + 1}",
        mtls_url=f"https://localhost:{port}",
        web_url=f"https://localhost:{port + 1}",
    )
    now = dt.datetime.now(dt.UTC)
    init_hub(NewHub(directory=directory / "hub", authority_path=directory / "authority.key", config=config), now)
    site = PoolSite(directory=directory, config=config)
    await site.start_hub(pool)
    try:
        member = await asyncio.to_thread(
            lambda: join(site.desk().invite("client", "client", keys), "client", directory / "client")
        )
        text = client_config_text(name="client", hubs=member.mtls_urls, web=member.web_url, identity="client")
        (directory / "client.toml").write_text(text)
        for name, tokens in agents.items():
            await site.add_agent(name)
            site.write_agent(name, *(site.token(name, token) for token in tokens))
            await site.start_agent(name)
        yield site
    finally:
        await site.stop()
