# SPDX-License-Identifier: Apache-2.0
"""A pinned key profile and its grants: for one client, one key profile, one format, and some days."""

from pathlib import Path

import pytest

from installation import Site
from programs import refused, succeeded, unchanged


@pytest.fixture(scope="module")
def request_key(site: Site) -> str:
    """The request key of a client of these tests alone."""
    site.add_client("grantee")
    key: str = succeeded(site.run("client", "show", "--json", client="grantee")).document["request_key"]
    return key


def grant(site: Site, request_key: str, *more: str, key: str = "pinned") -> None:
    succeeded(site.run("client", "grant", request_key, "--key", key, "--authority", site.authority, *more))


def refuses(site: Site, app: Path) -> None:
    with unchanged(app):
        refused(site.run("sign", "--key", "pinned", "--json", app, client="grantee"), 4, "policy.grant")


def test_grants_that_do_not_fit(site: Site, request_key: str, app: Path) -> None:
    refuses(site, app)
    other = succeeded(site.run("client", "show", "--json")).document["request_key"]

    grant(site, other)
    refuses(site, app)
    grant(site, request_key, key="release")
    refuses(site, app)
    grant(site, request_key, "--format", "authenticode-cab")
    refuses(site, app)


def test_a_grant_for_one_format_and_one_that_takes_its_place(site: Site, request_key: str, app: Path) -> None:
    grant(site, request_key, "--format", "authenticode-cab", "--format", "authenticode-pe")
    succeeded(site.run("sign", "--key", "pinned", app, client="grantee"))
    succeeded(site.run("verify", "--trust", site.roots, app))

    grant(site, request_key, "--format", "authenticode-cab")
    refuses(site, app)


def test_the_grant_is_named_by_each_intent_that_rests_on_it(site: Site, request_key: str, app: Path) -> None:
    grant(site, request_key)
    size = succeeded(site.run("log", "verify", "--json")).document["size"]
    signed = succeeded(site.run("sign", "--key", "pinned", "--json", app, client="grantee")).document

    assert signed["log_index"] == size + 1
    shown = succeeded(site.run("log", "show", "--last", "2")).out
    assert f"authority={size - 1} " in shown


@pytest.mark.parametrize("text", ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA", "x" * 10_000, "ed25519:ä"])
def test_what_is_no_request_key(site: Site, text: str) -> None:
    asked = ("client", "grant", "--key", "pinned", "--authority", site.authority, "--", text)

    refused(site.run(*asked), 2, "key.text")


@pytest.mark.parametrize("days", ["0", "-1", "3651", "100000000000000000000"])
def test_a_grant_holds_some_days(site: Site, request_key: str, days: str) -> None:
    asked = ("client", "grant", request_key, "--key", "pinned", "--authority", site.authority)

    refused(site.run(*asked, f"--days={days}"), 2, "grant.days")
