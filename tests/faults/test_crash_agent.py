# SPDX-License-Identifier: Apache-2.0
"""The agent is killed while its token works: what nobody knows is said, and repeated once and no more."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import ask
from crashes import Lab, running_lab
from installation import copy_of_program
from programs import command, environment, unchanged, until


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("crashes") / "lab") as lab:
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.begin()
    return shared


def test_an_outcome_that_nobody_knows_is_an_entry_and_the_item_is_repeated(lab: Lab) -> None:
    asked = ask(lab.site.client())
    sent = lab.hold(asked)
    lab.kill("agent")
    lab.site.start_agent()

    reply = sent.result(timeout=60)

    assert reply is not None
    lab.check_signed(reply, asked)
    assert lab.story() == ["intent", "unknown", "intent", "ok"]
    first, second = lab.fences()
    assert second > first, "the repetition stands under a new fence"


def test_an_outcome_that_is_unknown_twice_is_given_up(lab: Lab) -> None:
    asked = ask(lab.site.client())
    sent = lab.hold(asked)
    lab.kill("agent")
    lab.hold_next_start()
    lab.kill("agent")
    lab.site.start_agent()

    reply = sent.result(timeout=60)

    assert reply is not None
    (item,) = reply.document["items"]
    assert (item["state"], item["signature"]) == ("failed", "")
    assert item["code"] == "token.outcome_unknown"
    assert lab.story() == ["intent", "unknown", "intent", "unknown"]
    assert lab.again(asked).document == reply.document, "the same request is not tried a third time"
    assert lab.begun == 2


def test_a_signature_that_was_not_delivered_is_not_made_again(lab: Lab) -> None:
    asked = ask(lab.site.client())
    lab.hold(asked)
    lab.kill("hub")
    lab.thaw_token()
    until(lambda: lab.ended == 1, "the signature in the agent's journal")
    lab.kill("agent")

    lab.site.start_hub()
    lab.site.start_agent()
    lab.site.until_online("demo")

    lab.check_signed(lab.again(asked), asked)
    assert lab.story() == ["intent", "ok"]
    assert lab.begun == 1


def test_a_worker_that_dies_takes_nothing_with_it(lab: Lab) -> None:
    """Only the token's process is killed, before it signed: a new worker signs, and nobody notices."""
    asked = ask(lab.site.client())
    sent = lab.hold(asked)
    lab.kill_worker()

    reply = sent.result(timeout=60)

    assert reply is not None
    lab.check_signed(reply, asked)
    assert lab.story() == ["intent", "ok"]


def test_an_agent_that_is_asked_to_stop_ends_what_it_has_begun(lab: Lab) -> None:
    asked = ask(lab.site.client())
    sent = lab.hold(asked)
    agent = lab.site.running["agent"].process
    agent.terminate()
    lab.thaw_token()
    assert agent.wait(timeout=30) == 0
    lab.site.start_agent()

    reply = sent.result(timeout=60)

    assert reply is not None
    lab.check_signed(reply, asked)
    assert lab.story() == ["intent", "ok"]


def test_a_person_who_does_not_want_to_wait(lab: Lab, tmp_path: Path) -> None:
    """Ctrl-C while the token works: the program is as it was, and the hub ends what it has begun."""
    app = copy_of_program(tmp_path)
    lab.freeze_token()
    client = subprocess.Popen(
        command("sign", "--key", "demo", app),
        env=environment(tmp_path, lab.site.config),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until(lambda: lab.begun, "the job in the agent's journal")

    with unchanged(app):
        client.send_signal(signal.SIGINT)
        assert client.communicate(timeout=30) == (b"", b"interrupted\n")

    assert client.returncode == 130
    lab.thaw_token()
    until(lambda: lab.ended, "the signature in the agent's journal")
    other = ask(lab.site.client())
    lab.check_signed(lab.again(other), other)
    assert lab.story() == ["intent", "ok", "intent", "ok"]
