# SPDX-License-Identifier: Apache-2.0
"""The lab's card, with an RSA key and one that wants its PIN for each signature."""

import pytest

from lab.piv.keys import CardKey, load_or_make_keys
from lab.piv.station import Station
from piv_script import EC_SLOT, PIN, RSA_SLOT


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CardKey]:
    return load_or_make_keys(tmp_path_factory.mktemp("keys"), {RSA_SLOT: "rsa2048", EC_SLOT: "p256"})


@pytest.fixture
def station(keys: dict[int, CardKey]) -> Station:
    return Station(keys, pin=PIN.decode())
