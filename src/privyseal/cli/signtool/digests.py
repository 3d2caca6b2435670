# SPDX-License-Identifier: Apache-2.0
"""`signtool sign` in three steps: /dg makes the digest, /ds signs it, /di puts the signature into the file."""

from collections import Counter
from pathlib import Path

from privyseal.cli.signtool.arguments import Arguments
from privyseal.cli.signtool.certificates import choose_certificate, file_digest, timestamper_for, wish_of
from privyseal.cli.signtool.talk import Talk, each_file
from privyseal.client.candidates import candidates
from privyseal.client.certificate_choice import Candidate, read_certificates
from privyseal.client.config import load_client_config, optional_client_config
from privyseal.client.digest_signing import PendingDigest, PendingSigner, generate, ingest, read_pending
from privyseal.client.hub import HubClient
from privyseal.client.verifying import trust_anchors
from privyseal.errors import ConfigError, VerificationError
from privyseal.formats.model import SignOptions, TrustAnchors

__all__ = ["generate_digests", "ingest_signatures", "sign_digests"]


def generate_digests(arguments: Arguments, talk: Talk) -> int:
    """/dg. With a certificate file (/f) no hub is asked."""
    directory = Path(arguments.value("dg"))
    _check_names(arguments.files)
    wish = wish_of(arguments)
    if wish.certificates:
        considered: tuple[Candidate, ...] = (Candidate(profile="none, a file is named", chain=wish.certificates),)
    else:
        considered = candidates(HubClient(load_client_config()))
    chain = choose_certificate(considered, wish, talk)[0].chain
    more = (one for name in arguments.values("ac") for one in read_certificates(Path(name)))
    certificates = tuple(dict.fromkeys((*chain, *more)))
    options = SignOptions(
        digest_algorithm=file_digest(arguments, chain[0]),
        program_name=arguments.value("d"),
        program_url=arguments.value("du"),
        page_hashes=arguments.has("ph"),
    )

    def act(path: Path) -> None:
        unsigned, digest = generate(path, directory, certificates, options)
        talk.done(f"Successfully generated digest: {digest}")
        talk.detail(f"    Unsigned PKCS #7: {unsigned}")

    each_file(arguments, talk, act)
    return talk.end("Digested")


def sign_digests(arguments: Arguments, talk: Talk) -> int:
    """/ds. The certificate is the one that FILE.p7u names."""
    config = load_client_config()
    considered = candidates(HubClient(config))
    signers: dict[str, PendingSigner] = {}

    def act(path: Path) -> None:
        pending = read_pending(path)
        _check_digest(arguments, pending)
        signer = (pending.unfinished.issuer, pending.unfinished.serial_number)
        chosen, _ = choose_certificate(considered, wish_of(arguments, signer), talk)
        if chosen.profile not in signers:
            signers[chosen.profile] = PendingSigner(config, profile=chosen.profile)
        done = signers[chosen.profile].sign(pending, chosen.chain)
        talk.done(f"Successfully signed: {path}")
        talk.detail(
            f"    Signature: {done.target}",
            f"    Receipt:   {done.receipt_path} (log entry {done.log_index}, format {done.format})",
        )

    each_file(arguments, talk, act)
    return talk.end("Signed")


def ingest_signatures(arguments: Arguments, talk: Talk) -> int:
    """/di. Needs no hub."""
    directory = Path(arguments.value("di"))
    config = optional_client_config()
    timestamper = timestamper_for(arguments, config, talk)
    roots = trust_anchors(() if config is None else config.trust)
    anchors = TrustAnchors(code_signing=roots, time_stamping=roots)
    bundle = None if config is None else config.load_bundle()

    def act(path: Path) -> None:
        report = ingest(path, directory, anchors, timestamper=timestamper, bundle=bundle)
        talk.done(f"Successfully signed: {path}")
        talk.detail(f"    Windows: {report.windows}")

    each_file(arguments, talk, act)
    return talk.end("Signed")


def _check_names(files: tuple[str, ...]) -> None:
    twice = [name for name, count in Counter(Path(one).name for one in dict.fromkeys(files)).items() if count > 1]
    if twice:
        raise ConfigError(
            "files.same_target",
            f"several files are named {twice[0]}, and their digests would have the same name",
            hint="make their digests in different directories",
        )


def _check_digest(arguments: Arguments, pending: PendingDigest) -> None:
    named = pending.unfinished.digest_algorithm
    if arguments.has("fd") and arguments.value("fd").lower() != "certhash" and file_digest(arguments) != named:
        raise VerificationError(
            "digest.algorithm",
            f"{pending.path} was made with {named}, not with {arguments.value('fd')}",
            hint="leave /fd away: the .p7u names the algorithm",
        )
