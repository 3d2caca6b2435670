# SPDX-License-Identifier: Apache-2.0
"""The refusal `certificate.changed`: hubs say it of requests that name a key, clients of answers by another key."""

from typing import Final

from privyseal.errors import ConflictError

__all__ = ["CERTIFICATE_CHANGED", "certificate_changed"]

CERTIFICATE_CHANGED: Final = "certificate.changed"


def certificate_changed(profile: str) -> ConflictError:
    """Nothing is signed any more, or yet, with the key that a request names; `profile` may be empty."""
    whose = f"key profile {profile!r}" if profile else "the key profile"
    return ConflictError(
        CERTIFICATE_CHANGED,
        f"no token signs for {whose} with the key that was asked for",
        hint="ask for the key profile's certificates (privyseal status, GET /v1/profiles/NAME), and make what is to be"
        " signed anew with one of them",
    )
