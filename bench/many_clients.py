# SPDX-License-Identifier: Apache-2.0
"""Many clients and one token: how busy it is kept, how fairly, how soon a release goes first, and what waiting costs.

Run by `make bench`; `python bench/many_clients.py [busy release waiting costs hubs]` runs parts. Clients are tasks of
one process; hub and agent are programs of their own. Nothing here asserts: it prints figures.
"""

import asyncio
import datetime as dt
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from api_client import ask
from cell_site import PROFILE, make_cell
from installation import Site, add_to_agent, agent_text, make_site, software_token
from lab.fault_shim import FaultyToken, around
from lab.shim_orders import delays
from postgres_server import running_postgres
from privyseal.client.administration import Administration
from privyseal.client.config import ClientConfig, client_config_text, load_client_config
from privyseal.client.hub import HubClient
from privyseal.client.joining import join
from privyseal.client.mtls import mtls_context
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.factory import open_token
from privyseal.wire.api import SignatureRequest
from programs import child_pids
from softhsm import EC_ID, fresh_softhsm

CLIENTS = int(os.environ.get("CLIENTS", "200"))
EACH = int(os.environ.get("EACH", "50"))
SIGN_MS = 5


@dataclass(frozen=True, kw_only=True)
class Client:
    """One client of the load: its connections, and requests that are made before the clock runs."""

    session: aiohttp.ClientSession
    urls: tuple[str, ...]
    bodies: tuple[bytes, ...]

    async def sign(self, number: int, *, wait: int = 60) -> dict[str, object]:
        """Ask, and ask again until it is signed (unless nothing is waited for)."""
        url = self.urls[number % len(self.urls)]
        async with self.session.post(f"{url}/v1/signatures?wait={wait}&enough=1", data=self.bodies[number]) as answer:
            found: dict[str, object] = json.loads(await answer.read())
        while wait and found.get("state") == "waiting":
            async with self.session.get(f"{url}/v1/signatures/{found['id']}?wait={wait}&enough=1") as answer:
                found = json.loads(await answer.read())
        if wait and [item["state"] for item in found["items"]] != ["signed"]:  # type: ignore[attr-defined]
            sys.exit(f"not signed: {found}")
        return found


def join_clients(site: Site, count: int) -> list[ClientConfig]:
    """As `client join` does, without a process each."""
    known = site.client()
    administration = Administration(
        bundle=known.load_bundle(), web_url=known.web_urls[0], authority_paths=(site.authority,)
    )
    configs = []
    for number in range(count):
        place = site.directory / "clients" / f"c{number}"
        member = join(administration.invite("client", f"c{number}", ("*",)), "client", place / "client")
        text = client_config_text(name=member.name, hubs=member.mtls_urls, web=member.web_url, identity="client")
        (place / "client.toml").write_text(text)
        configs.append(load_client_config(str(place / "client.toml")))
    return configs


def sealed(config: ClientConfig, profile: str, count: int, priority: str = "normal") -> tuple[bytes, ...]:
    """Bodies of requests for one signature each, made before the clock runs."""
    chain = HubClient(config).profile(profile).chain
    made = (ask(config, profile, chain=chain) for _ in range(count))
    return tuple(
        msgspec.json.encode(SignatureRequest(envelope=one.envelope, preimages=one.preimages, priority=priority))
        for one in made
    )


def connect(config: ClientConfig, bodies: tuple[bytes, ...], urls: tuple[str, ...] = ()) -> Client:
    connector = aiohttp.TCPConnector(ssl=mtls_context(config), limit=4)
    session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
    return Client(session=session, urls=urls or config.hub_urls, bodies=bodies)


async def together(clients: list[Client], *, wait: int = 60) -> list[float]:
    """Each client its requests one after the other; when each was done, in seconds."""

    async def one(client: Client) -> float:
        for number in range(len(client.bodies)):
            await client.sign(number, wait=wait)
        return time.perf_counter() - begun

    begun = time.perf_counter()
    return list(await asyncio.gather(*(one(client) for client in clients)))


async def shake_hands(clients: list[Client]) -> None:
    """Connect them before anything is measured."""
    for client in clients:
        async with client.session.get(f"{client.urls[0]}/v1/status") as answer:
            await answer.read()


async def closing(clients: list[Client]) -> None:
    await asyncio.gather(*(client.session.close() for client in clients))


def cpu_seconds(*pids: int) -> float:
    """User and system time of processes and their children that run."""
    ticks = 0
    for pid in pids:
        for process in (pid, *child_pids(pid)):
            ticks += sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def alone(faulty: FaultyToken, count: int) -> float:
    """Seconds that the token takes for a signature when nothing but a worker stands before it, and never waits."""
    token = open_token(faulty.config())
    left = iter(range(count))

    async def again() -> None:
        for _ in left:
            await token.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=bytes(32))

    try:
        await token.keys()
        begun = time.perf_counter()
        await asyncio.gather(again(), again())
        return (time.perf_counter() - begun) / count
    finally:
        await token.close()


async def keep_busy(site: Site, faulty: FaultyToken) -> None:
    possible = await alone(faulty, 1_000)
    configs = join_clients(site, CLIENTS)
    clients = [connect(config, sealed(config, "slow", EACH)) for config in configs]
    await shake_hands(clients)
    before = faulty.calls("C_Sign")
    names = ("hub", "agent")
    used = [cpu_seconds(site.running[name].process.pid) for name in names]
    own = time.process_time()
    ended = await together(clients)
    own = time.process_time() - own
    used = [cpu_seconds(site.running[name].process.pid) - had for name, had in zip(names, used, strict=True)]
    await closing(clients)
    count = CLIENTS * EACH
    print(f"\nA token of {SIGN_MS} ms, {CLIENTS} clients with {EACH} signatures each, one after the other")
    each = max(ended) / count
    print(f"  wall {max(ended):.2f} s, {each * 1000:.2f} ms a signature")
    print(
        f"  measured before, the token with a worker alone: {possible * 1000:.2f} ms: {possible / each:.1%} (aim: 95 %)"
    )
    print(f"  slowest client {max(ended):.2f} s, fastest {min(ended):.2f} s: {max(ended) / min(ended):.3f} (aim: 1.3)")
    print(f"  CPU: hub {used[0]:.1f} s, agent and worker {used[1]:.1f} s, these clients {own:.1f} s")
    print(f"  operations of the token: {faulty.calls('C_Sign') - before} for {count} signatures")


async def release_first(site: Site, faulty: FaultyToken) -> None:
    """A request of the class `release` behind 5,000 nightly ones."""
    (night, boss) = join_clients(site, 2)
    client = connect(night, sealed(night, "slow", 5_000, "nightly"))
    urgent = connect(boss, sealed(boss, "slow", 5, "release"))
    await asyncio.gather(*(client.sign(number, wait=0) for number in range(5_000)))
    print("\nA release-class request behind 5,000 nightly ones")
    for number in range(5):
        body = msgspec.json.decode(urgent.bodies[number], type=SignatureRequest)
        digest = hashlib.sha256(body.preimages[0].signed).hexdigest()
        sent_s, at_sending = time.perf_counter(), faulty.order()
        await urgent.sign(number, wait=0)
        taken_s, at_taking = time.perf_counter(), faulty.order()
        await faulty.until_begun(digest)
        order = faulty.order()
        place = order.index(digest)
        print(
            f"  in the queue after {(taken_s - sent_s) * 1000:.0f} ms; operations of the token before its own:"
            f" {place - len(at_taking)} from then on (aim: at most 2), {place - len(at_sending)} from its sending on"
        )
        await asyncio.sleep(3.0)
    await closing([client, urgent])


async def waiting(site: Site) -> None:
    """10,000 requests in the queue: what they weigh in the hub, and how quickly they are taken."""
    (config,) = join_clients(site, 1)
    client = connect(config, sealed(config, "slow", 10_000))
    hub = site.running["hub"].process.pid
    before = resident_mb(hub)
    begun = time.perf_counter()
    await asyncio.gather(*(client.sign(number, wait=0) for number in range(10_000)))
    seconds = time.perf_counter() - begun
    print("\n10,000 queued requests")
    print(f"  hub {before:.0f} MB before, {resident_mb(hub):.0f} MB with them (aim: at most 200 MB more)")
    print(f"  taken at {10_000 / seconds:.0f} requests/s")
    await closing([client])


async def costs(site: Site) -> None:
    """CPU of hub and agent for a signature, from one client to a thousand; a software token, which costs little."""
    pids = [site.running[name].process.pid for name in ("hub", "agent")]
    configs = join_clients(site, int(os.environ.get("MOST", "1000")))
    print("\nA software token (P-256): signatures end to end, with receipts; CPU of hub and agent for each")
    for count in (1, 10, 100, len(configs)):
        each = max(4, 1_000 // count)
        clients = [connect(config, sealed(config, "demo", each)) for config in configs[:count]]
        await shake_hands(clients)
        before = cpu_seconds(*pids)
        ended = await together(clients)
        used = cpu_seconds(*pids) - before
        await closing(clients)
        print(
            f"  {count:5d} clients: {count * each / max(ended):6.0f} signatures/s,"
            f" {used / count / each * 1000:.2f} ms CPU each"
        )
    latencies(site)


def latencies(site: Site) -> None:
    """From the queue to the agent's journal, by the logs of both; of requests that had nothing before them."""
    queued = {one["request"]: one["timestamp"] for one in site.running["hub"].events if one["event"] == "jobs queued"}
    begun = {
        one["request"]: one["timestamp"] for one in site.running["agent"].events if one["event"] == "job journalled"
    }
    first = [request for request in queued if request in begun][:300]
    times = sorted((moment(begun[one]) - moment(queued[one])) * 1000 for one in first)
    print(f"  queued to journalled at the agent, one client: p50 {statistics.median(times):.1f} ms (aim: 5 ms)")


def moment(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


async def hubs(directory: Path) -> None:
    """One hub and three over the same PostgreSQL: the same cores do the work."""
    rates = {}
    with running_postgres() as postgres:
        for count in (1, 3):
            url = postgres.url(await postgres.make_database())
            cell = await asyncio.to_thread(make_cell, directory / f"cell-{count}", url, hubs=count, sign_ms=0)
            try:
                urls = tuple(cell.url(number) for number in range(count))
                configs = join_clients(cell.site, 60)
                clients = [
                    connect(config, sealed(config, PROFILE, 30), (urls[number % count],))
                    for number, config in enumerate(configs)
                ]
                await shake_hands(clients)
                ended = await together(clients)
                await closing(clients)
                rates[count] = 60 * 30 / max(ended)
            finally:
                cell.end()
    print("\nSeveral hubs on one machine, PostgreSQL beside them, SoftHSM2 RSA-2048, 60 clients")
    print(f"  one hub {rates[1]:.0f} signatures/s, three {rates[3]:.0f}: {rates[3] / rates[1]:.2f} (aim: 0.9)")


@contextmanager
def slow_token(directory: Path) -> Iterator[tuple[Site, FaultyToken]]:
    """A P-256 key in SoftHSM2, whose C_Sign takes as long as the shim says and hardly more."""
    faulty = around(fresh_softhsm(directory / "hsm"))
    site = make_site(directory / "site")
    try:
        token = agent_text(faulty).split("\n[[key]]")[0]
        add_to_agent(site, f'{token}\n[[key]]\nprofile = "slow"\ntoken = "lab"\nid = "{EC_ID.hex()}"\n')
        site.start_agent()
        site.until_online("slow")
        faulty.break_with(delays("C_Sign", SIGN_MS))
        yield site, faulty
    finally:
        site.end()


@contextmanager
def quick_token(directory: Path) -> Iterator[Site]:
    site = make_site(directory / "site")
    try:
        add_to_agent(site, software_token(site.agent_directory))
        site.start_agent()
        site.until_online("demo")
        yield site
    finally:
        site.end()


def main() -> None:
    parts = sys.argv[1:] or ["busy", "release", "waiting", "costs", "hubs"]
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="privyseal-many-") as name:
            directory = Path(name)
            if part == "costs":
                with quick_token(directory) as site:
                    asyncio.run(costs(site))
            elif part == "hubs":
                asyncio.run(hubs(directory))
            else:
                with slow_token(directory) as (site, faulty):
                    if part == "busy":
                        asyncio.run(keep_busy(site, faulty))
                    elif part == "release":
                        asyncio.run(release_first(site, faulty))
                    else:
                        faulty.break_with(delays("C_Sign", 2_000))
                        asyncio.run(waiting(site))


if __name__ == "__main__":
    main()
