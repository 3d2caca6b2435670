# SPDX-License-Identifier: Apache-2.0
"""`privyseal status --watch` on terminals and without one: it follows what happens, and outlives a hub."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from programs import Running, command, environment, refused, succeeded, until
from queue_site import PROFILE, QueueSite, queue_site
from terminal import Answer, run_on_terminal

BEGIN, END = "\x1b[?1049h", "\x1b[?1049l"
_ESCAPE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueSite]:
    with queue_site(tmp_path_factory.mktemp("watch")) as made:
        yield made


def watched(
    queue: QueueSite, answers: dict[str, Answer], *, columns: int = 80, rows: int = 40, **more: str
) -> tuple[int, str]:
    variables = environment(queue.site.directory, queue.site.config, {"TERM": "xterm", **more})
    variables = {name: value for name, value in variables.items() if name != "NO_COLOR" or "NO_COLOR" in more}
    return run_on_terminal(
        command("status", "--watch"), variables, queue.site.directory, answers, columns=columns, rows=rows
    )


def frames(shown: str) -> list[list[str]]:
    """What stood on the screen, one after the other, without colours."""
    inside = shown.partition(BEGIN)[2].partition("\x1b[?7h")[0]
    return [_ESCAPE.sub("", frame).replace("\r", "").split("\n") for frame in inside.split("\x1b[H")[1:]]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_who_uses_the_token_and_what_waits(queue: QueueSite, columns: int) -> None:
    with queue.slow():
        queue.queued("ci-7", 40)
        queue.queued("night-1", 4, "nightly")
        code, shown = watched(queue, {"LAST  ": "q"}, columns=columns)

    assert code == 0, shown
    assert shown.rstrip().endswith(END)
    last = frames(shown)[-1]
    assert len(last) == 40
    assert max(map(len, last)) <= columns
    text = "\n".join(last)
    for heading in ("KEY PROFILE", "TOKEN ", "RECOVERIES", "IN USE", "QUEUE ", "DONE IN", "LAST "):
        assert heading in text
    assert re.search(rf"^lab/lab +ci-7 +{PROFILE} +normal +\d+ +\d\d:\d\d:\d\dZ$", text, re.MULTILINE)
    assert re.search(rf"^{PROFILE} +(\d+ normal, )?4 nightly +\d+ +\d\d:\d\d:\d\dZ +\d+ s$", text, re.MULTILINE)
    assert re.search(rf"Z +ci-7 +{PROFILE} +\d+ +signed$", text, re.MULTILINE)
    assert last[-1].endswith("q leaves")


def test_too_small_a_window_says_what_is_left_out(queue: QueueSite) -> None:
    code, shown = watched(queue, {"q leaves": "q"}, columns=30, rows=8)

    last = frames(shown)[-1]
    assert (code, len(last)) == (0, 8)
    assert max(map(len, last)) <= 30
    assert any("lines more" in line for line in last)


def test_ctrl_c_leaves_the_terminal_as_it_was(queue: QueueSite) -> None:
    code, shown = watched(queue, {"q leaves": "\x03"})

    assert code == 130
    assert END in shown
    assert shown.rstrip().endswith("interrupted")


def test_colours_are_left_out_where_nobody_wants_them(queue: QueueSite) -> None:
    _, coloured = watched(queue, {"q leaves": "q"})
    _, plain = watched(queue, {"q leaves": "q"}, NO_COLOR="1")

    assert "\x1b[32mready\x1b[0m" in coloured
    assert _COLOUR.search(plain) is None
    assert frames(plain)[-1][:2] == frames(coloured)[-1][:2]


def test_a_terminal_that_cannot_move_its_cursor_gets_blocks(queue: QueueSite) -> None:
    code, shown = watched(queue, {"traced: ": "\x03"}, TERM="dumb")

    assert code == 130
    assert _ESCAPE.search(shown) is None
    assert "KEY PROFILE" in shown


def test_a_hub_that_goes_away_is_waited_for(queue: QueueSite) -> None:
    def stop(_: str) -> str:
        queue.site.running["hub"].stop()
        return ""

    def start(_: str) -> str:
        queue.site.start_hub()
        queue.site.until_online(PROFILE)
        queue.site.add_client("afterwards")
        queue.send("afterwards", 1)
        return ""

    answers: dict[str, Answer] = {"q leaves": stop, "again in 2 s": start, "afterwards": "q"}
    code, shown = watched(queue, answers)

    assert code == 0, shown
    away = next(frame for frame in frames(shown) if frame[0].startswith("no hub: "))
    assert "KEY PROFILE" in "\n".join(away), "what was known before is still there"
    assert frames(shown)[-1][0].startswith("hub ")


def blocks(running: Running) -> list[str]:
    return [block for block in re.split(r"(?m)^(?=hub  )", running.out.read_text()) if block]


def wait_for(running: Running, holds: Callable[[Running], bool], what: str) -> None:
    until(lambda: holds(running), what)


def test_without_a_terminal_each_change_is_a_block_and_a_lost_hub_is_told(queue: QueueSite, tmp_path: Path) -> None:
    running = Running("status", "--watch", "--config", queue.site.config, said=tmp_path / "watch")
    wait_for(running, lambda one: bool(blocks(one)), "the first block")
    assert len(blocks(running)) == 1
    queue.send("ci-7", 2)
    wait_for(running, lambda one: "ci-7" in blocks(one)[-1], "what was signed")
    queue.site.running["hub"].stop()
    wait_for(running, lambda one: "no hub: " in one.log, "word of the lost hub")
    queue.site.start_hub()
    queue.site.until_online(PROFILE)
    queue.send("client", 3)
    wait_for(running, lambda one: "ci-7" not in blocks(one)[-1] and " 3      signed" in blocks(one)[-1], "the new hub")
    running.signal(signal.SIGINT)

    assert running.process.wait(timeout=20) == 130
    assert _ESCAPE.search(running.out.read_text()) is None
    assert "Traceback" not in running.log
    shown = blocks(running)
    assert all(one != other for one, other in pairwise(shown)), "no block says nothing new"


def test_json_lines_for_programs(queue: QueueSite, tmp_path: Path) -> None:
    running = Running("status", "--watch", "--json", "--config", queue.site.config, said=tmp_path / "watch")
    wait_for(running, lambda one: one.out.read_text().count("\n") >= 1, "the first line")
    running.signal(signal.SIGINT)

    assert running.process.wait(timeout=20) == 130
    first = json.loads(running.out.read_text().splitlines()[0])
    assert [(one["agent"], one["token"], one["lease"]) for one in first["tokens"]] == [("lab", "lab", "here")]
    assert {one["name"] for one in first["profiles"]} >= {PROFILE}
    status = succeeded(queue.site.run("status", "--json")).document
    assert status["profiles"][0]["queue"] == {"waiting": {}, "under_way": 0, "oldest_ms": None, "eta_seconds": None}


def test_what_another_try_would_not_change_ends_it(queue: QueueSite, tmp_path: Path) -> None:
    refused(queue.site.run("status", "--watch", "--events"), 2, "usage.arguments")
    gone = queue.site.add_client("gone")
    succeeded(queue.site.administer("hub", "revoke", "client", "gone"))
    running = Running("status", "--watch", "--config", gone, said=tmp_path / "watch")

    assert running.process.wait(timeout=20) == 6, running.log
    assert "[identity.revoked]" in running.log
