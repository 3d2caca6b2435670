# SPDX-License-Identifier: Apache-2.0
"""Data on stdout, talk on stderr, and nothing that moves the cursor of a terminal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.cli.render import emit, emit_error, printable, say, table
from privyseal.errors import PrivysealError, TokenError, UnavailableError


def test_a_result_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"name": "größe"}, ("one", "two"), as_json=False)
    assert capsys.readouterr() == ("one\ntwo\n", "")

    emit({"name": "größe"}, ("one", "two"), as_json=True)
    out, err = capsys.readouterr()
    assert (json.loads(out), out.count("\n"), err) == ({"name": "größe"}, 1, "")


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\r", "\n", "\x07", "\u202e", "\x9b", "\u2028", "\x00", "\udcff"])
def test_lines_for_people_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str], hostile: str) -> None:
    emit({}, (f"signed    a{hostile}b.exe",), as_json=False)

    assert (
        capsys.readouterr().out
        == "signed    a"
        + "?" * len(hostile.replace("[2J", ""))
        + ("[2J" if hostile.endswith("[2J") else "")
        + "b.exe\n"
    )


@given(st.text())
def test_printable_text_is_as_long_and_printable(text: str) -> None:
    shown = printable(text)

    assert len(shown) == len(text)
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert printable(shown) == shown


@pytest.mark.parametrize(
    "error", [TokenError("token.x", "no\x1b token", hint="do\x07 this"), UnavailableError("a.b", "m")]
)
def test_an_error_in_words_and_as_data(capsys: pytest.CaptureFixture[str], error: PrivysealError) -> None:
    emit_error(error, as_json=True)

    out, err = capsys.readouterr()
    assert json.loads(out)["error"] == {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "exit": error.exit_status,
        "retryable": error.retryable,
    }
    assert err.splitlines()[0].endswith(f"[{error.code}]")
    assert len(err.splitlines()) == 1 + bool(error.hint)
    assert "\x1b" not in out + err
    assert "\x07" not in out + err


def test_talk_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("hello")

    assert capsys.readouterr() == ("", "hello\n")


def test_a_table_is_aligned_without_trailing_space() -> None:
    rows = [("NAME", "STATE"), ("a-long-name", ""), ("b\x1b", "ready")]

    assert list(table(rows)) == ["NAME         STATE", "a-long-name", "b?           ready"]


def test_a_name_cannot_make_a_second_row(capsys: pytest.CaptureFixture[str]) -> None:
    emit({}, table([("NAME",), ("a\nb",)]), as_json=False)

    assert capsys.readouterr().out == "NAME\na?b\n"
