# SPDX-License-Identifier: Apache-2.0
"""A hub before a client, over real TLS: it signs and records like an honest one until a test changes its answers."""

import datetime as dt
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lying_hub import HUB, PROFILE, MemoryLog, Trust, make_trust, sha256
from privyseal.client.config import ClientConfig, load_client_config
from privyseal.formats.model import Preimage
from privyseal.formats.registry import read_preimage
from privyseal.identity.ca import issue_member, issue_server, member_uri, new_tls_key
from privyseal.identity.keyfile import save_private_key, write_private, write_public
from privyseal.ports.clock import system_clock
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.entry import ArtifactDigest, Result
from privyseal.tlog.note import NoteSigner
from privyseal.tlog.receipt import Receipt
from privyseal.tokens.testca import make_test_ca
from privyseal.wire.api import ItemView, ProfileView, RequestView, SignatureRequest
from privyseal.wire.dsse import parse_envelope
from privyseal.wire.statement import REQUEST_TYPE, accepted_statement, statement_id

__all__ = ["HANG_UP", "Answer", "WebHub", "running_hub", "whole"]

_DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back over the wire: the head as it is told, and the body in pieces, without end if they have none."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    pieces: Callable[[], Iterator[bytes]]


#: The connection ends without an answer.
HANG_UP: Final = Answer(status=0, pieces=lambda: iter(()))


@dataclass(kw_only=True)
class WebHub:
    """What a client meets. `lie` changes a view before it is sent; `answer` takes the place of a whole answer.

    It can be met behind several `doors`, as the hubs of one cell. `doorkeeper` takes the place of an answer after the
    hub has done what was asked: an answer without pieces of status 0 hangs up.
    """

    trust: Trust
    config: ClientConfig
    request_key: Ed25519PrivateKey
    key: ec.EllipticCurvePrivateKey
    chain: tuple[bytes, ...]
    log: MemoryLog = field(default_factory=MemoryLog)
    lie: Callable[[RequestView], RequestView] = lambda view: view
    answer: Callable[[str], Answer | None] = lambda _: None
    doors: tuple[str, ...] = ()
    doorkeeper: Callable[[int, str], Answer | None] = lambda _door, _line: None
    asked: list[str] = field(default_factory=list)
    asked_doors: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    accepted: dict[str, RequestView] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def renew(self) -> None:
        """The key profile gets another key and certificate."""
        self.key, self.chain = _make_key()

    def respond(self, door: int, line: str, body: bytes) -> Answer:
        """The answer to a request line."""
        self.asked.append(line)
        self.asked_doors.append(door)
        self.bodies.append(body)
        answer = self.answer(line) or whole(msgspec.json.encode(self._view(line, body)))
        return self.doorkeeper(door, line) or answer

    def _view(self, line: str, body: bytes) -> ProfileView | RequestView:
        if "/v1/profiles/" in line:
            return ProfileView(
                name=PROFILE,
                level="traced",
                opaque=("digest",),
                hardware=False,
                chain=self.chain,
                others=(),
                online=True,
                bundle=self.trust.bundle.sha256,
            )
        if line.startswith("POST"):
            request_id = self._sign(msgspec.json.decode(body, type=SignatureRequest))
        else:
            request_id = line.split("/v1/signatures/")[1].split("?", maxsplit=1)[0]
        view = msgspec.structs.replace(self.accepted[request_id], chains=(self.chain,))
        first = int(line.split("from=")[1].split("&", maxsplit=1)[0]) if "from=" in line else 0
        return self.lie(msgspec.structs.replace(view, first=first, items=view.items[first:]))

    def _sign(self, body: SignatureRequest) -> str:
        statement = accepted_statement(body.envelope)
        request_id = statement_id(
            self.request_key.public_key().public_bytes_raw(), parse_envelope(body.envelope, REQUEST_TYPE).payload
        )
        if request_id not in self.accepted:
            items = tuple(
                self._item(request_id, place, statement.format, Preimage(signed=one.signed, detail=one.detail))
                for place, one in enumerate(body.preimages)
            )
            self.accepted[request_id] = RequestView(
                id=request_id, state="done", position=0, total=len(items), first=0, chains=(self.chain,), items=items
            )
        return request_id

    def _item(self, request_id: str, place: int, format_name: str, preimage: Preimage) -> ItemView:
        facts = read_preimage(format_name, preimage)
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        signature = self.key.sign(facts.digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        entry = Result(
            ts=system_clock(),
            intent=0,
            request=request_id,
            item=place,
            profile=PROFILE,
            key=sha256(spki),
            format=format_name,
            artifact=ArtifactDigest(alg=facts.artifact.algorithm, digest=facts.artifact.digest.hex()),
            fence=1,
            outcome="ok",
            signature=sha256(signature),
        )
        index = self.log.append(entry)
        note = sign_checkpoint(
            Checkpoint(origin=HUB, size=self.log.size, root=self.log.root()),
            NoteSigner(name=HUB, key=self.trust.log_key),
        )
        receipt = Receipt(index=index, proof=self.log.inclusion(index), checkpoint=note, extra=self.log.entries[index])
        return ItemView(state="signed", signature=signature, receipt=receipt.encode())

    def drip(self) -> Iterator[bytes]:
        """Pieces without end, and much time between them."""
        while not self.ended.wait(0.1):
            yield b" "

    @property
    def signatures(self) -> int:
        """How many it has made."""
        return self.log.size


def whole(body: bytes, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """An answer of known length."""
    return Answer(status=status, headers=(*headers, ("Content-Length", str(len(body)))), pieces=lambda: iter((body,)))


def _make_key() -> tuple[ec.EllipticCurvePrivateKey, tuple[bytes, ...]]:
    now = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ca = make_test_ca(not_before=now, not_after=now + 2 * _DAY)
    return key, ca.issue_code_signing(spki=spki, common_name="Lab", not_before=now, not_after=now + _DAY)


def _context(trust: Trust, directory: Path, now: dt.datetime) -> ssl.SSLContext:
    key = new_tls_key()
    certificate = issue_server(trust.ca, trust.ca_key, key.public_key(), ("127.0.0.1",), now)
    save_private_key(directory / "server.key", key)
    write_public(directory / "server.pem", certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    return context


def _make_client(
    directory: Path, trust: Trust, urls: tuple[str, ...], now: dt.datetime
) -> tuple[ClientConfig, Ed25519PrivateKey]:
    """A client's directory, as joining leaves it."""
    tls_key, request_key = new_tls_key(), Ed25519PrivateKey.generate()
    uri = member_uri(trust.bundle.hub, "client", "build")
    certificate = issue_member(trust.ca, trust.ca_key, tls_key.public_key(), uri, now)
    identity = directory / "identity"
    identity.mkdir()
    save_private_key(identity / "tls.key", tls_key)
    save_private_key(identity / "request.key", request_key)
    write_public(identity / "tls.pem", certificate.public_bytes(Encoding.PEM))
    write_public(identity / "bundle.json", trust.bundle.envelope)
    config = directory / "client.toml"
    places = ", ".join(f'"{url}"' for url in urls)
    text = f'name = "build"\nhub = [{places}]\nweb = "{urls[0]}"\nidentity = "identity"\nwait_seconds = 2.0\n'
    write_private(config, text.encode())
    return load_client_config(str(config)), request_key


def _handler(hubs: list[WebHub], door: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = hubs[0].respond(door, f"{self.command} {self.path}", body)
            if answer is HANG_UP:
                self.close_connection = True
                return
            with suppress(OSError):  # the client may have heard enough
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.end_headers()
                for piece in answer.pieces():
                    self.wfile.write(piece)
                    self.wfile.flush()

        do_GET = do_POST = _serve  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Say nothing."""

    return Handler


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


@contextmanager
def running_hub(directory: Path, certified: dt.timedelta = dt.timedelta(), *, doors: int = 1) -> Iterator[WebHub]:
    """The hub on loopback, its certificate made so much later than now, and a client that has joined it."""
    hubs: list[WebHub] = []
    now = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    trust = make_trust(now=now)
    context = _context(trust, directory, now + certified)
    with ExitStack() as stack:
        urls = tuple(stack.enter_context(_serving(_handler(hubs, door), context)) for door in range(doors))
        config, request_key = _make_client(directory, trust, urls, now)
        key, chain = _make_key()
        hub = WebHub(trust=trust, config=config, request_key=request_key, key=key, chain=chain, doors=urls)
        hubs.append(hub)
        stack.callback(hub.ended.set)
        yield hub
