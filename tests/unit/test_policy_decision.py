# SPDX-License-Identifier: Apache-2.0
"""The policy decides on any facts, allows only what no rule is against, and each rule stands for itself."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.policy.decide import Facts, decide

NOW_MS = 1_000_000
SOUND = Facts(
    caller="build-1",
    profile="release",
    allowed_profiles=("release",),
    level="traced",
    granted_formats=None,
    format="authenticode-pe",
    opaque_format=False,
    opaque_formats=(),
    created_ms=NOW_MS,
    not_after_ms=NOW_MS,
    longest_ms=NOW_MS,
    now_ms=NOW_MS,
    clock_skew_ms=1000,
    certificate_not_before_ms=NOW_MS,
    certificate_not_after_ms=NOW_MS,
)

names = st.sampled_from(["release", "demo", "*", "", "authenticode-pe", "digest"])
lists = st.lists(names, max_size=3).map(tuple)
times = st.integers(-(2**64), 2**64) | st.integers(NOW_MS - 2, NOW_MS + 2)
facts = st.builds(
    Facts,
    caller=st.text(max_size=5),
    profile=names,
    allowed_profiles=lists,
    level=st.sampled_from(["traced", "pinned", ""]),
    granted_formats=st.none() | lists,
    format=names,
    opaque_format=st.booleans(),
    opaque_formats=lists,
    created_ms=times,
    not_after_ms=times,
    longest_ms=st.integers(0, 2**65),
    now_ms=times,
    clock_skew_ms=st.integers(0, 10**6),
    certificate_not_before_ms=times,
    certificate_not_after_ms=times,
)


@given(facts)
def test_any_facts_are_decided_and_no_reason_is_allowance(given_facts: Facts) -> None:
    decision = decide(given_facts)

    assert decision.allow == (decision.reasons == ())
    assert all(reason.code and reason.message for reason in decision.reasons)
    assert len({reason.code for reason in decision.reasons}) == len(decision.reasons)
    assert decide(given_facts) == decision


@given(facts)
def test_what_is_allowed_holds_every_rule(given_facts: Facts) -> None:
    one = given_facts
    holds = (
        bool({"*", one.profile} & set(one.allowed_profiles))
        and (one.level != "pinned" or bool({"*", one.format} & set(one.granted_formats or ())))
        and (not one.opaque_format or bool({"*", one.format} & set(one.opaque_formats)))
        and one.created_ms - one.clock_skew_ms <= one.now_ms <= one.not_after_ms
        and one.not_after_ms - one.now_ms <= one.longest_ms + one.clock_skew_ms
        and one.certificate_not_before_ms <= one.now_ms <= one.certificate_not_after_ms
    )

    assert decide(one).allow == holds


RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "profile": ("policy.profile", {"allowed_profiles": ("demo",)}),
    "no profile": ("policy.profile", {"allowed_profiles": ()}),
    "part of a name": ("policy.profile", {"allowed_profiles": ("release-2", "rel", "Release")}),
    "no grant": ("policy.grant", {"level": "pinned"}),
    "empty grant": ("policy.grant", {"level": "pinned", "granted_formats": ()}),
    "grant for another": ("policy.grant", {"level": "pinned", "granted_formats": ("authenticode-msi",)}),
    "opaque": ("policy.opaque", {"opaque_format": True}),
    "opaque for another": ("policy.opaque", {"opaque_format": True, "opaque_formats": ("digest",)}),
    "expired": ("request.expired", {"not_after_ms": NOW_MS - 1}),
    "too long": ("request.too_long", {"not_after_ms": 2 * NOW_MS + 1001}),
    "future": ("request.future", {"created_ms": NOW_MS + 1001}),
    "certificate expired": ("certificate.expired", {"certificate_not_after_ms": NOW_MS - 1}),
    "certificate early": ("certificate.not_yet_valid", {"certificate_not_before_ms": NOW_MS + 1}),
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_refuses_alone(rule: str) -> None:
    code, changes = RULES[rule]

    decision = decide(replace(SOUND, **changes))

    assert [reason.code for reason in decision.reasons] == [code]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"allowed_profiles": ("demo", "release")},
        {"allowed_profiles": ("*",)},
        {"level": "pinned", "granted_formats": ("authenticode-pe",)},
        {"level": "pinned", "granted_formats": ("*",)},
        {"opaque_format": True, "opaque_formats": ("authenticode-pe",)},
        {"opaque_format": True, "opaque_formats": ("*",)},
        {"created_ms": NOW_MS + 1000},
        {"created_ms": 0},
        {"not_after_ms": 2 * NOW_MS + 1000},
    ],
    ids=["sound", "listed", "all", "granted", "all-formats", "opaque", "all-opaque", "skew", "old", "longest"],
)
def test_what_nothing_is_against_is_allowed(changes: dict[str, Any]) -> None:
    assert decide(replace(SOUND, **changes)).reasons == ()


def test_a_refusal_names_every_rule_the_weightiest_first() -> None:
    everything = replace(
        SOUND,
        allowed_profiles=(),
        level="pinned",
        opaque_format=True,
        not_after_ms=0,
        created_ms=NOW_MS * 2,
        certificate_not_after_ms=0,
        certificate_not_before_ms=NOW_MS + 1,
    )

    assert [reason.code for reason in decide(everything).reasons] == [
        "policy.profile",
        "policy.grant",
        "policy.opaque",
        "request.expired",
        "request.future",
        "certificate.expired",
        "certificate.not_yet_valid",
    ]


def test_a_reason_names_whom_and_what() -> None:
    (reason,) = decide(replace(SOUND, allowed_profiles=())).reasons

    assert "'build-1'" in reason.message
    assert "'release'" in reason.message
    assert reason.hint


@pytest.mark.parametrize(
    ("allowed", "codes"),
    [(("ev-usb",), []), (("*", "ev-usb"), []), (("*",), ["policy.profile"]), (("release",), ["policy.profile"])],
)
def test_a_device_is_lent_to_who_is_allowed_it_by_name(allowed: tuple[str, ...], codes: list[str]) -> None:
    """To hand a whole token over is a permission of its own: `*` stands for key profiles."""
    device = replace(SOUND, profile="ev-usb", format="usb-lease", is_device=True, opaque_formats=("usb-lease",))
    decision = decide(replace(device, opaque_format=True, allowed_profiles=allowed))

    assert [reason.code for reason in decision.reasons] == codes


@pytest.mark.parametrize(("is_device", "format_name"), [(True, "authenticode-pe"), (False, "usb-lease")])
def test_a_device_signs_nothing_and_a_key_is_not_lent(*, is_device: bool, format_name: str) -> None:
    decision = decide(replace(SOUND, is_device=is_device, format=format_name))

    assert [reason.code for reason in decision.reasons] == ["policy.device"]
