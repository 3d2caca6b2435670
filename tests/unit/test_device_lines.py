# SPDX-License-Identifier: Apache-2.0
"""What is said of devices and of the ends of leases."""

import pytest
from msgspec.structs import replace

from privyseal.cli.device import _seconds
from privyseal.cli.device_end import end_data, end_error, end_lines
from privyseal.cli.device_lines import cost_text, device_lines, lease_lines
from privyseal.client.devices import LeaseEnd, found_device, in_use
from privyseal.errors import ConfigError, UnavailableError
from privyseal.wire.devices import DevicesView, DeviceView, LeaseView
from privyseal.wire.leases import LeaseReport, LeaseTally

NOW_MS = 1_800_000_000_000
LENT = LeaseView(
    request="ab" * 32,
    client="build-7",
    state="lent",
    priority="normal",
    reason="renewal",
    seconds=600,
    queued_ms=NOW_MS,
    since_ms=NOW_MS,
    until_ms=NOW_MS + 600_000,
)
WAITS = LeaseView(
    request="cd" * 32, client="ci-1", state="waiting", priority="release", reason="", seconds=90, queued_ms=NOW_MS
)


def device(**fields: object) -> DeviceView:
    known: dict[str, object] = {"name": "ev", "agent": "pi", "place": "pi/ev", "label": "Token", "serial": "01"}
    return DeviceView(**(known | {"level": "traced", "online": True} | fields))  # type: ignore[arg-type]


def test_a_device_says_who_has_it() -> None:
    states = (
        device(),
        device(name="b", leases=(LENT, WAITS), waiting=1),
        device(name="c", signing=True),
        device(name="d", online=False, code="usb.not_found", problem="it is not there", hint="insert it"),
        device(name="e", leases=(replace(LENT, since_ms=None, until_ms=None),)),
    )
    lines = list(device_lines(states, NOW_MS))
    assert [line.split()[2] for line in lines[1:3]] == ["free", "lent"]
    assert "build-7 (renewal)" in lines[2]
    assert "its token signs" in lines[3]
    assert "not there" in lines[4]
    assert "for 10 min 00 s" in lines[5]
    assert lines[6:] == ["  d: it is not there [usb.not_found]", "    next: insert it"]
    assert list(device_lines((), NOW_MS)) == []


def test_leases_that_are_not_shown_are_counted() -> None:
    lines = list(lease_lines((device(leases=(LENT, WAITS), waiting=40),), NOW_MS))
    assert len(lines) == 4
    assert lines[-1] == "and 39 more wait"
    assert list(lease_lines((device(),), NOW_MS)) == ["nobody has a device, and nobody waits for one"]


def test_no_text_of_others_moves_the_cursor() -> None:
    evil = replace(LENT, reason="\x1b[2Jx")
    assert all("\x1b" not in line for line in lease_lines((device(leases=(evil,)),), NOW_MS))


def test_what_a_signature_costs() -> None:
    assert "100 round trips to its agent, 5 s or more from here; by `privyseal sign`: one, 50.0 ms" in cost_text(0.05)
    assert "200 ms or more" in cost_text(0.002)


def test_a_device_by_its_name() -> None:
    view = DevicesView(devices=(device(),), bundle=b"")
    assert found_device(view, "ev").name == "ev"
    with pytest.raises(ConfigError) as caught:
        found_device(DevicesView(devices=(), bundle=b""), "ev")
    assert "none; [[device]] in agent.toml lends one" in caught.value.hint


@pytest.mark.parametrize(
    ("known", "why"),
    [
        (device(leases=(LENT,)), "client 'build-7' has it (renewal)"),
        (device(signing=True), "its token signs"),
        (device(), "others come first"),
        (None, "others come first"),
    ],
)
def test_why_it_could_not_be_had(known: DeviceView | None, why: str) -> None:
    assert why in in_use(known).message


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("24h", 86_400), ("1s", 1)])
def test_lengths_of_time(text: str, seconds: int) -> None:
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "0s", "25h", "-5m", "1d", "1.5h", "٣m", "10m "])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(ConfigError):
        _seconds(text)


def ended(ended_by: str, **fields: object) -> LeaseEnd:
    known: dict[str, object] = {"reason": "so", "report": None, "recorded": None, "problem": None}
    return LeaseEnd(ended_by=ended_by, **(known | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ended_by", "exit_status", "code"),
    [
        ("holder", 0, ""),
        ("time", 0, ""),
        ("taken", 8, "device.taken"),
        ("lost", 7, "device.lost"),
        ("rules", 8, "device.ended"),
        ("gone", 8, "device.ended"),
        ("agent", 8, "device.ended"),
        ("holder-error", 8, "device.ended"),
    ],
)
def test_how_a_command_ends(ended_by: str, exit_status: int, code: str) -> None:
    error = end_error("ev", ended(ended_by))
    assert (0 if error is None else error.exit_status, "" if error is None else error.code) == (exit_status, code)


def test_what_is_not_on_record_is_no_success() -> None:
    problem = UnavailableError("lease.not_told", "the hub does not tell")
    end = ended("holder", problem=problem)
    assert end_error("ev", end) is problem
    assert list(end_lines("ev", end))[-1].startswith("warning   it is not known what is on record of it")
    assert end_data("ev", end)["problem"]["code"] == "lease.not_told"


def test_all_that_was_counted_is_told() -> None:
    tally = LeaseTally(what="key-generation", kind="", outcome="unknown", count=1)
    report = LeaseReport(
        device="ev",
        usb="1:2",
        held_ms=1000,
        ended_by="rules",
        reason="enough",
        clean=False,
        tallies=(tally,),
        unproven=("tunnel",),
        refused=3,
        apdus=1,
        urbs=2,
        bytes_in=3,
        bytes_out=4,
        errors=0,
        round_trip_us=0,
        link_round_trip_us=0,
    )
    said = "\n".join(end_lines("ev", ended("rules", reason="enough", report=report)))
    for part in (
        "a rule of its agent ended it: enough",
        "1 key-generation unknown",
        "refused   3 commands",
        "unproven  there may have been more: tunnel",
        "was not reset",
    ):
        assert part in said
