# SPDX-License-Identifier: Apache-2.0
"""Ending programs while a token is at work, and telling from journal and log what became of the request."""

import concurrent.futures
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from api_client import Asked, Reply, api_of
from installation import Site, add_to_agent, make_site, software_token
from privyseal.client.log import LogReader
from privyseal.client.log_files import verify_log
from privyseal.client.receipts import check_receipt
from privyseal.tlog.entry import Entry, Intent, Result, Unknown, parse_entry
from programs import until

__all__ = ["Lab", "running_lab"]


@dataclass(kw_only=True)
class Lab:
    """A site over a software token, and requests that are sent to it beside the test."""

    site: Site
    _first_entry: int = 0
    _first_operation: int = 0
    _beside: concurrent.futures.ThreadPoolExecutor = field(
        default_factory=lambda: concurrent.futures.ThreadPoolExecutor(max_workers=4)
    )

    def begin(self) -> None:
        """Whatever a test before has left: everything runs, and what is told and counted begins here."""
        for name, start in (("hub", self.site.start_hub), ("agent", self.site.start_agent)):
            if self.site.running[name].process.poll() is not None:
                start()
        self.site.until_online("demo")
        self._first_operation += self.begun
        self._first_entry = self.log_size

    def send(self, asked: Asked) -> "concurrent.futures.Future[Reply | None]":
        """Send a request in a thread of its own; None if the hub hung up."""

        def call() -> Reply | None:
            api = api_of(self.site.client())
            try:
                return api("POST", f"/v1/signatures?wait=60&enough={len(asked.preimages)}", asked.body)
            except urllib3.exceptions.HTTPError:
                return None
            finally:
                api.close()

        return self._beside.submit(call)

    def again(self, asked: Asked) -> Reply:
        """Send a request, and wait for what comes of it."""
        reply = self.send(asked).result(timeout=60)
        assert reply is not None
        return reply

    def freeze_token(self) -> list[int]:
        """Stop the worker between two instructions; its process id."""
        workers = self.site.running["agent"].children
        assert len(workers) == 1
        os.kill(workers[0], signal.SIGSTOP)
        return workers

    def hold(self, asked: Asked) -> "concurrent.futures.Future[Reply | None]":
        """Send a request, and return when the token is at work on it, frozen."""
        begun = self.begun
        self.freeze_token()
        sent = self.send(asked)
        until(lambda: self.begun > begun, "the job in the agent's journal")
        return sent

    def hold_next_start(self) -> None:
        """Start the agent again, and return when its token is at work on what the hub repeats, frozen."""
        begun = self.begun
        hub = self.site.running["hub"]
        hub.signal(signal.SIGSTOP)  # so that the agent gets no link before its worker is frozen
        self.site.start_agent().until_event(event="key profile ready")
        self.freeze_token()
        hub.signal(signal.SIGCONT)
        until(lambda: self.begun > begun, "the repeated job in the agent's journal")

    def kill_worker(self) -> None:
        """End the token's process alone."""
        for pid in self.site.running["agent"].children:
            os.kill(pid, signal.SIGKILL)

    def thaw_token(self) -> None:
        agent = self.site.running["agent"]
        for pid in agent.children if agent.process.poll() is None else ():
            os.kill(pid, signal.SIGCONT)

    def kill(self, *names: str) -> None:
        for name in names:
            self.site.running[name].kill()

    @property
    def begun(self) -> int:
        """Token operations that the agent has begun since the test began."""
        return self._count("SELECT count(*) FROM operation WHERE number > ?")

    @property
    def ended(self) -> int:
        """Those of them whose end it knows."""
        return self._count("SELECT count(*) FROM operation_end WHERE number > ?")

    def _count(self, query: str) -> int:
        place = self.site.agent_directory / "journal.db"
        with closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as journal:
            number: int = journal.execute(query, (self._first_operation,)).fetchone()[0]
        return number

    @property
    def log_size(self) -> int:
        return LogReader(self.site.client()).checkpoint().size

    def entries(self) -> list[Entry]:
        """The entries since the test began, once the whole log has been found sound."""
        reader = LogReader(self.site.client())
        assert verify_log(reader).summary.open_intents == ()
        return [parse_entry(entry) for _, entry in reader.entries(self._first_entry, reader.checkpoint().size)]

    def story(self) -> list[str]:
        """What the log says of token operations, in its order."""
        told = []
        for entry in self.entries():
            match entry:
                case Intent():
                    told.append("intent")
                case Result():
                    told.append(entry.outcome)
                case Unknown():
                    told.append("unknown")
        return told

    def fences(self) -> list[int]:
        """Fences of the intents."""
        return [entry.fence for entry in self.entries() if isinstance(entry, Intent)]

    def check_signed(self, reply: Reply, asked: Asked) -> None:
        """Every item is signed, once, with a receipt that holds; asking again changes nothing."""
        bundle = self.site.client().load_bundle()
        assert [item["state"] for item in reply.document["items"]] == ["signed"] * len(asked.preimages), reply
        for place, item in enumerate(reply.document["items"]):
            entry = check_receipt(item["receipt"], bundle).entry
            assert (entry.request, entry.item) == (reply.document["id"], place)
        before = self.story()
        assert self.again(asked).document == reply.document
        assert self.story() == before


@contextmanager
def running_lab(directory: Path) -> Iterator[Lab]:
    """A laboratory whose programs may be killed; those that still run at the end must stop well."""
    site = make_site(directory)
    lab = Lab(site=site)
    try:
        add_to_agent(site, software_token(site.agent_directory))
        site.start_agent()
        site.until_online("demo")
        yield lab
        lab.thaw_token()
        site.stop()
    finally:
        for running in site.running.values():
            if running.process.poll() is None:
                running.kill()
        lab._beside.shutdown()
