# SPDX-License-Identifier: Apache-2.0
"""Signing files, one or thousands (DESIGN §4): read all, ask once, put each signature into place as it comes."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.client.answers import Answered
from privyseal.client.config import ClientConfig
from privyseal.client.hub import HubClient
from privyseal.client.journal import RequestJournal
from privyseal.client.placing import Placer, SignedFile
from privyseal.client.preparing import Prepared, Scanned, Scanning, Work
from privyseal.client.reading import WORKERS, Plan, Reading
from privyseal.client.requests import Requester
from privyseal.client.time_limit import Deadline, TimeLimit
from privyseal.client.timestamping import Timestamper
from privyseal.errors import PrivysealError
from privyseal.formats.model import SignOptions
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import Clock, system_clock
from privyseal.wire.api import ProfileView
from privyseal.wire.certificate_changed import CERTIFICATE_CHANGED

__all__ = ["Outcome", "Plan", "Progress", "SignedFile", "Signer", "Work"]

#: Answers that wait for a thread; the hub's next ones are not read before.
_MAX_PENDING: Final = 4 * WORKERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file: exactly one of the attributes says it, none means that it would be signed.

    Attributes:
        skipped: Why it was left alone, or empty.
    """

    work: Work
    signed: SignedFile | None = None
    skipped: str = ""
    error: PrivysealError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a batch has come.

    Attributes:
        stage: `read` or `sign`.
        position: Jobs of others that stand before it in the hub's queue.
        outcome: That of the file which ended just now.
    """

    stage: str
    done: int
    total: int
    position: int = 0
    outcome: Outcome | None = None


Observer = Callable[[Progress], None]
_Pending = dict[Future[SignedFile], Answered[Prepared]]


class Signer:
    """Signs files with one key profile; with a timestamper, no file without a timestamp.

    Where what is signed names the certificate, and the key profile gets another one before the token's turn comes, the
    files are asked for once more with that, unless the plan says which certificate.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        profile: str,
        timestamper: Timestamper | None = None,
        limit: TimeLimit | None = None,
        priority: str = "normal",
        clock: Clock = system_clock,
    ) -> None:
        """Without `limit`, what client.toml says; `priority` is `release`, `normal` or `nightly`."""
        self._profile = profile
        self._limit = limit or TimeLimit(seconds=config.wait_seconds)
        self._timestamper = timestamper
        self._clock = clock
        self._hub = HubClient(config)
        self._requester = Requester(
            hub=self._hub,
            hub_name=self._hub.bundle.hub,
            profile=profile,
            key=load_ed25519(config.identity.request_key),
            journal=RequestJournal(config.identity.journal),
            clock=clock,
            priority=priority,
        )

    @property
    def sent_bytes(self) -> int:
        """How much has travelled to the hub so far."""
        return self._hub.sent_bytes

    @property
    def received_bytes(self) -> int:
        """How much has come from the hub so far."""
        return self._hub.received_bytes

    def sign(self, path: Path, target: Path, options: SignOptions) -> SignedFile:
        """Sign a file; `target` may be the file itself.

        Raises:
            PrivysealError: whatever went wrong; then the target is as it was.
        """
        (outcome,) = self.sign_all((Work(path=path, target=target),), Plan(options=options))
        if outcome.error is not None:
            raise outcome.error
        if outcome.signed is None:
            raise AssertionError  # nothing is skipped by this plan
        return outcome.signed

    def sign_all(self, works: Sequence[Work], plan: Plan, observe: Observer = lambda _: None) -> tuple[Outcome, ...]:
        """Sign files; whatever becomes of one, the others are whole, signed or as they were.

        Returns:
            One outcome for each file, in their order.

        Raises:
            PrivysealError: what concerns all of them: the hub, the key profile; none was signed then.
        """
        with Reading(works, plan) as reading:
            return self.sign_read(reading, observe)

    def sign_read(self, reading: Reading, observe: Observer = lambda _: None) -> tuple[Outcome, ...]:
        """The same for files that are being read already."""
        plan = reading.plan
        batch = _Batch(reading.works, plan, observe)
        scanned = batch.read(reading.scannings)
        if batch.stops() or not scanned:
            return batch.outcomes
        deadline = self._limit.begin()
        profile = self._hub.profile(self._profile, deadline)
        self._requester.longest_seconds = profile.longest_seconds
        prepared = batch.prepare(scanned, profile)
        if batch.stops():
            return batch.outcomes
        if plan.dry_run:
            batch.leave(prepared)
            return batch.outcomes
        placer = Placer(
            bundle=self._hub.bundle,
            options=plan.options,
            timestamper=self._timestamper,
            test=profile.test,
            clock=self._clock,
            certificates=plan.certificates,
        )

        def place(answered: Answered[Prepared]) -> Future[SignedFile]:
            return reading.threads.submit(lambda: placer.place(answered, reading.draft()))

        try:
            if changed := batch.place(self._requester, prepared, deadline, place, may_change=not plan.chain):
                self._limit.notice(_again(self._profile, len(changed), len(prepared)))
                again = batch.prepare(changed, self._hub.profile(self._profile, deadline))
                batch.place(self._requester, again, deadline, place, may_change=False)
        except BaseException:
            # Interrupted, or refused as a whole: the threads are waited for, and shall not wait for anybody else.
            if self._timestamper is not None:
                self._timestamper.stop()
            raise
        return batch.outcomes


def _again(profile: str, changed: int, asked: int) -> str:
    what = f"{changed} of {asked} files are asked for once more, with that"
    return f"key profile {profile} has got another certificate: {what}"


class _Batch:
    """The outcomes of one run, as they come."""

    def __init__(self, works: Sequence[Work], plan: Plan, observe: Observer) -> None:
        self._works = works
        self._plan = plan
        self._observe = observe
        self._outcomes: dict[Work, Outcome] = {}
        self._changed: list[Scanned] | None = None

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """One for each file, in their order."""
        return tuple(self._outcomes.get(work, Outcome(work=work)) for work in self._works)

    def stops(self) -> bool:
        """A file cannot be signed, and the others shall not be without it."""
        return not self._plan.continue_on_error and any(one.error is not None for one in self._outcomes.values())

    def _ended(self, stage: str, outcome: Outcome) -> None:
        self._outcomes[outcome.work] = outcome
        done = len(self._outcomes)
        self._observe(Progress(stage=stage, done=done, total=len(self._works), outcome=outcome))

    def read(self, scannings: Sequence[Scanning]) -> list[Scanned]:
        """Those that were read and shall be signed."""
        found = []
        for done, scanning in enumerate(scannings, start=1):
            try:
                scanned = scanning.result()
            except PrivysealError as error:
                self._ended("read", Outcome(work=scanning.work, error=error))
                continue
            if self._plan.skip_signed and scanned.scan.is_signed:
                self._ended("read", Outcome(work=scanning.work, skipped="it is signed already"))
                continue
            found.append(scanned)
            self._observe(Progress(stage="read", done=done, total=len(scannings)))
        return found

    def prepare(self, scanned: Sequence[Scanned], profile: ProfileView) -> list[Prepared]:
        """The bytes to sign of each file."""
        prepared = []
        for one in scanned:
            try:
                chain = self._plan.chain or profile.chain
                prepared.append(one.prepare(chain, self._plan.options, is_chosen=bool(self._plan.chain)))
            except PrivysealError as error:
                self._ended("read", Outcome(work=one.work, error=error))
        return prepared

    def leave(self, prepared: Sequence[Prepared]) -> None:
        """Tell of files that would be signed now."""
        for one in prepared:
            self._ended("read", Outcome(work=one.scanned.work))

    def place(
        self,
        requester: Requester,
        prepared: Sequence[Prepared],
        deadline: Deadline,
        place: Callable[[Answered[Prepared]], Future[SignedFile]],
        *,
        may_change: bool,
    ) -> list[Scanned]:
        """Put signatures into place as they come; what concerns all of the rest ends the rest.

        Returns:
            Files that are to be asked for anew because their certificate has changed; none unless it `may_change`.
        """
        self._changed = [] if may_change else None
        pending: _Pending = {}
        failure: PrivysealError | None = None
        try:
            for answered in requester.ask(prepared, deadline, self._waiting):
                pending[place(answered)] = answered
                self._collect(pending, requester, at_most=_MAX_PENDING)
        except PrivysealError as error:
            failure = error
        self._collect(pending, requester, at_most=0)
        changed = self._changed or []
        left = [one.scanned for one in prepared if one.scanned.work not in self._outcomes]
        if may_change and failure is not None and failure.code == CERTIFICATE_CHANGED:
            return left
        left = [one for one in left if one not in changed]
        if failure is not None and not changed and not any(one.signed for one in self._outcomes.values()):
            raise failure
        for one in left:
            self._ended("sign", Outcome(work=one.work, error=failure))
        return changed

    def _waiting(self, position: int) -> None:
        done = len(self._outcomes)
        self._observe(Progress(stage="sign", done=done, total=len(self._works), position=position))

    def _collect(
        self, pending: dict[Future[SignedFile], Answered[Prepared]], requester: Requester, *, at_most: int
    ) -> None:
        """Take what has ended, and wait until no more than so many are under way."""
        while pending:
            ended = [future for future in pending if future.done()]
            if not ended and len(pending) <= at_most:
                return
            if not ended:
                wait(pending, return_when=FIRST_COMPLETED)
            for future in ended:
                self._take(future, pending.pop(future), requester)

    def _take(self, future: Future[SignedFile], answered: Answered[Prepared], requester: Requester) -> None:
        work = answered.wanted.scanned.work
        try:
            outcome = Outcome(work=work, signed=future.result())
        except PrivysealError as error:
            outcome = Outcome(work=work, error=error)
        has_changed = outcome.error is not None and outcome.error.code == CERTIFICATE_CHANGED
        # A signature that could not be put into place here stays in the journal, for the next run.
        if outcome.signed is not None or answered.item.state != "signed":
            requester.settled(answered)
        if has_changed and self._changed is not None:
            self._changed.append(answered.wanted.scanned)
        else:
            self._ended("sign", outcome)
