# SPDX-License-Identifier: Apache-2.0
"""Canaries: no PIN and no join secret turns up in anything that is written, said or shown to other processes."""

import base64
from collections.abc import Iterable
from pathlib import Path

import pytest

from installation import Site
from lab.fault_shim import FaultyToken
from privyseal.client.log import LogReader
from privyseal.identity.joining import parse_join_code
from privyseal.identity.keyfile import load_ed25519, load_tls_key
from programs import Outcome, privyseal, refused, succeeded
from softhsm import PIN


def shapes(secret: bytes) -> list[bytes]:
    """How a secret may look where somebody has written it down."""
    standard = [base64.b64encode(secret[start:])[: (len(secret) - start) // 3 * 4] for start in range(3)]
    texts = [secret.hex().encode(), secret.hex().upper().encode(), repr(secret)[2:-1].encode(), *standard]
    return [secret, secret[::-1], secret.decode("latin-1").encode("utf-16-le"), *texts]


def shown(secret: bytes, data: bytes) -> bool:
    return any(shape in data or shape in data.replace(b"-", b"+").replace(b"_", b"/") for shape in shapes(secret))


def processes(site: Site) -> list[int]:
    """Hub, agent and the worker below it."""
    running = list(site.running.values())
    return [pid for one in running for pid in [one.process.pid, *one.children]]


def files(*directories: Path) -> Iterable[Path]:
    return (path for directory in directories for path in directory.rglob("*") if path.is_file())


def finds(secret: bytes, site: Site, *more: Path, but: tuple[Path, ...] = ()) -> list[str]:
    """Every place that shows the secret."""
    places = {str(path): path.read_bytes() for path in files(site.directory, *more) if path not in but}
    for pid in processes(site):
        for name in ("cmdline", "environ"):
            places[f"{name} of {pid}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    reader = LogReader(site.client())
    size = reader.checkpoint().size
    places |= {f"entry {index}": entry for index, entry in reader.entries(0, size)}
    assert len(places) > size + 20
    return [place for place, data in places.items() if shown(secret, data)]


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
