# SPDX-License-Identifier: Apache-2.0
"""A key profile moves from a token to another module, as docs/pools.md shows: with a pool and a date, and without."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from installation import copy_of_program
from pages import ROOT, blocks, commands
from pool_programs import PROFILE, PoolPrograms, running_programs
from pool_site import pool_table
from privyseal.ports.clock import system_clock
from programs import Outcome, privyseal, succeeded, until
from softhsm import LABEL, SoftHsm, fresh_softhsm

pytestmark = pytest.mark.interop

PAGE = ROOT / "docs" / "pools.md"
OLD, HSM = "one/software", "one/hsm"
KEY = f'\n[[key]]\nprofile = "{PROFILE}"\ntoken = "hsm"\nid = "0a"\n'


@pytest.fixture
def hsm(tmp_path: Path) -> SoftHsm:
    (tmp_path / "hsm").mkdir()
    return fresh_softhsm(tmp_path / "hsm")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PoolPrograms]:
    (tmp_path / "site").mkdir()
    with running_programs(tmp_path / "site", ("one",), "") as running:
        yield running


def table(hsm: SoftHsm) -> str:
    variables = ", ".join(f'{name} = "{value}"' for name, value in hsm.environment.items())
    (text,) = [block.text for block in blocks(PAGE, "toml") if 'name = "hsm"' in block.text]
    for name, value in (("module", hsm.module), ("token_label", LABEL), ("pin_file", str(hsm.pin_file))):
        text, times = re.subn(rf"(?m)^{name} = .*$", f'{name} = "{value}"', text)
        assert times == 1
    return f"\n{text}environment = {{ {variables} }}\n"


def follow(site: PoolPrograms, folder: Path, section: str, first: int = 0, last: int | None = None) -> list[Outcome]:
    """Run the shell blocks of a section of the page, as they stand there."""
    found = [block.text for block in blocks(PAGE, "sh") if block.section == section][first:last]
    replaced = {"agent": str(site.directory("one")), "release": PROFILE}
    assert found
    return [
        succeeded(privyseal(*(replaced.get(word, word) for word in one.words), config=site.site.config, cwd=folder))
        for text in found
        for one in commands(PAGE, "privyseal", text)
    ]


def tables(site: PoolPrograms) -> tuple[str, str]:
    """[[token]] and [[key]] of the old token."""
    text = (site.directory("one") / "agent.toml").read_text()
    token, key = re.split(r"(?m)^(?=\[\[key\]\])", text[re.search(r"(?m)^\[\[token\]\]", text).start() :])  # type: ignore[union-attr]
    return f"\n{token}", f"\n{key}"


def signed(site: PoolPrograms, folder: Path, name: str) -> Path:
    path = copy_of_program(folder, name)
    succeeded(site.site.run("sign", "--key", PROFILE, path))
    return path


def check_both(site: PoolPrograms, *files: Path) -> None:
    """Signatures and receipts of both keys hold, and so does the log, which names both."""
    roots = (site.site.roots, site.directory("one") / "test-root.pem")
    for file in files:
        succeeded(site.site.run("verify", "--trust", roots[0], "--trust", roots[1], file))
    entries = site.key_entries()
    assert len({entry.key for entry in entries}) == 2
    assert {entry.profile for entry in entries} == {PROFILE}


def test_with_a_pool_there_is_no_gap(site: PoolPrograms, hsm: SoftHsm, tmp_path: Path) -> None:
    site.site.save_roots(PROFILE)
    before = signed(site, tmp_path, "before.exe")
    token, key = tables(site)
    site.write_agent("one", token, table(hsm), key)
    made = follow(site, tmp_path, "Growing to an HSM")
    assert (tmp_path / "request.pem").is_file()
    assert "0a" in made[-1].out

    since_ms = system_clock() + 15_000
    site.write_agent("one", token, table(hsm), key, KEY)
    site.write_pool(pool_table((OLD,), successors=(HSM,), since_ms=since_ms))
    site.agent("one").stop()
    site.start_agent("one")
    until(lambda: {OLD, HSM} == {one.token for one in site.members().values() if one.online}, "both tokens")
    (status,) = follow(site, tmp_path, "Without a gap", last=1)
    assert system_clock() < since_ms, "the machine is too slow for this test"
    assert "not for new requests" in status.out
    keys = {place: member.key for place, member in site.members().items()}

    requests = []
    while system_clock() < since_ms + 1_000:
        requests.append(site.queue(items=2))
    for request in requests:
        assert [item.state for item in site.ended(request).items] == ["signed"] * 2
    site.until_ready(HSM)
    after = copy_of_program(tmp_path)
    follow(site, tmp_path, "Without a gap", first=1)
    made_by = site.signatures()
    assert set(made_by) == set(keys.values())
    assert sum(made_by.values()) == 2 * len(requests) + 2

    check_both(site, before, after)
    site.write_agent("one", table(hsm), KEY)
    site.write_pool("")
    site.agent("one").stop()
    site.start_agent("one")
    site.until_ready(HSM)
    check_both(site, before, after, signed(site, tmp_path, "last.exe"))


def test_without_a_pool_the_queue_waits_for_the_agent(site: PoolPrograms, hsm: SoftHsm, tmp_path: Path) -> None:
    """The old token is at work when its agent is killed; the next start has another one for the profile."""
    site.site.save_roots(PROFILE)
    before = signed(site, tmp_path, "before.exe")
    old = site.members()[OLD].key
    token, key = tables(site)
    site.write_agent("one", token, table(hsm), key)
    follow(site, tmp_path, "Growing to an HSM")

    site.freeze("one")
    free = [site.queue(items=5) for _ in range(6)]
    pinned = site.queue(items=5, key=old)
    site.agent("one").kill()
    assert len(site.open_items()) > 0
    site.write_agent("one", table(hsm), KEY)
    site.start_agent("one")
    site.until_ready(HSM)

    for request in free:
        assert [item.state for item in site.ended(request).items] == ["signed"] * 5
    assert {(item.state, item.code) for item in site.ended(pinned).items} == {("failed", "certificate.changed")}
    assert set(site.members()) == {HSM}
    assert site.open_items() == {}
    new = site.members()[HSM].key
    assert site.signatures() == {old: 1, new: 30}
    check_both(site, before, signed(site, tmp_path, "after.exe"))
