# SPDX-License-Identifier: Apache-2.0
"""docs/queue.md: its commands run before a queue, its configuration is read, its classes are the hub's."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pages import ROOT, blocks, commands
from privyseal.hub.config import QueueTable, load_hub_config
from privyseal.policy.fair_queue import Priority
from programs import environment
from queue_site import PROFILE, QueueSite, queue_site

PAGE = ROOT / "docs" / "queue.md"
ID = "1f2e3d4c"
HEAD = """
name = "signing.example.com"
listen_mtls = "0.0.0.0:8443"
listen_web = "0.0.0.0:8444"
mtls_url = "https://signing.example.com:8443"
web_url = "https://signing.example.com:8444"
"""


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueSite]:
    with queue_site(tmp_path_factory.mktemp("page")) as made:
        yield made


def lines() -> list[str]:
    return [line for block in blocks(PAGE, "sh") for line in block.text.splitlines() if line]


@pytest.mark.interop
@pytest.mark.parametrize("line", lines())
def test_each_command_does_what_the_page_says(queue: QueueSite, line: str) -> None:
    with queue.slow():
        queue.queued("ci-7", 30)
        mine = queue.queued("client", 3, "nightly")
        variables = environment(queue.site.directory, queue.site.config)
        variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
        text = line.replace(ID, mine[: len(ID)]).replace("demo", PROFILE)
        done = subprocess.run(
            ["sh", "-euc", text],
            cwd=queue.site.directory,
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        found = queue.record("client", mine)

    assert done.returncode == 0, done
    (command,) = commands(PAGE, "privyseal", line)
    if command.words[0] == "queue":
        assert mine[:8] in done.stdout
    if command.words[1:2] == ("cancel",):
        assert found.progress.failed == 3
    if command.words[1:2] == ("move",):
        assert found.progress.priority == command.words[command.words.index("--priority") + 1]


def test_the_configuration_is_read(tmp_path: Path) -> None:
    (example,) = blocks(PAGE, "toml")
    (tmp_path / "hub.toml").write_text(HEAD + example.text)

    config = load_hub_config(tmp_path)

    assert (config.queue.most, config.queue.most_per_client) == (QueueTable().most, QueueTable().most_per_client)
    assert config.queue.aging_minutes == QueueTable().aging_minutes
    assert [team.name for team in config.team] == ["release", "ci"]


def test_the_page_names_the_classes_in_their_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)

    assert rows == [priority.name.lower() for priority in reversed(Priority)]
