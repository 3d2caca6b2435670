# SPDX-License-Identifier: Apache-2.0
"""The fault table of a witness's memory: each step of writing fails, or the process ends there.

Whatever happens, no cosignature leaves that is not remembered after the next start, and an older memory is refused.
"""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lying_hub import MemoryLog
from lying_logs import log_of
from privyseal.errors import ConfigError, LogIntegrityError
from privyseal.storage.durable_file import PosixFileSystem
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.note import NoteSignature, NoteSigner, parse_note
from privyseal.tlog.witness import AddCheckpoint, Refusal
from privyseal.witness.config import WitnessFiles, init_witness
from privyseal.witness.service import WitnessProcess, open_witness

ORIGIN = "log.example/a"
LOG = NoteSigner(name=ORIGIN, key=Ed25519PrivateKey.from_private_bytes(b"a" * 32))
STEPS = tuple(
    f"{step} {file}"
    for file in ("state.json", "guard.json")
    for step in ("create", "write", "sync", "close", "rename", "sync_directory")
)
FULL = OSError(28, "No space left on device")


class Files(PosixFileSystem):
    """Watches each step of writing; one of them can be made to fail, before or after it took effect."""

    def __init__(self) -> None:
        self.fail_at = ""
        self.persist = False
        self.watch: Callable[[str], None] = lambda _: None
        self._file = ""

    def _take(self, step: str, act: Callable[[], Any]) -> Any:
        name = f"{step} {self._file}"
        self.watch(name)
        if name != self.fail_at:
            return act()
        if self.persist:
            act()
        raise FULL

    def create(self, path: Path) -> int:
        self._file = path.name.removeprefix(".").removesuffix(".new")
        descriptor: int = self._take("create", lambda: super(Files, self).create(path))
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        # Persisted in part is what a full disk does.
        part = data[: len(data) // 2] if self.fail_at == f"write {self._file}" else data
        self._take("write", lambda: super(Files, self).write(descriptor, part))

    def sync(self, descriptor: int) -> None:
        self._take("sync", lambda: super(Files, self).sync(descriptor))

    def close(self, descriptor: int) -> None:
        self._take("close", lambda: super(Files, self).close(descriptor))

    def rename(self, source: Path, target: Path) -> None:
        self._take("rename", lambda: super(Files, self).rename(source, target))

    def sync_directory(self, path: Path) -> None:
        self._take("sync_directory", lambda: super(Files, self).sync_directory(path))


HONEST = log_of(*"abcdef")
FORKED = log_of(*"abcXef")


def request(old: int, new: int, log: MemoryLog = HONEST) -> bytes:
    grown = MemoryLog()
    grown.entries[:] = log.entries[:new]
    checkpoint = Checkpoint(origin=ORIGIN, size=new, root=grown.root())
    note = parse_note(sign_checkpoint(checkpoint, LOG))
    return AddCheckpoint(old_size=old, proof=grown.consistency(old), note=note, checkpoint=checkpoint).encode().encode()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A witness that has cosigned three entries."""
    directory = tmp_path / "w"
    init_witness(directory, name="witness.example/w1", listen="127.0.0.1:0")
    with WitnessFiles(directory).config.open("a") as config:
        config.write(f'\n[[log]]\norigin = "{ORIGIN}"\nkey = "{LOG.verifier.vkey}"\n')
    assert cosigned(directory, request(0, 3))
    return directory


def cosigned(directory: Path, *bodies: bytes) -> list[tuple[NoteSignature, ...] | Refusal]:
    """The witness of a directory is started, asked, and ended."""
    witness = open_witness(directory)
    try:
        return [witness.add_checkpoint(body) for body in bodies]
    finally:
        witness.close()


def lines_of(answer: tuple[NoteSignature, ...] | Refusal) -> tuple[NoteSignature, ...]:
    assert not isinstance(answer, Refusal), answer
    return answer


def last_size(directory: Path) -> int | None:
    """What the witness says it cosigned last, once it is started."""
    (answer,) = cosigned(directory, request(0, 6))
    assert isinstance(answer, Refusal)
    assert answer.status == 409
    return answer.size


@pytest.mark.parametrize("persist", [False, True], ids=["failed", "failed but persisted"])
@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_gives_no_cosignature_and_passes(directory: Path, step: str, *, persist: bool) -> None:
    files = Files()
    witness = open_witness(directory, files=files)
    files.fail_at, files.persist = step, persist
    with pytest.raises(OSError, match="No space left"):
        witness.add_checkpoint(request(3, 5))
    files.fail_at = ""
    assert len(lines_of(witness.add_checkpoint(request(3, 4)))) == 2
    assert len(lines_of(witness.add_checkpoint(request(4, 5)))) == 2
    witness.close()

    assert last_size(directory) == 5


@pytest.mark.parametrize("step", STEPS)
def test_a_start_after_a_full_disk_goes_on_from_what_was_cosigned_or_later(directory: Path, step: str) -> None:
    files = Files()
    witness = open_witness(directory, files=files)
    files.fail_at, files.persist = step, True
    with pytest.raises(OSError, match="No space left"):
        witness.add_checkpoint(request(3, 5))
    witness.close()

    assert last_size(directory) in {3, 5}


def test_a_process_that_ends_at_any_step_has_cosigned_nothing_that_it_forgets(directory: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, Path]] = []

    def copy(step: str) -> None:
        place = tmp_path / f"after {len(seen)}"
        shutil.copytree(directory, place)
        seen.append((step, place))

    files = Files()
    witness = open_witness(directory, files=files)
    files.watch = copy
    answer = witness.add_checkpoint(request(3, 5))
    copy("answered")
    witness.close()

    assert len(lines_of(answer)) == 2
    assert [step for step, _ in seen] == [*STEPS, "answered"]
    sizes = [last_size(place) for _, place in seen]
    assert sizes == sorted(size for size in sizes if size is not None)
    assert set(sizes) == {3, 5}
    # Between fsync and answer the cosignature is not made yet, but never forgotten afterwards.
    assert sizes[-1] == sizes[STEPS.index("create guard.json")] == 5
    for _, place in seen:
        (fork,) = cosigned(place, request(5, 6, FORKED))
        assert isinstance(fork, Refusal)


def test_an_older_memory_is_refused(directory: Path, tmp_path: Path) -> None:
    older = shutil.copyfile(directory / "state.json", tmp_path / "older")
    cosigned(directory, request(3, 5))
    shutil.copyfile(older, directory / "state.json")

    with pytest.raises(LogIntegrityError) as caught:
        open_witness(directory)
    assert caught.value.code == "witness.rollback"


def test_a_memory_of_the_same_number_with_other_content_is_refused(directory: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(directory, tmp_path / "twin"))
    cosigned(directory, request(3, 5))
    cosigned(twin, request(3, 5, FORKED))
    shutil.copyfile(twin / "state.json", directory / "state.json")

    with pytest.raises(LogIntegrityError) as caught:
        open_witness(directory)
    assert caught.value.code == "witness.rollback"


@pytest.mark.parametrize("name", ["state.json", "guard.json"])
@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda _: b"", "witness.state_unreadable"),
        (lambda data: data[:-1], "witness.state_unreadable"),
        (lambda data: data.replace(b"w1+", b"w2+"), "witness.state_unreadable"),
        (lambda data: data.replace(b'"v":1', b'"v":2'), "witness.state_unreadable"),
        (lambda data: data.replace(b'"size":3', b'"size":-3'), "witness.state_unreadable"),
        (None, "witness.state_missing"),
    ],
    ids=["empty", "cut", "another witness", "another version", "negative", "missing"],
)
def test_a_memory_that_is_lost_or_damaged_is_refused(
    directory: Path, name: str, spoil: Callable[[bytes], bytes] | None, code: str
) -> None:
    path = directory / name
    if spoil is None:
        path.unlink()
    else:
        path.write_bytes(spoil(path.read_bytes()))

    with pytest.raises(LogIntegrityError) as caught:
        open_witness(directory)
    assert caught.value.code == code


def test_a_directory_has_one_witness_at_a_time(directory: Path) -> None:
    witness = open_witness(directory)
    try:
        with pytest.raises(ConfigError) as caught:
            open_witness(directory)
        assert caught.value.code == "witness.running"
    finally:
        witness.close()
    open_witness(directory).close()


def test_a_call_that_comes_too_late_is_not_answered(directory: Path) -> None:
    witness = open_witness(directory)
    witness.close()

    for body in (request(3, 3), request(3, 5)):
        with pytest.raises(OSError, match="ended"):
            witness.add_checkpoint(body)
    assert last_size(directory) == 3


def test_what_is_known_already_is_cosigned_again_without_a_write(directory: Path) -> None:
    files = Files()
    files.fail_at = "create state.json"
    witness = open_witness(directory, files=files)

    assert len(lines_of(witness.add_checkpoint(request(3, 3)))) == 2
    witness.close()


def test_many_at_once_never_get_two_trees_of_one_size_cosigned(directory: Path) -> None:
    witness = open_witness(directory)
    start = threading.Barrier(8)

    def ask(log: MemoryLog) -> tuple[NoteSignature, ...] | Refusal:
        start.wait()
        return witness.add_checkpoint(request(3, 5, log))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [HONEST, FORKED] * 4))
    witness.close()

    good = [place % 2 for place, answer in enumerate(answers) if not isinstance(answer, Refusal)]
    assert len(good) == 1
    assert {answer.status for answer in answers if isinstance(answer, Refusal)} == {409}


def test_the_memory_keeps_logs_that_the_configuration_forgot(directory: Path) -> None:
    config = WitnessFiles(directory).config
    text = config.read_text()
    config.write_text(text.partition('\n[[log]]\norigin = "log.example')[0])
    assert [answer.status for answer in cosigned(directory, request(3, 5)) if isinstance(answer, Refusal)] == [404]
    config.write_text(text)

    assert last_size(directory) == 3


@asynccontextmanager
async def listening(directory: Path, files: Files, body_seconds: float = 20.0) -> AsyncIterator[WitnessProcess]:
    process = WitnessProcess(open_witness(directory, files=files), host="127.0.0.1", port=0, body_seconds=body_seconds)
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


async def post(session: aiohttp.ClientSession, process: WitnessProcess, body: bytes) -> tuple[int, str]:
    async with session.post(f"http://127.0.0.1:{process.port}/add-checkpoint", data=body) as reply:
        return reply.status, await reply.text()


async def test_over_http_a_full_disk_is_an_answer_too(directory: Path) -> None:
    files = Files()
    files.fail_at = "write guard.json"
    async with listening(directory, files) as process, aiohttp.ClientSession() as session:
        failed = await post(session, process, request(3, 5))
        files.fail_at = ""
        passed = await post(session, process, request(3, 5))

    assert failed == (503, "the witness cannot store its decision\n")
    assert (passed[0], passed[1][0]) == (200, "—")
    assert last_size(directory) == 5


async def test_more_than_64_at_once_are_sent_away_and_the_others_answered(directory: Path) -> None:
    files, disk = Files(), threading.Event()
    files.watch = lambda _: assert_set(disk)
    unbounded = aiohttp.TCPConnector(limit=0)
    async with listening(directory, files) as process, aiohttp.ClientSession(connector=unbounded) as session:
        asked = {asyncio.create_task(post(session, process, request(3, 5))) for _ in range(70)}
        sent_away: set[asyncio.Task[tuple[int, str]]] = set()
        while len(sent_away) < 6:
            done, asked = await asyncio.wait(asked, timeout=30, return_when=asyncio.FIRST_COMPLETED)
            assert done
            sent_away |= done
        disk.set()
        answered = [status for status, _ in await asyncio.gather(*asked)]

    assert {task.result()[0] for task in sent_away} == {503}
    assert sorted(answered) == [200] + [409] * 63


def assert_set(event: threading.Event) -> None:
    assert event.wait(60)


async def test_a_body_that_does_not_come_is_not_waited_for(directory: Path) -> None:
    async with listening(directory, Files(), body_seconds=0.05) as process:
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 100\r\n\r\nold 0")
        head = await asyncio.wait_for(reader.readline(), 30)
        writer.close()
        await writer.wait_closed()

    assert head.startswith(b"HTTP/1.1 408 ")
