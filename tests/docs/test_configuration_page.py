# SPDX-License-Identifier: Apache-2.0
"""The configuration that the documents show is configuration that the programs read."""

import re
from pathlib import Path

import msgspec
import pytest

from privyseal.agent.config import KeyConfig, RecoveryTable, TokenTable, load_agent_config, token_config
from privyseal.agent.device_config import DeviceTable
from privyseal.agent.host_steps import host_steps
from privyseal.agent.ladder import Rung
from privyseal.client.config import load_client_config
from privyseal.errors import ConfigError
from privyseal.hub.config import QueueTable, TeamTable, load_hub_config

ROOT = Path(__file__).resolve().parents[2]
HUB, AGENT, CLIENT = range(3)


def toml_blocks(page: Path) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def blocks() -> list[str]:
    found = toml_blocks(ROOT / "docs" / "configuration.md")
    assert len(found) == 3
    return found


def test_hub_example_is_read(blocks: list[str], tmp_path: Path) -> None:
    (tmp_path / "hub.toml").write_text(blocks[HUB], "utf-8")

    config = load_hub_config(tmp_path)

    assert config.name == "signing.example.com"
    assert [tsa.per_minute for tsa in config.tsa] == [60, 0]
    assert config.database.startswith("postgresql://")
    assert config.metrics.allow == ("127.0.0.1", "::1", "192.0.2.0/24")
    assert config.queue == QueueTable(), "the example shows what holds without it"
    assert [(team.clients, team.priority) for team in config.team] == [(("ci-*",), "normal")]
    (pool,) = config.pool
    assert (pool.tokens, pool.successors) == (("berlin/etoken-a", "paris/etoken"), ("berlin/hsm",))


def test_every_key_of_the_queue_is_in_the_hub_s_example(blocks: list[str]) -> None:
    shown = set(re.findall(r"(?m)^(\w+) = ", blocks[HUB]))

    assert (fields(QueueTable) | fields(TeamTable)) - shown == set()


def test_postgresql_examples_are_accepted(blocks: list[str], tmp_path: Path) -> None:
    examples = toml_blocks(ROOT / "docs" / "postgresql.md")
    hub = blocks[HUB].replace("database =", "# database =")
    for example in examples:
        (tmp_path / "hub.toml").write_text(f"{example}\n{hub}", "utf-8")
        assert load_hub_config(tmp_path).database

    assert len(examples) == 2


def test_agent_example_is_read(blocks: list[str], tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(blocks[AGENT], "utf-8")
    config = load_agent_config(tmp_path)

    assert [key.level for key in config.key] == ["pinned"]
    assert config.usb.listen == "192.0.2.7:8446"
    assert [token_config(table, tmp_path).module.startswith("/usr/lib/") for table in config.token] == [True, True]


def test_the_agent_example_brings_a_token_back(blocks: list[str], tmp_path: Path) -> None:
    text = blocks[AGENT].replace("# reboot", "reboot").replace("port_power = false", "port_power = true")
    (tmp_path / "agent.toml").write_text(text, "utf-8")
    config = load_agent_config(tmp_path)

    assert set(host_steps(config.token[0], config.recovery, tmp_path)) == {
        Rung.USB_RESET,
        Rung.PORT_POWER,
        Rung.PCSCD,
        Rung.REBOOT,
    }


def test_the_agent_example_shows_what_holds_without_it(blocks: list[str], tmp_path: Path) -> None:
    """Whoever copies a line changes nothing, unless the line is there to be filled in."""
    (tmp_path / "agent.toml").write_text(blocks[AGENT], "utf-8")
    config = load_agent_config(tmp_path)
    plain = TokenTable(name="plain", kind="pkcs11")

    for name in (*(one for one in fields(TokenTable) if one.endswith("_seconds")), "workers", "counter", "port_power"):
        assert getattr(config.token[0], name) == getattr(plain, name), name
    assert (config.token[0].recycle_signatures, config.token[0].recycle_hours) == (10_000, 24.0)
    assert config.recovery.command_seconds == RecoveryTable().command_seconds


def fields(table: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(table)}


def test_every_key_of_the_agent_s_file_is_in_its_example(blocks: list[str]) -> None:
    shown = set(re.findall(r"(?m)^(?:# )?(\w+) = ", blocks[AGENT]))
    said = set(re.findall(r"or (\w+) = ", blocks[AGENT]))

    for table in (TokenTable, KeyConfig, RecoveryTable, DeviceTable):
        assert fields(table) - shown - said == set()


def test_every_pin_source_of_the_agent_example_is_read(blocks: list[str], tmp_path: Path) -> None:
    lines = re.findall(r"(?m)^# (pin_\w+ = .*)$", blocks[AGENT])
    assert [line.split(" ")[0] for line in lines] == ["pin_credential", "pin_keyring", "pin_prompt"]

    for line in lines:
        text = re.sub(r'(?m)^pin_file = "pin".*$', line, blocks[AGENT])
        (tmp_path / "agent.toml").write_text(text, "utf-8")
        (token, _) = (token_config(table, tmp_path) for table in load_agent_config(tmp_path).token)
        assert not token.pin_file
        assert getattr(token, line.split(" ")[0])
        (tmp_path / "agent.toml").write_text(blocks[AGENT].replace("call_seconds", f"{line}\ncall_seconds"), "utf-8")
        with pytest.raises(ConfigError, match="one place"):
            load_agent_config(tmp_path)


def test_client_example_is_read(blocks: list[str], tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text(blocks[CLIENT], "utf-8")

    config = load_client_config(str(path))

    assert config.trust == (tmp_path / "company-root.pem",)
    assert (len(config.timestamp), config.timestamp_via) == (2, "direct")


def test_readme_example_fits_an_agent(blocks: list[str], tmp_path: Path) -> None:
    (example,) = toml_blocks(ROOT / "README.md")
    head = "\n".join(line for line in blocks[AGENT].splitlines()[:3])
    (tmp_path / "agent.toml").write_text(f"{head}\n{example}", "utf-8")

    assert [key.profile for key in load_agent_config(tmp_path).key] == ["acme-ev"]
