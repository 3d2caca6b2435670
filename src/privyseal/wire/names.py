# SPDX-License-Identifier: Apache-2.0
"""What can be the name of a client, an agent or a key profile: it stands in paths, messages and certificates."""

import re
from typing import Final

__all__ = ["NAME_RULE", "agent_witness_name", "is_name"]

NAME_RULE: Final = "letters, digits, '-', '_' and '.', at most 60, the first a letter or digit"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


def is_name(text: str) -> bool:
    """Whether `text` can be a name."""
    return _NAME.fullmatch(text) is not None


def agent_witness_name(hub: str, agent: str) -> str:
    """The key name under which an agent cosigns checkpoints: a policy tells by it whose witness it is."""
    return f"{hub}/agent/{agent}"
