# SPDX-License-Identifier: Apache-2.0
"""What a hub process did last: the newest signatures, and since when requests are at a token."""

from collections import OrderedDict, deque
from typing import Final

from msgspec.structs import replace

from privyseal.ports.queue import Request
from privyseal.wire.queue import LastSignatures

__all__ = ["Recent"]

_KEPT: Final = 20
_MOST_BEGUN: Final = 4096
_CANCELLED: Final = "request.cancelled"


class Recent:
    """Remembers a little of what it is told; a restart forgets it."""

    def __init__(self) -> None:
        self._begun: OrderedDict[str, int] = OrderedDict()
        self._ended: deque[LastSignatures] = deque(maxlen=_KEPT)

    def begun(self, request_id: str, at_ms: int) -> None:
        """Items of a request are sent to a token."""
        self._begun.setdefault(request_id, at_ms)
        if len(self._begun) > _MOST_BEGUN:
            self._begun.popitem(last=False)

    def since_ms(self, request_id: str) -> int | None:
        """When the first item of a request was sent to a token, as far as that is remembered."""
        return self._begun.get(request_id)

    def ended(self, request: Request, items: int, *, outcome: str, code: str, at_ms: int) -> None:
        """Items of a request have ended; those that ended in the same way are told together."""
        row = LastSignatures(
            at_ms=at_ms,
            client=request.client,
            profile=request.profile,
            request=request.id,
            items=items,
            outcome=_outcome(outcome, code),
            code=code,
        )
        same = next((one for one in self._ended if _alike(one, row)), None)
        if same is not None:
            self._ended.remove(same)
            row = replace(row, items=same.items + items)
        self._ended.append(row)

    @property
    def signatures(self) -> tuple[LastSignatures, ...]:
        """The newest first."""
        return tuple(reversed(self._ended))


def _outcome(outcome: str, code: str) -> str:
    if code == _CANCELLED:
        return "cancelled"
    return outcome if outcome in ("signed", "denied") else "failed"


def _alike(one: LastSignatures, other: LastSignatures) -> bool:
    return (one.request, one.outcome, one.code) == (other.request, other.outcome, other.code)
