# SPDX-License-Identifier: Apache-2.0
"""docs/windows-signing-from-linux.md: its commands run one after the other on a release, and osslsigncode judges it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from installation import Up, copy_of_program, running_up
from interop_tools import run_program
from pages import ROOT, blocks, commands, pages
from pki_samples import tsa
from privyseal.cli.app import app
from programs import environment, succeeded
from softhsm import need
from tsa_samples import OpensslTsa, TsaHost, running_tsa

pytestmark = pytest.mark.interop

PAGE = ROOT / "docs" / "windows-signing-from-linux.md"

#: What a reader replaces.
REPLACED = {"--key acme": "--key demo", "http://tsa.example.com": "{tsa}", "http://other.example.net/rfc3161": "{tsa}"}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TsaHost]:
    need(programs=("openssl",))
    with running_tsa(OpensslTsa(tmp_path_factory.mktemp("tsa") / "tsa", certs=True)) as running:
        yield running


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("windows") / "up") as running:
        yield running


def test_what_is_replaced_stands_on_the_page() -> None:
    assert all(old in PAGE.read_text("utf-8") for old in REPLACED)


def replaced(text: str, host: TsaHost) -> str:
    for old, new in REPLACED.items():
        text = text.replace(old, new.format(tsa=host.url))
    return text


def make_release(place: Path) -> None:
    for name in ("dist/app.exe", "dist/lib/codec.dll", "dist/lib/filter.sys", "dist/redist/other.dll", "app.exe"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        copy_of_program(place, name)
    (place / "dist" / "readme.txt").write_text("not a program")
    (place / "rebuilt").mkdir()
    for name in ("setup.exe", "rebuilt/setup.exe", "service.exe", "boot.efi"):
        copy_of_program(place, name)


@pytest.fixture(scope="module")
def release(up: Up, host: TsaHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the whole page was followed."""
    need(programs=("osslsigncode", "/bin/bash"))
    place = tmp_path_factory.mktemp("release")
    make_release(place)
    (place / "root.pem").write_bytes(tsa().root.pem + (up.directory / "test-root.pem").read_bytes())
    (toml,) = blocks(PAGE, "toml")
    text = up.config.read_text().replace('identity = "client"', f'identity = "{up.client().identity.directory}"')
    text = re.sub(r"^trust = .*$", 'trust = ["root.pem"]', text, flags=re.MULTILINE)
    (place / "privyseal.toml").write_text(text + replaced(toml.text, host))
    succeeded(up.run("sign", "--key", "demo", place / "app.exe"))  # without a timestamp: up's client names no TSA
    (place / "bin").mkdir()
    (place / "bin" / "privyseal").symlink_to(Path(sys.executable).with_name("privyseal"))
    variables = environment(place) | {"PATH": f"{place / 'bin'}:/usr/bin:/bin"}
    for block in blocks(PAGE, "sh"):
        script = ["/bin/bash", "-euo", "pipefail", "-c", replaced(block.text, host)]
        done = subprocess.run(script, cwd=place, env=variables, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, (block.text, done.stdout, done.stderr)
    return place


def osslsigncode(release: Path, name: str) -> str:
    roots = ("-CAfile", release / "root.pem", "-TSA-CAfile", release / "root.pem")
    status, said = run_program("osslsigncode", "verify", *roots, "-in", release / name)
    assert status == 0, said
    return said


@pytest.mark.parametrize(
    "name", ["dist/app.exe", "dist/lib/codec.dll", "dist/lib/filter.sys", "signed/app.exe", "app.exe"]
)
def test_the_release_is_signed_with_timestamps(release: Path, name: str) -> None:
    said = osslsigncode(release, name)

    assert "Number of verified signatures: 1" in said
    assert re.search("[Tt]imestamp.*(ok|verified)", said), said
    assert Path(f"{release / name}.tlog-proof").exists()


def test_every_file_of_the_run_is_reported(release: Path) -> None:
    *files, last = [json.loads(line) for line in (release / "signed.jsonl").read_text().splitlines()]

    assert len(files) == last["summary"]["signed"] == 4


def test_the_nested_signature_and_what_the_dialog_shows(release: Path) -> None:
    said = osslsigncode(release, "setup.exe")

    assert "Number of verified signatures: 2" in said
    assert "Text description: Acme Installer" in said
    assert "URL description: https://acme.example/" in said


def test_page_hashes_are_there(release: Path) -> None:
    assert "Page hash" in osslsigncode(release, "service.exe")


def test_the_rebuilt_file_is_the_published_one(release: Path) -> None:
    assert (release / "rebuilt" / "setup.exe").read_bytes() == (release / "setup.exe").read_bytes()
    assert len(x509.load_pem_x509_certificates((release / "root.pem").read_bytes())) == 2


def table_of_flags() -> list[list[str]]:
    table = PAGE.read_text("utf-8").partition("| Privyseal | signtool |")[2].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line.startswith("| ")]


def test_the_flags_of_the_table_are_ours() -> None:
    names = {name for argument in app["sign"].assemble_argument_collection() for name in argument.names}
    cells = [row[0] for row in table_of_flags()]
    flags = {flag for cell in cells for flag in re.findall(r"--[a-z-]+", cell)}

    assert len(flags) >= 8
    assert flags - names == set()
    for cell in cells:
        command = re.fullmatch(r"`([a-z ]+)`", cell)
        if command and not cell.startswith("`chain"):
            assert command[1].split()[0] in app
            assert len(command[1].split()) == 1 or command[1].split()[1] in app[command[1].split()[0]]


def test_the_flags_of_the_table_are_those_of_osslsigncode() -> None:
    _, said = run_program("osslsigncode", "--help")
    words = {word.strip("[]()") for word in said.split()}
    given = {word for row in table_of_flags() for word in re.findall(r"(?<![\w-])-[a-z0-9]+", row[2])}
    named = {word for row in table_of_flags() for word in re.findall(r"`([a-z]+-signature|verify)`", row[2])}

    shown = [
        one.words for page in pages() for block in blocks(page) for one in commands(page, "osslsigncode", block.text)
    ]

    assert len(given) >= 9
    assert len(shown) >= 1
    given |= {word for words_shown in shown for word in words_shown if word.startswith("-")}
    assert (given | named) - words == set()
