# SPDX-License-Identifier: Apache-2.0
"""What people do with an agent's tokens beside their PINs: out of use, back into it, new workers, a reset."""

from collections.abc import Mapping
from typing import Final

import msgspec

from privyseal.agent.control import ControlCall, ControlHandler, named
from privyseal.agent.keeper import TokenKeeper
from privyseal.agent.token_state import TokenState

__all__ = ["ServiceArguments", "Serviced", "TokenCommands"]


class ServiceArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `drain`, `resume`, `recycle` and `reset` are given: the token's name in agent.toml."""

    token: str


class Serviced(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """It was done, and the token is as it was to be.

    Attributes:
        serial: Empty if the token was never seen.
        state: `ready` or `drained`, as in `TokenState`.
        profiles: How many key profiles can sign with it.
        step: Of `reset`, the step of the recovery ladder that was taken.
    """

    token: str
    serial: str
    state: str
    profiles: int
    step: str = ""


class TokenCommands:
    """Commands for the tokens of one agent."""

    def __init__(self, keepers: Mapping[str, TokenKeeper]) -> None:
        """`keepers` are those of the tokens by their names in agent.toml."""
        self._keepers: Final = keepers

    @property
    def commands(self) -> Mapping[str, ControlHandler]:
        """For the control socket."""
        return {"drain": self._drain, "resume": self._resume, "recycle": self._recycle, "reset": self._reset}

    async def _drain(self, call: ControlCall) -> Serviced:
        name, keeper = self._meant(call)
        await keeper.drain()
        return _serviced(name, keeper, "it was taken out of use")

    async def _resume(self, call: ControlCall) -> Serviced:
        name, keeper = self._meant(call)
        await keeper.resume()
        return _serviced(name, keeper, "it was taken back into use")

    async def _recycle(self, call: ControlCall) -> Serviced:
        name, keeper = self._meant(call)
        await keeper.recycle()
        return _serviced(name, keeper, "its workers were replaced")

    async def _reset(self, call: ControlCall) -> Serviced:
        name, keeper = self._meant(call)
        step = (await keeper.reset()).value
        return _serviced(name, keeper, f"it was reset (step {step})", step)

    def _meant(self, call: ControlCall) -> tuple[str, TokenKeeper]:
        name = call.given(ServiceArguments).token
        return name, named(self._keepers, name)


def _serviced(name: str, keeper: TokenKeeper, done: str, step: str = "") -> Serviced:
    """The answer.

    Raises:
        PrivysealError: why the token is not in use although it was to be.
    """
    problem = keeper.problem
    if problem is not None and keeper.state is not TokenState.DRAINED:
        raise type(problem)(
            problem.code, f"token {name!r}: {done}, and it cannot sign: {problem.message}", hint=problem.hint
        )
    return Serviced(
        token=name,
        serial=keeper.record.serial,
        state=keeper.state.value,
        profiles=sum(profile.served is not None for profile in keeper.profiles),
        step=step,
    )
