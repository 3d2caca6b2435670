# SPDX-License-Identifier: Apache-2.0
"""One token of an agent: its module, the token itself, its PIN file and PIN journal. Logs in only when told to."""

import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from privyseal.agent.diagnosis_pcsc import PcscPlaces, needs_pcscd, pcsc_rows
from privyseal.errors import PrivysealError, TokenError
from privyseal.ports.diagnosis import Row, Verdict, failed, look, passed, skipped, warned
from privyseal.ports.token import PinState, Token, TokenInfo, TokenKey
from privyseal.tokens.architecture import HEADER_BYTES, architectures
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.factory import open_token
from privyseal.tokens.pin import read_pin_file
from privyseal.tokens.pin_journal import PinJournal, journal_name
from privyseal.tokens.pin_supply import read_credential

__all__ = ["LookedAtToken", "look_at_token"]

#: Where systemd.exec(5) puts the credentials of each service.
_CREDENTIALS: Final = Path("/run/credentials")


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedAtToken:
    """What was found.

    Attributes:
        rows: One for each thing.
        keys: The token's signing keys; None if it was not logged in to.
    """

    rows: tuple[Row, ...]
    keys: tuple[TokenKey, ...] | None = None


async def look_at_token(config: TokenConfig, *, login: bool, pcsc: PcscPlaces) -> LookedAtToken:
    """Look at a token from its module's file to its PIN, each step only if the one before it holds.

    Args:
        config: The token.
        login: Present the PIN once, through the PIN journal, to see the keys.
        pcsc: Where pcscd is.
    """
    name = f"token {config.name}"
    rows: list[Row] = []
    if config.kind == "pkcs11":
        rows.append(look(f"{name}: module", lambda: _check_module(config)))
        if rows[-1].verdict is not Verdict.FAIL and needs_pcscd(Path(config.module)):
            rows.extend(pcsc_rows(pcsc))
    rows.append(look(f"{name}: PIN file", lambda: _check_pin_file(config)))
    if any(row.subject == f"{name}: module" and row.verdict is Verdict.FAIL for row in rows):
        rows.append(skipped(name, "its module cannot be loaded", "mend the above first"))
        return LookedAtToken(rows=tuple(rows))
    token = open_token(config)
    try:
        info = await token.info()
        rows += [passed(name, _described(info)), _check_pin_state(config, info)]
        rows.append(look(f"{name}: PIN journal", partial(_check_journal, config, journal_name(info))))
        if config.counter != "none":
            rows.append(await _check_counter(config, token))
        if login:
            return await _after_login(name, token, rows)
    except PrivysealError as error:
        rows.append(failed(name, error))
    finally:
        await token.close()
    return LookedAtToken(rows=tuple(rows))


async def _after_login(name: str, token: Token, rows: list[Row]) -> LookedAtToken:
    """The token's keys, by one login; none is tried where one would be refused."""
    subject = f"{name}: login"
    if any(row.verdict is Verdict.FAIL for row in rows):
        refusal = skipped(subject, "something above stands against it", "mend the above first")
        return LookedAtToken(rows=(*rows, refusal))
    try:
        keys = await token.keys()
    except PrivysealError as error:
        return LookedAtToken(rows=(*rows, failed(subject, error)))
    accepted = passed(subject, f"the token took the PIN and shows {len(keys)} signing keys")
    return LookedAtToken(rows=(*rows, accepted), keys=keys)


async def _check_counter(config: TokenConfig, token: Token) -> Row:
    subject = f"token {config.name}: counter"
    try:
        counters = await token.counters()
    except PrivysealError as error:
        return failed(subject, error)
    return passed(subject, "; ".join(f"CKA_ID {one.key_id.hex()}: {one.count} ({one.source})" for one in counters))


def _check_module(config: TokenConfig) -> Row:
    """The file is there, and for the processor that this Python runs on: a module is loaded into a Python process."""
    subject = f"token {config.name}: module"
    path = Path(config.module)
    try:
        with path.open("rb") as file:
            built = architectures(file.read(HEADER_BYTES))
    except OSError as error:
        raise TokenError(
            "token.module",
            f"token {config.name!r}: the module {path} cannot be read: {error.strerror}",
            hint="install the vendor's package, or set `module` in agent.toml to where it put the library",
        ) from error
    with Path(sys.executable).open("rb") as file:
        here = architectures(file.read(HEADER_BYTES))
    if not built:
        raise TokenError(
            "token.module",
            f"token {config.name!r}: {path} is no shared library of this system",
            hint="set `module` in agent.toml to the PKCS#11 library (.so, .dylib) of the vendor's package",
        )
    if here and not set(built) & set(here):
        raise TokenError(
            "token.module_architecture",
            f"token {config.name!r}: {path} is for {', '.join(built)}, this Python for {', '.join(here)}",
            hint=f"install the vendor's package for {here[0]}, or a Python for {built[0]}; if the vendor has none, "
            "attach the token to another machine",
        )
    return passed(subject, f"{path}, for {', '.join(built)}")


def _check_pin_file(config: TokenConfig) -> Row:
    subject = f"token {config.name}: PIN file"
    if config.pin_credential:
        if "CREDENTIALS_DIRECTORY" not in os.environ:
            return skipped(
                subject,
                f"the PIN is systemd credential {config.pin_credential!r}, which its service alone is given",
                "the agent's log says whether the token took the PIN: journalctl -u privyseal-agent",
            )
        read_credential(config.pin_credential).wipe()
        return passed(subject, f"credential {config.pin_credential}: one line")
    if config.pin_keyring:
        return skipped(subject, f"the PIN is in the keyring, as {config.pin_keyring}", "--login asks it")
    if not config.pin_file:
        return skipped(
            subject,
            "none is configured",
            f"hand the PIN in after each start: privyseal token unlock {config.name} --dir DIR --prompt",
        )
    if _CREDENTIALS in Path(config.pin_file).parents and "CREDENTIALS_DIRECTORY" not in os.environ:
        return skipped(
            subject,
            f"{config.pin_file} is a systemd credential, which its service alone must be able to read",
            "the agent's log says whether the token took the PIN: journalctl -u privyseal-agent",
        )
    pin = read_pin_file(config.pin_file)
    pin.wipe()
    return passed(subject, f"{config.pin_file}: one line, readable by its owner alone")


def _unlock(config: TokenConfig) -> str:
    command = f"privyseal token unlock {config.name} --dir {Path(config.journal).parent}"
    return f"make sure of the PIN in the vendor's own tool, then: {command}"


def _described(info: TokenInfo) -> str:
    kind = "" if info.hardware or "not hardware" in info.model else ", not hardware"
    return f"{info.label!r}, serial {info.serial}, {info.manufacturer} {info.model}{kind}"


def _check_pin_state(config: TokenConfig, info: TokenInfo) -> Row:
    """CKF_USER_PIN_COUNT_LOW, _FINAL_TRY and _LOCKED (PKCS#11 v3.1 §3.2)."""
    subject = f"token {config.name}: PIN"
    if info.pin_state is PinState.OK:
        return passed(subject, "the token reports no wrong attempt")
    if info.pin_state is PinState.COUNT_LOW:
        return warned(subject, "the token has refused a PIN since the last right one", _unlock(config))
    if info.pin_state is PinState.FINAL_TRY:
        return warned(subject, "ONE attempt is left: another wrong PIN locks the token", _unlock(config))
    locked = TokenError(
        "token.pin_locked",
        f"the PIN of token {config.name!r} (serial {info.serial}) is locked",
        hint=f"unlock it there (SO PIN or PUK); {_unlock(config)}",
    )
    return failed(subject, locked)


def _check_journal(config: TokenConfig, serial: str) -> Row:
    subject = f"token {config.name}: PIN journal"
    if not Path(config.journal).exists():
        return passed(subject, f"{config.journal}: no PIN has been presented yet")
    history = PinJournal(config.journal).history(serial)
    if history.blocked or history.unknown > 1:
        why = "the token refused a PIN" if history.blocked else "nobody knows what became of the last attempts"
        raise TokenError(
            "token.pin_blocked",
            f"no PIN is presented to token {config.name!r} (serial {serial}): {why}, and nobody has seen to it since",
            hint=_unlock(config),
        )
    if history.unknown:
        return warned(
            subject,
            "nobody knows what became of the last attempt; one more is made if that PIN was right before",
            _unlock(config),
        )
    return passed(subject, "the last PIN that was presented was accepted" if history.accepted else "no open attempt")
