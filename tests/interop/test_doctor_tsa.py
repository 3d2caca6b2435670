# SPDX-License-Identifier: Apache-2.0
"""`doctor` asks a TSA: OpenSSL's behind HTTP on loopback, and some that are not what they seem."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from diagnoses import fails
from installation import free_port
from interop_tools import run_program
from pki_samples import tsa
from privyseal.client.diagnosis_tsa import check_tsa
from privyseal.pki.tsp import TimeStampReq, encode_request
from privyseal.ports.diagnosis import Verdict

pytestmark = pytest.mark.interop

CONFIGURATION = """
[tsa]
default_tsa = it
[it]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256
ess_cert_id_alg = sha256
"""


def openssl_answer(folder: Path, question: bytes) -> bytes:
    (folder / "serial").write_text("01\n")
    (folder / "tsa.pem").write_bytes(tsa().leaf.pem)
    (folder / "tsa.key").write_bytes(tsa().leaf.key_pem)
    (folder / "tsa.cnf").write_text(CONFIGURATION.format(folder=folder))
    (folder / "query.tsq").write_bytes(question)
    files = ("-config", folder / "tsa.cnf", "-queryfile", folder / "query.tsq", "-out", folder / "reply.tsr")
    status, said = run_program("openssl", "ts", "-reply", *files)
    assert status == 0, said
    return (folder / "reply.tsr").read_bytes()


@contextmanager
def serving(answer: Callable[[bytes], bytes], status: int = 200) -> Iterator[str]:
    """A TSA on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/timestamp-query"
            body = answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/tsr"
        finally:
            server.shutdown()
            thread.join()


def test_openssl_as_tsa_is_sound(tmp_path: Path) -> None:
    with serving(lambda question: openssl_answer(tmp_path, question)) as url:
        found = check_tsa(url)

    assert found.verdict is Verdict.PASS, found
    assert "genTime 2" in found.found


def test_an_answer_to_another_question_is_noticed(tmp_path: Path) -> None:
    other = encode_request(TimeStampReq(digest_algorithm="sha256", imprint=bytes(32), nonce=7))

    with serving(lambda _: openssl_answer(tmp_path, other)) as url:
        fails(check_tsa(url), "tsp.nonce", "verification")


def test_a_refusal_is_told_in_the_tsas_words(tmp_path: Path) -> None:
    with serving(lambda _: openssl_answer(tmp_path, b"\x30\x03\x02\x01\x01")) as url:
        fails(check_tsa(url), "tsp.rejected", "unavailable")


def test_a_page_that_is_no_tsa() -> None:
    with serving(lambda _: b"<html>") as url:
        fails(check_tsa(url), "der.malformed", "malformed")
    with serving(lambda _: b"", status=404) as url:
        fails(check_tsa(url), "tsa.answer", "unavailable")


def test_a_tsa_that_does_not_answer() -> None:
    fails(check_tsa(f"http://127.0.0.1:{free_port()}/tsr"), "tsa.unreachable", "unavailable")


def test_an_address_that_is_none() -> None:
    fails(check_tsa("tsa.example"), "config.malformed", "config")
