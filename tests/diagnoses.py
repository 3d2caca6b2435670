# SPDX-License-Identifier: Apache-2.0
"""Reading what `privyseal doctor` found."""

from collections.abc import Iterable

from privyseal.errors import branch_named
from privyseal.ports.diagnosis import Row, Verdict

__all__ = ["fails", "row", "verdicts"]


def row(rows: Iterable[Row], subject: str) -> Row:
    """The one row about a subject; if it is no pass, it says what to do."""
    (found,) = [one for one in rows if one.subject == subject]
    assert found.found
    assert (found.verdict is Verdict.PASS) == (found.next_step == "")
    return found


def verdicts(rows: Iterable[Row]) -> dict[str, Verdict]:
    """Subjects that are not sound."""
    return {one.subject: one.verdict for one in rows if one.verdict is not Verdict.PASS}


def fails(found: Row, code: str, branch: str) -> None:
    """The row is a fail for this reason, with the exit code of this branch."""
    assert (found.verdict, found.code) == (Verdict.FAIL, code), found
    assert found.exit_status == branch_named(branch).exit_status
    assert found.next_step
