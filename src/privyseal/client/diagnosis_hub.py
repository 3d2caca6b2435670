# SPDX-License-Identifier: Apache-2.0
"""What `privyseal doctor` asks a hub's web listener, for a client as for an agent: who it is, its time, its opinion."""

import datetime as dt
import email.utils
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import urllib3
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from urllib3.exceptions import HTTPError

from privyseal.client.transport import WebTransport, web_context
from privyseal.errors import ConfigError, IdentityError, MalformedInputError, PrivysealError, UnavailableError
from privyseal.identity.bundle import TrustBundle, open_bundle
from privyseal.ports.clock import Clock
from privyseal.ports.diagnosis import Row, failed, look, passed, skipped, warned
from privyseal.wire.api import Health, decode_body
from privyseal.wire.membership import CertificateState

__all__ = ["HubProbe", "hub_rows"]

#: How far a request may lie in the hub's future before it is refused (`request.future`).
_MAX_SKEW_SECONDS: Final = 120.0
_NOTED_SKEW_SECONDS: Final = 10.0
_MAX_HEALTH_BYTES: Final = 64 * 1024
#: A hub that is slower than this is not asked the rest.
_TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=10.0)
_CONNECTED: Final = "hub, web listener"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Health:
    """The hub's word on itself, and the clocks around it."""

    status: int
    text: str
    date: str
    sent_ms: int
    received_ms: int

    @property
    def told(self) -> Health:
        """What it says; nothing if something else answers in its place."""
        try:
            return decode_body(self.text.encode(), Health)
        except MalformedInputError:
            return Health(status="")


class HubProbe(WebTransport):
    """One hub's web listener, asked by `doctor`; only the pinned CA is believed."""

    def __init__(self, url: str, bundle: TrustBundle, clock: Clock) -> None:
        super().__init__(url, web_context(bundle.statement.ca))
        self.bundle = bundle
        self._clock = clock

    def health(self) -> _Health:
        """GET /readyz with the time around it.

        Raises:
            UnavailableError: `hub.unreachable`. IdentityError: `hub.certificate`.
        """
        sent_ms = self._clock()
        try:
            response = self._pool.request("GET", self.url + "/readyz", preload_content=False, timeout=_TIMEOUT)
            text = response.read(_MAX_HEALTH_BYTES).decode("utf-8", "replace")
            response.release_conn()
        except HTTPError as error:
            raise self._failure(error) from error
        return _Health(
            status=response.status,
            text=text,
            date=response.headers.get("Date", ""),
            sent_ms=sent_ms,
            received_ms=self._clock(),
        )

    def check_listener(self, health: _Health) -> Row:
        """The hub answers, and says that it can sign."""
        if health.status != 200:
            told = health.told
            why = f"{told.reason} [{told.code}]" if told.reason else f"HTTP {health.status} {health.text[:200].strip()}"
            return failed(
                _CONNECTED,
                UnavailableError(
                    "hub.unready",
                    f"{self.url} answers, but cannot sign now: {why}",
                    hint=told.next or "on the hub's machine: privyseal doctor --dir DIR, and its log",
                ),
            )
        return passed(_CONNECTED, f"{self.url} answers with the pinned CA's certificate, and is ready")

    def check_clock(self, health: _Health) -> Row:
        """This clock against the hub's `Date` (RFC 9110 §6.6.1), which tells whole seconds."""
        subject = "clock"
        try:
            told = email.utils.parsedate_to_datetime(health.date).astimezone(dt.UTC)
        except (ValueError, OverflowError):
            return skipped(subject, f"{self.url} tells no time", "compare both clocks yourself: date -u")
        # The hub's clock stood in [told, told + 1 s) at some moment between question and answer.
        hub_ms = told.timestamp() * 1000
        least, most = (health.sent_ms - hub_ms) / 1000 - 1.0, (health.received_ms - hub_ms) / 1000
        apart = max(least, -most, 0.0)
        direction = "ahead of" if least > 0 else "behind"
        if apart > _MAX_SKEW_SECONDS:
            raise ConfigError(
                "clock.skew",
                f"this machine's clock is at least {apart:.0f} s {direction} the hub's",
                hint="set the clock of this machine or of the hub (NTP): requests are judged by their dates",
            )
        if apart > _NOTED_SKEW_SECONDS:
            return warned(
                subject,
                f"this machine's clock is at least {apart:.0f} s {direction} the hub's",
                f"set it (NTP): from {_MAX_SKEW_SECONDS:.0f} s on, requests are refused",
            )
        return passed(subject, f"at most {max(most, -least):.1f} s apart from the hub's")

    def check_bundle(self) -> Row:
        """The hub shows the very trust bundle that is pinned here."""
        shown = open_bundle(self.request("GET", "/v1/bundle"))
        if shown.sha256 != self.bundle.sha256:
            raise IdentityError(
                "bundle.differs",
                f"the hub shows trust bundle {shown.statement.serial} ({shown.sha256.hex()[:16]}…), pinned here is "
                f"{self.bundle.statement.serial} ({self.bundle.sha256.hex()[:16]}…)",
                hint="ask an administrator whether the bundle was changed; if so, join again with a new join code",
            )
        serial = shown.statement.serial
        return passed("trust bundle at hub", f"bundle {serial} of {shown.hub}, SHA-256 {shown.sha256.hex()[:16]}…")

    def check_standing(self, certificate_path: Path, rejoin: str) -> Row:
        """What the hub thinks of a TLS certificate."""
        try:
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        except ValueError as error:
            raise ConfigError("file.not_a_key", f"{certificate_path} is not a PEM certificate", hint=rejoin) from error
        fingerprint = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        state = decode_body(self.request("GET", f"/v1/certificates/{fingerprint}"), CertificateState).state
        if state != "standing":
            raise IdentityError(
                f"identity.{state}", f"the hub does not take the certificate {certificate_path}: {state}", hint=rejoin
            )
        return passed("standing at hub", f"the hub knows {certificate_path}, and it stands")


def hub_rows(probe: HubProbe, certificate_path: Path, rejoin: str) -> tuple[Row, ...]:
    """Everything that the web listener tells; if it does not answer, one row says so.

    Args:
        probe: The hub.
        certificate_path: The asking role's TLS certificate.
        rejoin: What to do if the hub does not take it.
    """
    try:
        health = probe.health()
    except PrivysealError as error:
        reason = skipped("clock, bundle, standing", "the hub's web listener was not reached", "reach the hub first")
        return (failed(_CONNECTED, error), reason)
    return (
        look(_CONNECTED, lambda: probe.check_listener(health)),
        look("clock", lambda: probe.check_clock(health)),
        look("trust bundle at hub", probe.check_bundle),
        look("standing at hub", lambda: probe.check_standing(certificate_path, rejoin)),
    )
