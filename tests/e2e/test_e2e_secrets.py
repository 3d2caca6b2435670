# SPDX-License-Identifier: Apache-2.0
"""Canaries: no PIN and no join secret turns up in anything that is written, said or shown to other processes."""

from pathlib import Path

import pytest

from canaries import finds, processes, shapes, shown
from installation import Site
from lab.fault_shim import FaultyToken
from privyseal.identity.joining import parse_join_code
from privyseal.identity.keyfile import load_ed25519, load_ml_dsa_44, load_tls_key
from programs import Outcome, privyseal, refused, succeeded
from softhsm import PIN


def test_the_search_finds_what_is_there(site: Site, tmp_path: Path) -> None:
    secret = b"needle-in-a-haystack"
    for place, shape in enumerate(shapes(secret)):
        (tmp_path / f"{place}").write_bytes(b"..." + shape + b"...")

    assert len(finds(secret, site, tmp_path)) == len(shapes(secret))


def test_the_worker_is_seen(site: Site) -> None:
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes(site)]

    assert [b"privyseal.tokens.worker" in one for one in commands] == [False, False, True]


def test_the_pin_is_nowhere_but_in_its_file(site: Site, site_token: FaultyToken, app: Path) -> None:
    succeeded(site.run("sign", "--key", "release", app))
    hsm = site_token.hsm

    assert finds(PIN, site, app.parent, hsm.directory, but=(hsm.pin_file,)) == []
    assert shown(PIN, hsm.pin_file.read_bytes())


@pytest.mark.parametrize("role", ["client", "agent"])
def test_a_join_secret_is_nowhere(site: Site, tmp_path: Path, role: str) -> None:
    name = f"{role}-with-secret"
    code = site.invite(role, name)
    home = tmp_path / "home"
    join = (role, "join", "--dir", home)
    said: list[Outcome] = [
        succeeded(privyseal(*join, told=code)),
        refused(privyseal(*join, told=code), 2, "join.exists"),
        refused(privyseal(role, "join", "--dir", tmp_path / "late", told=code), 6, "join.refused"),
        refused(privyseal(role, "join", "--dir", tmp_path / "cut", told=code[:-2]), 2, "join.code"),
    ]

    secret = parse_join_code(code, role).secret
    assert finds(secret, site, home) == []
    assert not any(shown(secret, (one.out + one.err).encode()) or code in one.out + one.err for one in said)


def test_private_keys_stay_where_they_were_made(site: Site) -> None:
    request_key = site.client().identity.directory / "request.key"
    tls_key = site.agent_directory / "tls.key"
    scalar = load_tls_key(tls_key).private_numbers().private_value.to_bytes(32)

    assert finds(load_ed25519(request_key).private_bytes_raw(), site, but=(request_key,)) == []
    assert finds(scalar, site, but=(tls_key,)) == []
    log_key = site.hub_directory / "log-ml-dsa-44.key"
    assert finds(load_ml_dsa_44(log_key).private_bytes_raw(), site, but=(log_key,)) == []
