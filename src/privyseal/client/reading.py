# SPDX-License-Identifier: Apache-2.0
"""Reading the files of a run on all cores, from the first moment on: whatever else a run needs is got meanwhile."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from privyseal.client.files import Draft, draft_beside, open_source
from privyseal.client.preparing import Scanning, Work
from privyseal.formats.model import SignOptions
from privyseal.pki.mechanism import hash_algorithm

__all__ = ["WORKERS", "Plan", "Reading"]

WORKERS: Final = max(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a batch is signed.

    Attributes:
        continue_on_error: Sign the others if some cannot be read; otherwise nothing is asked for then.
        skip_signed: Leave files alone that carry a signature.
        dry_run: Read, and ask for the key profile, but sign nothing.
        certificates: DER; they go into the signature beside the key profile's chain.
        chain: DER, leaf first: the key profile's certificate that somebody has chosen. Empty if any of it will do.
    """

    options: SignOptions = field(default_factory=SignOptions)
    continue_on_error: bool = False
    skip_signed: bool = False
    dry_run: bool = False
    certificates: tuple[bytes, ...] = ()
    chain: tuple[bytes, ...] = ()


class Reading:
    """Files that are being read; at the end of the context nothing is under way any more.

    Attributes:
        threads: Free for whatever is to be done with the files next.
    """

    def __init__(self, works: Sequence[Work], plan: Plan) -> None:
        """Begin to read.

        Raises:
            UnsupportedInputError: `digest.unsupported`.
            MalformedInputError: `file.unwritable` for the place of a large file's copy.
        """
        hash_algorithm(plan.options.digest_algorithm)
        self.works = tuple(works)
        self.plan = plan
        self.threads = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="privyseal-sign")
        self._drafts = ExitStack()
        self.scannings = tuple(Scanning(work, plan.options, self.threads) for work in self.works)
        try:
            self._filling = self._fill_ahead()
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def draft(self) -> Draft | None:
        """The copy of the only file, complete, if it was worth being made ahead."""
        return None if self._filling is None else self._filling.result()

    def _end(self) -> None:
        self.threads.shutdown(wait=True, cancel_futures=True)
        self._drafts.close()

    def _fill_ahead(self) -> Future[Draft] | None:
        """Copy one large file while it is hashed: by the time of the signature only a few kilobytes are missing."""
        plan = self.plan
        if len(self.scannings) != 1 or not self.scannings[0].is_large or plan.dry_run or plan.skip_signed:
            return None
        (work,) = self.works
        return self.threads.submit(_fill, work.path, self._drafts.enter_context(draft_beside(work.target)))


def _fill(path: Path, draft: Draft) -> Draft:
    with open_source(path) as source:
        draft.fill(source, source.status.st_size)
    return draft
