# SPDX-License-Identifier: Apache-2.0
"""The revisions of a hub's database: one line of them, whose end is the one that this release reads."""

from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from privyseal.errors import ConfigError
from privyseal.storage import schema
from privyseal.storage.schema import REVISION, Dialect, upgrade_statements

MIGRATIONS = Path(schema.__file__).with_name("migrations")


def test_the_newest_revision_is_the_one_that_is_read() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [REVISION]


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_both_databases_get_the_same_tables(dialect: Dialect) -> None:
    statements = list(upgrade_statements(dialect, None))
    tables = sorted({text.split()[2] for text in statements if text.startswith("CREATE TABLE")})

    assert tables == [
        "agent_event",
        "authority_statement",
        "enrolment",
        "job",
        "job_preimage",
        "join_code",
        "key_grant",
        "key_profile",
        "lease",
        "log_checkpoint",
        "log_cosigned",
        "log_entry",
        "log_head",
        "log_node",
        "privyseal_schema",
        "request",
    ]
    assert not any(";" in statement for statement in statements)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_nothing_is_done_to_the_newest(dialect: Dialect) -> None:
    assert list(upgrade_statements(dialect, REVISION)) == []


def test_a_revision_of_a_newer_release_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        upgrade_statements("postgresql", "0999")

    assert caught.value.code == "store.schema"
    assert "newer" in caught.value.hint
