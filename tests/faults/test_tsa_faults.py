# SPDX-License-Identifier: Apache-2.0
"""TSAs that hang, lie, or speak something else: a clear error in bounded time, and never a token."""

import contextlib
import datetime as dt
import email.utils
import hashlib
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from pki_samples import tsa
from privyseal.client.timestamping import Patience, Timestamper, open_timestamper
from privyseal.client.tsa_http import HttpTsa
from privyseal.errors import ConfigError, PrivysealError, UnavailableError, VerificationError
from privyseal.pki import tsp
from privyseal.wire.tsa import BusyError
from tsa_samples import (
    Behaviour,
    Reply,
    broken_signature,
    busy,
    drip,
    expired,
    hang,
    html,
    other_imprint,
    other_nonce,
    oversize,
    redirect,
    refusing,
    running_tsa,
    truncated,
    wrong_time,
    wrong_usage,
)

ROOTS = (tsa().root.der,)
#: A bound for what takes about one second on an idle machine.
SOON_SECONDS = 10.0
ONCE = Patience(exchange_seconds=10.0, attempts=1)


def request() -> bytes:
    return tsp.encode_request(tsp.TimeStampReq(digest_algorithm="sha256", imprint=b"i" * 32, nonce=7))


def error_of(url: str, seconds: float = SOON_SECONDS) -> PrivysealError:
    with pytest.raises(PrivysealError) as caught:
        HttpTsa(url=url).ask(request(), seconds)
    return caught.value


def refused_by_all(*urls: str, patience: Patience = ONCE) -> PrivysealError:
    sources = tuple(HttpTsa(url=url) for url in urls)
    with pytest.raises((UnavailableError, VerificationError)) as caught:
        Timestamper(sources, ROOTS, patience=patience).token(b"signature", "sha256")
    return caught.value


FAULTS: dict[str, tuple[Behaviour, str, int]] = {
    "wrong nonce": (other_nonce, "tsp.nonce", 3),
    "wrong imprint": (other_imprint, "tsp.imprint", 3),
    "expired certificate": (expired, "tsp.certificate_dates", 3),
    "wrong usage": (wrong_usage, "tsp.certificate_purpose", 3),
    "broken signature": (broken_signature, "signature.invalid", 3),
    "wrong time": (wrong_time, "tsp.clock", 3),
    "web page": (html, "tsa.not_a_timestamp", 3),
    "truncated": (truncated, "tsa.truncated", 3),
    "too large": (oversize, "tsa.too_large", 3),
    "refused": (refusing, "tsp.rejected", 7),
    "busy": (busy(), "tsa.busy", 7),
    "busy for long": (busy("3600", status=503), "tsa.busy", 7),
    "no response": (lambda _: Reply(body=b"\x30\x03\x02\x01\x00"), "der.malformed", 3),
    "nothing": (lambda _: Reply(body=b""), "der.malformed", 3),
    "not found": (lambda _: Reply(status=404), "tsa.http_status", 3),
    "failed": (lambda _: Reply(status=500), "tsa.unavailable", 7),
    "see other": (lambda _: Reply(status=303, headers=(("Location", "/"),)), "tsa.http_status", 3),
    "redirect to ftp": (redirect("ftp://127.0.0.1/"), "tsa.redirects", 3),
    "redirect to no URL": (redirect("http://["), "tsa.redirects", 3),
    "redirect with credentials": (redirect("http://name:secret@127.0.0.1/"), "tsa.redirects", 3),
    "redirect to itself": (redirect(""), "tsa.redirects", 3),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_with_the_tsa_and_the_next_one_is_asked(fault: str) -> None:
    behaviour, code, status = FAULTS[fault]
    with running_tsa(behaviour) as bad, running_tsa() as good:
        error = refused_by_all(bad.url)
        sources = (HttpTsa(url=bad.url), HttpTsa(url=good.url))
        token = Timestamper(sources, ROOTS).token(b"signature", "sha256")

    assert error.exit_status == status, error
    assert bad.url in error.message
    assert f"[{code}]" in error.message
    assert error.hint
    assert tsp.parse_token(token).imprint == hashlib.sha256(b"signature").digest()


@pytest.mark.parametrize("behaviour", [hang, drip])
def test_a_peer_that_takes_its_time_does_not_take_ours(behaviour: Behaviour) -> None:
    with running_tsa(behaviour) as host:
        begun = time.monotonic()
        error = error_of(host.url, 1.0)

        assert error.code == "tsa.timeout"
        assert time.monotonic() - begun < SOON_SECONDS


def test_a_header_that_never_ends_is_cut_off() -> None:
    with running_tsa(lambda _: Reply(headers=tuple((f"X-{n}", "y") for n in range(200)))) as host:
        assert error_of(host.url).code == "tsa.not_http"


def test_a_connection_that_nobody_accepts_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:  # fill the queue: the next SYN stays without an answer
            one.setblocking(False)  # noqa: FBT003 - the standard library's way
            one.connect_ex(("127.0.0.1", port))

        error = error_of(f"http://127.0.0.1:{port}/", 1.0)

        for one in waiting:
            one.close()
    assert error.code == "tsa.timeout"


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    assert error_of(f"http://127.0.0.1:{port}/").code == "tsa.unreachable"


HEAD = b"HTTP/1.1 200 OK\r\n"
#: What a peer may send instead of HTTP, or as HTTP that only looks like it; `...` is sent again and again.
NONSENSE: dict[str, tuple[bytes, bytes, str]] = {
    "another protocol": (b"220 mail.example.com ESMTP\r\n", b"", "tsa.not_http"),
    "nothing": (b"", b"", "tsa.unreachable"),
    "endless line": (HEAD + b"X: ", b"y" * 4096, "tsa.not_http"),
    "endless patience": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "tsa.too_large"),
    "endless body": (HEAD + b"\r\n", b"y" * 4096, "tsa.too_large"),
    "huge length": (HEAD + b"Content-Length: 99999999999999\r\n\r\n", b"", "tsa.truncated"),
    "huge chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffff\r\n", b"y" * 4096, "tsa.too_large"),
    "chunk below zero": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", b"y" * 4096, "tsa.too_large"),
    "chunk far below zero": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n", b"y", "tsa.not_http"),
    "chunk of no size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"", "tsa.truncated"),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_what_only_looks_like_http(kind: str) -> None:
    first, again, code = NONSENSE[kind]

    def answer(server: socket.socket) -> None:
        stream, _ = server.accept()
        with stream, contextlib.suppress(OSError):
            stream.recv(4096)
            stream.sendall(first)
            while again:
                stream.sendall(again)
            # To close with a part of the question unread would be a reset, which may overtake the answer.
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(answer, server)
        assert error_of(f"http://127.0.0.1:{server.getsockname()[1]}/").code == code


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_followed_with_the_same_question(status: int) -> None:
    with running_tsa() as good, running_tsa(redirect(good.url, status)) as host:
        HttpTsa(url=host.url).ask(request(), SOON_SECONDS)

        assert good.requests == host.requests == [request()]


def test_redirects_in_a_circle_end() -> None:
    with running_tsa(redirect("/again")) as host:
        assert error_of(host.url).code == "tsa.redirects"
        assert len(host.requests) == 4


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("9" * 40, 86_400.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
    ],
)
def test_retry_after_is_read_in_both_forms(said: str, expected: float | None) -> None:
    with running_tsa(busy(said)) as host:
        error = error_of(host.url)

    assert isinstance(error, BusyError)
    assert error.retry_after_seconds == expected


def test_an_http_date_is_a_time_from_now() -> None:
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=100)
    with running_tsa(busy(email.utils.format_datetime(moment, usegmt=True))) as host:
        error = error_of(host.url)

    assert isinstance(error, BusyError)
    assert error.retry_after_seconds is not None
    assert 60 < error.retry_after_seconds <= 100


def test_a_busy_tsa_is_asked_again_when_it_said() -> None:
    waits: list[float] = []
    with running_tsa(busy("1", times=2)) as host:
        subject = Timestamper((HttpTsa(url=host.url),), ROOTS, wait=waits.append, monotonic=lambda: sum(waits))
        subject.token(b"signature", "sha256")

    assert waits == [1, 1]


def test_many_threads_share_one_timestamper() -> None:
    flaky = busy("0", times=20)
    with running_tsa(flaky) as first, running_tsa() as second:
        subject = Timestamper((HttpTsa(url=first.url), HttpTsa(url=second.url)), ROOTS)
        with ThreadPoolExecutor(8) as pool:
            tokens = list(pool.map(lambda n: subject.token(b"%d" % n, "sha256"), range(40)))

    for number, token in enumerate(tokens):
        assert tsp.parse_token(token).imprint == hashlib.sha256(b"%d" % number).digest()


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A TLS authority that this process's system trusts."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "tls.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.pem"))
    return ca


def test_https_is_verified(authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(stranger)
    with running_tsa(tls=context) as host, running_tsa(tls=stranger) as other, running_tsa() as plain:
        HttpTsa(url=host.url).ask(request(), SOON_SECONDS)

        assert error_of(other.url).code == "tsa.tls"
        assert error_of(plain.url.replace("http:", "https:")).code == "tsa.tls"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "tsa.example.com",
        "ftp://tsa.example.com",
        "http://",
        "http://user:secret@tsa",
        "http://a b",
        "http://[",
        "http://a:x",
        "http://a..b",
        f"http://{'a' * 64}",
        "http://a\n",
    ],
)
def test_a_url_that_is_none_is_refused_at_once_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_timestamper(None, (url,))

    assert caught.value.code == "timestamp.url"
    assert "secret" not in str(caught.value)


def test_nothing_named_is_nothing_asked() -> None:
    assert open_timestamper(None) is None
