# SPDX-License-Identifier: Apache-2.0
"""The tokens of a key profile in `status`."""

import msgspec

__all__ = ["MemberStatus"]


class MemberStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One of the tokens that serve a key profile.

    Attributes:
        token: `AGENT/TOKEN`, as hub.toml names it.
        key: SHA-256 of its public key (SPKI, DER) in hex; empty if it is not known.
        is_asked: Whether requests that are made now may go to it: not to a successor before its time, nor to those
            that it follows from then on.
        online: Whether it can sign now.
        code, problem, hint: Why not, as in docs/errors; empty if it can, or if only its agent is missing.
    """

    token: str
    key: str
    token_label: str
    hardware: bool
    is_asked: bool
    online: bool
    subject: str
    not_after: str
    code: str = ""
    problem: str = ""
    hint: str = ""
