# SPDX-License-Identifier: Apache-2.0
"""The protocol in every state of a small scope, and with each of its rules taken out (ADR 0020)."""

import os
from typing import Any

import msgspec
import pytest

import fork_model
from privyseal.agent import operations
from privyseal.hub import jobs
from privyseal.ports.journal import OutcomeState
from privyseal.tlog.checkpoint import open_checkpoint
from privyseal.tlog.note import parse_vkey
from protocol_model import Rules, Scope, explore

ONE = Scope(requests=1)
SCOPES = {
    "one request, three fences, two crashes": (Scope(requests=1, fences=3), 26_194),
    "two requests, two fences": (Scope(crashes=0, messages=1), 67_074),
    "two requests, one fence, a crash": (Scope(fences=1, crashes=1, messages=1), 12_540),
}
if "PRIVYSEAL_SOAK" in os.environ:
    SCOPES["two requests, two fences, a crash"] = (Scope(crashes=1, messages=1), 305_221)


@pytest.mark.parametrize("scope", SCOPES)
def test_the_protocol_holds_in_every_state(scope: str) -> None:
    tried, states = SCOPES[scope]

    found = explore(Rules(), tried)

    assert found.violated == set()
    assert found.states == states, "the model has changed: is this still the scope that its name tells?"
    assert found.quiet > 0


def test_a_network_that_repeats_and_reorders_makes_nothing_unseen() -> None:
    """TLS over TCP keeps order and repeats nothing. Without that the token's account alone does not balance.

    A job that comes twice is refused the second time, and the hub takes that for the end of the first.
    """
    found = explore(Rules(), Scope(requests=1, orderly=False))

    assert found.violated == {"I5"}


def unknown_is_failed(*arguments: Any) -> Any:
    return msgspec.structs.replace(operations.refusal(*arguments), unknown=False)


def test_no_intent_first() -> None:
    assert {"I2", "I4"} <= explore(Rules(intent_first=False), ONE).violated


def test_released_before_it_is_on_record() -> None:
    assert "I1" in explore(Rules(log_before_release=False), ONE).violated


def test_no_journal() -> None:
    assert {"I3", "I4"} <= explore(Rules(journal=False), ONE).violated


def test_a_journal_whose_word_is_not_heeded() -> None:
    """What was begun may be begun again."""
    scope = Scope(requests=1, fences=1, crashes=0, orderly=False)

    assert "I3" in explore(Rules(check_begin=lambda *_: None), scope).violated


def test_an_unknown_outcome_that_is_told_as_a_failure() -> None:
    assert "I5" in explore(Rules(refusal=unknown_is_failed), ONE).violated


def test_what_was_begun_is_told_as_never_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(operations._OUTCOME_STATES, OutcomeState.BEGUN, "never")
    assert "I5" in explore(Rules(), ONE).violated


def test_an_unknown_outcome_that_is_repeated_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_MAX_UNKNOWN", 99)
    assert "P4" in explore(Rules(), Scope(requests=1, fences=3, crashes=0)).violated


def test_the_agents_fence_saves_uses_of_the_token_and_breaks_no_account() -> None:
    """A stale job that were taken would be a use that is on record, and never released."""
    assert explore(Rules(check_fence=lambda _profile, fence, highest: fence > highest), ONE).violated == set()


# -- logs that fork ----------------------------------------------------------------------------------------------


def test_an_agent_signs_under_one_log() -> None:
    found = fork_model.explore()

    assert found.states > 1000
    assert found.signed > 20
    assert found.forks == 0


def test_an_agent_that_heeds_no_consistency_proof_signs_under_two() -> None:
    def signature_alone(job: Any, held: Any, bundle: Any) -> Any:
        return open_checkpoint(job.checkpoint, origin=bundle.hub, verifiers=(parse_vkey(bundle.statement.log_key),))

    assert fork_model.explore(signature_alone).forks > 0
