# SPDX-License-Identifier: Apache-2.0
"""The exit code of a batch says whether the same command may help."""

from pathlib import Path

import pytest

from privyseal.cli.outcomes import sum_up
from privyseal.client.signing import Outcome, Work
from privyseal.errors import MalformedInputError, PrivysealError, UnavailableError

AWAY = UnavailableError("timestamp.unavailable", "no TSA gave a timestamp")
BROKEN = MalformedInputError("file.unreadable", "cannot read it")


def outcome(error: PrivysealError | None = None, skipped: str = "") -> Outcome:
    path = Path("app.exe")
    return Outcome(work=Work(path=path, target=path), error=error, skipped=skipped)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((outcome(AWAY), outcome(AWAY)), 7),
        ((outcome(AWAY), outcome(BROKEN)), 9),
        ((outcome(BROKEN), outcome(BROKEN)), 9),
        ((outcome(AWAY), outcome(skipped="it is signed already")), 9),
        ((outcome(AWAY), outcome()), 9),
        ((outcome(), outcome()), 0),
    ],
)
def test_only_a_batch_that_failed_for_what_may_pass_is_worth_another_try(
    outcomes: tuple[Outcome, ...], code: int
) -> None:
    assert sum_up(outcomes, 1.0, 0, as_json=True) == code
