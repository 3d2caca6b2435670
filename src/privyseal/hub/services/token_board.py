# SPDX-License-Identifier: Apache-2.0
"""How the tokens of all linked agents are, as the agents say."""

from collections.abc import Callable, Mapping
from typing import Final

from privyseal.errors import MalformedInputError
from privyseal.wire.link import SIGN_BOUNDS_SECONDS, TokenHealth

__all__ = ["TokenBoard"]

#: More than this no honest agent says; all of it is kept, shown and counted.
_MOST_TOKENS: Final = 64
_MOST_CHARACTERS: Final = 4096


class TokenBoard:
    """The newest report of each agent; that of an agent without a link is kept, and is an old one."""

    def __init__(self, told: Callable[[str, TokenHealth | None, TokenHealth], None]) -> None:
        """`told` is called for each token of each report: the agent's name, what it said before, what it says now."""
        self._told = told
        self._tokens: dict[str, tuple[TokenHealth, ...]] = {}

    def report(self, agent: str, tokens: tuple[TokenHealth, ...]) -> None:
        """Take what an agent says.

        Raises:
            MalformedInputError: `link.malformed` if that cannot be.
        """
        names = {token.name for token in tokens}
        if len(tokens) > _MOST_TOKENS or len(names) < len(tokens) or not all(_is_bounded(token) for token in tokens):
            raise MalformedInputError("link.malformed", f"a report of {len(tokens)} tokens that no agent makes")
        before = {token.name: token for token in self._tokens.get(agent, ())}
        self._tokens[agent] = tokens
        for token in tokens:
            self._told(agent, before.get(token.name), token)

    def forget(self, agent: str) -> None:
        """An agent has no standing any more."""
        self._tokens.pop(agent, None)

    @property
    def tokens(self) -> Mapping[str, tuple[TokenHealth, ...]]:
        """By name of the agent."""
        return self._tokens


def _is_bounded(token: TokenHealth) -> bool:
    texts = (token.label, token.serial, token.model, token.code, token.problem, token.hint, token.trouble)
    characters = sum(map(len, (token.name, token.state, token.pin_state, *texts, *token.recoveries, *token.relocation)))
    return characters <= _MOST_CHARACTERS and len(token.sign_counts) <= len(SIGN_BOUNDS_SECONDS) + 1
