# SPDX-License-Identifier: Apache-2.0
"""Tables are appended to agent.toml, and everything else of it stays byte for byte."""

import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.agent.appending import append_tables, tables_text
from privyseal.agent.config import KeyConfig, TokenTable, load_agent_config
from privyseal.errors import ConfigError

HEAD = '# by hand \xe9\r\nname = "lab"   # twice  \nhub = "https://h:1"\nweb = "https://h:2"\n'
TOKEN = TokenTable(
    name="etoken",
    kind="pkcs11",
    module="/usr/lib/libeToken.so",
    token_label='A "quoted" \\ label',
    serial="0123",
    environment={"A B": "x=y", "SOFTHSM2_CONF": "/etc/softhsm2.conf"},
)
KEY = KeyConfig(profile="acme-ev", token="etoken", id="01", test=True)


def write(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "agent.toml"
    path.write_bytes(text.encode())
    path.chmod(mode)
    return path


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "# last words", "[[token]]\nname='a'\nkind='software'\npath='a'"])
def test_what_was_there_stays_as_it_was(tmp_path: Path, end: str) -> None:
    path = write(tmp_path, HEAD + end, 0o640)
    before = load_agent_config(tmp_path)

    append_tables(tmp_path, tokens=(TOKEN,), keys=(KEY,))

    assert path.read_bytes().startswith((HEAD + end).encode())
    after = load_agent_config(tmp_path)
    assert after.token == (*before.token, TOKEN)
    assert after.key == (KEY,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["agent.toml"]


@pytest.mark.parametrize(
    "end",
    ["token = []\n", '[[token]]\nname="etoken"\nkind="software"\npath="a"\n', '[[key]]\nprofile="acme-ev"\ntoken="x"'],
)
def test_what_cannot_be_appended_to_is_left_alone(tmp_path: Path, end: str) -> None:
    path = write(tmp_path, HEAD + end)

    with pytest.raises(ConfigError) as caught:
        append_tables(tmp_path, tokens=(TOKEN,), keys=(KEY,))

    assert caught.value.code in ("config.not_appended", "config.malformed")
    assert path.read_bytes() == (HEAD + end).encode()
    assert [one.name for one in tmp_path.iterdir()] == ["agent.toml"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    real = write(tmp_path / "etc", HEAD)
    (tmp_path / "agent.toml").symlink_to(real)

    append_tables(tmp_path, tokens=(TOKEN,))

    assert (tmp_path / "agent.toml").is_symlink()
    assert load_agent_config(tmp_path / "etc").token == (TOKEN,)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        append_tables(tmp_path, tokens=(TOKEN,))

    assert caught.value.code == "config.missing"


def test_defaults_are_not_written() -> None:
    text = tables_text(keys=(KeyConfig(profile="acme-ev", token="etoken", id="01"),))

    assert text == '[[key]]\nprofile = "acme-ev"\ntoken = "etoken"\nid = "01"\n'


# A surrogate cannot stand in a file; the module's labels are decoded with replacement.
@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.dictionaries(st.text('aä"\\\x7f\n ='), st.text('x\x7f\x00"\\\t')),
)
def test_any_text_comes_back_as_it_was(label: str, environment: dict[str, str]) -> None:
    table = TokenTable(name="a", kind="pkcs11", token_label=label, environment=environment)

    read = tomllib.loads(tables_text(tokens=(table,)))["token"][0]

    assert read.get("token_label", "") == label
    assert read.get("environment", {}) == environment
