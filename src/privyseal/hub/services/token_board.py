# SPDX-License-Identifier: Apache-2.0
"""How the tokens of all linked agents are, as the agents say."""

from collections.abc import Callable, Mapping

from privyseal.wire.link import TokenHealth

__all__ = ["TokenBoard"]


class TokenBoard:
    """The newest report of each agent; that of an agent without a link is kept, and is an old one."""

    def __init__(self, changed: Callable[[str], None] = lambda _agent: None) -> None:
        """`changed` is called with an agent's name after each of its reports."""
        self._changed = changed
        self._tokens: dict[str, tuple[TokenHealth, ...]] = {}

    def report(self, agent: str, tokens: tuple[TokenHealth, ...]) -> None:
        """Take what an agent says."""
        self._tokens[agent] = tokens
        self._changed(agent)

    @property
    def tokens(self) -> Mapping[str, tuple[TokenHealth, ...]]:
        """By name of the agent."""
        return self._tokens
