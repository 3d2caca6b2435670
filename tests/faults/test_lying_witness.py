# SPDX-License-Identifier: Apache-2.0
"""A witness that answers anything: the client says what is wrong, in bounded time, and takes nothing unsigned."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from lying_logs import log_of, show_log
from lying_web import WebHub, running_hub
from privyseal.client.log import LogReader
from privyseal.client.witness_http import check_witness_url
from privyseal.client.witnessing import witness_newest
from privyseal.errors import ConfigError, PrivysealError
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.note import NoteSignature, parse_note
from privyseal.tlog.quorum import Group, PolicyWitness, QuorumPolicy
from privyseal.tlog.witness import parse_add_checkpoint

WITNESS = Cosigner(name="w", key=Ed25519PrivateKey.from_private_bytes(b"w" * 32))
PQ = Cosigner(name="w", key=MLDSA44PrivateKey.from_seed_bytes(b"w" * 32))
OTHER = Cosigner(name="o", key=Ed25519PrivateKey.from_private_bytes(b"o" * 32))

#: Status, content type, body.
Reply = tuple[int, str, bytes]
SIZE = "text/x.tlog.size"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[WebHub]:
    with running_hub(tmp_path) as hub:
        show_log(hub, log_of(*"abcde"))
        yield hub


@contextmanager
def answering(answer: Callable[[bytes], Reply]) -> Iterator[str]:
    """A witness that gives this answer; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, kind, body = answer(self.rfile.read(int(self.headers["Content-Length"])))
            with suppress(OSError):  # the client may have heard enough
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/w"
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


def policy(url: str) -> QuorumPolicy:
    return QuorumPolicy(witnesses=(PolicyWitness(name="w", key=WITNESS.verifier, url=url),), quorum="w")


def code_of(hub: WebHub, reply: Reply) -> str:
    with answering(lambda _: reply) as url, pytest.raises(PrivysealError) as caught:
        witness_newest(LogReader(hub.config), policy(url))
    return caught.value.code


def cosigned(body: bytes, *cosigners: Cosigner) -> bytes:
    text = parse_add_checkpoint(body).note.text
    return "".join(one.sign(text, 7).line for one in cosigners).encode()


def test_an_honest_witness_first_and_lines_of_strangers_are_left_out(hub: WebHub) -> None:
    with answering(lambda body: (200, "text/plain", cosigned(body, OTHER, WITNESS))) as url:
        witnessed = witness_newest(LogReader(hub.config), policy(url))

    assert [(name, one.seconds) for name, one in witnessed.opened.cosigned] == [("w", 7)]
    assert [line.name for line in parse_note(witnessed.note).signatures] == [hub.trust.bundle.hub, "w"]


def two_keys(url: str) -> QuorumPolicy:
    """A policy that is met by either key of one witness."""
    witnesses = tuple(
        PolicyWitness(name=name, key=one.verifier, url=url) for name, one in (("ed", WITNESS), ("pq", PQ))
    )
    return QuorumPolicy(witnesses=witnesses, groups=(Group(name="w", threshold=1, members=("ed", "pq")),), quorum="w")


def test_a_witness_with_two_keys_is_asked_once_and_both_lines_are_taken(hub: WebHub) -> None:
    bodies: list[bytes] = []

    def answer(body: bytes) -> Reply:
        bodies.append(body)
        return 200, "text/plain", cosigned(body, PQ, OTHER, WITNESS)

    with answering(answer) as url:
        witnessed = witness_newest(LogReader(hub.config), two_keys(url))

    assert len(bodies) == 1
    assert [name for name, _ in witnessed.opened.cosigned] == ["ed", "pq"]
    assert witnessed.missing == ()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda line: replace(line, signature=line.signature[:-1]), "note.signature"),
        (lambda line: replace(line, signature=line.signature + b"\0"), "note.signature"),
        (lambda line: replace(line, signature=bytes(2428)), "note.signature"),
        (lambda line: replace(line, signature=bytes(72)), "note.signature"),
        (lambda line: replace(line, key_id=bytes(4)), "witness.other_key"),
        (lambda line: replace(line, name="v"), "witness.other_key"),
    ],
    ids=["short", "long", "zeroes", "length of the other type", "another key ID", "another name"],
)
def test_a_bad_line_of_one_key_is_told_and_the_other_key_s_is_taken(
    hub: WebHub, spoil: Callable[[NoteSignature], NoteSignature], code: str
) -> None:
    def answer(body: bytes) -> Reply:
        bad = spoil(PQ.sign(parse_add_checkpoint(body).note.text, 7))
        return 200, "text/plain", bad.line.encode() + cosigned(body, WITNESS)

    with answering(answer) as url:
        witnessed = witness_newest(LogReader(hub.config), two_keys(url))

    assert [name for name, _ in witnessed.opened.cosigned] == ["ed"]
    assert [(name, error.code) for name, error in witnessed.missing] == [("pq", code)]


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ((200, "text/plain", b""), "witness.answer"),
        ((200, "text/plain", b"\xff\xfe"), "witness.answer"),
        ((200, "text/html", b"<html>\n"), "witness.answer"),
        ((200, "text/plain", OTHER.sign("other\n", 7).line.encode()), "witness.other_key"),
        ((200, "text/plain", WITNESS.sign("other\n", 7).line.encode()), "note.signature"),
        ((200, "text/plain", b"x" * 1_000_000), "witness.answer"),
        ((301, "text/plain", b""), "witness.refused"),
        ((400, "text/plain", b"no\n"), "witness.refused"),
        ((403, "text/plain", b"no\n"), "witness.unknown_log"),
        ((404, "text/plain", b""), "witness.unknown_log"),
        ((409, "text/plain", b"another root\n"), "log.fork"),
        ((422, "text/plain", b"\x1b[31m\n"), "log.fork"),
        ((503, "text/plain", b"\xff\n"), "witness.refused"),
        ((599, "text/plain", b""), "witness.refused"),
        ((409, SIZE, b"many\n"), "witness.answer"),
        ((409, SIZE, b"\xff"), "witness.answer"),
        ((409, SIZE, b"-1\n"), "witness.answer"),
        ((409, SIZE, b"9" * 10_000), "witness.answer"),
        ((409, SIZE, b"3\n"), "witness.busy"),
        ((409, SIZE + "; charset=utf-8", b"6\n"), "log.rewound"),
    ],
    ids=range(20),
)
def test_whatever_it_answers_is_told_apart(hub: WebHub, reply: Reply, code: str) -> None:
    assert code_of(hub, reply) == code


def test_the_newest_checkpoint_is_fetched_again_if_the_witness_has_seen_it_already(hub: WebHub) -> None:
    def ahead(body: bytes) -> Reply:
        if parse_add_checkpoint(body).checkpoint.size == 7:
            return 200, "text/plain", cosigned(body, WITNESS)
        show_log(hub, log_of(*"abcdefg"))
        return 409, SIZE, b"7\n"

    with answering(ahead) as url:
        assert witness_newest(LogReader(hub.config), policy(url)).opened.checkpoint.size == 7


@pytest.mark.parametrize(
    "url", ["", "witness.example", "ftp://w", "http://", "http://w?x", "http://w#x", "http://w:99999", "http://u:p@w"]
)
def test_what_is_no_witness_s_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_witness_url(url)
    assert caught.value.code == "witness.url"
    assert "u:p" not in str(caught.value)
