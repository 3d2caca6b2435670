# SPDX-License-Identifier: Apache-2.0
"""A pool of two agents, which are programs: one dies under load, one is drained; nothing is lost, or signed twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pool_programs import PoolPrograms, running_programs
from pool_site import pool_table
from privyseal.tlog.entry import Unknown
from programs import privyseal, succeeded, until

ONE, TWO = "one/software", "two/software"


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[PoolPrograms]:
    with running_programs(tmp_path, ("one", "two"), pool_table((ONE, TWO))) as running:
        yield running


def test_an_agent_dies_under_load(pool: PoolPrograms) -> None:
    """What it may have begun waits for it; all else goes on at once with the other."""
    keys = {place: member.key for place, member in pool.members().items()}
    before = [pool.queue(items=40) for _ in range(3)]
    pool.freeze("one")
    more = [pool.queue(items=40) for _ in range(6)]
    until(lambda: keys[ONE] in pool.open_items().values(), "items at the token that hangs")
    pool.agent("one").kill()
    pool.until_ready(TWO)
    after = [pool.queue(items=40) for _ in range(2)]

    def others_are_signed() -> bool:
        return set(pool.open_items().values()) == {keys[ONE]} and sum(pool.signatures().values()) == 440 - len(
            pool.open_items()
        )

    until(others_are_signed, "everything but what is open at the dead agent")
    waiting = pool.open_items()
    assert 0 < len(waiting) <= 128
    signed_before = pool.signatures()
    assert signed_before[keys[TWO]] > 0
    held = {request for request, _ in waiting}
    for request in (*before, *more, *after):
        assert pool.look(request).state == ("waiting" if request in held else "done")

    pool.start_agent("one")
    for request in (*before, *more, *after):
        assert [item.state for item in pool.ended(request).items] == ["signed"] * 40
    assert pool.open_items() == {}
    assert sum(pool.signatures().values()) == 440
    unknown = {(one.request, one.item) for one in pool.entries() if isinstance(one, Unknown)}
    assert unknown <= set(waiting), "only where the dead agent's journal holds a beginning without an end"


def test_a_token_that_hangs_keeps_the_one_item_that_it_is_at(pool: PoolPrograms) -> None:
    """The agent says that it makes no headway, and what is prepared behind the item goes to the other token."""
    keys = {place: member.key for place, member in pool.members().items()}
    pool.freeze("one")
    requests = [pool.queue(items=40) for _ in range(4)]
    until(lambda: list(pool.open_items().values()) == [keys[ONE]], "all but one item with the token that is well")
    ((held, item),) = pool.open_items()
    assert pool.signatures() == {keys[TWO]: 159}
    after = [pool.queue(items=8) for _ in range(3)]
    for request in {*requests, *after} - {held}:
        assert [one.state for one in pool.ended(request).items] == ["signed"] * len(pool.look(request).items)
    assert list(pool.open_items()) == [(held, item)], "nothing more was prepared for it"

    pool.kill_workers("one")
    assert [one.state for one in pool.ended(held).items] == ["signed"] * 40
    pool.until_ready(ONE, TWO)
    before = pool.signatures()[keys[ONE]]

    def is_used() -> bool:  # for a while the other one goes first
        pool.ended(pool.queue(items=40))
        return pool.signatures()[keys[ONE]] > before

    until(is_used, "it is used again")


def test_what_is_open_at_a_dead_agent_can_be_cancelled(pool: PoolPrograms) -> None:
    keys = {place: member.key for place, member in pool.members().items()}
    pool.freeze("one")
    requests = [pool.queue(items=8) for _ in range(4)]
    until(lambda: set(pool.open_items().values()) == {keys[ONE]}, "the other one is done")
    pool.agent("one").kill()
    pool.until_ready(TWO)
    held = sorted({request for request, _ in pool.open_items()})

    for request in held:
        assert pool.call("DELETE", f"/v1/signatures/{request}").status == 200
        assert pool.look(request).state == "waiting", "what became of it is not known yet"
    done = pool.signatures()
    pool.start_agent("one")
    for request in held:
        view = pool.ended(request)
        assert {(item.state, item.code) for item in view.items} <= {("failed", "request.cancelled"), ("signed", "")}
        assert view.items[-1].code == "request.cancelled"
    for request in set(requests) - set(held):
        assert [item.state for item in pool.ended(request).items] == ["signed"] * 8
    assert pool.signatures() == done, "nothing of it was signed"


def test_an_agent_that_is_lost_for_good_is_revoked(pool: PoolPrograms) -> None:
    """Nobody will ever know what became of its items: that is recorded, and they are repeated, once, by the other."""
    keys = {place: member.key for place, member in pool.members().items()}
    pool.freeze("one")
    requests = [pool.queue(items=8) for _ in range(4)]
    until(lambda: set(pool.open_items().values()) == {keys[ONE]}, "the other one is done")
    held = set(pool.open_items())
    pool.agent("one").kill()
    pool.until_ready(TWO)

    succeeded(pool.site.administer("hub", "revoke", "agent", "one"))
    for request in requests:
        assert [item.state for item in pool.ended(request).items] == ["signed"] * 8
    unknown = {(one.request, one.item) for one in pool.entries() if isinstance(one, Unknown)}
    assert unknown == held
    assert pool.signatures() == {keys[TWO]: 32}


def test_a_token_is_drained_while_it_works(pool: PoolPrograms) -> None:
    keys = {place: member.key for place, member in pool.members().items()}
    requests = [pool.queue(items=60) for _ in range(4)]
    drained = succeeded(privyseal("token", "drain", "software", "--dir", pool.directory("one"), "--json")).document
    assert drained["state"] == "drained"
    pool.until_ready(TWO)
    for request in requests:
        assert [item.state for item in pool.ended(request).items] == ["signed"] * 60
    before = pool.signatures()

    for _ in range(3):
        pool.ended(pool.queue(items=5))
    assert pool.signatures() - before == {keys[TWO]: 15}
    assert pool.members()[ONE].code == "token.drained"
    said = succeeded(pool.site.run("status")).out
    assert "demo is a pool:" in said
    assert "token.drained" in said

    succeeded(privyseal("token", "resume", "software", "--dir", pool.directory("one")))
    pool.until_ready(ONE, TWO)
    for _ in range(4):
        pool.ended(pool.queue())
    assert pool.signatures()[keys[ONE]] > before[keys[ONE]]
