# SPDX-License-Identifier: Apache-2.0
"""Reading a quorum policy (C2SP tlog-policy) from its file."""

from pathlib import Path

from privyseal.errors import ConfigError
from privyseal.tlog.quorum import MAX_POLICY_BYTES, QuorumPolicy, parse_policy

__all__ = ["load_policy", "read_bounded"]


def load_policy(path: Path) -> QuorumPolicy:
    """The policy in a file.

    Raises:
        ConfigError: `file.missing`.
        MalformedInputError: `quorum.malformed`, and what a key in it raises.
    """
    return parse_policy(read_bounded(path, MAX_POLICY_BYTES))


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """The content of a file; of one that is too long no more than shows that.

    Raises:
        ConfigError: `file.missing`.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit_bytes + 1)
    except OSError as error:
        raise ConfigError("file.missing", f"cannot read {path}: {error.strerror}") from error
