# SPDX-License-Identifier: Apache-2.0
"""What has room on a screen, and what cannot move its cursor."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.cli.watch_screen import fit, tinted

_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@given(st.lists(st.text(max_size=300), max_size=60), st.integers(1, 200), st.integers(1, 60))
def test_whatever_is_said_fits_and_moves_no_cursor(lines: list[str], columns: int, rows: int) -> None:
    shown = fit(lines, columns, rows)

    assert len(shown) <= rows
    assert all(len(line) <= columns for line in shown)
    assert all(line.isprintable() for line in shown)


def test_rows_are_cut_and_sentences_broken() -> None:
    row = "release  14 next, 2 release  6"
    sentence = "    next: " + "order the renewal now and put it on the token"

    assert fit([row], 20, 9) == ["release  14 next, 2…"]
    assert fit([sentence], 30, 9) == ["    next: order the renewal", "      now and put it on the", "      token"]
    assert fit([row, sentence], 80, 9) == [row, sentence]


def test_too_many_lines_say_how_many_are_missing() -> None:
    shown = fit([f"line{number}" for number in range(10)], 80, 4)

    assert shown[:3] == ["line0", "line1", "line2"]
    assert shown[3].startswith("… 7 lines more")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("KEY PROFILE  STATE  TIME P50/P99", "1"),
        ("EXPIRED  certificate of acme ended on 2026-01-01: nothing is signed with it", "1;31"),
        ("WARNING  certificate of acme ends in 19 days", "33"),
        ("    next: do this", "33"),
        ("no hub: it is away; again in 2 s", "1;31"),
        ("acme  ready  traced", "32"),
        ("acme  agent offline  traced", "31"),
        ("pi/etoken  another hub process (lease elsewhere)", "33"),
        ("hub     signing.example.com", None),
    ],
)
def test_colours_only_repeat_what_the_words_say(line: str, code: str | None) -> None:
    shown = tinted(line)

    assert _ESCAPE.sub("", shown) == line
    assert re.findall(r"\x1b\[([0-9;]*)m", shown) == ([] if code is None else [code, "0"])
