# SPDX-License-Identifier: Apache-2.0
"""TSAs in hub.toml and client.toml."""

from pathlib import Path

import pytest

from privyseal.client.config import client_config_text, load_client_config, optional_client_config
from privyseal.errors import ConfigError
from privyseal.hub.config import load_hub_config

CLIENT = client_config_text(name="desk", hubs=("https://h:1",), web="https://h:2", identity="client")
HEAD = """\
name = "signing.example.com"
listen_mtls = "127.0.0.1:1"
listen_web = "127.0.0.1:2"
mtls_url = "https://localhost:1"
web_url = "https://localhost:2"
"""


def put(directory: Path, text: str) -> Path:
    (directory / "hub.toml").write_text(HEAD + text)
    return directory


def test_the_order_is_kept_and_a_budget_is_optional(tmp_path: Path) -> None:
    text = '[[tsa]]\nurl = "http://b"\n[[tsa]]\nurl = "https://a"\nper_minute = 5\n'

    assert [(one.url, one.per_minute) for one in load_hub_config(put(tmp_path, text)).tsa] == [
        ("http://b", 0),
        ("https://a", 5),
    ]
    assert load_hub_config(put(tmp_path, "")).tsa == ()


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ('url = "http://a"\nper_minute = -1', "config.malformed"),
        ('url = "http://a"\nper_minute = 1.5', "config.malformed"),
        ('url = "http://a"\nbudget = 1', "config.malformed"),
        ("per_minute = 1", "config.malformed"),
        ('url = "http://a"\n[[tsa]]\nurl = "http://a"', "config.malformed"),
        ('url = "a"', "timestamp.url"),
        ('url = "http://name:secret@a"', "timestamp.url"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, table: str, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_hub_config(put(tmp_path, f"[[tsa]]\n{table}\n"))

    assert caught.value.code == code
    assert "secret" not in str(caught.value)


def put_client(directory: Path, text: str) -> str:
    path = directory / "client.toml"
    path.write_text(CLIENT + text)
    return str(path)


def test_a_client_names_tsas_or_none(tmp_path: Path) -> None:
    none = load_client_config(put_client(tmp_path, ""))
    assert (none.timestamp, none.timestamp_via) == ((), "direct")

    text = 'timestamp = ["http://a", "https://b/x?y=z"]\ntimestamp_via = "hub"\n'
    config = load_client_config(put_client(tmp_path, text))

    assert (config.timestamp, config.timestamp_via) == (("http://a", "https://b/x?y=z"), "hub")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('timestamp = "http://a"', "config.malformed"),
        ('timestamp_via = "pigeon"', "config.malformed"),
        ('timestamp = ["a"]', "timestamp.url"),
        ('timestamp = ["ftp://a"]', "timestamp.url"),
        ('timestamp = ["http://name:secret@a"]', "timestamp.url"),
        ('timestamp = ["http://a b"]', "timestamp.url"),
    ],
)
def test_a_client_that_makes_no_sense(tmp_path: Path, line: str, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_client_config(put_client(tmp_path, line))

    assert caught.value.code == code
    assert "secret" not in str(caught.value)


def test_what_works_without_a_configuration_still_reads_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("PRIVYSEAL_CONFIG", raising=False)
    assert optional_client_config() is None
    with pytest.raises(ConfigError):
        optional_client_config("none.toml")
    monkeypatch.setenv("PRIVYSEAL_CONFIG", "none.toml")
    with pytest.raises(ConfigError):
        optional_client_config()
    monkeypatch.setenv("PRIVYSEAL_CONFIG", put_client(tmp_path, ""))
    found = optional_client_config()
    assert found is not None
    assert found.name == "desk"
