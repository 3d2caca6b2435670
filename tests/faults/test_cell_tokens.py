# SPDX-License-Identifier: Apache-2.0
"""One of two tokens is gone under load."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dying_token import outlive
from lab.shim_orders import REMOVED
from postgres_server import PostgresServer
from several.run import Lab

pytestmark = pytest.mark.interop


def pull_out(lab: Lab) -> None:
    lab.cell.tokens[1].break_with(REMOVED)


def kill_its_agent(lab: Lab) -> None:
    lab.cell.site.running["agent-1"].kill()
    lab.cell.start_agent(1)


@pytest.mark.parametrize("die", [pull_out, kill_its_agent], ids=lambda one: one.__name__)
def test_one_of_two_tokens_is_gone_under_load(
    postgres: PostgresServer, tmp_path: Path, die: Callable[[Lab], None]
) -> None:
    outlive(postgres, tmp_path, die)
