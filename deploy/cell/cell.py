#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A cell to look at: PostgreSQL, two hubs, HAProxy, an agent with a software token, a client that has joined.

    python deploy/cell/cell.py run            all of it on this machine, from Debian's packages, until Ctrl-C
    python deploy/cell/cell.py prepare|join   its two steps alone, for compose.yaml

Needs the packages postgresql and haproxy, and a Python that has `privyseal[hub,agent]`. Everything lies in one
directory, with the authority key beside the hubs and the token's key in a file: nothing here is for production.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privyseal.identity.bundle import load_bundle
from privyseal.tokens.software import create_software_token, generate_key, set_certificates
from privyseal.tokens.testca import make_test_ca

NAME, PROFILE, KEY_ID = "cell.example", "demo", b"\x01"
HAPROXY = Path(__file__).parents[1] / "haproxy" / "haproxy.cfg"
START_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Where a hub listens, and how others call it. The web listener has the next port."""

    bind: str
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where everything is."""

    directory: Path
    database: str
    hubs: tuple[Hub, Hub]
    balancer: Hub

    def hub_directory(self, number: int) -> Path:
        return self.directory / f"hub-{number}"

    @property
    def authority(self) -> Path:
        return self.directory / "authority.key"

    @property
    def agent(self) -> Path:
        return self.directory / "agent"

    @property
    def client(self) -> Path:
        return self.directory / "client"

    @property
    def root(self) -> Path:
        return self.directory / "test-root.pem"

    @property
    def haproxy(self) -> Path:
        return self.directory / "haproxy"


def in_containers(directory: Path) -> Layout:
    """As compose.yaml names them; PostgreSQL's socket lies in a volume that the hubs share with it."""
    first, second = (Hub(bind="0.0.0.0", host=f"hub-{number}", port=8443) for number in (1, 2))
    return Layout(
        directory=directory,
        database="postgresql://privyseal@/privyseal?host=/run/postgresql",
        hubs=(first, second),
        balancer=Hub(bind="", host="haproxy", port=8443),
    )


def on_this_machine(directory: Path, postgres: Path) -> Layout:
    """On loopback, at ports that are free now."""
    first, second, balancer = (Hub(bind="127.0.0.1", host="localhost", port=port) for port in free_ports(3))
    database = f"postgresql://privyseal@/privyseal?host={postgres}&port={POSTGRES_PORT}"
    return Layout(directory=directory, database=database, hubs=(first, second), balancer=balancer)


# -- the two steps ------------------------------------------------------------------------------------------------


def prepare(layout: Layout) -> None:
    """Make the first hub, the second as its copy, and HAProxy's configuration. PostgreSQL runs, with an empty database.

    The first hub begins the log before it is copied: a copy has to know of a checkpoint of it.
    """
    first = layout.hubs[0]
    place = ("--dir", layout.hub_directory(1), "--authority", layout.authority, "--name", NAME)
    privyseal("hub", "init", *place, "--host", first.host, "--listen", f"{first.bind}:{first.port}")
    write_config(layout, 1)
    with started(layout, "hub-1", *PRIVYSEAL, "hub", "run", "--dir", layout.hub_directory(1)):
        until(lambda: listens(first.port + 1), "hub-1")
    shutil.copytree(layout.hub_directory(1), layout.hub_directory(2))
    write_config(layout, 2)
    layout.haproxy.mkdir()
    bundle = load_bundle(layout.hub_directory(1) / "bundle.json")
    (layout.haproxy / "hub-ca.pem").write_text(bundle.statement.ca)
    (layout.haproxy / "haproxy.cfg").write_text(balancing(layout))


def write_config(layout: Layout, number: int) -> None:
    """What hub.toml says beside the hub's name."""
    hub, path = layout.hubs[number - 1], layout.hub_directory(number) / "hub.toml"
    told = {
        "listen_mtls": f"{hub.bind}:{hub.port}",
        "listen_web": f"{hub.bind}:{hub.port + 1}",
        "mtls_url": layout.balancer.url,
        "web_url": f"https://{layout.balancer.host}:{layout.balancer.port + 1}",
    }
    text = path.read_text().partition("\nurls = ")[0]
    for name, value in told.items():
        text = re.sub(rf"(?m)^{name} = .*$", f'{name} = "{value}"', text)
    urls = ", ".join(f'"{one.url}"' for one in layout.hubs)
    path.write_text(text + f'\nurls = [{urls}]\nnames = ["{hub.host}"]\ndatabase = "{layout.database}"\n')


def balancing(layout: Layout) -> str:
    """deploy/haproxy/haproxy.cfg with these hubs, in TCP mode alone."""
    text = HAPROXY.read_text().partition("# --- The proxy ends TLS")[0]
    for number, hub in enumerate(layout.hubs, start=1):
        for offset in (0, 1):
            text = text.replace(
                f"server hub-{number} hub-{number}.internal:{8443 + offset}\n",
                f"server hub-{number} {hub.host}:{hub.port + offset} port {hub.port + 1}\n",
            )
    for offset in (0, 1):
        bound = f"{layout.balancer.bind}:{layout.balancer.port + offset}"
        text = text.replace(f"bind :{8443 + offset}\n", f"bind {bound}\n")
    return text.replace("/etc/haproxy/", f"{layout.haproxy}/")


def join(layout: Layout) -> None:
    """Let an agent with a software token and a client join, through the balancer. A hub runs."""
    for role, directory in (("agent", layout.agent), ("client", layout.client)):
        place = ("--dir", layout.hub_directory(1), "--authority", layout.authority)
        invited = json.loads(privyseal("hub", "invite", role, f"{role}-1", *place, "--json"))
        privyseal(role, "join", "--dir", directory, told=invited["code"])
    make_token(layout)


def make_token(layout: Layout) -> None:
    """A software token with one key, certified by a test root that nobody else trusts."""
    pin, place = secrets.token_hex(16).encode(), layout.agent / "token"
    (layout.agent / "pin").touch(mode=0o600)
    (layout.agent / "pin").write_bytes(pin)
    create_software_token(place, pin=pin, label="software")
    spki = generate_key(place, pin=pin, kind="rsa3072", key_id=KEY_ID, label=PROFILE)
    begin = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    root = make_test_ca(not_before=begin, not_after=begin + dt.timedelta(days=3650))
    name = "Privyseal cell (not trusted)"
    ends = begin + dt.timedelta(days=365)
    chain = root.issue_code_signing(spki=spki, common_name=name, not_before=begin, not_after=ends)
    set_certificates(place, key_id=KEY_ID, chain=chain)
    layout.root.write_bytes(x509.load_der_x509_certificate(chain[-1]).public_bytes(Encoding.PEM))
    with (layout.agent / "agent.toml").open("a") as file:
        file.write('\n[[token]]\nname = "software"\nkind = "software"\npath = "token"\npin_file = "pin"\n')
        file.write(f'\n[[key]]\nprofile = "{PROFILE}"\ntoken = "software"\nid = "{KEY_ID.hex()}"\n')


# -- all of it on this machine ------------------------------------------------------------------------------------

#: Names a socket in a directory of its own; nothing listens at that port.
POSTGRES_PORT = 5432


def run(directory: Path) -> None:
    """Run the cell until a signal comes, then stop what was started here, and nothing else."""
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        layout = on_this_machine(directory, postgres)
        prepare(layout)
        for number, hub in enumerate(layout.hubs, start=1):
            stack.enter_context(
                started(layout, f"hub-{number}", *PRIVYSEAL, "hub", "run", "--dir", layout.hub_directory(number))
            )
            until(lambda hub=hub: listens(hub.port + 1), f"hub-{number}")  # type: ignore[misc]
        balancer = program("haproxy"), "-db", "-f", layout.haproxy / "haproxy.cfg"
        stack.enter_context(started(layout, "haproxy", *balancer))
        until(lambda: listens(layout.balancer.port + 1), "haproxy")
        join(layout)
        stack.enter_context(started(layout, "agent", *PRIVYSEAL, "agent", "run", "--dir", layout.agent))
        until(lambda: can_sign(layout), "the key profile")
        say(how_to_sign(layout))
        while True:
            signal.pause()


def how_to_sign(layout: Layout) -> str:
    """What to type now."""
    config = layout.client / "client.toml"
    return (
        f"ready: {layout.directory}\n"
        f"  export PRIVYSEAL_CONFIG={config}\n"
        f"  privyseal sign --key {PROFILE} FILE\n"
        f"  privyseal verify --trust {layout.root} FILE\n"
        f"  privyseal log verify\n"
        f"  kill $(cat {layout.directory}/hub-1.pid)     # and sign again: the other hub goes on\n"
        "Ctrl-C ends all of it."
    )


@contextlib.contextmanager
def started(layout: Layout, name: str, *command: str | Path) -> Iterator[None]:
    """A program whose words go to NAME.log and whose process id to NAME.pid; stopped with the block."""
    with (layout.directory / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    (layout.directory / f"{name}.pid").write_text(f"{process.pid}\n")
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def running_postgres() -> Iterator[Path]:
    """A server in a new directory, which no other user of this machine can enter; it goes with the block."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    folder = Path(tempfile.mkdtemp(prefix="privyseal-cell-"))
    account: dict[str, Any] = {}
    if os.geteuid() == 0:  # initdb refuses root
        entry = pwd.getpwnam("postgres")
        account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        os.chown(folder, entry.pw_uid, entry.pw_gid)

    def ask(name: str, *arguments: str | Path) -> None:
        with (folder / "output").open("ab") as output:
            command = [str(binaries / name), *map(str, arguments)]
            subprocess.run(command, check=True, cwd=folder, stdout=output, stderr=output, **account)

    data = folder / "data"
    try:
        ask("initdb", "-D", data, "-U", "privyseal", "-E", "UTF8", "--locale", "C.UTF-8", "--auth", "trust")
        with (data / "postgresql.auto.conf").open("a") as file:
            file.write(f"listen_addresses = ''\nunix_socket_directories = '{folder}'\nport = {POSTGRES_PORT}\n")
        ask("pg_ctl", "start", "-w", "-D", data, "-l", folder / "log")
        try:
            ask("createdb", "-h", folder, "-p", str(POSTGRES_PORT), "-U", "privyseal", "privyseal")
            yield folder
        finally:
            ask("pg_ctl", "stop", "-w", "-D", data, "-m", "fast")
    finally:
        shutil.rmtree(folder)


# -- small things -------------------------------------------------------------------------------------------------

PRIVYSEAL: Sequence[str] = (sys.executable, "-m", "privyseal.cli.main")


def privyseal(*arguments: str | Path, told: str = "", config: Path | None = None) -> str:
    """What a command says; its words of failure end this program."""
    environment = dict(os.environ) if config is None else os.environ | {"PRIVYSEAL_CONFIG": str(config)}
    command = [*PRIVYSEAL, *map(str, arguments)]
    return subprocess.run(command, check=True, text=True, input=told, stdout=subprocess.PIPE, env=environment).stdout


def can_sign(layout: Layout) -> bool:
    told = json.loads(privyseal("status", "--json", config=layout.client / "client.toml"))
    return any(one["name"] == PROFILE and one["online"] for one in told["profiles"])


def program(name: str) -> str:
    """Debian keeps it where not every account looks."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        sys.exit(f"{name} is not installed: apt-get install {name}")
    return found


def free_ports(count: int) -> list[int]:
    """Ports that are free now, and the ones after them, too; none that the kernel gives to who dials meanwhile."""
    found: set[int] = set()
    while len(found) < count:
        port = 10_000 + 2 * secrets.randbelow(11_000)
        with contextlib.suppress(OSError):
            for one in (port, port + 1):
                socket.create_server(("127.0.0.1", one)).close()
            found.add(port)
    return sorted(found)


def listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(look: Callable[[], bool], what: str) -> None:
    """Other programs give no event to wait for."""
    deadline = time.monotonic() + START_SECONDS
    while not look():
        if time.monotonic() > deadline:
            sys.exit(f"not within {START_SECONDS:.0f} s: {what}; the *.log beside the directories say more")
        time.sleep(0.1)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("run", "prepare", "join"))
    parser.add_argument("--dir", type=Path, default=Path("cell"), help="where everything lies; new (default: cell)")
    chosen = parser.parse_args()
    directory = chosen.dir.absolute()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # what was started is stopped on the way out
    if chosen.step == "run":
        run(directory)
        return
    layout, step = in_containers(directory), prepare if chosen.step == "prepare" else join
    done = directory / f"{chosen.step}.done"  # `docker compose up` comes here each time
    if not done.exists():
        step(layout)
        done.touch()


if __name__ == "__main__":
    main()
