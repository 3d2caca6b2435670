# SPDX-License-Identifier: Apache-2.0
"""`privyseal.Client` and `privyseal.AsyncClient`: what the command line does, for programs."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from privyseal.client.config import ClientConfig, load_client_config
from privyseal.client.digests import DigestSigner, SignedDigest
from privyseal.client.hub import HubClient
from privyseal.client.placing import SignedFile
from privyseal.client.selection import Selection, make_folders, select
from privyseal.client.signing import Observer, Outcome, Plan, Signer, Work
from privyseal.client.time_limit import TimeLimit
from privyseal.client.timestamp_file import FileTimestamper, TimestampedFile
from privyseal.client.timestamping import Timestamper, open_timestamper
from privyseal.client.verifying import VerifyOptions, VerifyReport, verify_file
from privyseal.errors import ConfigError
from privyseal.formats.model import SignOptions
from privyseal.pki.remote_key import RemoteKey
from privyseal.wire.api import HubStatus

__all__ = ["AsyncClient", "Client", "Wait"]

T = TypeVar("T")
Name = str | Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """How long signing may take, and what it comes before.

    Attributes:
        seconds: For all of it together, then `UnavailableError`; None goes on for as long as signatures come, and ends
            when none came for `wait_seconds` of client.toml. Signing the same files again resumes.
        priority: `release`, `normal` or `nightly`: a higher class is signed before a lower one, of all clients.
    """

    seconds: float | None = None
    priority: str = "normal"


class Client:
    """A client of one hub, as `privyseal client join` has set it up.

    Every method raises `privyseal.errors.PrivysealError`: its class says what kind of trouble it is, its `code` which.
    Methods may be called from several threads.
    """

    def __init__(self, config: Name = "") -> None:
        """Read the configuration.

        Args:
            config: A client.toml; without it, PRIVYSEAL_CONFIG and the usual places say which.
        """
        self._config: ClientConfig = load_client_config(str(config))

    def sign(
        self,
        file: Name,
        *,
        key: str,
        output: Name | None = None,
        options: SignOptions | None = None,
        timestamp: bool = True,
        wait: Wait | None = None,
    ) -> SignedFile:
        """Sign a file; its receipt lies beside it. On any error it is as it was.

        Args:
            file: The file, signed in place unless there is an output.
            key: Name of the key profile.
            output: Where the signed file goes instead.
            options: Digest algorithm, page hashes, placement, and what Windows shows.
            timestamp: With a timestamp, if client.toml names TSAs; False does without.
            wait: How long, and before which other requests of this client.
        """
        target = Path(file) if output is None else Path(output)
        return self._signer(key, timestamp=timestamp, wait=wait).sign(Path(file), target, options or SignOptions())

    def sign_all(
        self,
        files: Iterable[Name],
        *,
        key: str,
        plan: Plan | None = None,
        output: Name | None = None,
        timestamp: bool = True,
        observe: Observer = lambda _: None,
        wait: Wait | None = None,
    ) -> tuple[Outcome, ...]:
        """Sign a release in one request: files, directories, patterns.

        Args:
            files: What to sign.
            key: Name of the key profile.
            plan: How.
            output: A directory for the signed files, instead of in place.
            timestamp: As for `sign`.
            observe: Told whenever something has happened.
            wait: As for `sign`.

        Returns:
            What became of each file, in their order.
        """
        names = tuple(str(file) for file in files)
        works: tuple[Work, ...] = select(Selection(names=names, output=None if output is None else Path(output)))
        plan = plan or Plan()
        if not plan.dry_run:
            make_folders(works)
        return self._signer(key, timestamp=timestamp, wait=wait).sign_all(works, plan, observe)

    def verify(self, file: Name, options: VerifyOptions | None = None) -> VerifyReport:
        """Verify every signature of a file, and the receipt beside it."""
        return verify_file(Path(file), options or VerifyOptions(), self._config)

    def timestamp(self, file: Name, *, urls: tuple[str, ...] = (), replace: bool = False) -> TimestampedFile:
        """Put timestamps beside the signatures of a file that have none.

        Args:
            file: The signed file.
            urls: TSAs to ask instead of those in client.toml.
            replace: Ask for new timestamps also where there are some.
        """
        timestamper = open_timestamper(self._config, urls)
        if timestamper is None:
            raise ConfigError("timestamp.none", "no TSA is named", hint="name some under `timestamp` in client.toml")
        return FileTimestamper(timestamper, replace=replace).add(Path(file))

    def status(self) -> HubStatus:
        """Key profiles, agents, queues and the log's head, as the hub sees them."""
        return HubClient(self._config).status()

    def certificates(self, key: str) -> tuple[x509.Certificate, ...]:
        """The chain of a key profile, leaf first."""
        chain = HubClient(self._config).profile(key).chain
        return tuple(x509.load_der_x509_certificate(certificate) for certificate in chain)

    def sign_digest(self, digest: bytes, *, key: str, algorithm: str = "sha256") -> SignedDigest:
        """Sign a bare digest; only for a key profile that lists `digest` under `opaque`.

        Args:
            digest: 32, 48 or 64 bytes.
            key: Name of the key profile.
            algorithm: `sha256`, `sha384` or `sha512`.
        """
        return DigestSigner(self._config, profile=key).sign(algorithm, digest)

    def remote_key(self, key: str) -> RemoteKey:
        """The private key of a key profile for `cryptography` and whatever builds on it; see `sign_digest`.

        It is an `RSAPrivateKey` or an `EllipticCurvePrivateKey` whose signatures are requests to the hub, each on
        record. What would need the key itself is refused.
        """
        return DigestSigner(self._config, profile=key).key()

    def _signer(self, key: str, *, timestamp: bool, wait: Wait | None) -> Signer:
        timestamper: Timestamper | None = open_timestamper(self._config) if timestamp else None
        if wait is None:
            return Signer(self._config, profile=key, timestamper=timestamper)
        limit = None if wait.seconds is None else TimeLimit(seconds=wait.seconds, in_all=True)
        return Signer(self._config, profile=key, timestamper=timestamper, limit=limit, priority=wait.priority)


class AsyncClient:
    """The same for asyncio: each call runs on a thread, where it mostly waits."""

    def __init__(self, config: Name = "") -> None:
        """Read the configuration, as `Client`."""
        self._client = Client(config)

    async def sign(
        self,
        file: Name,
        *,
        key: str,
        output: Name | None = None,
        options: SignOptions | None = None,
        timestamp: bool = True,
        wait: Wait | None = None,
    ) -> SignedFile:
        """See `Client.sign`."""
        return await _beside(
            lambda: self._client.sign(file, key=key, output=output, options=options, timestamp=timestamp, wait=wait)
        )

    async def sign_all(
        self,
        files: Iterable[Name],
        *,
        key: str,
        plan: Plan | None = None,
        output: Name | None = None,
        timestamp: bool = True,
        observe: Observer = lambda _: None,
        wait: Wait | None = None,
    ) -> tuple[Outcome, ...]:
        """See `Client.sign_all`; `observe` is called on the thread."""
        names = tuple(files)
        return await _beside(
            lambda: self._client.sign_all(
                names, key=key, plan=plan, output=output, timestamp=timestamp, observe=observe, wait=wait
            )
        )

    async def verify(self, file: Name, options: VerifyOptions | None = None) -> VerifyReport:
        """See `Client.verify`."""
        return await _beside(lambda: self._client.verify(file, options))

    async def timestamp(self, file: Name, *, urls: tuple[str, ...] = (), replace: bool = False) -> TimestampedFile:
        """See `Client.timestamp`."""
        return await _beside(lambda: self._client.timestamp(file, urls=urls, replace=replace))

    async def status(self) -> HubStatus:
        """See `Client.status`."""
        return await _beside(self._client.status)

    async def certificates(self, key: str) -> tuple[x509.Certificate, ...]:
        """See `Client.certificates`."""
        return await _beside(lambda: self._client.certificates(key))

    async def sign_digest(self, digest: bytes, *, key: str, algorithm: str = "sha256") -> SignedDigest:
        """See `Client.sign_digest`."""
        return await _beside(lambda: self._client.sign_digest(digest, key=key, algorithm=algorithm))


async def _beside(call: Callable[[], T]) -> T:
    """A signature that is under way cannot be called back: whoever is cancelled leaves it to its end."""
    return await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, call))
