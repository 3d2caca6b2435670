# SPDX-License-Identifier: Apache-2.0
"""Series that no hub has told: one case for each alert that must fire, and a hub at which none may."""

from dataclasses import dataclass, field

__all__ = ["FIRING", "WELL", "Case"]

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What Prometheus has scraped once a minute, and what an alert must say after so many minutes.

    Attributes:
        series: By name with labels, in the notation of `promtool test rules`; all have the label `instance="hub"`.
        quiet: A minute at which it must not fire yet; None if it fires at once.
    """

    series: dict[str, str]
    summary: str
    minute: int
    labels: dict[str, str] = field(default_factory=dict)
    severity: str = "page"
    quiet: int | None = None


_TOKEN = {"agent": "pi", "token": "etoken"}
_BUCKETS = "privyseal_token_sign_duration_seconds_bucket{agent=pi,token=etoken,le="
_EXPIRY = "privyseal_certificate_expiry_timestamp_seconds{profile=acme,token=pi/etoken}"

FIRING: dict[str, Case] = {
    "PrivysealHubAbsent": Case(series={}, minute=6, quiet=4, summary="No hub answers Prometheus."),
    "PrivysealSigningStopped": Case(
        series={"privyseal_signing_stopped": "0x4 1x5"},
        minute=6,
        quiet=4,
        summary="The hub hub signs nothing any more until a person acts.",
    ),
    "PrivysealLogUnconfirmed": Case(
        series={"privyseal_log_confirmed": "0x20"},
        minute=6,
        quiet=4,
        summary="Since its start nobody has confirmed to the hub hub that its log is the newest.",
    ),
    "PrivysealHubNotReady": Case(
        series={"privyseal_ready": "0x20"}, minute=11, quiet=9, summary="The hub hub cannot sign."
    ),
    "PrivysealHubRestarts": Case(
        series={"process_start_time_seconds": "1 2 3 4 5 5x60", "privyseal_build_info{version=1}": "1x60"},
        minute=10,
        quiet=3,
        severity="ticket",
        summary="The hub hub was started 4 times within an hour.",
    ),
    "PrivysealNoAgent": Case(
        series={"privyseal_agent_linked{agent=pi}": "0x9", "privyseal_agent_linked{agent=pc}": "1x3 0x6"},
        minute=6,
        quiet=3,
        summary="No agent is linked to the hub hub.",
    ),
    "PrivysealAgentLost": Case(
        series={"privyseal_agent_linked{agent=pi}": "0x9", "privyseal_agent_linked{agent=pc}": "1x9"},
        minute=6,
        quiet=4,
        labels={"agent": "pi"},
        severity="ticket",
        summary="Agent pi has no link to the hub.",
    ),
    "PrivysealQueueOld": Case(
        series={"privyseal_queue_oldest_age_seconds{profile=acme,priority=normal}": "0+60x20"},
        minute=9,
        quiet=7,
        labels={"profile": "acme", "priority": "normal"},
        summary="A job for acme has waited for 9m 0s.",
    ),
    "PrivysealQueueOldNightly": Case(
        series={"privyseal_queue_oldest_age_seconds{profile=acme,priority=nightly}": "35520+60x20"},
        minute=12,
        quiet=10,
        labels={"profile": "acme", "priority": "nightly"},
        severity="ticket",
        summary="A nightly job for acme has waited for 10h 4m 0s.",
    ),
    "PrivysealQueueFull": Case(
        series={"privyseal_queue_refusals_total": "0x5 1x20"},
        minute=10,
        quiet=5,
        summary="The queue of the hub hub is full, and requests are refused.",
    ),
    "PrivysealProfileNotReady": Case(
        series={"privyseal_profile_ready{profile=acme}": "0x20"},
        minute=6,
        quiet=4,
        labels={"profile": "acme"},
        summary="Nothing can be signed for key profile acme.",
    ),
    "PrivysealOutcomeUnknown": Case(
        series={"privyseal_jobs_total{profile=acme,outcome=unknown}": "0x5 1x20"},
        minute=10,
        quiet=5,
        labels={"profile": "acme", "outcome": "unknown"},
        severity="ticket",
        summary="Of an operation for acme nobody knows whether the token signed.",
    ),
    "PrivysealWitnessFailing": Case(
        series={"privyseal_witness_failing{witness=w1}": "1x20"},
        minute=16,
        quiet=14,
        labels={"witness": "w1"},
        severity="ticket",
        summary="Witness w1 does not cosign.",
    ),
    "PrivysealTsaFailing": Case(
        series={"privyseal_tsa_state{tsa=http://tsa,state=open}": "1x20"},
        minute=11,
        quiet=9,
        labels={"tsa": "http://tsa", "state": "open"},
        severity="ticket",
        summary="TSA http://tsa fails, and is asked rarely.",
    ),
    "PrivysealTokenNotReady": Case(
        series={"privyseal_token_ready{agent=pi,token=etoken}": "0x20"},
        minute=6,
        quiet=4,
        labels=_TOKEN,
        summary="Token etoken at pi cannot be used.",
    ),
    "PrivysealPinBlocked": Case(
        series={"privyseal_token_state{agent=pi,token=etoken,state=blocked}": "0x3 1x9"},
        minute=4,
        quiet=3,
        labels={**_TOKEN, "state": "blocked"},
        summary="The PIN of token etoken at pi is not presented any more.",
    ),
    "PrivysealPinLow": Case(
        series={"privyseal_token_pin_state{agent=pi,token=etoken,state=final-try}": "0x3 1x9"},
        minute=4,
        quiet=3,
        labels={**_TOKEN, "state": "final-try"},
        summary="Token etoken at pi says of its PIN final-try.",
    ),
    "PrivysealRecoveries": Case(
        series={
            "privyseal_token_recoveries_total{agent=pi,token=etoken,step=session}": "0+0.1x60",
            "privyseal_token_recoveries_total{agent=pi,token=etoken,step=worker}": "0+0.1x60",
        },
        minute=60,
        quiet=20,
        labels=_TOKEN,
        severity="ticket",
        summary="Token etoken at pi was recovered 12 times within an hour.",
    ),
    "PrivysealWorkerRestarts": Case(
        series={"privyseal_token_worker_starts_total{agent=pi,token=etoken}": "1+0.1x60"},
        minute=60,
        quiet=20,
        labels=_TOKEN,
        severity="ticket",
        summary="The worker of token etoken at pi was started 6 times within an hour.",
    ),
    "PrivysealSlowSignatures": Case(
        series={f"{_BUCKETS}10.0}}": "0+9x60", f"{_BUCKETS}30.0}}": "0+10x60", f"{_BUCKETS}+Inf}}": "0+10x60"},
        minute=40,
        quiet=10,
        labels=_TOKEN,
        severity="ticket",
        summary="One of 100 signatures of token etoken takes 28s.",
    ),
    "PrivysealCertificateEndsSoon": Case(
        series={_EXPIRY: f"{20 * DAY_SECONDS}x9"},
        minute=0,
        labels={"profile": "acme", "token": "pi/etoken"},
        severity="ticket",
        summary="The certificate of acme ends in 20 days.",
    ),
    "PrivysealCertificateEndsNow": Case(
        series={_EXPIRY: f"{5 * DAY_SECONDS}x9"},
        minute=0,
        labels={"profile": "acme", "token": "pi/etoken"},
        summary="The certificate of acme ends in 5 days; then nothing is signed with it.",
    ),
}

#: A hub at work: nothing of it may raise an alert.
WELL: dict[str, str] = {
    "privyseal_build_info{version=1}": "1x90",
    "privyseal_ready": "1x90",
    "privyseal_log_confirmed": "1x90",
    "privyseal_signing_stopped": "0x90",
    "process_start_time_seconds": "1x90",
    "privyseal_agent_linked{agent=pi}": "1x90",
    "privyseal_queue_oldest_age_seconds{profile=acme,priority=normal}": "0 30 60 120 240 20x90",
    "privyseal_queue_oldest_age_seconds{profile=acme,priority=nightly}": "0+300x90",
    "privyseal_queue_refusals_total": "3x90",
    "privyseal_profile_ready{profile=acme}": "1x90",
    "privyseal_jobs_total{profile=acme,outcome=unknown}": "2x90",
    "privyseal_witness_failing{witness=w1}": "0 1 0x90",
    "privyseal_tsa_state{tsa=http://tsa,state=open}": "0 1 1 0x90",
    "privyseal_token_ready{agent=pi,token=etoken}": "1 0 0 1x90",
    "privyseal_token_state{agent=pi,token=etoken,state=blocked}": "0x90",
    "privyseal_token_pin_state{agent=pi,token=etoken,state=ok}": "1x90",
    "privyseal_token_pin_state{agent=pi,token=etoken,state=locked}": "0x90",
    "privyseal_token_pin_state{agent=pi,token=etoken,state=final-try}": "0x90",
    "privyseal_token_recoveries_total{agent=pi,token=etoken,step=session}": "3 4 4x90",
    "privyseal_token_worker_starts_total{agent=pi,token=etoken}": "1 2 2x90",
    f"{_BUCKETS}0.5}}": "0+10x90",
    f"{_BUCKETS}+Inf}}": "0+10x90",
    _EXPIRY: f"{200 * DAY_SECONDS}x90",
}
