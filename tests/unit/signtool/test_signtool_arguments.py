# SPDX-License-Identifier: Apache-2.0
"""SignTool's grammar, and that whatever is typed ends in arguments or in an error that says what to do."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.cli.signtool.arguments import Arguments, parse
from privyseal.cli.signtool.flags import COMMANDS, EXCLUSIONS
from privyseal.errors import ConfigError

FLAGS = sorted({name for flags in COMMANDS.values() for name in flags})
DOCUMENT = Path(__file__).parents[3] / "docs" / "signtool.md"


def refusal(*arguments: str) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        parse(arguments)
    return raised.value


def test_a_command_line_as_builds_have_them() -> None:
    parsed = parse(
        ["SIGN", "/FD", "SHA256", "-tr", "http://tsa.example.com", "/Td", "sha256", "/d", "My app", "a.exe", "b.dll"]
    )

    assert parsed.command == "sign"
    assert parsed.value("fd") == "SHA256"
    assert parsed.value("tr") == "http://tsa.example.com"
    assert parsed.value("d") == "My app"
    assert parsed.files == ("a.exe", "b.dll")
    assert not parsed.has("a")
    assert parsed.value("n") == ""


def test_a_flag_that_may_be_repeated_keeps_every_value() -> None:
    assert parse(["sign", "/ac", "1.cer", "/ac", "2.cer", "x"]).values("ac") == ("1.cer", "2.cer")


@pytest.mark.parametrize("name", ["/srv/build/app.exe", "/app.exe", "./-q", "C:\\app.exe", "a/b", "~x", "/v/app"])
def test_paths_are_files(name: str) -> None:
    assert parse(["verify", "/pa", name]).files == (name,)


@pytest.mark.parametrize(
    "arguments", [[], ["/?"], ["-?"], ["--help"], ["/h"], ["sign", "/?"], ["sign", "/fd", "sha256", "-h"]]
)
def test_help_needs_nothing_else(arguments: list[str]) -> None:
    assert parse(arguments).help


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["catdb", "x"], "signtool.command", "catdb"),
        (["/fd", "x"], "signtool.command", "/fd"),
        (["sign", "/nosuch", "x"], "signtool.flag", "/nosuch"),
        (["sign", "/pa", "x"], "signtool.flag", "/pa"),
        (["sign", "/fd:sha256", "x"], "signtool.flag", "/fd"),
        (["sign", "-", "x"], "signtool.flag", "-"),
        (["sign", "-my.exe"], "signtool.flag", "-my"),
        (["sign", "/csp", "eToken", "x"], "signtool.refused", "behind the hub"),
        (["sign", "/sa", "1.2.3", "text", "x"], "signtool.refused", "/sa"),
        (["verify", "/kp", "x"], "signtool.refused", "/pa"),
        (["sign", "x", "/fd"], "signtool.value", "/fd"),
        (["sign", "/n", "/a", "x"], "signtool.value", "/n"),
        (["sign", "/n", "a", "/n", "b", "x"], "signtool.repeated", "/n"),
        (["sign", "/t", "u", "/tr", "u", "x"], "signtool.together", "/tr"),
        (["sign", "/dg", "d", "/as", "x"], "signtool.together", "/as"),
        (["remove", "/s", "/c", "x"], "signtool.together", "/c"),
        (["sign", "/fd", "sha256"], "signtool.files", "no file"),
        (["sign", "/fd", "sha256", ""], "signtool.files", "empty"),
    ],
)
def test_what_is_refused_is_named(arguments: list[str], code: str, named: str) -> None:
    error = refusal(*arguments)

    assert error.code == code
    assert named in error.message
    assert error.hint


@pytest.mark.parametrize("given", [["/p", "CANARY"], ["/p:CANARY"], ["-p=CANARY"], ["--p:CANARY"], ["/P", "CANARY"]])
def test_a_password_is_not_repeated(given: list[str]) -> None:
    error = refusal("sign", "/f", "x.pfx", *given, "app.exe")

    assert "CANARY" not in f"{error} {error.hint}"


def outcome(arguments: list[str]) -> Arguments | ConfigError:
    """Nothing else may come of it."""
    try:
        return parse(arguments)
    except ConfigError as error:
        return error


@given(st.lists(st.text(max_size=8)))
def test_any_words_are_parsed_or_refused(words: list[str]) -> None:
    came = outcome(words)

    if isinstance(came, ConfigError):
        assert came.code.startswith("signtool.")
        assert came.message
        assert came.hint


_PIECE = st.one_of(
    st.sampled_from([f"{mark}{name}" for name in FLAGS for mark in ("/", "-")]),
    st.sampled_from(["SHA256", "x.exe", "", "/", "-", "--", "/a/b", "0", "/?x", "/\u0661"]),
)


@given(st.sampled_from(sorted(COMMANDS)), st.lists(_PIECE, max_size=12))
def test_any_flags_are_parsed_or_refused(command: str, pieces: list[str]) -> None:
    parsed = outcome([command, *pieces])
    if isinstance(parsed, ConfigError) or parsed.help:
        return
    assert parsed.files
    assert not any(COMMANDS[command][name].refused for name in parsed.given)
    # Every argument is somewhere, once.
    taken = [value for times in parsed.given.values() for values in times for value in values]
    assert len(parsed.files) + len(taken) + sum(len(times) for times in parsed.given.values()) == len(pieces)


def test_exclusions_name_flags_that_exist() -> None:
    for command, table in EXCLUSIONS.items():
        for name, others in table.items():
            assert {name, *others} <= set(COMMANDS[command])


def test_the_documentation_tells_of_every_flag() -> None:
    told = dict.fromkeys(COMMANDS, "")
    for section in re.split(r"(?m)^## ", DOCUMENT.read_text("utf-8"))[1:]:
        name = section.partition("\n")[0].strip("`")
        if name in told:
            told[name] = section
    for command, flags in COMMANDS.items():
        rows = {
            flag: row
            for row in re.findall(r"(?m)^\|.*\|$", told[command])
            for flag in re.findall(r"`/(\w+)", row.split("|")[1])
        }
        assert set(flags) - {"q", "v", "debug"} == set(rows), command
        for name, flag in flags.items():
            if name in rows:
                assert bool(flag.refused) == ("| refused" in rows[name]), name
