# SPDX-License-Identifier: Apache-2.0
"""What agents say of their tokens is kept within bounds, and told on when it is something new."""

import pytest
from msgspec.structs import replace

from privyseal.errors import MalformedInputError
from privyseal.hub.services.observer import Observer
from privyseal.hub.services.token_board import TokenBoard
from privyseal.wire.events import TokenStateEvent, decode_event
from privyseal.wire.link import TokenHealth

TOKEN = TokenHealth(name="etoken", state="ready", pin_state="ok")


async def test_only_what_is_new_is_told() -> None:
    observer = Observer(lambda: 7)
    board = TokenBoard(observer.token)
    listener = observer.stream.subscribe("desk")
    board.report("pi", (TOKEN,))
    board.report("pi", (replace(TOKEN, signatures=5, sign_counts=(5,)),))
    board.report("pi", (replace(TOKEN, pin_state="count-low"),))
    board.report("pi", (replace(TOKEN, state="blocked", code="token.pin_blocked"),))
    board.report("pc", (TOKEN,))

    told = [decode_event(sent.data) for sent in await observer.stream.next(listener) or ()]
    assert [(one.agent, one.state, one.pin_state) for one in told if isinstance(one, TokenStateEvent)] == [
        ("pi", "ready", "ok"),
        ("pi", "ready", "count-low"),
        ("pi", "blocked", "ok"),
        ("pc", "ready", "ok"),
    ]
    board.forget("pi")
    assert set(board.tokens) == {"pc"}


@pytest.mark.parametrize(
    "tokens",
    [
        (TOKEN, TOKEN),
        tuple(replace(TOKEN, name=str(number)) for number in range(65)),
        (replace(TOKEN, problem="x" * 5000),),
        (replace(TOKEN, recoveries={str(number): 1 for number in range(5000)}),),
        (replace(TOKEN, sign_counts=(0,) * 14),),
    ],
    ids=["same-name", "many", "long", "steps", "classes"],
)
def test_what_no_agent_says_is_refused_and_changes_nothing(tokens: tuple[TokenHealth, ...]) -> None:
    board = TokenBoard(Observer(lambda: 7).token)
    board.report("pi", (TOKEN,))

    with pytest.raises(MalformedInputError):
        board.report("pi", tokens)
    assert board.tokens["pi"] == (TOKEN,)
