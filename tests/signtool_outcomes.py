# SPDX-License-Identifier: Apache-2.0
"""How `privyseal signtool` may end, with SignTool's words and exit codes."""

from programs import Outcome

__all__ = ["FD", "ended", "failed"]

#: SignTool wants it each time.
FD = ("/fd", "SHA256")


def failed(outcome: Outcome, *codes: str) -> Outcome:
    assert "Traceback" not in outcome.err, outcome.err
    errors = [line for line in outcome.err.splitlines() if line.startswith("SignTool Error: ")]
    assert [line.rpartition("[")[2].rstrip("]") for line in errors] == list(codes), outcome
    assert outcome.code == 1, outcome
    return outcome


def ended(outcome: Outcome, code: int) -> Outcome:
    assert "Traceback" not in outcome.err, outcome.err
    assert outcome.code == code, outcome
    return outcome
