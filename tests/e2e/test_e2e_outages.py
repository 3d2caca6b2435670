# SPDX-License-Identifier: Apache-2.0
"""What a client is told when a part is away or refuses, and what is true after a crash."""

import datetime as dt
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from api_client import web_of
from installation import Site, add_to_agent, make_site, software_token
from privyseal.identity.bundle import load_bundle
from privyseal.identity.ca import issue_member, make_ca, member_uri, new_tls_key
from privyseal.identity.keyfile import load_tls_key, save_private_key
from programs import command, environment, privyseal, refused, succeeded, unchanged, until


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Site]:
    """Hub, agent and client of this test alone, over a software token."""
    site = make_site(tmp_path / "lab")
    try:
        add_to_agent(site, software_token(site.agent_directory))
        site.start_agent()
        site.until_online("demo")
        yield site
        site.stop()
    finally:
        site.end()


def sign(app: Path) -> tuple[str | Path, ...]:
    return ("sign", "--key", "demo", app)


def test_agent_down_then_back(lab: Site, app: Path) -> None:
    lab.running["agent"].stop()
    lab.until_status(lambda status: not status.agents[0].linked)
    with unchanged(app):
        refused(lab.run(*sign(app), "--timeout", "1"), 7, "agent.offline")

    lab.start_agent()
    lab.until_online("demo")
    succeeded(lab.run(*sign(app)))
    succeeded(lab.run("log", "verify"))


def test_hub_down_then_back(lab: Site, app: Path) -> None:
    lab.running["hub"].stop()
    with unchanged(app):
        refused(lab.run(*sign(app), "--timeout", "1"), 7, "hub.unreachable")

    lab.start_hub()
    lab.until_online("demo")  # the agent comes back by itself
    succeeded(lab.run(*sign(app)))


def test_token_missing(lab: Site, app: Path) -> None:
    lab.running["agent"].stop()
    token = lab.agent_directory / "token"
    token.rename(lab.agent_directory / "away")
    lab.start_agent()
    lab.until_status(lambda status: any("token.not_found" in one.problem for one in status.profiles))
    with unchanged(app):
        refused(lab.run(*sign(app)), 8, "token.not_found")
    text = succeeded(lab.run("status")).out
    head, row, why, *_ = text.partition("\n\nKEY PROFILE")[2].splitlines()
    head = "KEY PROFILE" + head
    assert (row.index("not served"), row.index("traced")) == (head.index("STATE"), head.index("LEVEL"))
    assert why.startswith("  demo: ")
    assert "[token.not_found]" in why

    (lab.agent_directory / "away").rename(token)
    lab.until_online("demo")  # the agent looks again by itself
    succeeded(lab.run(*sign(app)))


def attempts(site: Site) -> list[str]:
    """Events of the PIN journal."""
    text = (site.agent_directory / "pin-journal").read_text()
    return [json.loads(line)["event"] for line in text.splitlines()]


def test_a_wrong_pin_is_tried_once_and_never_again(lab: Site, app: Path) -> None:
    lab.running["agent"].stop()
    before = attempts(lab)
    right = (lab.agent_directory / "pin").read_bytes()
    (lab.agent_directory / "pin").write_bytes(b"wrong-canary-1234")
    for restart in range(4):
        lab.start_agent()
        code = "token.pin_incorrect" if restart == 0 else "token.pin_blocked"
        lab.until_status(
            lambda status, code=code: status.agents[0].linked and any(code in one.problem for one in status.profiles)
        )
        with unchanged(app):
            refused(lab.run(*sign(app)), 8, code)
        lab.running["agent"].stop()
        lab.until_status(lambda status: not status.agents[0].linked)
    assert attempts(lab)[len(before) :] == ["attempt", "refused"]

    (lab.agent_directory / "pin").write_bytes(right)
    succeeded(privyseal("token", "unlock", "software", "--dir", lab.agent_directory))
    lab.start_agent()
    lab.until_online("demo")
    succeeded(lab.run(*sign(app)))
    said = "".join(path.read_text("utf-8", "replace") for path in lab.directory.glob("*said*"))
    assert said
    assert "wrong-canary" not in said
    assert "wrong-canary" not in (lab.agent_directory / "pin-journal").read_text()


def test_an_expired_certificate(tmp_path: Path, app: Path) -> None:
    site = make_site(tmp_path / "late")
    try:
        add_to_agent(site, software_token(site.agent_directory, expires=dt.timedelta(seconds=-60)))
        site.start_agent()
        site.until_online("demo")
        with unchanged(app):
            refused(site.run(*sign(app)), 4, "certificate.expired")
        text = succeeded(site.run("status")).out
        assert "EXPIRED  certificate of demo (lab/software) ended on " in text
        assert text.partition("\ndemo ")[2].split()[0] == "expired"
        site.running["hub"].until_event(
            event="certificate has expired: nothing is signed with it", profile="demo", level="error"
        )
        reply = web_of(site.client())("GET", "/readyz?profile=demo")
        assert (reply.status, reply.document["code"]) == (503, "certificate.expired")
        report = succeeded(site.run("log", "verify", "--json")).document
        assert report["entries"]["deny"] == 1
        assert "intent" not in report["entries"]
        site.stop()
    finally:
        site.end()


def test_a_revoked_client_and_one_that_the_hub_never_saw(lab: Site, app: Path) -> None:
    lab.add_client("leaver")
    succeeded(lab.run(*sign(app), client="leaver"))
    succeeded(lab.administer("hub", "revoke", "client", "leaver"))
    with unchanged(app, app.with_name("app.exe.tlog-proof")):
        refused(lab.run(*sign(app), client="leaver"), 6, "identity.revoked")

    bundle = load_bundle(lab.hub_directory / "bundle.json")
    ca_key = load_tls_key(lab.hub_directory / "ca.key")
    now = dt.datetime.now(dt.UTC)
    ca = x509.load_pem_x509_certificate(bundle.statement.ca.encode())
    identity = lab.directory / "leaver" / "client"

    def wear(authority: x509.Certificate, authority_key: object, moment: dt.datetime) -> None:
        key = new_tls_key()
        uri = member_uri(bundle.hub, "client", "leaver")
        certificate = issue_member(authority, authority_key, key.public_key(), uri, moment)  # type: ignore[arg-type]
        save_private_key(identity / "tls.key", key)
        (identity / "tls.pem").write_bytes(certificate.public_bytes(Encoding.PEM))

    cases = {"identity.unknown": (ca, ca_key, now)}
    foreign = new_tls_key()
    cases |= {"identity.unknown ": (make_ca("elsewhere", foreign, now), foreign, now)}
    cases |= {"identity.certificate_expired": (ca, ca_key, now - dt.timedelta(days=800))}
    for code, (authority, authority_key, moment) in cases.items():
        wear(authority, authority_key, moment)
        with unchanged(app, app.with_name("app.exe.tlog-proof")):
            refused(lab.run(*sign(app), client="leaver"), 6, code.strip())


def test_pinned_needs_a_grant_by_the_authority_key(site: Site, app: Path, tmp_path: Path) -> None:
    site.add_client("pinner")
    ask = ("sign", "--key", "pinned", app)
    with unchanged(app):
        refused(site.run(*ask, client="pinner"), 4, "policy.grant")
    request_key = succeeded(site.run("client", "show", "--json", client="pinner")).document["request_key"]
    stranger = tmp_path / "stranger.key"
    other = tmp_path / "other"
    place = ("--dir", other, "--authority", stranger, "--name", "other.example")
    succeeded(privyseal("hub", "init", *place, "--listen", "127.0.0.1:1"))
    grant = ("client", "grant", request_key, "--key", "pinned", "--authority")
    refused(site.run(*grant, stranger), 3, "authority.quorum")
    with unchanged(app):
        refused(site.run(*ask, client="pinner"), 4, "policy.grant")

    succeeded(site.run(*grant, site.authority))
    succeeded(site.run(*ask, client="pinner"))
    assert succeeded(site.run("verify", app, "--trust", site.roots)).code == 0


def test_a_join_code_works_once_and_for_its_role(site: Site, tmp_path: Path) -> None:
    code = site.invite("client", "once")
    refused(privyseal("agent", "join", "--dir", tmp_path / "a", told=code), 2, "join.role")
    succeeded(privyseal("client", "join", "--dir", tmp_path / "b", told=code))
    refused(privyseal("client", "join", "--dir", tmp_path / "c", told=code), 6, "join.refused")
    refused(privyseal("client", "join", "--dir", tmp_path / "d", told=code[:-1]), 2, "join.code")
    refused(privyseal("client", "join", "--dir", tmp_path / "e", told=""), 2, "join.code")
    refused(privyseal("client", "join", "--dir", tmp_path / "b", told=code), 2, "join.exists")


# -- crashes --------------------------------------------------------------------------------------------------------


def frozen_worker(site: Site) -> int:
    """Stop the token's process where it stands; its id."""
    agent = site.running["agent"].process.pid
    (worker,) = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    os.kill(int(worker), signal.SIGSTOP)
    return int(worker)


@pytest.mark.parametrize("victim", ["hub", "agent"])
def test_a_crash_while_the_token_works(lab: Site, app: Path, victim: str) -> None:
    """SIGKILL with an open intent; the request is signed once, and every intent is explained."""
    worker = frozen_worker(lab)
    client = subprocess.Popen(
        command(*sign(app), "--json"),
        env=environment(app.parent, lab.config),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    journal = lab.agent_directory / "journal.db-wal"
    size = journal.stat().st_size

    until(lambda: journal.stat().st_size > size, "the job in the agent's journal")
    lab.running[victim].process.kill()
    lab.running[victim].process.wait()
    os.kill(worker, signal.SIGCONT)
    if victim == "hub":
        lab.start_hub()
    else:
        lab.start_agent()
    lab.until_online("demo")
    out, err = client.communicate(timeout=60)
    if client.returncode != 0:  # the connection was lost with the hub: the person asks again
        assert client.returncode == 7, err  # and log.unconfirmed until the agent has dialled in
        assert re.search(rb"\[(hub\.unreachable|agent\.offline|log\.unconfirmed)\]", err), err
        out = succeeded(lab.run(*sign(app), "--json")).out.encode()
    assert json.loads(out)["output"] == str(app)
    succeeded(lab.run("verify", app, "--trust", save_root(lab)))
    report = succeeded(lab.run("log", "verify", "--json")).document
    assert report["open_intents"] == []
    assert report["entries"]["intent"] >= report["entries"]["result"]


def save_root(site: Site) -> Path:
    site.save_roots("demo")
    return site.roots


def test_an_old_database_is_noticed(lab: Site, app: Path, tmp_path: Path) -> None:
    lab.running["hub"].stop()
    backup = tmp_path / "backup.db"
    shutil.copyfile(lab.hub_directory / "hub.db", backup)
    lab.start_hub()
    lab.until_online("demo")
    succeeded(lab.run(*sign(app)))
    lab.running["hub"].stop()
    for name in ("hub.db-wal", "hub.db-shm"):
        (lab.hub_directory / name).unlink(missing_ok=True)
    newest = (lab.hub_directory / "hub.db").read_bytes()
    shutil.copyfile(backup, lab.hub_directory / "hub.db")

    refused(privyseal("hub", "run", "--dir", lab.hub_directory), 10, "log.rollback")

    (lab.hub_directory / "hub.db").write_bytes(newest)
    lab.start_hub()
    lab.until_online("demo")
    succeeded(lab.run("verify", app, "--trust", save_root(lab)))
