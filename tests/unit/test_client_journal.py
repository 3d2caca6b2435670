# SPDX-License-Identifier: Apache-2.0
"""The client's journal: the exact bytes of a request are on disk before the first send, until there is an answer."""

import os
import time
from pathlib import Path

import pytest

from privyseal.client.journal import journalled
from privyseal.errors import ConfigError

DAY_SECONDS = 86_400


def test_the_request_is_there_while_it_is_under_way(tmp_path: Path) -> None:
    with journalled(tmp_path / "journal", "abc", b"the bytes"):
        (kept,) = (tmp_path / "journal").iterdir()
        assert kept.read_bytes() == b"the bytes"
        assert kept.stat().st_mode & 0o077 == 0

    assert list((tmp_path / "journal").iterdir()) == []


def test_a_request_without_answer_stays(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), journalled(tmp_path, "abc", b"the bytes"):
        raise ZeroDivisionError

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the bytes"]


def test_what_is_a_week_old_is_cleared(tmp_path: Path) -> None:
    for name, days in (("old", 8), ("young", 6)):
        path = tmp_path / f"{name}.request.json"
        path.write_bytes(b"x")
        os.utime(path, (time.time() - days * DAY_SECONDS,) * 2)
    (tmp_path / "something-else").touch()
    os.utime(tmp_path / "something-else", (0, 0))

    with journalled(tmp_path, "abc", b"the bytes"):
        pass

    assert {path.name for path in tmp_path.iterdir()} == {"young.request.json", "something-else"}


def test_nothing_is_sent_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError) as caught, journalled(tmp_path / "file", "abc", b"the bytes"):
        pytest.fail("the block must not run")

    assert caught.value.code == "journal.unwritable"
