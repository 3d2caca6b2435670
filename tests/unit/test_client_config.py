# SPDX-License-Identifier: Apache-2.0
"""client.toml: where it is looked for, what it may say, and that what `join` writes can be read."""

from pathlib import Path

import pytest

from privyseal.client.config import client_config_text, find_client_config, load_client_config
from privyseal.errors import ConfigError

TEXT = client_config_text(name="desk", hubs=("https://h:1",), web="https://h:2", identity="client", trust=("root.pem",))


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any configuration."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("PRIVYSEAL_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    return tmp_path


def put(path: Path, text: str = TEXT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def code_of(explicit: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        load_client_config(explicit)
    return caught.value.code


def test_what_join_writes_is_read_with_absolute_paths(nowhere: Path) -> None:
    path = put(nowhere / "home" / "client.toml")

    config = load_client_config(str(path))

    assert (config.name, config.hub_urls, config.web_urls) == ("desk", ("https://h:1",), ("https://h:2",))
    assert config.identity.directory == nowhere / "home" / "client"
    assert config.trust == (nowhere / "home" / "root.pem",)


def test_the_nearest_one_is_in_force(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_of() == "config.missing"
    places = [nowhere / "xdg" / "privyseal" / "client.toml", nowhere / "work" / "privyseal.toml", nowhere / "env.toml"]
    for place in places[:2]:
        put(place)
        assert find_client_config().resolve() == place
    monkeypatch.setenv("PRIVYSEAL_CONFIG", str(put(places[2])))
    assert find_client_config() == places[2]
    flag = put(nowhere / "flag.toml")
    assert find_client_config(str(flag)) == flag


def test_a_named_one_that_is_not_there_is_not_replaced_by_another(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(nowhere / "work" / "privyseal.toml")
    assert code_of(str(nowhere / "none.toml")) == "config.missing"
    monkeypatch.setenv("PRIVYSEAL_CONFIG", str(nowhere / "none.toml"))

    assert code_of() == "config.missing"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name = 1",
        "not toml",
        TEXT + "colour = 1\n",
        TEXT.replace('name = "desk"', ""),
        TEXT.replace("300.0", '"long"'),
        TEXT.replace("300.0", "nan"),
        TEXT.replace("300.0", "-1"),
        TEXT.replace("https://h:1", "http://h:1"),
        TEXT.replace("https://h:1", "nonsense"),
        TEXT.replace('"https://h:1"', "[]"),
        TEXT.replace('"https://h:1"', '["https://h:1", "http://h:2"]'),
        TEXT.replace('"https://h:1"', str([f"https://h:{port}" for port in range(1, 18)])),
        "\x00",
    ],
    ids=[
        *("empty", "types", "words", "unknown", "nameless", "text", "nan", "negative", "http", "no-url"),
        *("no-urls", "one-http", "too-many", "nul"),
    ],
)
def test_what_makes_no_sense(nowhere: Path, text: str) -> None:
    assert code_of(str(put(nowhere / "client.toml", text))) == "config.malformed"


def test_bytes_that_are_no_text(nowhere: Path) -> None:
    path = nowhere / "client.toml"
    path.write_bytes(b"\xff\xfe")

    assert code_of(str(path)) == "config.malformed"


def test_several_hubs_are_a_list(nowhere: Path) -> None:
    text = TEXT.replace('"https://h:1"', '["https://a:1/", "https://b:1", "https://a:1"]')

    assert load_client_config(str(put(nowhere / "client.toml", text))).hub_urls == ("https://a:1", "https://b:1")
