# SPDX-License-Identifier: Apache-2.0
"""Test profiles: marked wherever a profile is shown or recorded, and never under a public CA's certificate."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from installation import Site, Up, add_to_agent, make_site, software_token
from privyseal.agent.config import load_agent_config, token_config
from privyseal.agent.keys import OpenedProfile, ProfileOpener, SeenToken
from privyseal.agent.turns import Turns
from privyseal.client.hub import HubClient
from privyseal.tokens.factory import open_token
from programs import privyseal, refused, succeeded

DAY = dt.timedelta(days=1)


def test_the_profile_of_up_is_a_test_profile(up: Up) -> None:
    document = succeeded(up.run("status", "--json")).document
    text = succeeded(up.run("status")).out
    entries = [
        json.loads(line) for line in succeeded(up.run("log", "show", "--last", "100000", "--json")).out.splitlines()
    ]

    assert [(one["name"], one["test"]) for one in document["profiles"]] == [("demo", True)]
    assert "demo (test)" in text
    assert "test: its signatures are for trying things out" in text
    assert HubClient(up.client()).profile("demo").test is True
    keys = [entry["entry"] for entry in entries if entry["entry"]["t"] == "key"]
    assert [key["test"] for key in keys] == [True]


def test_other_profiles_are_not(site: Site) -> None:
    status = HubClient(site.client()).status()

    assert {one.name: one.test for one in status.profiles} == {"release": False, "pinned": False}
    assert "test" not in succeeded(site.run("status")).out


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An installation with a software token, whose agent does not run yet."""
    lab = make_site(tmp_path_factory.mktemp("test-profiles"))
    try:
        add_to_agent(lab, software_token(lab.agent_directory) + "test = true\nchain = 'chain.pem'\n")
        yield lab
        lab.stop()
    finally:
        lab.end()


def issued(spki: bytes, *policies: str) -> tuple[x509.Certificate, x509.Certificate]:
    """A leaf and its root; the leaf names these policies."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)

    def certificate(name: str, public_key: object, *extensions: x509.ExtensionType) -> x509.Certificate:
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Everybody's Root")]))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 30 * DAY)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(key, hashes.SHA256())

    named = [x509.PolicyInformation(x509.ObjectIdentifier(policy), None) for policy in policies]
    leaf = certificate(
        "ACME",
        load_der_public_key(spki),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
        *([x509.CertificatePolicies(named)] if named else []),
    )
    root = certificate("Everybody's Root", key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
    return leaf, root


def write_chain(directory: Path, *chain: x509.Certificate) -> None:
    (directory / "chain.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))


async def opened_profile(directory: Path, *roots: x509.Certificate) -> OpenedProfile:
    """The only profile, as the agent opens it on a system that trusts these roots."""
    config = load_agent_config(directory)
    token = open_token(token_config(config.token[0], directory))
    try:
        ders = tuple(root.public_bytes(Encoding.DER) for root in roots)
        opener = ProfileOpener(wanted=config.key, token=token, turns=Turns(), directory=directory, roots=lambda: ders)
        (profile,) = opener.served(SeenToken(info=await token.info(), keys=await token.keys()))
    finally:
        await token.close()
    return profile


async def spki_of(directory: Path) -> bytes:
    token = open_token(token_config(load_agent_config(directory).token[0], directory))
    try:
        return (await token.keys())[0].spki
    finally:
        await token.close()


@pytest.mark.parametrize("with_root", [True, False])
async def test_a_root_that_the_system_trusts_takes_the_profile_down(lab: Site, with_root: bool) -> None:  # noqa: FBT001
    directory = lab.agent_directory
    leaf, root = issued(await spki_of(directory))
    write_chain(directory, leaf, *([root] if with_root else []))

    trusted = await opened_profile(directory, root)
    unknown = await opened_profile(directory, issued(await spki_of(directory))[1])

    assert trusted.served is None
    assert trusted.announcement.problem_code == "profile.test_public"
    assert trusted.announcement.test is True
    assert unknown.served is not None
    assert unknown.announcement.test is True


async def test_a_profile_that_is_no_test_may_have_a_public_certificate(lab: Site, tmp_path: Path) -> None:
    directory = lab.agent_directory
    leaf, root = issued(await spki_of(directory), "2.23.140.1.4.1")
    write_chain(directory, leaf, root)
    path = directory / "agent.toml"
    text = path.read_text()
    path.write_text(text.replace("test = true\n", ""))
    try:
        profile = await opened_profile(directory, root)
    finally:
        path.write_text(text)

    assert profile.served is not None
    assert profile.announcement.test is False


async def test_a_public_policy_is_refused_where_everybody_sees_it(lab: Site, app: Path) -> None:
    leaf, root = issued(await spki_of(lab.agent_directory), "1.2.3", "2.23.140.1.3")
    write_chain(lab.agent_directory, leaf, root)

    lab.start_agent()

    lab.until_status(lambda status: [one for one in status.profiles if "[profile.test_public]" in one.problem])
    (profile,) = HubClient(lab.client()).status().profiles
    assert "2.23.140.1.3" in profile.problem
    assert (profile.test, profile.online) == (True, False)
    refused(lab.run("sign", "--key", "demo", app), 8, "profile.test_public")
    succeeded(privyseal("config", "check", "--agent", lab.agent_directory))
