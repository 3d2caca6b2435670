# SPDX-License-Identifier: Apache-2.0
"""`signtool sign`."""

import os
from pathlib import Path
from typing import Final

from privyseal.cli.signtool import digests
from privyseal.cli.signtool.arguments import Arguments
from privyseal.cli.signtool.certificates import choose_certificate, file_digest, timestamper_for, wish_of
from privyseal.cli.signtool.talk import Talk
from privyseal.client.candidates import candidates
from privyseal.client.certificate_choice import read_certificates
from privyseal.client.config import load_client_config
from privyseal.client.hub import HubClient
from privyseal.client.preparing import Work
from privyseal.client.reading import Plan
from privyseal.client.selection import Selection, select
from privyseal.client.signing import Outcome, Progress, Signer
from privyseal.errors import UnsupportedInputError
from privyseal.formats.model import Placement, SignOptions

__all__ = ["sign"]

_VERB: Final = "Signed"


def sign(arguments: Arguments, talk: Talk) -> int:
    """Sign files, or take one of the three steps that signing a digest elsewhere has."""
    if arguments.has("ds"):
        return digests.sign_digests(arguments, talk)
    if arguments.has("di"):
        return digests.ingest_signatures(arguments, talk)
    file_digest(arguments)
    if arguments.has("dg"):
        return digests.generate_digests(arguments, talk)
    return _sign(arguments, talk)


def _sign(arguments: Arguments, talk: Talk) -> int:
    wish = wish_of(arguments)
    certificates = tuple(one for name in arguments.values("ac") for one in read_certificates(Path(name)))
    config = load_client_config()
    timestamper = timestamper_for(arguments, config, talk)
    works = _works(arguments.files, talk)
    if not works:
        return talk.end(_VERB)
    chosen, is_certain = choose_certificate(candidates(HubClient(config)), wish, talk)
    plan = Plan(
        options=SignOptions(
            digest_algorithm=file_digest(arguments, chosen.chain[0]),
            program_name=arguments.value("d"),
            program_url=arguments.value("du"),
            page_hashes=arguments.has("ph"),
            placement=Placement.NESTED if arguments.has("as") else Placement.REPLACE,
        ),
        continue_on_error=True,
        certificates=certificates,
        chain=chosen.chain if is_certain else (),
    )
    signer = Signer(config, profile=chosen.profile, timestamper=timestamper)
    signer.sign_all(works, plan, lambda progress: _tell(progress, talk))
    return talk.end(_VERB)


def _works(names: tuple[str, ...], talk: Talk) -> tuple[Work, ...]:
    """The files; a directory is none, whatever it holds."""
    files = []
    for name in names:
        if os.path.isdir(name):  # noqa: PTH112 - a name that no file can have is none, and raises nothing
            talk.error(UnsupportedInputError("file.not_regular", f"{name} is a directory", hint="name the files in it"))
        else:
            files.append(name)
    return select(Selection(names=tuple(files))) if files else ()


def _tell(progress: Progress, talk: Talk) -> None:
    outcome = progress.outcome
    if outcome is None:
        return
    if outcome.error is not None:
        talk.error(outcome.error, outcome.work.path)
    else:
        talk.done(f"Successfully signed: {outcome.work.path}")
        talk.detail(*_details(outcome))


def _details(outcome: Outcome) -> tuple[str, ...]:
    signed = outcome.signed
    if signed is None:
        return ()
    time = "" if signed.timestamped_at is None else f"; timestamp {signed.timestamped_at.isoformat()}"
    return (
        f"    Digest:  {signed.artifact}{time}",
        f"    Receipt: {signed.receipt_path} (log entry {signed.log_index})",
        f"    Windows: {signed.windows}",
        *(f"    Note:    {warning}" for warning in signed.warnings),
    )
