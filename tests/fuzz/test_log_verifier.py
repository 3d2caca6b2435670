# SPDX-License-Identifier: Apache-2.0
"""Hostile logs before the verifier: whatever files, entries, sizes and answers come, it soon refuses by name."""

import http.server
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from log_samples import ORIGIN, SIGNER, GrownLog, genesis, intent_at, result_of
from privyseal.client import log_source
from privyseal.client.log import PublicLog
from privyseal.client.log_files import encode_notes, verify_log
from privyseal.client.log_source import StoredNotes, WebSource
from privyseal.errors import LogIntegrityError, PrivysealError, UnavailableError
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.entry import encode_entry
from privyseal.tlog.proof import MAX_PROOF_HASHES
from privyseal.tlog.receipt import Receipt, parse_receipt, verify_receipt
from privyseal.tlog.tile import parse_path
from privyseal.tlog.tree import MAX_TREE_SIZE
from wire_samples import entries, mutated


@dataclass(kw_only=True)
class Files:
    """A log as files in memory."""

    found: dict[str, bytes]
    place: str = "memory"

    def read(self, path: str) -> bytes | None:
        return self.found.get(path)

    def read_vkey(self) -> bytes | None:
        return self.found.get("vkey")

    def read_checkpoints(self, number: int) -> StoredNotes:
        return StoredNotes(path="checkpoints/tail", data=b"" if number else self.found["checkpoints/tail"])


def honest(size: int = 9) -> dict[str, bytes]:
    log, intent = GrownLog(), intent_at(2, 1)
    log.commit(genesis(), intent, result_of(3, 1, intent))
    log.grow_to(size)
    paths = ("checkpoint", f"tile/0/000.p/{size}", f"tile/entries/000.p/{size}")
    found = {path: log.read(path) or b"" for path in paths}
    return found | {"checkpoints/tail": encode_notes(tuple(log.notes)), "vkey": (SIGNER.verifier.vkey + "\n").encode()}


def verified(files: dict[str, bytes]) -> str:
    """The code of the refusal, or empty."""
    try:
        verify_log(PublicLog(Files(found=files), key=SIGNER.verifier, origin=ORIGIN))
    except LogIntegrityError as error:
        return error.code
    return ""


HONEST = honest()


def test_an_honest_log_first() -> None:
    assert verified(HONEST) == ""


@given(st.sampled_from(sorted(HONEST)), st.data())
def test_a_file_with_changed_bytes_is_refused(name: str, data: st.DataObject) -> None:
    changed = data.draw(mutated(HONEST[name]) | st.binary(max_size=400))

    assert (verified(HONEST | {name: changed}) == "") == (changed == HONEST[name])


@given(st.lists(st.binary(max_size=80) | entries.map(encode_entry), min_size=1, max_size=8))
def test_a_log_that_its_key_signed_is_judged_by_its_entries(found: list[bytes]) -> None:
    log = GrownLog()
    log.commit(*found)

    with pytest.raises(LogIntegrityError) as caught:
        verify_log(log.public())
    assert caught.value.code in {"log.entry", "log.anchor"}


@pytest.mark.parametrize("size", [2**32, 2**62, MAX_TREE_SIZE])
def test_a_size_that_no_log_has_is_refused_at_once(size: int) -> None:
    note = sign_checkpoint(Checkpoint(origin=ORIGIN, size=size, root=bytes(32)), SIGNER)
    files = HONEST | {"checkpoint": note.encode()}
    log = PublicLog(Files(found=files), key=SIGNER.verifier, origin=ORIGIN)

    assert verified(files) == "log.file_missing"
    for ask in (lambda: log.rows(size, within=size), lambda: log.consistency(9, size), lambda: log.inclusion(9, size)):
        with pytest.raises(LogIntegrityError) as caught:
            ask()
        assert caught.value.code == "log.file_missing"


@given(
    st.integers(0, MAX_TREE_SIZE),
    st.integers(0, MAX_TREE_SIZE),
    st.lists(st.binary(min_size=32, max_size=32), max_size=MAX_PROOF_HASHES),
)
def test_receipts_with_huge_numbers_are_judged_in_their_length(index: int, size: int, proof: list[bytes]) -> None:
    note = sign_checkpoint(Checkpoint(origin=ORIGIN, size=size, root=bytes(32)), SIGNER)
    text = Receipt(index=index, proof=tuple(proof), checkpoint=note, extra=b"entry").encode()

    receipt = parse_receipt(text)
    with pytest.raises(PrivysealError) as caught:
        verify_receipt(receipt, entry=receipt.extra, origin=ORIGIN, verifiers=(SIGNER.verifier,))
    assert caught.value.code == "proof.inclusion"


# -- over HTTP --------------------------------------------------------------------------------------------------------

#: Pieces of a body, without end if they have none.
Body = Callable[[], Iterator[bytes]]


@contextmanager
def serving(found: dict[str, bytes], lies: dict[str, Body], status: int = 200) -> Iterator[PublicLog]:
    """A web server over files, some of which are lies."""
    ended = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix("/log/")
            body = lies.get(path)
            whole = found.get(path)
            with suppress(OSError):  # the client may have heard enough
                self.send_response(status if body is not None else 404 if whole is None else 200)
                self.end_headers()
                for piece in body() if body is not None else iter((whole or b"",)):
                    if ended.is_set():
                        return
                    self.wfile.write(piece)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        source = WebSource(f"http://127.0.0.1:{server.server_port}/log")
        yield PublicLog(source, key=SIGNER.verifier, origin=ORIGIN)
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 65_536


def once(data: bytes) -> Body:
    return lambda: iter((data,))


TILE, BUNDLE = HONEST["tile/0/000.p/9"], HONEST["tile/entries/000.p/9"]


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("tile/0/000.p/9", once(b""), "log.tile"),
        ("tile/0/000.p/9", once(TILE[:-1]), "log.tile"),
        ("tile/0/000.p/9", once(TILE + b"x"), "log.tile"),
        ("tile/0/000.p/9", once(TILE * 40), "log.tile"),
        ("tile/0/000.p/9", endless, "log.file_size"),
        ("tile/entries/000.p/9", once(b""), "log.bundle"),
        ("tile/entries/000.p/9", once(BUNDLE[:-1]), "log.bundle"),
        ("tile/entries/000.p/9", once(BUNDLE + b"\0\0"), "log.bundle"),
        ("tile/entries/000.p/9", once(b"\xff\xff" + BUNDLE[2:]), "log.bundle"),
        ("tile/entries/000.p/9", once(b"\0\0" * 9), "log.entry"),
        ("tile/entries/000.p/9", endless, "log.file_size"),
        ("checkpoint", once(b""), "log.checkpoint"),
        ("checkpoint", once(b"\xff" * 600_000), "log.checkpoint"),
        ("checkpoint", endless, "log.file_size"),
        ("checkpoints/tail", once(b'"\xff"\n'), "log.checkpoint"),
        ("checkpoints/tail", once(b"[" * 100_000 + b"\n"), "log.checkpoint"),
        ("checkpoints/tail", once(b'"x"\n' * 300), "log.checkpoint"),
        ("checkpoints/tail", endless, "log.file_size"),
        ("vkey", once(b"x"), "log.vkey"),
        ("vkey", endless, "log.file_size"),
    ],
    ids=range(20),
)
def test_what_a_web_server_may_answer(name: str, body: Body, code: str) -> None:
    with serving(HONEST, {name: body}) as log, pytest.raises(LogIntegrityError) as caught:
        verify_log(log)
    assert caught.value.code == code


@pytest.mark.parametrize("status", [204, 301, 403, 500])
def test_an_answer_that_is_none(status: int) -> None:
    with serving(HONEST, {"checkpoint": once(b"")}, status) as log, pytest.raises(UnavailableError) as caught:
        verify_log(log)
    assert caught.value.code == "log.unreachable"


def test_an_answer_that_drips_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip() -> Iterator[bytes]:
        pause = threading.Event()
        while True:
            pause.wait(0.01)
            yield b"x"

    monkeypatch.setattr(log_source, "_ANSWER_SECONDS", 0.1)
    with serving(HONEST, {"checkpoint": drip}) as log, pytest.raises(UnavailableError) as caught:
        verify_log(log)
    assert caught.value.code == "log.unreachable"


def test_an_endless_body_is_not_kept_beyond_the_longest_file() -> None:
    with serving(HONEST, {"checkpoint": endless}) as log:
        tracemalloc.start()
        try:
            with pytest.raises(LogIntegrityError):
                verify_log(log)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 4 * 256 * (2 + 0xFFFF)


@given(st.text(max_size=80))
def test_a_path_is_read_or_refused(text: str) -> None:
    with suppress(PrivysealError):
        assert parse_path(text).path == text
