# SPDX-License-Identifier: Apache-2.0
"""What is dropped is dropped in short statements that name just these entries."""

from hypothesis import given
from hypothesis import strategies as st

from privyseal.storage.calls import Call, Query
from privyseal.storage.pruning import drop_bodies


def statements(indexes: list[int]) -> list[Query]:
    asked: list[Query] = []
    work = drop_bodies(indexes)
    try:
        while True:
            call: Call = work.send(None)
            assert isinstance(call, Query)
            asked.append(call)
    except StopIteration:
        return asked


@given(st.sets(st.integers(0, 3000)))
def test_each_entry_is_named_once_and_no_other(indexes: set[int]) -> None:
    ranges = [range(*query.values[1:]) for query in statements(sorted(indexes))]

    assert [index for one in ranges for index in one] == sorted(indexes)
    assert all(0 < len(one) <= 256 for one in ranges)


def test_a_run_is_one_statement() -> None:
    assert [query.values for query in statements([*range(300), 302])] == [
        (b"", 0, 256),
        (b"", 256, 300),
        (b"", 302, 303),
    ]
