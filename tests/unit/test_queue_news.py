# SPDX-License-Identifier: Apache-2.0
"""What is told of a request's progress: what changed, and an estimate only if it is off."""

import pytest
from msgspec.structs import replace

from privyseal.hub.services.queue_views import is_news
from privyseal.wire.queue import RequestProgress, is_request_prefix

NOW = RequestProgress(
    id="ab" * 32,
    state="waiting",
    priority="normal",
    position=40,
    eta_seconds=100.0,
    total=10,
    waiting=10,
    under_way=0,
    signed=0,
    failed=0,
)


@pytest.mark.parametrize(
    "changed",
    [
        {"position": 39},
        {"state": "done"},
        {"priority": "next"},
        {"waiting": 9, "under_way": 1},
        {"eta_seconds": None},
        {"eta_seconds": 111.0},
        {"eta_seconds": 89.0},
    ],
    ids=str,
)
def test_what_changed_is_told(changed: dict[str, object]) -> None:
    assert is_news(NOW, replace(NOW, **changed), 0.0)


def test_the_first_look_is_told_and_the_same_again_is_not() -> None:
    assert is_news(None, NOW, 0.0)
    assert not is_news(NOW, NOW, 0.0)
    unknown = replace(NOW, eta_seconds=None)
    assert not is_news(unknown, unknown, 1000.0)
    assert is_news(unknown, NOW, 0.0)


@pytest.mark.parametrize(
    ("eta_seconds", "elapsed_seconds", "told"),
    [(109.0, 0.0, False), (70.0, 30.0, False), (76.0, 30.0, False), (80.0, 30.0, True), (0.0, 200.0, False)],
)
def test_who_was_told_counts_down_by_itself(eta_seconds: float, elapsed_seconds: float, told: bool) -> None:  # noqa: FBT001
    assert is_news(NOW, replace(NOW, eta_seconds=eta_seconds), elapsed_seconds) is told


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("0123abcd", True),
        ("ab" * 32, True),
        ("0123abc", False),
        ("0123ABCD", False),
        ("0123abc%", False),
        ("ab" * 32 + "a", False),
        ("", False),
        ("٠١٢٣٤٥٦٧", False),
    ],
)
def test_the_beginning_of_an_id_is_eight_hex_digits_or_more(text: str, is_one: bool) -> None:  # noqa: FBT001
    assert is_request_prefix(text) is is_one
