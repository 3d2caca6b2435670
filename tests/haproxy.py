# SPDX-License-Identifier: Apache-2.0
"""A real HAProxy on loopback, with the configuration that deploy/ gives, in front of hubs that a test runs."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from installation import free_port
from interop_tools import require_program
from pages import ROOT
from privyseal.hub.config import HubConfig
from programs import until

__all__ = ["CONFIG", "HaProxy", "running_haproxy"]

CONFIG = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
_PLACES = {"hubs_mtls": "listen_mtls", "hubs_web": "listen_web", "hubs_proxied": "listen_proxied"}


@dataclass(frozen=True, kw_only=True)
class HaProxy:
    """One that runs.

    Attributes:
        mtls, web, proxied: URLs of its three frontends.
        ca: PEM file with the root of its own certificate.
        log: What it says.
    """

    mtls: str
    web: str
    proxied: str
    ca: Path
    log: Path


def program() -> str:
    """Debian keeps it where not every account looks."""
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or require_program("haproxy")


def written_for(hubs: Sequence[HubConfig], ports: dict[str, int], directory: Path, rules: str = "") -> str:
    """The shipped configuration with these hubs, ports and files in it, and more rules for the proxied frontend."""
    text = CONFIG.read_text()
    for section, name in _PLACES.items():
        servers = "".join(
            f"    server hub-{number} {getattr(hub, name)} port {hub.listen_web.rpartition(':')[2]}\n"
            for number, hub in enumerate(hubs, start=1)
            if getattr(hub, name)
        )
        (old,) = re.findall(rf"backend {section}\n(?:    (?!server ).*\n)*((?:    server .*\n)+)", text)
        text = text.replace(old, servers)
    for bound, name in ((":8443\n", "mtls"), (":8444\n", "web"), (":443 ", "proxied")):
        assert f"bind {bound}" in text
        text = text.replace(f"bind {bound}", f"bind 127.0.0.1:{ports[name]}{bound[-1]}")
    text = text.replace("/etc/haproxy/", f"{directory}/")
    return text.replace("    default_backend hubs_proxied\n", f"{rules}    default_backend hubs_proxied\n")


@contextmanager
def running_haproxy(
    directory: Path, hubs: Sequence[HubConfig], ca: str, *, rules: str = "", head: str = ""
) -> Iterator[HaProxy]:
    """Run it until the end of the block.

    Args:
        directory: For its files.
        hubs: The hubs behind it.
        ca: PEM of the hubs' CA.
        rules: More lines for the frontend that ends TLS.
        head: More lines for `global`.
    """
    directory.mkdir()
    first = free_port()
    ports = {"mtls": first, "web": first + 1, "proxied": free_port()}
    own = trustme.CA()
    own.cert_pem.write_to_path(directory / "proxy-ca.pem")
    own.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(directory / "proxy.pem")
    (directory / "hub-ca.pem").write_text(ca)
    config, log = directory / "haproxy.cfg", directory / "haproxy.log"
    config.write_text(written_for(hubs, ports, directory, rules).replace("global\n", f"global\n{head}", 1))
    with log.open("wb") as said:
        process = subprocess.Popen(
            [program(), "-db", "-f", config], stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
    try:
        for port in ports.values():
            until(lambda port=port: _listens(port, process, log), f"HAProxy at port {port}")  # type: ignore[misc]
        urls = {name: f"https://localhost:{port}" for name, port in ports.items()}
        yield HaProxy(**urls, ca=directory / "proxy-ca.pem", log=log)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _listens(port: int, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        pytest.fail(f"HAProxy ended:\n{log.read_text()}")
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
