# SPDX-License-Identifier: Apache-2.0
"""Time-stamping authorities for tests: OpenSSL's, one made by hand that can lie, and an HTTP host for either.

A host answers on loopback in threads of its own. What it answers is a function of the request, so that a test says in
one line how its TSA misbehaves.
"""

import datetime as dt
import hashlib
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from interop_tools import run_program
from pki_samples import Signer, issue, make_token, tsa
from privyseal.pki import der, tsp

__all__ = [
    "Behaviour",
    "OpensslTsa",
    "Reply",
    "TsaHost",
    "broken_signature",
    "busy",
    "drip",
    "expired",
    "hang",
    "honest",
    "html",
    "other_imprint",
    "other_nonce",
    "oversize",
    "redirect",
    "refusing",
    "running_tsa",
    "truncated",
    "wrong_time",
    "wrong_usage",
]

GRANTED = bytes.fromhex("3003020100")
_CONFIGURATION = """
[tsa]
default_tsa = tsa_config
[tsa_config]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha384, sha512
accuracy = secs:1, millisecs:500
ess_cert_id_chain = {chain}
ess_cert_id_alg = {ess}
tsa_name = yes
ordering = {ordering}
{certs}
"""


class OpensslTsa:
    """One configuration of OpenSSL's time-stamping authority."""

    def __init__(self, folder: Path, *, certs: bool, ess: str = "sha256", ordering: str = "no") -> None:
        self.folder = folder
        self._lock = threading.Lock()  # its serial number is a file
        folder.mkdir(exist_ok=True)
        (folder / "serial").write_text("01\n")
        (folder / "tsa.pem").write_bytes(tsa().leaf.pem)
        (folder / "tsa.key").write_bytes(tsa().leaf.key_pem)
        self.root = folder / "root.pem"
        self.root.write_bytes(tsa().root.pem)
        lines = {"folder": folder, "chain": "yes" if certs else "no", "ess": ess, "ordering": ordering}
        lines["certs"] = f"certs = {folder}/root.pem" if certs else ""
        (folder / "tsa.cnf").write_text(_CONFIGURATION.format(**lines))

    def answer(self, request: bytes) -> bytes:
        with self._lock:
            (self.folder / "query.tsq").write_bytes(request)
            status, said = run_program(
                "openssl", "ts", "-reply", "-config", self.folder / "tsa.cnf",
                "-queryfile", self.folder / "query.tsq", "-out", self.folder / "reply.tsr",
            )  # fmt: skip
            assert status == 0, said
            return (self.folder / "reply.tsr").read_bytes()

    def token(self, data: bytes, algorithm: str = "sha256", nonce: int = 1 << 62) -> bytes:
        """A timestamp token over data, asked for and unpacked by our own code."""
        imprint = hashlib.new(algorithm, data).digest()
        request = tsp.TimeStampReq(digest_algorithm=algorithm, imprint=imprint, nonce=nonce)
        return tsp.parse_response(self.answer(tsp.encode_request(request)))

    def accepts(self, token: bytes, data: bytes) -> bool:
        """Whether `openssl ts -verify` takes a token over some data."""
        (self.folder / "token.der").write_bytes(token)
        (self.folder / "data").write_bytes(data)
        _, said = run_program(
            "openssl", "ts", "-verify", "-data", self.folder / "data",
            "-in", self.folder / "token.der", "-token_in", "-CAfile", self.root,
        )  # fmt: skip
        return "Verification: OK" in said

    def __call__(self, request: bytes) -> "Reply":
        """Its honest behaviour behind HTTP."""
        return Reply(body=self.answer(request))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a host answers.

    Attributes:
        announced_bytes: What Content-Length says, if not the truth.
        pause_seconds: Between the bytes; the host sends them one by one then, and gives up when it is closed.
        silent: Take the request, and never answer.
    """

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/timestamp-reply"),)
    announced_bytes: int | None = None
    pause_seconds: float = 0.0
    silent: bool = False


Behaviour = Callable[[bytes], Reply]


def made_by_hand(request: bytes, *, by: Signer | None = None, at: dt.datetime | None = None) -> bytes:
    """A TimeStampResp for a SHA-256 request without openssl."""
    asked = tsp.parse_request(request)
    nonce = b"" if asked.nonce is None else _integer(asked.nonce)
    moment = at or dt.datetime.now(dt.UTC)
    token = make_token(b"", by=by, gen_time=f"{moment:%Y%m%d%H%M%SZ}".encode(), extra=nonce, imprint=asked.imprint)
    return der.encode_tlv(0x30, GRANTED + token)


def _integer(value: int) -> bytes:
    return der.encode_tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def honest(request: bytes) -> Reply:
    return Reply(body=made_by_hand(request))


def other_nonce(request: bytes) -> Reply:
    """A lie: perhaps a token that was made for somebody else."""
    asked = tsp.parse_request(request)
    return honest(tsp.encode_request(replace(asked, nonce=(asked.nonce or 0) + 2)))


def other_imprint(request: bytes) -> Reply:
    return honest(tsp.encode_request(replace(tsp.parse_request(request), imprint=bytes(32))))


def _signed_by(name: str, *, eku: tuple[x509.ObjectIdentifier, ...], critical: bool = True, days: int = 30) -> Signer:
    now = dt.datetime.now(dt.UTC)
    leaf = issue(
        name,
        tsa().root,
        eku=eku,
        eku_critical=critical,
        not_before=now - dt.timedelta(days=60),
        not_after=now + dt.timedelta(days=days),
    )
    return Signer(leaf=leaf, intermediate=tsa().root, root=tsa().root)


@cache
def expired_signer() -> Signer:
    return _signed_by("Expired TSA", eku=(ExtendedKeyUsageOID.TIME_STAMPING,), days=-1)


@cache
def signer_of_much() -> Signer:
    both = (ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.CODE_SIGNING)
    return _signed_by("TSA of much", eku=both)


@cache
def signer_not_critical() -> Signer:
    return _signed_by("TSA not critical", eku=(ExtendedKeyUsageOID.TIME_STAMPING,), critical=False)


def expired(request: bytes) -> Reply:
    return Reply(body=made_by_hand(request, by=expired_signer()))


def wrong_usage(request: bytes) -> Reply:
    return Reply(body=made_by_hand(request, by=signer_of_much()))


def usage_not_critical(request: bytes) -> Reply:
    return Reply(body=made_by_hand(request, by=signer_not_critical()))


def wrong_time(request: bytes) -> Reply:
    return Reply(body=made_by_hand(request, at=dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)))


def broken_signature(request: bytes) -> Reply:
    body = made_by_hand(request)  # the signature value stands at its end
    return Reply(body=body[:-1] + bytes((body[-1] ^ 1,)))


def refusing(request: bytes) -> Reply:
    """Status rejection, failInfo systemFailure."""
    return Reply(body=bytes.fromhex("300c300a020102030506" + "00000040"))


def html(request: bytes) -> Reply:
    page = b"<!DOCTYPE html><html><body>Please log in to the guest network.</body></html>"
    return Reply(body=page, headers=(("Content-Type", "text/html; charset=utf-8"),))


def truncated(request: bytes) -> Reply:
    body = made_by_hand(request)
    return Reply(body=body[: len(body) // 2], announced_bytes=len(body))


def oversize(request: bytes) -> Reply:
    return Reply(body=made_by_hand(request) + bytes(4 * 1024 * 1024))


def hang(request: bytes) -> Reply:
    return Reply(silent=True)


def drip(request: bytes) -> Reply:
    """An honest answer, but a byte at a time: no single read takes long."""
    return replace(honest(request), pause_seconds=0.05)


def redirect(place: str, status: int = 307) -> Behaviour:
    return lambda _: Reply(status=status, headers=(("Location", place),))


def busy(retry_after: str = "", *, status: int = 429, times: int | None = None, then: Behaviour = honest) -> Behaviour:
    """Too many requests, so many times (None: always), and then something else."""
    left = [times]

    def answer(request: bytes) -> Reply:
        if left[0] == 0:
            return then(request)
        if left[0] is not None:
            left[0] -= 1
        return Reply(status=status, headers=(("Retry-After", retry_after),) if retry_after else ())

    return answer


@dataclass(kw_only=True)
class TsaHost:
    """A TSA behind HTTP on loopback; `behaviour` may be changed while it runs."""

    behaviour: Behaviour
    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: TsaHost) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host = host

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        host = self.server.host
        request = self.rfile.read(int(self.headers["Content-Length"]))
        host.requests.append(request)
        reply = host.behaviour(request)
        if reply.silent:
            host.closing.wait()
            return
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(reply.announced_bytes or len(reply.body)))
        self.end_headers()
        step = 1 if reply.pause_seconds else max(len(reply.body), 1)
        for start in range(0, len(reply.body), step):
            self.wfile.write(reply.body[start : start + step])
            if reply.pause_seconds and host.closing.wait(reply.pause_seconds):
                return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Tests have other ways to look."""


@contextmanager
def running_tsa(behaviour: Behaviour = honest, *, tls: ssl.SSLContext | None = None) -> Iterator[TsaHost]:
    """A TSA that answers until the block ends; with `tls` over https."""
    host = TsaHost(behaviour=behaviour)
    server = _Server(host)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    host.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/tsa"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
