# SPDX-License-Identifier: Apache-2.0
"""One line is put into hub.toml, and every other stays."""

import tomllib

import pytest

from privyseal.hub.database_line import with_database

URL = 'postgresql://hub@/privyseal?host=/run/"quoted"&port=5433'
LINE = 'database = "postgresql://hub@/privyseal?host=/run/\\"quoted\\"&port=5433"'

AS_MADE = """\
# A hub.
name = "hub.example"  # its name

# A PostgreSQL database instead; without a password.
# database = "postgresql://privyseal@/privyseal?host=/run/postgresql"

# TSAs
# [[tsa]]
"""
WITH_TABLES = """\
name = "hub.example"
web_url = "https://hub"

# TSAs
[[tsa]]
url = "http://tsa"

[metrics]
# database = "not here"
allow = [
  "::1",
]
"""
MANY_LINES = '''\
name = """
database = ""
[tsa]
web_url = 1"""
'''


@pytest.mark.parametrize(
    ("text", "before"),
    [
        (AS_MADE, '# database = "postgresql://privyseal@/privyseal?host=/run/postgresql"'),
        (WITH_TABLES, 'web_url = "https://hub"'),
        ('name = "x"\nweb_url = "y"', 'web_url = "y"'),
        (MANY_LINES, ""),
        ("[metrics]\nallow = []\n", ""),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_line_is_put_behind_its_example_or_the_last_entry(text: str, before: str, newline: str) -> None:
    text = text.replace("\n", newline)

    changed = with_database(text, URL)

    lines = changed.split(newline)
    assert tomllib.loads(changed) == {**tomllib.loads(text), "database": URL}
    place = lines.index(LINE)
    assert (lines[place - 1] if place else "") == before
    del lines[place]
    assert newline.join(lines).rstrip() == text.rstrip()


@pytest.mark.parametrize("empty", ['database = ""', "  database=''  # none yet"])
def test_an_empty_address_is_filled_in(empty: str) -> None:
    text = f'name = "x"\n{empty}\n[metrics]\n'

    changed = with_database(text, "postgresql://x@localhost/y")

    filled = empty.replace('""', "''").replace("''", '"postgresql://x@localhost/y"')
    assert changed == f'name = "x"\n{filled}\n[metrics]\n'
