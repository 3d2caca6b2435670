# SPDX-License-Identifier: Apache-2.0
"""docs/ci.md: the pipelines fit the schemas of their CI systems, and the script that they call signs a release."""

import base64
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from installation import Up, copy_of_program, make_site, running_up
from interop_tools import run_program
from pages import ROOT, blocks
from pki_samples import tsa
from programs import environment, refused, succeeded
from tsa_samples import TsaHost, running_tsa

pytestmark = pytest.mark.interop

PAGE = ROOT / "docs" / "ci.md"
SCHEMAS = {"GitHub Actions": "github-workflows", "GitLab CI": "gitlab-ci", "Azure DevOps": "azure-pipelines"}

#: What a reader replaces; and nobody waits in a test.
REPLACED = {"--key acme": "--key demo"}


@pytest.fixture(scope="module")
def host() -> Iterator[TsaHost]:
    with running_tsa() as running:
        yield running


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("ci") / "up") as running:
        yield running


def pipeline(section: str) -> str:
    (found,) = (block.text for block in blocks(PAGE, "yaml", "groovy") if block.section == section)
    return found


def secret_file(up: Up, host: TsaHost, place: Path) -> Path:
    """client.tgz, as the page packs it."""
    text = re.sub(r"^trust = .*$", 'trust = ["root.pem"]', up.config.read_text(), flags=re.MULTILINE)
    (place / "client.toml").write_text(text + f'timestamp = ["{host.url}"]\n')
    (place / "root.pem").write_bytes(tsa().root.pem + (up.directory / "test-root.pem").read_bytes())
    with tarfile.open(place / "client.tgz", "w:gz") as archive:
        archive.add(up.client().identity.directory, "client/client")
        for name in ("client.toml", "root.pem"):
            archive.add(place / name, f"client/{name}")
    return place / "client.tgz"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with what `make dist` made, the script, and the installed command alone on the PATH."""
    (script,) = (block.text for block in blocks(PAGE, "sh") if block.section == "The script")
    for old, new in REPLACED.items():
        assert old in script
        script = script.replace(old, new)
    for name in ("ci", "dist", "bin", "home", "temporary"):
        (tmp_path / name).mkdir()
    (tmp_path / "ci" / "sign.sh").write_text(script)
    copy_of_program(tmp_path / "dist", "app.exe")
    copy_of_program(tmp_path / "dist", "lib.dll")
    (tmp_path / "bin" / "privyseal").symlink_to(Path(sys.executable).with_name("privyseal"))
    return tmp_path


def run_job(checkout: Path, script: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    known = environment(checkout / "home") | {"PATH": f"{checkout / 'bin'}:/usr/bin:/bin"}
    return subprocess.run(
        ["/bin/sh", "-ec", script],
        cwd=checkout,
        env=known | {"TMPDIR": str(checkout / "temporary")} | variables,
        capture_output=True,
        timeout=60,
        check=False,
    )


def check_signed(checkout: Path, done: subprocess.CompletedProcess[bytes]) -> None:
    assert done.returncode == 0, (done.stdout, done.stderr)
    *files, last = [json.loads(line) for line in (checkout / "signed.jsonl").read_text().splitlines()]
    assert {one["state"] for one in files} == {"signed"}
    assert last["summary"]["signed"] == 2
    assert done.stdout.count(b"timestamp 20") == 2
    assert list((checkout / "temporary").iterdir()) == []


def fits_schema(section: str, text: str, place: Path) -> tuple[bool, str]:
    (place / "pipeline.yml").write_text(text)
    program = Path(sys.executable).with_name("check-jsonschema")
    # Azure's schema has patterns that are no regular expressions of Unicode mode.
    options = ("--builtin-schema", f"vendor.{SCHEMAS[section]}", "--regex-variant", "nonunicode")
    status, said = run_program(str(program), *options, place / "pipeline.yml")
    return status == 0 and "validation done" in said, said


@pytest.mark.parametrize("section", SCHEMAS)
def test_the_pipeline_fits_the_schema_of_its_system(section: str, tmp_path: Path) -> None:
    fits, said = fits_schema(section, pipeline(section), tmp_path)

    assert fits, said


@pytest.mark.parametrize(
    ("section", "word", "wrong"),
    [
        ("GitHub Actions", "runs-on:", "run-on:"),
        ("GitLab CI", " paths:", " path:"),
        ("Azure DevOps", "secureFile:", "file:"),
    ],
)
def test_a_pipeline_with_a_wrong_word_does_not_fit(section: str, word: str, wrong: str, tmp_path: Path) -> None:
    text = pipeline(section)
    assert word in text

    fits, said = fits_schema(section, text.replace(word, wrong), tmp_path)

    assert not fits
    assert "Traceback" not in said


def test_the_jenkinsfile_is_balanced() -> None:
    text = re.sub(r"'[^'\n]*'", "", pipeline("Jenkins"))

    assert "'" not in text
    open_ones: list[str] = []
    for character in text:
        if character in "([{":
            open_ones.append(character)
        elif character in ")]}":
            assert open_ones.pop() + character in ("()", "[]", "{}")
    assert open_ones == []


@pytest.mark.parametrize("section", [*SCHEMAS, "Jenkins"])
def test_every_pipeline_runs_the_script_and_keeps_the_record(section: str) -> None:
    text = pipeline(section)

    assert "sh ci/sign.sh" in text
    assert "PRIVYSEAL_CLIENT" in text
    assert "signed.jsonl" in text


def test_a_runner_with_a_secret_file(up: Up, host: TsaHost, checkout: Path) -> None:
    secret = secret_file(up, host, checkout / "home")

    check_signed(checkout, run_job(checkout, "sh ci/sign.sh", PRIVYSEAL_CLIENT=str(secret)))


def test_the_step_of_github_unpacks_the_secret(up: Up, host: TsaHost, checkout: Path) -> None:
    secret = secret_file(up, host, checkout / "home")
    (step,) = re.findall(r"run: \|\n((?: {10}.*\n)+)", pipeline("GitHub Actions"))
    variables = {"CLIENT": base64.b64encode(secret.read_bytes()).decode(), "RUNNER_TEMP": str(checkout / "home")}

    check_signed(checkout, run_job(checkout, step, **variables))


def test_the_script_of_gitlab_unpacks_the_secret(up: Up, host: TsaHost, checkout: Path) -> None:
    secret = secret_file(up, host, checkout / "home")
    (checkout / "home" / "variable").write_text(base64.b64encode(secret.read_bytes()).decode())
    (script,) = re.findall(r"  script:\n((?:    - .*\n)+)", pipeline("GitLab CI"))
    lines = "\n".join(line.removeprefix("    - ") for line in script.splitlines())
    (checkout / "builds").mkdir()
    variables = {
        "PRIVYSEAL_CLIENT_BASE64": str(checkout / "home" / "variable"),
        "CI_BUILDS_DIR": str(checkout / "builds"),
    }

    check_signed(checkout, run_job(checkout, lines, **variables))


def test_it_is_tried_again_if_the_hub_is_not_there(up: Up, host: TsaHost, checkout: Path) -> None:
    secret = secret_file(up, host, checkout / "home")
    with tarfile.open(secret) as archive:
        archive.extractall(checkout / "home", filter="data")
    config = checkout / "home" / "client" / "client.toml"
    text = re.sub(r'"https://[^"]*"', '"https://127.0.0.1:9"', config.read_text())
    config.write_text(text.replace("wait_seconds = 300.0", "wait_seconds = 3.0"))
    with tarfile.open(secret, "w:gz") as archive:
        archive.add(checkout / "home" / "client", "client")

    done = run_job(checkout, "sh ci/sign.sh", PRIVYSEAL_CLIENT=str(secret))

    assert done.returncode == 7, done.stderr
    assert done.stderr.count(b"trying again for up to ") == 1
    assert list((checkout / "temporary").iterdir()) == []


def test_a_bad_file_is_not_tried_again(up: Up, host: TsaHost, checkout: Path) -> None:
    (checkout / "dist" / "app.exe").write_bytes((checkout / "dist" / "lib.dll").read_bytes()[:300])

    done = run_job(checkout, "sh ci/sign.sh", PRIVYSEAL_CLIENT=str(secret_file(up, host, checkout / "home")))

    assert done.returncode == 9, done.stderr
    assert b"trying again" not in done.stderr


def test_jobs_with_one_directory_may_run_at_the_same_time(up: Up, tmp_path: Path) -> None:
    names = [f"job{number}" for number in range(4)]
    for name in names:
        (tmp_path / name).mkdir()
        copy_of_program(tmp_path / name, f"{name}.exe")

    with ThreadPoolExecutor(len(names)) as pool:
        outcomes = list(pool.map(lambda name: up.run("sign", "--key", "demo", tmp_path / name), names))

    assert [outcome.code for outcome in outcomes] == [0] * len(names), outcomes
    assert up.run("verify", *(tmp_path / name for name in names)).code == 0


def test_the_same_name_joins_again_once_a_year(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    try:
        site.add_client("runner-7")
        (tmp_path / "runner-7").rename(tmp_path / "old")
        succeeded(site.run("status", client="old"))

        site.add_client("runner-7")

        succeeded(site.run("status", client="runner-7"))
        refused(site.run("status", client="old"), 6, "identity.unknown")
        succeeded(site.administer("hub", "revoke", "client", "runner-7"))
        refused(site.run("status", client="runner-7"), 6, "identity.revoked")
        site.stop()
    finally:
        site.end()
