# SPDX-License-Identifier: Apache-2.0
"""The decision over one signing request.

Everything that is asked is in `Facts`; the same function judges at the hub and can be asked by anybody who wants to
know beforehand. A refusal names every rule that is against it, the weightiest first.
"""

from dataclasses import dataclass

__all__ = ["Decision", "Facts", "Reason", "decide"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known about a request when it arrives.

    Attributes:
        allowed_profiles: Key profiles of the caller's enrolment; `*` for all.
        level: `traced` or `pinned`.
        granted_formats: Formats of the newest valid grant for caller and profile; None without a grant.
        opaque_format: Whether the preimages do not bind the artifact.
        opaque_formats: Formats that the profile allows to be opaque; `*` for all.
        longest_ms: How long a request may wait.
        certificate_not_before_ms, certificate_not_after_ms: Validity of the profile's certificate.
        is_device: It is a USB device that is asked for, and no key: it is lent, and signs nothing.
        priority: The class in the queue that is asked for.
        priority_allowed: Whether the caller may ask for it.
    """

    caller: str
    profile: str
    allowed_profiles: tuple[str, ...]
    level: str
    granted_formats: tuple[str, ...] | None
    format: str
    opaque_format: bool
    opaque_formats: tuple[str, ...]
    created_ms: int
    not_after_ms: int
    longest_ms: int
    now_ms: int
    clock_skew_ms: int
    certificate_not_before_ms: int
    certificate_not_after_ms: int
    is_device: bool = False
    priority: str = "normal"
    priority_allowed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One rule that refuses: stable code, sentence, next step."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Allowed if there is no reason against it."""

    reasons: tuple[Reason, ...]

    @property
    def allow(self) -> bool:
        """Whether the request may go on."""
        return not self.reasons


def _lists(names: tuple[str, ...], name: str) -> bool:
    return "*" in names or name in names


def decide(facts: Facts) -> Decision:
    """Judge a request."""
    reasons: list[Reason] = []
    reasons.extend(_kind(facts))
    reasons.extend(_permission(facts))
    if facts.level == "pinned" and not _lists(facts.granted_formats or (), facts.format):
        reasons.append(
            Reason(
                code="policy.grant",
                message=f"key profile {facts.profile!r} is pinned, and client {facts.caller!r} has no valid grant "
                f"for {facts.format}",
                hint="an administrator runs: privyseal client grant (with the key that `privyseal client show` prints)",
            )
        )
    if facts.opaque_format and not _lists(facts.opaque_formats, facts.format):
        reasons.append(
            Reason(
                code="policy.opaque",
                message=f"key profile {facts.profile!r} does not sign {facts.format}: its preimage shows only a digest",
                hint="list the format under `opaque` of the key profile on the token's host, if that is wanted",
            )
        )
    if not facts.priority_allowed:
        reasons.append(
            Reason(
                code="policy.priority",
                message=f"client {facts.caller!r} may not ask for priority {facts.priority}",
                hint="sign without --priority; hub.toml says under [[team]] who may ask for what",
            )
        )
    reasons.extend(_dates(facts))
    return Decision(reasons=tuple(reasons))


def _permission(facts: Facts) -> list[Reason]:
    """`*` stands for all key profiles, and for no device: to hand a token over is a permission of its own."""
    if facts.is_device and facts.profile not in facts.allowed_profiles:
        return [
            Reason(
                code="policy.profile",
                message=f"client {facts.caller!r} may not borrow device {facts.profile!r}",
                hint="ask an administrator for an invitation that names this device: `*` stands for key profiles alone",
            )
        ]
    if not facts.is_device and not _lists(facts.allowed_profiles, facts.profile):
        return [
            Reason(
                code="policy.profile",
                message=f"client {facts.caller!r} may not use key profile {facts.profile!r}",
                hint="ask an administrator for an invitation that names this key profile",
            )
        ]
    return []


def _kind(facts: Facts) -> list[Reason]:
    """Devices are lent, and sign nothing; keys sign, and are not lent."""
    if facts.is_device == (facts.format == "usb-lease"):
        return []
    kind = "a USB device" if facts.is_device else "a key profile"
    return [
        Reason(
            code="policy.device",
            message=f"{facts.profile!r} is {kind}: it is not there for {facts.format}",
            hint="privyseal device list shows the devices that are lent, privyseal status the key profiles",
        )
    ]


def _dates(facts: Facts) -> list[Reason]:
    reasons: list[Reason] = []
    if facts.now_ms > facts.not_after_ms:
        reasons.append(Reason(code="request.expired", message="the request's own not_after has passed"))
    if facts.created_ms > facts.now_ms + facts.clock_skew_ms:
        ahead_seconds = (facts.created_ms - facts.now_ms) // 1000
        reasons.append(
            Reason(
                code="request.future",
                message=f"the request says it was made {ahead_seconds} s in the future",
                hint="set the clock of the machine that signs (NTP)",
            )
        )
    if facts.not_after_ms > facts.now_ms + facts.longest_ms + facts.clock_skew_ms:
        hours = (facts.not_after_ms - facts.now_ms) / 3_600_000
        longest_seconds = facts.longest_ms // 1000
        reasons.append(
            Reason(
                code="request.too_long",
                message=f"the request would wait for {hours:.1f} h, and at this hub none waits for longer than"
                f" {facts.longest_ms / 3_600_000:g} h",
                hint=f"--timeout {longest_seconds} at most; `longest_hours` under [queue] in hub.toml is the bound",
            )
        )
    return reasons + _certificate_dates(facts)


def _certificate_dates(facts: Facts) -> list[Reason]:
    reasons: list[Reason] = []
    if facts.now_ms > facts.certificate_not_after_ms:
        reasons.append(
            Reason(
                code="certificate.expired",
                message=f"the certificate of key profile {facts.profile!r} has expired",
                hint="import the renewed certificate on the token's host and restart the agent",
            )
        )
    if facts.now_ms < facts.certificate_not_before_ms:
        reasons.append(
            Reason(
                code="certificate.not_yet_valid",
                message=f"the certificate of key profile {facts.profile!r} is not valid yet",
                hint="check the clock of the hub",
            )
        )
    return reasons
