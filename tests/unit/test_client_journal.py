# SPDX-License-Identifier: Apache-2.0
"""The client's journal: the exact bytes of a request are on disk before the first send, until its files are placed."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from lying_hub import make_trust
from privyseal.client.journal import RequestJournal
from privyseal.errors import ConfigError
from privyseal.tlog.entry import ArtifactDigest
from privyseal.wire.api import SignatureItem, SignatureRequest
from privyseal.wire.statement import ClaimedFile, RequestItem, RequestStatement, seal_request

DAY_SECONDS = 86_400


def make_body(name: str = "app.exe") -> SignatureRequest:
    item = RequestItem(
        preimage="0" * 64,
        artifact=ArtifactDigest(alg="sha256", digest="1" * 64),
        claimed=ClaimedFile(name=name, sha256="2" * 64, size=3),
    )
    statement = RequestStatement(
        hub="hub.example",
        profile="acme",
        format="authenticode-pe",
        items=(item,),
        idempotency_key="k",
        created=1,
        not_after=2,
    )
    envelope = seal_request(statement, make_trust().log_key)
    return SignatureRequest(envelope=envelope, preimages=(SignatureItem(signed=b"s", detail=b"d"),))


def test_a_request_is_kept_for_its_owner_until_it_is_forgotten(tmp_path: Path) -> None:
    journal, body = RequestJournal(tmp_path / "journal"), make_body()

    journal.keep("abc", body)

    (path,) = (tmp_path / "journal").iterdir()
    assert path.stat().st_mode & 0o077 == 0
    (kept,) = RequestJournal(tmp_path / "journal").open_requests()
    assert (kept.id, kept.body) == ("abc", body)
    assert kept.statement.items[0].claimed.name == "app.exe"
    journal.forget("abc")
    journal.forget("abc")
    assert list((tmp_path / "journal").iterdir()) == []
    assert list(journal.open_requests()) == []


def test_open_requests_come_in_the_order_in_which_they_were_kept(tmp_path: Path) -> None:
    journal = RequestJournal(tmp_path)
    for age, name in enumerate(("newest", "middle", "oldest")):
        journal.keep(name, make_body(name))
        os.utime(tmp_path / f"{name}.request.json", (time.time() - age * 60,) * 2)

    assert [kept.id for kept in journal.open_requests()] == ["oldest", "middle", "newest"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"envelope": "", "preimages": []}', msgspec.json.encode(make_body())[:-20], b"\xff" * 100],
    ids=["empty", "cut", "list", "no-statement", "truncated", "binary"],
)
def test_what_cannot_be_read_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "abc.request.json"
    path.write_bytes(content)

    assert list(RequestJournal(tmp_path).open_requests()) == []
    assert path.read_bytes() == content


def test_what_is_a_week_old_is_cleared(tmp_path: Path) -> None:
    for name, days in (("old", 8), ("young", 6)):
        path = tmp_path / f"{name}.request.json"
        path.write_bytes(b"x")
        os.utime(path, (time.time() - days * DAY_SECONDS,) * 2)
    (tmp_path / "something-else").touch()
    os.utime(tmp_path / "something-else", (0, 0))

    RequestJournal(tmp_path).keep("abc", make_body())

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "abc.request.json",
        "something-else",
        "young.request.json",
    ]


def test_a_journal_that_cannot_be_written_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError) as caught:
        RequestJournal(tmp_path / "file").keep("abc", make_body())

    assert caught.value.code == "journal.unwritable"


def spoil(folder: Path) -> None:
    """What a crash, another run at the same moment, or anybody with the same account may leave."""
    (folder / "gone.request.json").symlink_to("nowhere")
    (folder / "folder.request.json" / "x").mkdir(parents=True)
    os.utime(folder / "folder.request.json", (0, 0))
    os.mkfifo(folder / "fifo.request.json")
    with (folder / "large.request.json").open("wb") as stream:
        stream.truncate(1 << 40)


def test_what_stands_in_the_way_is_passed_over(tmp_path: Path) -> None:
    journal = RequestJournal(tmp_path)
    spoil(tmp_path)

    journal.keep("abc", make_body())

    assert [kept.id for kept in journal.open_requests()] == ["abc"]


def test_what_a_crash_left_of_a_file_that_was_being_written_is_cleared(tmp_path: Path) -> None:
    for age, name in ((8, ".old.request.json.77.tmp"), (0, ".new.request.json.78.tmp")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age * DAY_SECONDS,) * 2)

    RequestJournal(tmp_path).keep("abc", make_body())

    assert sorted(path.name for path in tmp_path.iterdir()) == [".new.request.json.78.tmp", "abc.request.json"]


def test_runs_that_keep_and_forget_at_the_same_time(tmp_path: Path) -> None:
    body = make_body()

    def run(number: int) -> int:
        journal, seen = RequestJournal(tmp_path), 0
        for turn in range(60):
            journal.keep(f"{number}-{turn}", body)
            seen += len(list(journal.open_requests()))
            journal.forget(f"{number}-{turn}")
        return seen

    with ThreadPoolExecutor(4) as pool:
        assert all(seen >= 60 for seen in pool.map(run, range(4)))
    assert list(tmp_path.iterdir()) == []
