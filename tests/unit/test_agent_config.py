# SPDX-License-Identifier: Apache-2.0
"""What agent.toml may not say of a token, and that the message names file, token and key."""

from pathlib import Path

import pytest

from privyseal.agent.config import parse_agent_config
from privyseal.errors import ConfigError

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
