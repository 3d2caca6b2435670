# SPDX-License-Identifier: Apache-2.0
"""The hub is killed while a token works: the same bytes sent again give one signature, and the log stays whole."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import ask
from crashes import Lab, running_lab
from installation import copy_of_program
from programs import command, environment, succeeded, until


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("crashes") / "lab") as lab:
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.begin()
    return shared


def test_the_token_ends_while_the_hub_is_away(lab: Lab) -> None:
    asked = ask(lab.site.client())
    sent = lab.hold(asked)
    lab.kill("hub")
    assert sent.result(timeout=10) is None
    lab.thaw_token()
    until(lambda: lab.ended == 1, "the signature in the agent's journal")

    lab.site.start_hub()
    lab.site.until_online("demo")

    lab.check_signed(lab.again(asked), asked)
    assert lab.story() == ["intent", "ok"], "the agent's journal knew the signature: the token was used once"
    assert lab.begun == 1


def test_the_token_ends_when_the_hub_is_back(lab: Lab) -> None:
    asked = ask(lab.site.client())
    lab.hold(asked)
    lab.kill("hub")
    lab.site.start_hub()
    lab.site.until_online("demo")
    again = lab.send(asked)

    lab.thaw_token()

    reply = again.result(timeout=60)
    assert reply is not None
    lab.check_signed(reply, asked)
    assert lab.story() == ["intent", "ok"]


def test_the_hub_is_killed_twice(lab: Lab) -> None:
    asked = ask(lab.site.client())
    lab.hold(asked)
    for _ in range(2):
        lab.kill("hub")
        lab.site.start_hub()
    lab.thaw_token()
    lab.site.until_online("demo")

    lab.check_signed(lab.again(asked), asked)
    assert lab.story() == ["intent", "ok"]


def test_a_job_that_never_reached_the_agent_goes_back_into_the_queue(lab: Lab) -> None:
    asked = ask(lab.site.client())
    agent = lab.site.running["agent"]
    agent.signal(signal.SIGSTOP)
    size = lab.log_size
    lab.send(asked)
    until(lambda: lab.log_size > size, "the intent in the log")
    lab.kill("hub", "agent")

    lab.site.start_hub()
    lab.site.start_agent()
    lab.site.until_online("demo")

    lab.check_signed(lab.again(asked), asked)
    assert lab.story() == ["intent", "not-used", "intent", "ok"]
    assert lab.begun == 1, "the token was used once"


def test_a_long_queue_outlives_the_hub(lab: Lab) -> None:
    """Some items are at the token, some prepared, some have no intent yet."""
    asked = ask(lab.site.client(), items=40)
    lab.hold(asked)
    lab.kill("hub")
    lab.site.start_hub()
    lab.thaw_token()
    lab.site.until_online("demo")

    lab.check_signed(lab.again(asked), asked)
    story = lab.story()
    assert story.count("ok") == 40
    assert story.count("intent") == 40 + story.count("not-used")
    assert lab.begun == 40


def test_what_a_client_was_doing_can_be_done_again(lab: Lab, tmp_path: Path) -> None:
    """At the command line: the first attempt ends as unavailable with the program as it was, the next takes it up."""
    lab.site.save_roots("demo")
    app = copy_of_program(tmp_path)
    original = app.read_bytes()
    begun = lab.begun
    lab.freeze_token()
    client = subprocess.Popen(
        command("sign", "--key", "demo", "--timeout", "10", app),
        env=environment(tmp_path, lab.site.config),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until(lambda: lab.begun > begun, "the job in the agent's journal")
    lab.kill("hub")
    _, said = client.communicate(timeout=60)
    assert client.returncode == 7
    assert b"[hub.unreachable]" in said
    assert app.read_bytes() == original
    assert [path.name for path in app.parent.iterdir() if "app" in path.name] == ["app.exe"]

    lab.thaw_token()
    lab.site.start_hub()
    lab.site.until_online("demo")
    succeeded(lab.site.run("sign", "--key", "demo", app))
    succeeded(lab.site.run("verify", "--trust", lab.site.roots, app))
    assert lab.story() == ["intent", "ok"], "the client took up the request that it had kept"


def test_a_client_that_waits_outlives_its_hub(lab: Lab, tmp_path: Path) -> None:
    """At the command line: the hub is killed while the token signs, and comes back; nobody has to do anything again."""
    app = copy_of_program(tmp_path)
    begun = lab.begun
    lab.freeze_token()
    client = subprocess.Popen(
        command("sign", "--key", "demo", app),
        env=environment(tmp_path, lab.site.config),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until(lambda: lab.begun > begun, "the job in the agent's journal")
    lab.kill("hub")
    lab.thaw_token()
    lab.site.start_hub()
    _, said = client.communicate(timeout=60)

    assert client.returncode == 0, said
    lab.site.save_roots("demo")
    succeeded(lab.site.run("verify", "--trust", lab.site.roots, app))
    assert lab.story() == ["intent", "ok"]
