# SPDX-License-Identifier: Apache-2.0
"""Many clients in one process, each of which writes down what it asked and what it got."""

import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from api_client import Asked, ask
from cell_site import PROFILE
from privyseal.client.cell import Cell
from privyseal.client.config import ClientConfig
from privyseal.client.hub import HubClient
from privyseal.client.hub_cell import hub_transports
from privyseal.client.time_limit import TimeLimit
from privyseal.errors import PrivysealError
from privyseal.identity.keyfile import load_ed25519
from privyseal.wire.api import ItemView, SignatureRequest
from privyseal.wire.dsse import parse_envelope
from privyseal.wire.statement import REQUEST_TYPE, statement_id
from programs import until

__all__ = ["Client", "History", "Load", "loaded"]


@dataclass(kw_only=True)
class History:
    """One request, as its client knows it.

    Attributes:
        began_s, ended_s: By the monotonic clock; `ended_s` is None while it waits.
        items: What it was told of each item, in their order.
        failure: Why it gave up.
    """

    request_id: str
    asked: Asked
    began_s: float
    ended_s: float | None = None
    items: list[ItemView] = field(default_factory=list)
    chains: tuple[tuple[bytes, ...], ...] = ()
    failure: BaseException | None = None

    @property
    def seconds(self) -> float:
        assert self.ended_s is not None
        return self.ended_s - self.began_s


class Client:
    """One of them, on one thread.

    Attributes:
        histories: All its requests.
    """

    def __init__(self, config: ClientConfig, *, first: int = 0, patience_seconds: float = 120.0) -> None:
        """`first` is the hub that it begins with; it gives up after `patience_seconds`."""
        transports = hub_transports(config)
        self._config = config
        self._hub = HubClient(config, Cell(transports[first:] + transports[:first], fraction=_Jitter()))
        self._key = load_ed25519(config.identity.request_key)
        self._patience_seconds = patience_seconds
        self.histories: list[History] = []

    def prepare(self, *, items: int = 1, chain: tuple[bytes, ...] = ()) -> History:
        """A request that is not sent yet."""
        asked = ask(self._config, PROFILE, items=items, chain=chain)
        payload = parse_envelope(asked.envelope, REQUEST_TYPE).payload
        request_id = statement_id(self._key.public_key().public_bytes_raw(), payload)
        history = History(request_id=request_id, asked=asked, began_s=time.monotonic())
        self.histories.append(history)
        return history

    def send(self, history: History) -> History:
        """Ask for it until it is answered."""
        body = SignatureRequest(envelope=history.asked.envelope, preimages=history.asked.preimages)
        deadline = TimeLimit(seconds=self._patience_seconds, in_all=True).begin()
        history.began_s = time.monotonic()
        try:
            for view in self._hub.sign(history.request_id, body, deadline):
                history.items += view.items
                history.chains = view.chains
        except PrivysealError as error:
            history.failure = error
        history.ended_s = time.monotonic()
        return history

    def sign(self, *, items: int = 1, chain: tuple[bytes, ...] = ()) -> History:
        return self.send(self.prepare(items=items, chain=chain))


class _Jitter:
    """Begins with the first hub; after that, every pause is another one."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self) -> float:
        first, self._asked = not self._asked, True
        return 0.0 if first else secrets.randbelow(1000) / 1000


class Load:
    """Clients that ask for one signature after the other until they are told to stop."""

    def __init__(
        self, configs: Sequence[ClientConfig], count: int, chain: tuple[bytes, ...], *, hubs: int, items: int
    ) -> None:
        self.clients = [Client(configs[place % len(configs)], first=place % hubs) for place in range(count)]
        self._chain = chain
        self._items = items
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(max_workers=count, thread_name_prefix="client")
        self._running: list[Future[None]] = []

    def begin(self) -> None:
        self._running = [self._threads.submit(self._work, client) for client in self.clients]

    def _work(self, client: Client) -> None:
        while not self._stop.is_set() and client.sign(items=self._items, chain=self._chain).failure is None:
            pass

    @property
    def histories(self) -> list[History]:
        return [history for client in self.clients for history in tuple(client.histories)]

    @property
    def ended(self) -> int:
        return sum(history.ended_s is not None for history in self.histories)

    def until_more(self, count: int, what: str, seconds: float = 60.0) -> None:
        """Wait until so many more were answered."""
        wanted = self.ended + count
        until(lambda: self.ended >= wanted, f"{count} more signatures {what}", seconds=seconds)

    def until_all_serve(self, what: str, seconds: float = 60.0) -> None:
        """Wait until every client has had another answer."""
        before = {id(client): _answered(client) for client in self.clients}
        until(
            lambda: all(_answered(client) > before[id(client)] for client in self.clients),
            f"another answer for each client {what}",
            seconds=seconds,
        )

    def stop(self) -> list[History]:
        """Every client ends what it has asked for, and no more."""
        self._stop.set()
        for one in self._running:
            one.result()
        self._threads.shutdown()
        return self.histories


def _answered(client: Client) -> int:
    return sum(history.ended_s is not None for history in tuple(client.histories))


@contextmanager
def loaded(
    configs: Sequence[ClientConfig], count: int, chain: tuple[bytes, ...], *, hubs: int = 2, items: int = 1
) -> Iterator[Load]:
    """Clients at work while the block runs, each of whose requests is for so many items."""
    load = Load(configs, count, chain, hubs=hubs, items=items)
    load.begin()
    try:
        yield load
    finally:
        load.stop()
