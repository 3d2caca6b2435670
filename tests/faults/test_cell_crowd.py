# SPDX-License-Identifier: Apache-2.0
"""All hubs were away, and a crowd of clients comes back at once. A few here; a thousand in `make soak`."""

from pathlib import Path

import pytest

from postgres_server import PostgresServer
from several.crowd import crowd
from several.run import running_lab

pytestmark = pytest.mark.interop

CLIENTS = 100
#: A hub that has just started needs some 75 MiB.
MOST_MIB = 160


def test_every_client_of_a_crowd_is_served(postgres: PostgresServer, tmp_path: Path) -> None:
    with running_lab(tmp_path / "cell", postgres, sign_ms=5) as lab:
        memory = crowd(lab, CLIENTS, patience_seconds=60.0)
        assert max(mib for moment in memory for mib in moment) < MOST_MIB
        lab.judge()
