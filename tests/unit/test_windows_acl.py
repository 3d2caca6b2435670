# SPDX-License-Identifier: Apache-2.0
"""Private files on Windows: what a security descriptor says, and what is done where icacls says nothing."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import ConfigError
from privyseal.identity.windows_acl import protect, refuse_if_open, strangers

MINE = "D:PAI(A;;FA;;;OW)(A;;FA;;;SY)(A;;FA;;;BA)"


@pytest.mark.parametrize(
    ("sddl", "found"),
    [
        (MINE, ()),
        ("D:(A;;FA;;;S-1-5-21-1-2-3-1001)", ()),
        ("D:AI(A;ID;FA;;;SY)(A;ID;0x1200a9;;;BU)", ("Users",)),
        ("O:BAG:BAD:(A;;FR;;;WD)(A;;FR;;;AU)(A;;FR;;;WD)", ("Everyone", "Authenticated Users")),
        ("D:(A;;FR;;;S-1-1-0)", ("Everyone",)),
        ("D:(D;;FA;;;WD)(A;;FA;;;OW)", ()),
        ("D:(OA;;FR;a;b;IU)", ("Interactive",)),
        ("D:(A;;FA;;;OW)S:(AU;SAFA;FA;;;WD)", ()),
        ("O:BAG:BA", ("Everyone",)),
        ("", ("Everyone",)),
    ],
)
def test_whom_a_descriptor_lets_in(sddl: str, found: tuple[str, ...]) -> None:
    assert strangers(sddl) == found


@given(st.text(max_size=200))
def test_any_text_is_judged(sddl: str) -> None:
    assert isinstance(strangers("D:" + sddl), tuple)


def saving(sddl: str, code: int = 0) -> object:
    def run(arguments: tuple[str, ...]) -> int:
        if code == 0:
            Path(arguments[2]).write_text(f"request.key\n{sddl}\n", "utf-16")
        return code

    return run


def test_a_private_file_is_read_if_nobody_else_can(tmp_path: Path) -> None:
    refuse_if_open(tmp_path / "request.key", saving(MINE))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("run", "code"),
    [(saving("D:(A;;FR;;;BU)"), "file.too_open"), (saving(MINE, 5), "file.unprotected")],
    ids=["users", "icacls-fails"],
)
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, run: object, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_if_open(tmp_path / "request.key", run)  # type: ignore[arg-type]

    assert caught.value.code == code
    assert "request.key" in caught.value.message


def test_a_place_that_cannot_be_closed_is_refused(tmp_path: Path) -> None:
    given_arguments: list[tuple[str, ...]] = []

    def run(arguments: tuple[str, ...]) -> int:
        given_arguments.append(arguments)
        return len(given_arguments) - 1

    protect(tmp_path / "key", run)
    with pytest.raises(ConfigError) as caught:
        protect(tmp_path / "key", run)

    assert caught.value.code == "file.unprotected"
    assert given_arguments[0][:3] == (str(tmp_path / "key"), "/inheritance:r", "/grant:r")
