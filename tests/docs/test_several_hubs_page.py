# SPDX-License-Identifier: Apache-2.0
"""docs/several-hubs.md shows the configurations that are tried: HAProxy's as it is shipped, ours as they are read."""

import tomllib
from pathlib import Path

from haproxy import CONFIG
from pages import ROOT, blocks
from privyseal.client.config import client_config_text, load_client_config
from privyseal.hub.config import HubConfig

PAGE = ROOT / "docs" / "several-hubs.md"


def test_haproxys_lines_are_those_of_the_shipped_file() -> None:
    shown = blocks(PAGE, "haproxy")

    assert len(shown) == 2
    for block in shown:
        assert block.text in CONFIG.read_text()


def test_ours_are_read(tmp_path: Path) -> None:
    known = set(HubConfig.__struct_fields__)
    for number, block in enumerate(blocks(PAGE, "toml")):
        table = tomllib.loads(block.text)
        if "hub" not in table:
            assert set(table) <= known
            continue
        text = client_config_text(name="desk", hubs=("https://h:1",), web="https://h:2", identity="client")
        path = tmp_path / f"{number}.toml"
        path.write_text(block.text + text.replace("hub = ", "# hub = ").replace("web = ", "# web = "))
        assert all(url.startswith("https://") for url in load_client_config(str(path)).hub_urls)
