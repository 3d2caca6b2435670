# SPDX-License-Identifier: Apache-2.0
"""One of two tokens hangs under load."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dying_token import outlive
from lab.shim_orders import hangs, hangs_after
from postgres_server import PostgresServer
from several.run import Lab

pytestmark = pytest.mark.interop


def hang_before_c_sign(lab: Lab) -> None:
    lab.cell.tokens[1].break_with(hangs("C_SignInit"))


def hang_in_c_sign(lab: Lab) -> None:
    lab.cell.tokens[1].break_with(hangs("C_Sign"))


def sign_and_hang(lab: Lab) -> None:
    lab.cell.tokens[1].break_with(hangs_after("C_Sign"))


@pytest.mark.parametrize("die", [hang_before_c_sign, hang_in_c_sign, sign_and_hang], ids=lambda one: one.__name__)
def test_one_of_two_tokens_hangs_under_load(
    postgres: PostgresServer, tmp_path: Path, die: Callable[[Lab], None]
) -> None:
    outlive(postgres, tmp_path, die)
