# SPDX-License-Identifier: Apache-2.0
"""SignTool's choice of a certificate, and what it says of it; the digest and the TSA that flags ask for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from privyseal.cli.signtool.arguments import Arguments
from privyseal.cli.signtool.talk import Talk
from privyseal.cli.signtool.values import (
    SYSTEM_COMPONENT,
    certificate_lines,
    digest_algorithm,
    hash_of,
    now,
    usage_of,
)
from privyseal.client.certificate_choice import Candidate, Choice, Wish, choose, read_certificates, thumbprint
from privyseal.client.config import ClientConfig
from privyseal.client.timestamping import Timestamper, open_timestamper
from privyseal.errors import ConfigError
from privyseal.pki import oids
from privyseal.pki.x509 import parse_certificate

__all__ = ["choose_certificate", "file_digest", "timestamper_for", "wish_of"]

_CERTIFICATE_DIGESTS: Final = {
    oid: name for table in (oids.RSA_WITH_SHA2, oids.ECDSA_WITH_SHA2) for name, oid in table.items()
}


def wish_of(arguments: Arguments, signer: tuple[bytes, int] | None = None) -> Wish:
    """What the flags ask of the certificate.

    Raises:
        ConfigError: a value that is not what its flag wants. MalformedInputError, UnsupportedInputError: /f.
    """
    usages = [usage_of(arguments.value("u"))] if arguments.has("u") else []
    if arguments.has("uw"):
        usages.append(SYSTEM_COMPONENT)
    return Wish(
        subject=arguments.value("n"),
        issuer=arguments.value("i"),
        root=arguments.value("r"),
        thumbprint=hash_of(arguments.value("sha1"), "sha1") if arguments.has("sha1") else "",
        certificates=read_certificates(Path(arguments.value("f"))) if arguments.has("f") else (),
        signer=signer,
        usages=tuple(usages) or (oids.EKU_CODE_SIGNING,),
        automatic=arguments.has("a"),
    )


def choose_certificate(considered: tuple[Candidate, ...], wish: Wish, talk: Talk) -> tuple[Candidate, bool]:
    """Choose, and say how: with /v and /debug, and always if it fails.

    Returns:
        What was chosen, and whether no other certificate of that key profile will do.

    Raises:
        ConfigError: `certificate.none`, `certificate.several`.
    """
    choice = choose(considered, wish, now())
    if choice.chosen is None:
        talk.explain(*_considered(choice))
        raise choice.error or AssertionError
    talk.detail(*_considered(choice))
    talk.detail("The following certificate was selected:", *_candidate_lines(choice.chosen), "")
    if choice.chosen.test:
        talk.note(f"key profile {choice.chosen.profile} is for trying things out; give its signatures to nobody")
    return choice.chosen, choice.is_certain


def _considered(choice: Choice) -> Iterator[str]:
    yield "The following certificates were considered:"
    if not choice.considered:
        yield "    none: the hub knows no key profile"
    for one in choice.considered:
        yield from _candidate_lines(one)
        reason = choice.reason(one)
        if reason:
            yield f"    Rejected:  {reason}"
        yield ""
    for step in choice.steps:
        yield f"After {step.name} filter, {step.left} certs were left."


def _candidate_lines(candidate: Candidate) -> Iterator[str]:
    yield f"    Key profile: {candidate.profile}" + (" (test)" if candidate.test else "")
    if candidate.chain:
        yield from certificate_lines(candidate.chain[0], "    ")
        yield f"    SHA1 hash: {thumbprint(candidate.chain[0]).upper()}"


def file_digest(arguments: Arguments, leaf: bytes | None = None) -> str:
    """What /fd says; SignTool takes no default any more.

    Args:
        arguments: The command line.
        leaf: The chosen certificate, for `/fd certHash`; before it is known, that is taken as sha256.

    Raises:
        ConfigError: `signtool.no_digest`. UnsupportedInputError: `digest.unsupported`.
    """
    if not arguments.has("fd"):
        raise ConfigError(
            "signtool.no_digest",
            "no file digest algorithm is named",
            hint="add /fd SHA256, or /fd certHash to take the one that the certificate was signed with",
        )
    text = arguments.value("fd")
    if text.lower() != "certhash":
        return digest_algorithm(text)
    if leaf is None:
        return "sha256"
    oid = parse_certificate(leaf).signature_algorithm
    return digest_algorithm(_CERTIFICATE_DIGESTS.get(oid, oid))


def timestamper_for(arguments: Arguments, config: ClientConfig | None, talk: Talk) -> Timestamper | None:
    """The TSA that /tr or /t names, else those that client.toml names.

    Raises:
        ConfigError: `signtool.no_digest` for /tr without /td, `timestamp.url`.
    """
    if arguments.has("tr") and not arguments.has("td"):
        raise ConfigError(
            "signtool.no_digest", "no timestamp digest algorithm is named beside /tr", hint="add /td SHA256"
        )
    if arguments.has("t"):
        talk.note(f"/t: {arguments.value('t')} is asked by RFC 3161, as with /tr; the older form cannot prove SHA-256")
    digest = digest_algorithm(arguments.value("td")) if arguments.has("td") else ""
    urls = arguments.values("tr") + arguments.values("t")
    return open_timestamper(config, urls, digest_algorithm=digest, notice=talk.note)
