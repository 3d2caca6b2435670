# SPDX-License-Identifier: Apache-2.0
"""The key profiles of a hub as candidates for a choice by certificate."""

from privyseal.client.certificate_choice import Candidate
from privyseal.client.hub import HubClient
from privyseal.errors import ConfigError, TokenError

__all__ = ["candidates"]


def candidates(hub: HubClient) -> tuple[Candidate, ...]:
    """All of them, also those that cannot be used now, with the reason; a pool's once for each certificate.

    Raises:
        UnavailableError, IdentityError: the hub cannot be asked.
    """
    found = []
    for one in hub.status().profiles:
        problem = one.problem
        chains: tuple[tuple[bytes, ...], ...] = ((),)
        if not problem:
            try:
                view = hub.profile(one.name)
            except (TokenError, ConfigError) as error:  # it has changed meanwhile
                problem = str(error)
            else:
                chains = (view.chain, *view.others)
                problem = "" if view.online else "its agent is offline"
        found += [Candidate(profile=one.name, chain=chain, problem=problem, test=one.test) for chain in chains]
    return tuple(found)
