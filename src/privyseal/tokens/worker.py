# SPDX-License-Identifier: Apache-2.0
"""The worker process: one vendor module, one token, one thread (`python -m privyseal.tokens.worker`).

A module may hang or crash; then this process is killed or gone, and nothing else. It learns everything over
its stdin, so that neither its arguments nor its environment tell secrets; it leaves no core file; it ends
when its supervisor does. What a module prints goes to stderr, never between the frames.
"""

import contextlib
import os
import select
import sys
import threading
import time
from typing import Final, NoReturn

from privyseal.errors import TokenError
from privyseal.tokens import frames
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.driver import Driver, Progress
from privyseal.tokens.pin import PinBuffer, leave_no_core
from privyseal.tokens.pin_journal import PinJournal
from privyseal.tokens.pin_supply import PinSupply
from privyseal.tokens.pkcs11 import Pkcs11Driver
from privyseal.tokens.scan import read_module
from privyseal.tokens.software import SoftwareDriver

__all__ = ["main"]

#: A scan holds nothing that its end could spoil.
_SCAN_GRACE_SECONDS: Final = 0.0


class _Pipes:
    """The two pipes to the supervisor, taken off stdin and stdout so that a module cannot touch them."""

    def __init__(self) -> None:
        # os.dup gives descriptors that no program started by a module inherits.
        self.calls = os.dup(0)
        self._answers = os.dup(1)
        os.dup2(2, 1)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device, not a path of ours
            os.dup2(nothing.fileno(), 0)

    def receive(self) -> frames.Call | None:
        """The next call, or None once the supervisor has gone."""
        header = self._read(frames.HEADER_BYTES)
        if header is None:
            return None
        body = self._read(frames.frame_length(header))
        return None if body is None else frames.decode_call(body)

    def receive_pin(self, length: int) -> PinBuffer:
        """The PIN that follows a call."""
        pin = PinBuffer()
        pin.read(self.calls, length)
        return pin

    def send(self, answer: frames.Answer) -> None:
        view = memoryview(frames.encode(answer))
        while view:
            view = view[os.write(self._answers, view) :]

    def _read(self, length: int) -> bytes | None:
        data = bytearray()
        while len(data) < length:
            part = os.read(self.calls, length - len(data))
            if not part:
                return None
            data += part
        return bytes(data)


def _end_with_supervisor(descriptor: int, grace_seconds: float) -> None:
    """Thread: end this process when the supervisor's end of the pipe is gone, even if a call hangs.

    The grace is time for a login to journal its outcome.
    """
    poll = select.poll()
    poll.register(descriptor, 0)  # POLLHUP and POLLERR are always told
    poll.poll()
    time.sleep(grace_seconds)
    os._exit(1)


def _end_later(pipes: _Pipes, grace_seconds: float) -> None:
    threading.Thread(target=_end_with_supervisor, args=(pipes.calls, grace_seconds), daemon=True).start()


def _driver(config: TokenConfig, *, prompted: PinBuffer | None, progress: Progress) -> Driver:
    supply = PinSupply(config, prompted=prompted)
    journal = PinJournal(config.journal)
    if config.kind == "software":
        return SoftwareDriver(config, supply=supply, journal=journal, progress=progress)
    return Pkcs11Driver(config, supply=supply, journal=journal, progress=progress)


def _open(pipes: _Pipes) -> Driver | None:
    call = pipes.receive()
    if call is None:
        return None
    if isinstance(call, frames.ScanCall):
        _end_later(pipes, _SCAN_GRACE_SECONDS)
        pipes.send(frames.ScanAnswer(contents=read_module(call.module)))
        return None
    if not isinstance(call, frames.Open):
        raise TokenError("token.protocol", "the first call to a worker must be open")
    config = call.config
    _end_later(pipes, config.close_seconds)
    prompted = pipes.receive_pin(call.pin_bytes) if call.pin_bytes else None
    driver = _driver(
        config,
        prompted=prompted,
        progress=lambda function: pipes.send(frames.Progress(function=function)),
    )
    driver.open()
    pipes.send(frames.Done())
    return driver


def _answer(driver: Driver, call: frames.Call, pipes: _Pipes) -> frames.Answer:
    answer: frames.Answer
    match call:
        case frames.InfoCall():
            answer = frames.InfoAnswer(info=driver.info())
        case frames.KeysCall():
            answer = frames.KeysAnswer(keys=driver.keys())
        case frames.SignCall():
            signature = driver.sign(key_id=call.key_id, mechanism=call.mechanism, digest=call.digest)
            answer = frames.SignAnswer(signature=signature)
        case frames.GenerateCall():
            key = driver.generate_key(kind=call.kind, key_id=call.key_id, label=call.label)
            answer = frames.GenerateAnswer(key=key)
        case frames.CountersCall():
            answer = frames.CountersAnswer(counters=driver.counters())
        case frames.ReaderUseCall():
            answer = frames.ReaderUseAnswer(use=driver.reader_use())
        case frames.ProbeCall():
            answer = frames.ProbeAnswer(round_trips_us=driver.probe(call.count))
        case _:
            _do(driver, call, pipes)
            answer = frames.Done()
    return answer


def _do(driver: Driver, call: frames.Call, pipes: _Pipes) -> None:
    """What is answered with nothing but that it is done."""
    match call:
        case frames.StoreCall():
            driver.store_certificates(key_id=call.key_id, chain=call.chain)
        case frames.ChangePinCall():
            new = pipes.receive_pin(call.pin_bytes)
            try:
                driver.change_pin(new)
            finally:
                new.wipe()
        case frames.ReinitializeCall():
            driver.reinitialize()
        case frames.CloseCall():
            pass  # answered first
        case _:
            raise TokenError("token.protocol", "a worker is opened once")


def _serve(pipes: _Pipes) -> None:
    try:
        driver = _open(pipes)
    except TokenError as error:
        pipes.send(frames.Failure.of(error))
        return
    failed = False
    while driver is not None and (call := pipes.receive()) is not None:
        if failed and isinstance(call, frames.SignCall) and call.ahead:
            pipes.send(frames.Skipped())  # whoever sent it did not know of the failure, and of what that calls for
            continue
        failed = False
        try:
            pipes.send(_answer(driver, call, pipes))
        except TokenError as error:
            failed = True
            pipes.send(frames.Failure.of(error))
        if isinstance(call, frames.CloseCall):
            # Answered already: a module that crashes in C_Finalize takes nothing with it.
            with contextlib.suppress(TokenError):
                driver.close()
            return


def main() -> NoReturn:
    """Serve one supervisor, then end without running anything at exit (of Python or of a vendor's module)."""
    leave_no_core()
    pipes = _Pipes()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the supervisor has gone
        _serve(pipes)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
