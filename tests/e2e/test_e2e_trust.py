# SPDX-License-Identifier: Apache-2.0
"""`privyseal hub trust`: authority keys name witnesses, and hub, agents and clients follow by themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from installation import Site, add_to_agent, copy_of_program, make_site, software_token
from privyseal.identity.bundle import load_bundle
from privyseal.tlog.cosignature import Cosigner
from programs import Outcome, privyseal, refused, succeeded, until

AWAY = Cosigner(name="away.example/w", key=Ed25519PrivateKey.from_private_bytes(b"a" * 32)).verifier.vkey


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = make_site(tmp_path_factory.mktemp("site"))
    try:
        add_to_agent(site, software_token(site.agent_directory, profile="demo"))
        site.start_agent()
        site.until_online("demo")
        yield site
        site.stop()
    finally:
        site.end()


def trust(site: Site, *arguments: str | Path) -> Outcome:
    return site.administer("hub", "trust", *arguments)


def test_it_is_shown_and_changed_and_everybody_follows(site: Site, tmp_path: Path) -> None:
    policy = tmp_path / "quorum.txt"
    policy.write_text(f"# away\nwitness away {AWAY}\n\nquorum away\n")
    before = succeeded(trust(site, "--json")).document
    assert (before["serial"], before["witnesses"]) == (1, "")

    said = succeeded(trust(site, "--witnesses", policy)).out
    assert "trust bundle 2" in said
    assert f"witness away {AWAY}" in said

    pinned = site.agent_directory / "bundle.json"
    until(lambda: load_bundle(pinned).statement.serial == 2, "the agent's bundle")
    site.until_online("demo")
    app = copy_of_program(tmp_path)
    succeeded(site.run("sign", "--key", "demo", app))
    assert site.client().load_bundle().statement.serial == 2
    status = succeeded(site.run("status", "--json")).document
    assert [one["name"] for one in status["witnesses"]] == ["away"]

    succeeded(trust(site, "--no-witnesses"))
    assert succeeded(trust(site, "--json")).document["witnesses"] == ""


def test_an_agent_on_the_hub_s_host_cannot_be_named(site: Site, tmp_path: Path) -> None:
    (agent,) = succeeded(site.run("status", "--json")).document["agents"]
    assert agent["here"]
    policy = tmp_path / "quorum.txt"
    policy.write_text(f"witness lab {agent['witness']}\nquorum lab\n")
    serial = succeeded(trust(site, "--json")).document["serial"]

    refused(trust(site, "--witnesses", policy, "--json"), 2, "witness.here")
    assert succeeded(trust(site, "--json")).document["serial"] == serial


def test_another_authority_key_changes_nothing(site: Site, tmp_path: Path) -> None:
    policy, stranger = tmp_path / "quorum.txt", tmp_path / "stranger"
    policy.write_text("quorum none\n")
    place = ("--dir", stranger / "hub", "--authority", stranger / "authority.key", "--name", "hub.example/other")
    succeeded(privyseal("hub", "init", *place, "--json"))
    arguments = ("--dir", site.hub_directory, "--authority", stranger / "authority.key", "--witnesses", policy)

    refused(privyseal("hub", "trust", *arguments, "--json"), 3, "bundle.quorum")


def test_what_was_not_asked_well_is_said(site: Site, tmp_path: Path) -> None:
    broken = tmp_path / "broken.txt"
    broken.write_text("witness\n")

    refused(trust(site, "--witnesses", broken, "--json"), 1, "quorum.malformed")
    refused(trust(site, "--witnesses", tmp_path / "none", "--json"), 2, "file.missing")
    refused(trust(site, "--witnesses", broken, "--no-witnesses", "--json"), 2, "trust.both")
