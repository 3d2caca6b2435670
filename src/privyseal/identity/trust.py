# SPDX-License-Identifier: Apache-2.0
"""The trust bundle that a member or hub goes by, and how another takes its place: only if authority keys say so."""

from pathlib import Path
from typing import Final

from privyseal.identity.bundle import TrustBundle, load_bundle, open_successor
from privyseal.identity.keyfile import write_public

__all__ = ["PinnedTrust"]


class PinnedTrust:
    """A pinned bundle with its file.

    Attributes:
        bundle: The one in force; everybody asks for it when it is needed, so that a change counts at once.
    """

    def __init__(self, path: Path, bundle: TrustBundle) -> None:
        self._path: Final = path
        self.bundle = bundle

    @classmethod
    def load(cls, path: Path) -> "PinnedTrust":
        """The bundle that was pinned in a file.

        Raises:
            ConfigError: `file.missing`. And what `open_bundle` raises.
        """
        return cls(path, load_bundle(path))

    def pin(self, bundle: TrustBundle) -> None:
        """Go by this bundle from now on; the caller has it from `open_successor`.

        Raises:
            OSError: if the file cannot be written; the former one is in force then.
        """
        write_public(self._path, bundle.envelope)
        self.bundle = bundle

    def succeed(self, envelope: bytes) -> TrustBundle:
        """Check a successor and pin it.

        Raises:
            MalformedInputError, VerificationError: as `open_successor`. OSError: as `pin`.
        """
        bundle = open_successor(envelope, self.bundle)
        self.pin(bundle)
        return bundle
