# SPDX-License-Identifier: Apache-2.0
"""What all entries of the log have."""

from typing import Annotated, Final

import msgspec

__all__ = ["BaseEntry", "Integer"]

_MAX_INTEGER: Final = 2**53 - 1

#: What RFC 8785 can write exactly.
Integer = Annotated[int, msgspec.Meta(ge=-_MAX_INTEGER, le=_MAX_INTEGER)]


class BaseEntry(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", forbid_unknown_fields=True):
    """What all entries have: grammar version and time in milliseconds since the epoch.

    Attributes:
        ts: Milliseconds since the epoch, by the hub's clock; never less than in the entry before.
        v: Version of the grammar: 1.
    """

    ts: Integer
    v: Integer = 1
