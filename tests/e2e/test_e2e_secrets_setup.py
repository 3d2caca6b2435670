# SPDX-License-Identifier: Apache-2.0
"""Canaries while tokens are set up and looked at, and while files are signed and timestamped."""

import os
import re
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from canaries import finds, shown
from installation import Site
from lab.fault_shim import FaultyToken
from programs import Outcome, child_pids, command, environment, privyseal, succeeded
from softhsm import ALWAYS_ID, PIN, RSA_ID
from token_setup import SUBJECT, Host, issue_by_openssl, make_host
from tsa_samples import hang, running_tsa

SOURCES = Path(__file__).parents[2] / "src"


@contextmanager
def watched() -> Iterator[list[bytes]]:
    """Arguments and environment of all that this process starts, over and over until the block ends."""
    seen: set[bytes] = set()
    found: list[bytes] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.002):
            for pid in descendants(os.getpid()):
                for name in ("cmdline", "environ"):
                    try:
                        seen.add(Path(f"/proc/{pid}/{name}").read_bytes())
                    except OSError:  # it has ended
                        continue

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield found
    finally:
        ended.set()
        looking.join()
        found += sorted(seen)


def descendants(pid: int) -> list[int]:
    found = child_pids(pid)
    return found + [below for child in found for below in descendants(child)]


def set_up(host: Host, tmp_path: Path) -> list[Outcome]:
    new = bytes.fromhex("77")
    said = [
        host.run("token", "scan", "--module", host.hsm.module),
        host.add("--key-id", RSA_ID.hex(), "--yes", "--json"),
        host.key("generate", "--label", "made", "--type", "ec-p256", "--id", new.hex()),
        host.key("list"),
        host.key("test-certificate", "--id", new.hex(), "--name", "Lab"),
        host.run("doctor", "--dir", host.agent, "--login"),
    ]
    request = host.request(ALWAYS_ID)
    said.append(host.key("import", *issue_by_openssl(tmp_path, request), "--id", ALWAYS_ID.hex(), "--json"))
    said.append(host.key("csr", "--id", "ff", "--subject", SUBJECT, "-o", tmp_path / "none.csr"))
    assert [one.code for one in said] == [0, 0, 0, 0, 0, 2, 0, 8], [one.err for one in said if one.code]
    return said


def test_no_pin_is_shown_while_a_token_is_set_up(tmp_path: Path) -> None:
    (tmp_path / "token").mkdir()
    host = make_host(tmp_path / "token")

    with watched() as processes:
        said = set_up(host, tmp_path)

    assert sum(b"privyseal" in one for one in processes) > len(said)
    assert not [one for one in processes if shown(PIN, one)]
    assert not [one for one in said if shown(PIN, (one.out + one.err).encode())]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != host.hsm.pin_file]
    assert not [path for path in written if shown(PIN, path.read_bytes())]
    journals = [path for path in host.agent.iterdir() if "journal" in path.name]
    assert journals
    assert not [path for path in journals if stat.S_IMODE(path.stat().st_mode) & 0o077]


KEYRING = """
import os
from keyring.backend import KeyringBackend

class Keyring(KeyringBackend):
    priority = 1
    def get_password(self, service, username):
        return open(os.path.join(os.environ["HOME"], "keyring", f"{service}.{username}")).read()
    def set_password(self, service, username, password):
        raise NotImplementedError
"""


def test_a_pin_from_the_keyring_is_shown_nowhere(tmp_path: Path) -> None:
    """Asked by a process of its own, whose arguments name service and account alone."""
    (tmp_path / "token").mkdir()
    host = make_host(tmp_path / "token", add=True)
    (tmp_path / "file_keyring.py").write_text(KEYRING)
    home = host.hsm.directory
    (home / "keyring").mkdir()
    kept = host.hsm.pin_file.rename(home / "keyring" / "privyseal.lab")
    kept.write_bytes(PIN)
    variables = {"PYTHON_KEYRING_BACKEND": "file_keyring.Keyring", "PYTHONPATH": f"{SOURCES}:{tmp_path}"}
    text = host.config.read_text()
    text = re.sub(r"(?m)^pin_file = .*$", 'pin_keyring = "privyseal/lab"', text)
    host.config.write_text(
        text.replace("environment = {", 'environment = {PYTHON_KEYRING_BACKEND = "file_keyring.Keyring", ')
    )

    with watched() as seen:
        done = privyseal("key", "list", "--dir", host.agent, cwd=home, more=host.hsm.environment | variables)

    assert "release" in succeeded(done).out
    assert [one for one in seen if b"privyseal.tokens.keyring_pin\0privyseal\0lab" in one]
    assert not [one for one in (*seen, done.out.encode(), done.err.encode()) if shown(PIN, one)]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != kept]
    assert not [path for path in written if shown(PIN, path.read_bytes())]


def test_no_secret_is_left_by_a_release(site: Site, site_token: FaultyToken, app: Path) -> None:
    """Signed with timestamps and interrupted: what the client's journal keeps is for its owner, and holds no secret."""
    (app.parent / "second.exe").write_bytes(app.read_bytes() + b"12345678")
    config = site.client().path
    with running_tsa(hang) as host, watched() as processes:
        running = subprocess.Popen(
            command("sign", "--key", "release", "--timestamp", host.url, app.parent),
            env=environment(app.parent, config),
            stderr=subprocess.PIPE,
        )
        while not host.requests and running.poll() is None:
            host.closing.wait(0.05)
        running.terminate()
        _, said = running.communicate(timeout=30)
    journal = site.client().identity.journal

    assert running.returncode == 130, said
    kept = list(journal.iterdir())
    assert kept
    assert not [path for path in (journal, *kept) if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert not [one for one in processes if shown(PIN, one)]
    assert finds(PIN, site, app.parent) == []
    succeeded(site.run("sign", "--key", "release", app.parent))
    assert not list(journal.iterdir())
    assert shown(PIN, site_token.hsm.pin_file.read_bytes())
