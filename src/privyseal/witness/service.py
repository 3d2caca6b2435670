# SPDX-License-Identifier: Apache-2.0
"""The running witness: one decision at a time, remembered before it is cosigned; and its HTTP side (C2SP tlog-witness).

HTTP is enough: requests and answers are signed, and neither is secret.
"""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from privyseal.errors import ConfigError
from privyseal.ports.clock import Clock, system_clock
from privyseal.storage.durable_file import FileSystem, PosixFileSystem
from privyseal.tlog.cosignature import Cosigner, LogKey
from privyseal.tlog.note import NoteSignature
from privyseal.tlog.witness import MAX_BODY_BYTES, Refusal, judge_checkpoint
from privyseal.witness.config import load_cosigners, load_witness_config
from privyseal.witness.memory import WitnessMemory

__all__ = ["Witness", "WitnessProcess", "open_witness"]

_LOG: Final = structlog.get_logger("privyseal.witness")
_MAX_WAITING: Final = 64
_BODY_SECONDS: Final = 20.0
_SHUTDOWN_SECONDS: Final = 5.0
#: Refusals of a checkpoint that its log did sign; others cost the sender nothing, and are not written down.
_CONTRADICTIONS: Final = frozenset({409, 422})
_SIZE_TYPE: Final = "text/x.tlog.size"


class Witness:
    """Cosigns for the logs it knows. Its calls may come from any thread."""

    def __init__(
        self,
        *,
        cosigners: tuple[Cosigner, ...],
        logs: Mapping[str, tuple[LogKey, ...]],
        memory: WitnessMemory,
        clock: Clock,
    ) -> None:
        self._cosigners: Final = cosigners
        self._logs: Final = logs
        self._memory: Final = memory
        self._clock: Final = clock
        self._one_at_a_time: Final = threading.Lock()

    def add_checkpoint(self, body: bytes) -> tuple[NoteSignature, ...] | Refusal:
        """The cosignatures on a checkpoint, one of each key and all of one time, or why there are none.

        Raises:
            OSError: if the decision could not be made durable; nothing was cosigned.
        """
        with self._one_at_a_time:
            verdict = judge_checkpoint(body, logs=self._logs, seen=self._memory.seen)
            if isinstance(verdict, Refusal):
                return verdict
            self._memory.remember(verdict.origin, verdict.seen)
            now = self._clock() // 1000
            return tuple(cosigner.sign(verdict.text, now) for cosigner in self._cosigners)

    def close(self) -> None:
        """End; a call that runs comes to its end first."""
        with self._one_at_a_time:
            self._memory.close()


class WitnessProcess:
    """A witness and its listener."""

    def __init__(self, witness: Witness, *, host: str, port: int, body_seconds: float = _BODY_SECONDS) -> None:
        self._witness: Final = witness
        self._host: Final = host
        self._port: Final = port
        self._body_seconds: Final = body_seconds
        self._waiting = 0
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/add-checkpoint", self._add_checkpoint)
        # Nobody needs to compress what is that small, and what unpacks to much is not unpacked.
        self._runner: Final = web.AppRunner(
            app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS, auto_decompress=False
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._runner.addresses[0][1]
        return port

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: `listen.failed`.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            raise ConfigError(
                "listen.failed",
                f"cannot listen on {self._host}:{self._port}: {error.strerror}",
                hint="another process uses the port? Give another one with --listen",
            ) from error
        _LOG.info("witness ready", host=self._host, port=self.port)

    async def stop(self) -> None:
        """Stop listening, then end the witness."""
        await self._runner.cleanup()
        await asyncio.to_thread(self._witness.close)

    async def _add_checkpoint(self, request: web.Request) -> web.Response:
        if self._waiting >= _MAX_WAITING:
            return web.Response(status=503, text="the witness has too much to do\n", headers={"Retry-After": "5"})
        self._waiting += 1
        try:
            return await self._answer(request)
        finally:
            self._waiting -= 1

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(self._body_seconds):
                body = await request.read()
        except TimeoutError:
            return web.Response(status=408, text="the request did not end in time\n")
        try:
            verdict = await asyncio.to_thread(self._witness.add_checkpoint, body)
        except OSError as error:
            _LOG.warning("not stored", reason=error.strerror)
            return web.Response(status=503, text="the witness cannot store its decision\n")
        if not isinstance(verdict, Refusal):
            return web.Response(text="".join(signature.line for signature in verdict))
        if verdict.size is not None:
            return web.Response(status=verdict.status, body=f"{verdict.size}\n".encode(), content_type=_SIZE_TYPE)
        if verdict.status in _CONTRADICTIONS:
            _LOG.warning("a log's signed checkpoint does not extend what was cosigned", reason=verdict.reason)
        return web.Response(status=verdict.status, text=verdict.reason + "\n")


def open_witness(directory: Path, *, files: FileSystem | None = None, clock: Clock = system_clock) -> Witness:
    """Open the witness in a directory.

    Raises:
        ConfigError: what is missing or malformed; `witness.running`.
        LogIntegrityError: `witness.state_missing` and its like.
    """
    config = load_witness_config(directory)
    cosigners = load_cosigners(directory, config)
    memory = WitnessMemory.open(config.place(directory, cosigners), files or PosixFileSystem())
    return Witness(cosigners=cosigners, logs=config.log_keys, memory=memory, clock=clock)
