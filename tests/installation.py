# SPDX-License-Identifier: Apache-2.0
"""Whole installations for tests, made the way an operator makes them: `up`, or hub and agent as two programs."""

import datetime as dt
import importlib.util
import json
import random
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lab.fault_shim import FaultyToken
from privyseal.client.config import ClientConfig, load_client_config
from privyseal.client.hub import HubClient
from privyseal.errors import PrivysealError
from privyseal.hub.config import HubFiles, load_hub_config
from privyseal.hub.database import open_store
from privyseal.identity.bundle import load_bundle
from privyseal.ports.clock import system_clock
from privyseal.ports.store import Tx
from privyseal.tlog.entry import Deny, encode_entry
from privyseal.tokens.software import create_software_token, generate_key, set_certificates
from privyseal.tokens.testca import make_test_ca
from programs import Outcome, Running, privyseal, succeeded, until
from softhsm import EC_ID, LABEL, RSA_ID

__all__ = [
    "Site",
    "Up",
    "add_refusals",
    "add_to_agent",
    "agent_text",
    "copy_of_program",
    "free_port",
    "make_site",
    "running_up",
    "software_token",
    "start_up",
]

_PROGRAM = "t64.exe"


def copy_of_program(directory: Path, name: str = "app.exe") -> Path:
    """A real Windows program: the launcher that the package distlib carries."""
    spec = importlib.util.find_spec("distlib")
    assert spec is not None
    assert spec.origin is not None
    return Path(shutil.copyfile(Path(spec.origin).with_name(_PROGRAM), directory / name))


def free_port() -> int:
    """A loopback port that is free now, and the next one too.

    Not one that the kernel gives to who dials: a hub that is started again must find it free again.
    """

    def look() -> int | None:
        port = random.randrange(10_000, 32_000, 2)
        try:
            for one in (port, port + 1):
                socket.create_server(("127.0.0.1", one)).close()
        except OSError:
            return None
        return port

    return until(look, "two free ports side by side")


@dataclass(kw_only=True)
class Up:
    """A directory that `privyseal up` runs in."""

    directory: Path
    running: Running
    ready: dict[str, Any]

    @property
    def config(self) -> Path:
        return self.directory / "client.toml"

    def client(self) -> ClientConfig:
        return load_client_config(str(self.config))

    def run(self, *arguments: str | Path, cwd: Path | None = None, before: Callable[[], None] | None = None) -> Outcome:
        """A command of its client."""
        return privyseal(*arguments, config=self.config, cwd=cwd, before=before)


def start_up(directory: Path) -> Up:
    """Run `up` until it says that it can sign."""
    said = directory.with_name(directory.name + "-said")
    told = said.with_suffix(".out")
    before = told.stat().st_size if told.exists() else 0
    running = Running("up", "--dir", directory, said=said)

    def look() -> str | None:
        assert running.process.poll() is None, running.log
        line = told.read_bytes()[before:].decode()
        return line if line.endswith("\n") else None

    ready = json.loads(until(look, "the JSON line of `up`"))
    return Up(directory=directory, running=running, ready=ready)


@contextmanager
def running_up(directory: Path) -> Iterator[Up]:
    """`up` in a directory; at the end it is asked to stop, and must stop well."""
    up = start_up(directory)
    try:
        yield up
        up.running.stop()
    finally:
        up.running.end()


@dataclass(kw_only=True)
class Site:
    """A hub, an agent and a client, each in a directory of its own below `directory`."""

    directory: Path
    running: dict[str, Running] = field(default_factory=dict)

    @property
    def hub_directory(self) -> Path:
        return self.directory / "hub"

    @property
    def agent_directory(self) -> Path:
        return self.directory / "agent"

    @property
    def authority(self) -> Path:
        return self.directory / "authority.key"

    @property
    def config(self) -> Path:
        return self.directory / "client" / "client.toml"

    @property
    def roots(self) -> Path:
        """PEM with the roots of all key profiles."""
        return self.directory / "roots.pem"

    def client(self, name: str = "client") -> ClientConfig:
        return load_client_config(str(self.directory / name / "client.toml"))

    def run(self, *arguments: str | Path, client: str = "client", cwd: Path | None = None) -> Outcome:
        """A command of a client."""
        return privyseal(*arguments, config=self.directory / client / "client.toml", cwd=cwd)

    def administer(self, *arguments: str | Path) -> Outcome:
        """A command of the administrator beside the hub."""
        return privyseal(*arguments, "--dir", self.hub_directory, "--authority", self.authority)

    def invite(self, role: str, name: str, *more: str) -> str:
        """A join code."""
        code: str = succeeded(self.administer("hub", "invite", role, name, *more, "--json")).document["code"]
        return code

    def add_client(self, name: str, *more: str) -> Path:
        """Join another client."""
        code = self.invite("client", name, *more)
        succeeded(privyseal("client", "join", "--dir", self.directory / name, told=code))
        return self.directory / name / "client.toml"

    def start_hub(self) -> Running:
        self.running["hub"] = hub = Running("hub", "run", "--dir", self.hub_directory, said=self.directory / "hub-said")
        hub.until_event(event="hub ready")
        return hub

    def start_agent(self) -> Running:
        said = self.directory / "agent-said"
        self.running["agent"] = agent = Running("agent", "run", "--dir", self.agent_directory, said=said)
        return agent

    def until_online(self, *profiles: str) -> None:
        """Wait until the hub says that these key profiles can sign."""
        self.until_status(lambda status: set(profiles) <= {one.name for one in status.profiles if one.online})

    def until_status(self, holds: Any) -> None:
        """Wait until the hub's status has some property."""
        client = HubClient(self.client())

        def look() -> bool:
            try:
                return bool(holds(client.status()))
            except PrivysealError:
                return False

        until(look, "the status that was waited for")

    def save_roots(self, *profiles: str) -> None:
        client = HubClient(self.client())
        roots = {client.profile(name).chain[-1] for name in profiles}
        pem = [x509.load_der_x509_certificate(root).public_bytes(Encoding.PEM) for root in sorted(roots)]
        self.roots.write_bytes(b"".join(pem))

    def stop(self) -> None:
        """Stop what runs, agent first; it must stop well."""
        for name in ("agent", "hub"):
            if name in self.running and self.running[name].process.returncode is None:
                self.running[name].stop()

    def end(self) -> None:
        for running in self.running.values():
            running.end()


def software_token(
    directory: Path,
    *,
    expires: dt.timedelta = dt.timedelta(days=30),
    profile: str = "demo",
    level: str = "traced",
    name: str = "software",
    folder: str = "token",
) -> str:
    """Make a software token for an agent; what agent.toml needs to say of it and of its one key."""
    pin = b"software-canary-481516"
    place = directory / folder
    (directory / "pin").touch(mode=0o600)
    (directory / "pin").write_bytes(pin)
    create_software_token(place, pin=pin, label="software")
    spki = generate_key(place, pin=pin, kind="p256", key_id=b"\x01", label=profile)
    now = dt.datetime.now(dt.UTC)
    begin = min(now, now + expires) - dt.timedelta(days=1)
    ca = make_test_ca(not_before=begin, not_after=now + dt.timedelta(days=365))
    chain = ca.issue_code_signing(spki=spki, common_name="Lab", not_before=begin, not_after=now + expires)
    set_certificates(place, key_id=b"\x01", chain=chain)
    return (
        f'\n[[token]]\nname = "{name}"\nkind = "software"\npath = "{folder}"\npin_file = "pin"\n'
        f'\n[[key]]\nprofile = "{profile}"\ntoken = "{name}"\nid = "01"\nlevel = "{level}"\n'
    )


def make_site(directory: Path, *, database: str = "", more: str = "") -> Site:
    """`hub init`, `hub run`, an agent and a client that have joined; the agent has no token yet and does not run.

    `database` is for hub.toml, if it is not to be SQLite; `more` stands at its end.
    """
    site = Site(directory=directory)
    port = str(free_port())
    place = ("--dir", site.hub_directory, "--authority", site.authority, "--name", "hub.example/lab")
    succeeded(privyseal("hub", "init", *place, "--listen", f"127.0.0.1:{port}", "--json"))
    if database:
        with (site.hub_directory / "hub.toml").open("a") as file:
            file.write(f'database = "{database}"\n')
    with (site.hub_directory / "hub.toml").open("a") as file:
        file.write(more)
    site.start_hub()
    try:
        code = site.invite("agent", "lab")
        succeeded(privyseal("agent", "join", "--dir", site.agent_directory, told=code))
        site.add_client("client")
    except BaseException:
        site.end()
        raise
    return site


def add_to_agent(site: Site, text: str) -> None:
    """Append tokens and keys to agent.toml."""
    path = site.agent_directory / "agent.toml"
    head = re.split(r"(?m)^\[\[", path.read_text())[0]
    path.write_text(head + text)


def agent_text(token: FaultyToken, name: str = "lab", more: str = "") -> str:
    """What agent.toml says of a SoftHSM2 token with an RSA key that is traced and an ECDSA key that is pinned.

    `more` are further lines of its `[[token]]`.
    """
    config = token.config()
    variables = ", ".join(f'{name} = "{value}"' for name, value in config.environment.items())
    return (
        f'\n[[token]]\nname = "{name}"\nkind = "pkcs11"\nmodule = "{config.module}"\ntoken_label = "{LABEL}"\n'
        f'pin_file = "{config.pin_file}"\nenvironment = {{ {variables} }}\n{more}'
        f'\n[[key]]\nprofile = "release"\ntoken = "{name}"\nid = "{RSA_ID.hex()}"\n'
        f'\n[[key]]\nprofile = "pinned"\ntoken = "{name}"\nid = "{EC_ID.hex()}"\nlevel = "pinned"\n'
    )


async def add_refusals(hub: Path, count: int) -> None:
    """Fill the log of a hub that does not run with refusals, as it writes them."""
    files = HubFiles(hub)
    store = await open_store(load_hub_config(hub), load_bundle(files.bundle).origin, files, system_clock)

    async def write(tx: Tx) -> None:
        ts = await tx.now_ms()
        for _ in range(count):
            await tx.append(encode_entry(Deny(ts=ts, client="", profile="", request="", code="")))

    await store.write(write)
    await store.close()
