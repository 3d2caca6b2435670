# SPDX-License-Identifier: Apache-2.0
"""The states of a token."""

from dataclasses import dataclass
from enum import Enum

from privyseal.agent.keys import SeenToken
from privyseal.errors import PrivysealError

__all__ = ["TokenNow", "TokenState"]


class TokenState(Enum):
    """Whether a token signs, and why not."""

    READY = "ready"
    ABSENT = "absent"
    BLOCKED = "blocked"  #: its PIN must not be presented before a person acts
    QUARANTINED = "quarantined"  #: it came back as another one
    DRAINED = "drained"
    LENT = "lent"  #: its device is lent as a whole; what is to be signed waits
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenNow:
    """How the token is."""

    state: TokenState
    problem: PrivysealError | None = None
    seen: SeenToken | None = None
