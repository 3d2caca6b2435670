# SPDX-License-Identifier: Apache-2.0
"""What a token's configuration must say, and the names of return values."""

from typing import Any

import pytest

from privyseal.errors import ConfigError
from privyseal.tokens.ckr import Ckr, Rv, ckr_name
from privyseal.tokens.config import TokenConfig

GOOD: dict[str, Any] = {"name": "lab", "kind": "pkcs11", "module": "/m.so", "journal": "/j"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "usb"}, "neither software nor pkcs11"),
        ({"module": ""}, "needs `module`"),
        ({"kind": "software"}, "needs `path`"),
        ({"journal": ""}, "`journal` is missing"),
        ({"sign_seconds": 0}, "`sign_seconds` must be above 0"),
        ({"call_seconds": float("nan")}, "`call_seconds` must be above 0"),
        ({"start_seconds": float("inf")}, "`start_seconds` must be above 0"),
        ({"respawn_seconds": -1}, "`respawn_seconds` must be 0"),
        ({"environment": {"A=B": "c"}}, "'A=B'"),
        ({"environment": {"A": "b\0"}}, "'A'"),
        ({"environment": {"": "b"}}, "''"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change: dict[str, Any], says: str) -> None:
    assert TokenConfig(**GOOD).name == "lab"

    with pytest.raises(ConfigError) as caught:
        TokenConfig(**(GOOD | change))

    assert caught.value.code == "config.token"
    assert says in caught.value.message


def test_return_values_have_the_names_of_the_standard() -> None:
    assert ckr_name(0) == "CKR_OK"
    assert ckr_name(0xA4) == "CKR_PIN_LOCKED"
    assert ckr_name(0x1B7) == "CKR_LIBRARY_LOAD_FAILED"
    assert ckr_name(0xCE534351) == "CKR_VENDOR_DEFINED (0xCE534351)"
    assert ckr_name(0x4242) == "CK_RV 0x00004242"


def test_an_error_of_a_function_names_it_and_its_value() -> None:
    error = Ckr("C_SignInit", Rv.DEVICE_REMOVED)

    assert str(error) == "C_SignInit returned CKR_DEVICE_REMOVED [token.not_found]"
    assert (error.ckr, error.function, error.begun) == (0x32, "C_SignInit", False)
    assert all(Ckr("C_Sign", value).hint for value in (*Rv, 0x4242, 2**40))
