# SPDX-License-Identifier: Apache-2.0
"""`privyseal device attach`: a device that stays until somebody ends it, and with --keep comes back."""

import asyncio
import contextlib
import secrets
import sys
from dataclasses import dataclass
from typing import Final

from privyseal.cli.device_end import end_data, end_error, end_lines
from privyseal.cli.device_session import Place, Session, StopError, until_stopped
from privyseal.cli.render import emit, say
from privyseal.client.device_use import DeviceUse
from privyseal.client.devices import DeviceClient
from privyseal.client.lease_request import LeaseWish
from privyseal.errors import ConfigError, DeniedError, IdentityError, PrivysealError

__all__ = ["Attaching"]

#: With --keep: the pause before the device is asked for again, spread so that many hosts do not ask at once.
_AGAIN_SECONDS: Final = 5.0
#: The same after it was taken back: whoever did wants it away.
_TAKEN_SECONDS: Final = 60.0
#: What no later try mends.
_LASTING: Final = (ConfigError, DeniedError, IdentityError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attaching:
    """How the command was given.

    Attributes:
        keep: Ask again after each end.
    """

    wish: LeaseWish
    place: Place
    keep: bool
    as_json: bool

    async def run(self, client: DeviceClient) -> int:
        """Borrow it, once or again and again; the exit code.

        Raises:
            StopError: somebody wanted the end before the device was here, and it is not kept.
            PrivysealError: it could not be had, or the lease ended badly.
        """
        session = Session(client, self.wish, self.place)
        with session.listening():
            if self.keep:
                while not session.stop.is_set():
                    await self._again(session)
            elif (failure := await self._once(session)) is not None:
                raise failure
        return 0

    async def _again(self, session: Session) -> None:
        """Once, and a pause."""
        try:
            failure = await self._once(session)
        except StopError:
            return
        except PrivysealError as error:
            if isinstance(error, _LASTING):
                raise
            failure = error
        if session.stop.is_set():
            return
        seconds = _TAKEN_SECONDS if failure is not None and failure.code == "device.taken" else _AGAIN_SECONDS
        seconds *= 1 + secrets.SystemRandom().random()
        say((f"{failure}; " if failure else "") + f"it is asked for again in {seconds:.0f} s")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await session.stop.wait()

    async def _once(self, session: Session) -> PrivysealError | None:
        """Have it until the end; why that came, if it was not wanted here."""
        name = self.wish.device

        async def held(use: DeviceUse) -> None:
            data = {"event": "attached", "device": name, "where": use.where}
            emit(data, (f"attached  {name}: {use.where}; Ctrl-C gives it back",), as_json=self.as_json)
            sys.stdout.flush()
            with contextlib.suppress(StopError):
                await until_stopped(use.ended(), session.stop)

        end, _ = await session.hold(held)
        emit(end_data(name, end), end_lines(name, end), as_json=self.as_json)
        sys.stdout.flush()
        return end_error(name, end)
