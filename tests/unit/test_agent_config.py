# SPDX-License-Identifier: Apache-2.0
"""What agent.toml may not say of a token, and that the message names file, token and key."""

from pathlib import Path

import pytest

from privyseal.agent.config import hub_setting, parse_agent_config
from privyseal.errors import ConfigError
from privyseal.relay.direct import split_place

TEXT = """
name = "pi"
hub = "https://hub.example"
web = "https://hub.example"

{recovery}

[[token]]
name = "etoken"
kind = "pkcs11"
module = "/usr/lib/libeToken.so"
{line}
"""


def refusal(line: str = "", recovery: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        parse_agent_config(TEXT.format(line=line, recovery=recovery), Path("agent.toml"))
    assert caught.value.code == "config.malformed"
    return caught.value.message


@pytest.mark.parametrize(
    "line",
    [
        "workers = 0",
        "workers = 65",
        "recycle_signatures = -1",
        "recycle_hours = -0.5",
        "recycle_hours = nan",
        "watch_seconds = 0",
        "watch_seconds = inf",
        "watch_seconds = nan",
        "count_seconds = -1",
        "count_seconds = nan",
        'usb = "my token"',
    ],
)
def test_a_value_that_no_token_can_have_is_named(line: str) -> None:
    message = refusal(line)

    assert message.startswith("agent.toml: token 'etoken': ")
    assert line.split(maxsplit=1)[0] in message


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_command_has_a_deadline(seconds: str) -> None:
    assert "command_seconds" in refusal(recovery=f"[recovery]\ncommand_seconds = {seconds}")


@pytest.mark.parametrize("line", ["workers = 64", "recycle_hours = 0", "count_seconds = 0", 'usb = "0529:0620"'])
def test_the_bounds_themselves_are_fine(line: str) -> None:
    config = parse_agent_config(TEXT.format(line=line, recovery=""), Path("agent.toml"))

    assert config.token[0].name == "etoken"


@pytest.mark.parametrize("urls", [("https://hub.example:8443",), ("https://hub-1:8443", "https://hub-2:8443")])
def test_one_hub_or_several(urls: tuple[str, ...]) -> None:
    text = TEXT.format(line="", recovery="").replace('hub = "https://hub.example"', hub_setting(urls))

    assert parse_agent_config(text, Path("agent.toml")).hubs == urls


def test_one_hub_is_written_as_before() -> None:
    assert hub_setting(("https://hub:1",)) == 'hub = "https://hub:1"'
    assert hub_setting(("https://a:1", "https://b:1")) == 'hub = ["https://a:1", "https://b:1"]'


@pytest.mark.parametrize(
    ("hub", "words"), [("[]", "names no hub"), ('["https://a:1", "https://a:1"]', "two of one hub"), ("7", "hub")]
)
def test_what_hub_may_not_say(hub: str, words: str) -> None:
    text = TEXT.format(line="", recovery="").replace('hub = "https://hub.example"', f"hub = {hub}")

    with pytest.raises(ConfigError) as caught:
        parse_agent_config(text, Path("agent.toml"))

    assert caught.value.code == "config.malformed"
    assert words in caught.value.message


TOKENS = """
[[token]]
name = "second"
kind = "software"
path = "second"
"""
KEY = """
[[key]]
profile = "acme"
token = "{token}"
"""


def test_two_tokens_may_serve_one_key_profile() -> None:
    text = TEXT.format(line="", recovery="") + TOKENS + KEY.format(token="etoken") + KEY.format(token="second")

    keys = parse_agent_config(text, Path("agent.toml")).key

    assert [(key.profile, key.token) for key in keys] == [("acme", "etoken"), ("acme", "second")]


def test_one_token_serves_a_key_profile_with_one_key() -> None:
    assert "acme (etoken)" in refusal(KEY.format(token="etoken") * 2)


@pytest.mark.parametrize("listen", ["8446", ":8446", "[]:8446", "0.0.0.0:", "0.0.0.0:0", "0.0.0.0:65536", "pi:http"])
def test_a_port_for_leases_that_is_none(listen: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_agent_config(TEXT.format(line="", recovery=f'[usb]\nlisten = "{listen}"'), Path("agent.toml"))
    assert caught.value.code == "config.address"


def test_an_agent_listens_only_if_it_is_told_to() -> None:
    assert parse_agent_config(TEXT.format(line="", recovery=""), Path("agent.toml")).usb.listen == ""
    assert split_place("[2001:db8::7]:8446") == ("2001:db8::7", 8446)
