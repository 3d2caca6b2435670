# SPDX-License-Identifier: Apache-2.0
"""What `privyseal doctor` looks at for an agent: its files, its tokens, and the certificates of its key profiles."""

from functools import partial
from pathlib import Path
from typing import Final

from privyseal.agent.config import AgentConfig, AgentFiles, KeyConfig, load_agent_config, token_config
from privyseal.agent.diagnosis_certificate import certificate_rows
from privyseal.agent.diagnosis_pcsc import PcscPlaces
from privyseal.agent.diagnosis_token import LookedAtToken, look_at_token
from privyseal.agent.keys import chain_file, find_key
from privyseal.errors import ConfigError, PrivysealError
from privyseal.identity.bundle import load_bundle
from privyseal.identity.diagnosis import check_account, check_files, check_tls_certificate, is_own, moment
from privyseal.ports.clock import Clock
from privyseal.ports.diagnosis import Row, failed, look, passed, skipped, warned

__all__ = ["agent_rows"]

_LOGIN: Final = "--login asks the token (one login, with the PIN file)"


async def agent_rows(
    directory: Path, clock: Clock, *, login: bool = False, pcsc: PcscPlaces | None = None
) -> tuple[Row, ...]:
    """All rows of an agent that need no hub.

    Args:
        directory: The agent's directory.
        clock: This machine's clock.
        login: Log in to each token, once.
        pcsc: Where pcscd is, if not in the usual places.
    """
    subject, files = "configuration", AgentFiles(directory)
    try:
        config = load_agent_config(directory)
        bundle = load_bundle(files.bundle)
        tokens = {table.name: token_config(table, directory) for table in config.token}
    except PrivysealError as error:
        return (failed(subject, error), skipped("all else", "it needs the configuration", "mend the above first"))
    rows = [
        passed(subject, f"{files.config}: agent {config.name} of hub {bundle.hub}"),
        check_account(directory, f"privyseal doctor --dir {directory}"),
        *check_files(directory, (files.config, files.tls_key, files.request_key)),
        check_tls_certificate(files.tls_certificate, files.tls_key, clock),
        *_unused(config),
    ]
    may_login = login and is_own(directory)
    if login and not may_login:
        rows.append(skipped("login", "PINs are presented by the agent's own account only", "ask again as that account"))
    for name, one in tokens.items():
        found = await look_at_token(one, login=may_login, pcsc=pcsc or PcscPlaces())
        rows.extend(found.rows)
        for key in config.key:
            if key.token == name:
                rows.extend(_profile_rows(key, found, directory, clock))
    return tuple(rows)


def _unused(config: AgentConfig) -> tuple[Row, ...]:
    if config.key:
        return ()
    return (
        warned(
            "key profiles",
            "agent.toml names none: nothing can be signed here",
            "add a [[token]] and a [[key]] to agent.toml, as its comments show",
        ),
    )


def _profile_rows(key: KeyConfig, found: LookedAtToken, directory: Path, clock: Clock) -> tuple[Row, ...]:
    subject = f"certificate of {key.profile}"
    try:
        held = None if found.keys is None else find_key(key, found.keys)
        chain = chain_file(key, directory) if key.chain else () if held is None else held.certificates
    except PrivysealError as error:
        return (failed(subject, error),)
    if chain:
        spki = None if held is None else held.spki
        return certificate_rows(key.profile, chain, moment(clock), spki=spki)
    if held is None:
        return (skipped(subject, "it is on the token, which was not asked", _LOGIN),)
    return (look(subject, partial(_no_certificate, key)),)


def _no_certificate(key: KeyConfig) -> Row:
    raise ConfigError(
        "config.chain",
        f"key profile {key.profile!r}: the token holds no certificate for the key, and no `chain` file is set",
        hint="import the certificate to the token, or set `chain` of the [[key]] in agent.toml",
    )
