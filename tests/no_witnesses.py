# SPDX-License-Identifier: Apache-2.0
"""The hub's side of witnesses where a test needs none."""

from pathlib import Path

from lying_hub import make_trust
from privyseal.hub.services.audit import Audit
from privyseal.hub.services.witnesses import Witnesses
from privyseal.hub.witness_http import WitnessClient
from privyseal.identity.trust import PinnedTrust
from privyseal.ports.store import Store

__all__ = ["no_witnesses"]


def no_witnesses(store: Store, audit: Audit) -> Witnesses:
    """Under a trust bundle that names nobody."""
    trust = PinnedTrust(Path("bundle.json"), make_trust().bundle)
    return Witnesses(store=store, audit=audit, trust=trust, links=dict, client=WitnessClient())
