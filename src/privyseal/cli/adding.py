# SPDX-License-Identifier: Apache-2.0
"""`privyseal token add`: from a token that is there to the lines in agent.toml."""

import asyncio
import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from privyseal.agent.appending import append_tables, tables_text
from privyseal.agent.config import AgentConfig, AgentFiles, KeyConfig, TokenTable, load_agent_config, token_config
from privyseal.cli.prompts import confirm, read_pin
from privyseal.cli.render import emit, printable, say
from privyseal.cli.scanning import look
from privyseal.cli.token_host import choose_key, parse_key_id
from privyseal.errors import ConfigError, TokenError
from privyseal.identity.keyfile import write_private
from privyseal.pki.x509 import parse_certificate
from privyseal.ports.token import TokenKey
from privyseal.tokens.contents import SeenToken
from privyseal.tokens.discovery import LookedAt
from privyseal.tokens.factory import open_token
from privyseal.tokens.pin import PinBuffer, read_pin_file
from privyseal.wire.names import NAME_RULE, is_name

__all__ = ["AddRequest", "add_token"]

_PIN_CODES: Final = frozenset({"token.pin_incorrect", "token.pin_blocked"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRequest:
    """What `token add` was asked for; empty where it may choose."""

    directory: Path
    module: Path | None
    name: str
    token_label: str
    serial: str
    key_id: str
    profile: str
    test: bool
    pin_file: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    looked: LookedAt
    token: SeenToken


def add_token(asked: AddRequest, *, yes: bool, as_json: bool) -> None:
    """Find the token, look at its keys, show the lines, and write them if a person says so.

    Raises:
        ConfigError: `token.choose`, `token.known`, `config.name`, `usage.confirm`, `usage.declined`.
        TokenError: as `Token.keys`.
    """
    config = load_agent_config(asked.directory)
    parse_key_id(asked.key_id)
    found = _choose(asyncio.run(look(() if asked.module is None else (asked.module,))), asked)
    table = _token_table(asked, config, found)
    with _typed_pin(asked, table, found.token) as pin:
        keys = asyncio.run(_keys(asked, table, pin))
        key = _key_table(asked, config, table, keys)
        tables = (key,) if key else ()
        text = tables_text(tokens=(table,), keys=tables)
        for line in _story(found, keys):
            say(printable(line))
        say(f"\n{AgentFiles(asked.directory).config} would be given:\n\n{printable(text)}")
        confirm("Append these lines?", yes=yes)
        with _kept(asked.directory / table.pin_file, pin):
            append_tables(asked.directory, tokens=(table,), keys=tables)
    emit(_data(table, key, text), _next_steps(asked, table, key, keys), as_json=as_json)


def _choose(looked: list[LookedAt], asked: AddRequest) -> _Found:
    """The one token that is meant."""
    seen = [
        _Found(looked=one, token=token)
        for one in looked
        if one.contents is not None
        for token in one.contents.tokens
        if token.initialized
    ]
    meant = [
        one for one in seen if asked.token_label in ("", one.token.label) and asked.serial in ("", one.token.serial)
    ]
    if len(meant) == 1:
        return meant[0]
    if asked.module is not None and looked[0].problem is not None:
        raise looked[0].problem
    present = "; ".join(f"{one.token.label!r} serial {one.token.serial} ({one.looked.module.path})" for one in seen)
    raise ConfigError(
        "token.choose",
        f"{'more than one token is' if meant else 'no token is'} meant; initialised tokens here: {present or 'none'}",
        hint="name one with --module and --serial" if seen else "privyseal token scan shows what each module says",
    )


def _token_table(asked: AddRequest, config: AgentConfig, found: _Found) -> TokenTable:
    module = str(found.looked.module.path)
    token, environment = found.token, dict(found.looked.environment)
    for known in config.token:
        is_same_module = known.kind == "pkcs11" and Path(known.module).resolve() == Path(module).resolve()
        names_it = (
            known.serial in ("", token.serial)
            and known.token_label in ("", token.label)
            and known.slot in (None, token.slot)
        )
        if is_same_module and names_it and known.environment == environment:
            raise ConfigError(
                "token.known",
                f"agent.toml has this token already, as {known.name!r}",
                hint="to add a key profile to it, write a [[key]] table into agent.toml",
            )
    name = asked.name or _slug(token.label) or "token"
    _check_name("token", name, {one.name for one in config.token})
    if asked.pin_file is not None:
        read_pin_file(str(asked.pin_file)).wipe()
    pin_file = f"{name}.pin" if asked.pin_file is None else str(asked.pin_file.resolve())
    return TokenTable(
        name=name,
        kind="pkcs11",
        module=module,
        token_label=token.label,
        serial=token.serial,
        pin_file=pin_file if token.login_required or asked.pin_file else "",
        environment=environment,
    )


@contextlib.contextmanager
def _typed_pin(asked: AddRequest, table: TokenTable, token: SeenToken) -> Iterator[PinBuffer | None]:
    """What a person types, if there is no PIN file and the token wants a PIN."""
    if asked.pin_file is not None or not token.login_required:
        yield None
        return
    place = asked.directory / table.pin_file
    if place.exists():
        raise ConfigError(
            "pin.file_exists", f"{place} is there already", hint=f"use it with --pin-file {place}, or remove it"
        )
    typed = read_pin(table.name)
    pin = PinBuffer()
    try:
        pin.fill(typed)
        yield pin
    finally:
        typed[:] = bytes(len(typed))
        pin.wipe()


@contextlib.contextmanager
def _kept(path: Path, pin: PinBuffer | None) -> Iterator[None]:
    """A typed PIN in its file, which goes again if agent.toml cannot be written."""
    if pin is not None:
        write_private(path, bytes(pin.view))
    try:
        yield
    except (ConfigError, OSError):
        if pin is not None:
            path.unlink(missing_ok=True)
        raise


async def _keys(asked: AddRequest, table: TokenTable, pin: PinBuffer | None) -> tuple[TokenKey, ...]:
    """The token's keys, by one login through the PIN journal."""
    config = token_config(table if pin is None else msgspec.structs.replace(table, pin_file=""), asked.directory)
    token = open_token(config, pin=None if pin is None else pin.copy())
    try:
        return await token.keys()
    except TokenError as error:
        if error.code not in _PIN_CODES:
            raise
        # The token has no name in agent.toml yet, by which its journal is cleared otherwise.
        hint = f"make sure of the PIN, then: privyseal token unlock --serial {table.serial} --dir {asked.directory}"
        raise TokenError(error.code, error.message, hint=hint) from error
    finally:
        await token.close()


def _key_table(
    asked: AddRequest, config: AgentConfig, table: TokenTable, keys: tuple[TokenKey, ...]
) -> KeyConfig | None:
    """The key profile; None if the token has no key yet and none was asked for."""
    if not keys and not asked.key_id and not asked.profile:
        return None
    key = choose_key(keys, parse_key_id(asked.key_id))
    profile = asked.profile or _slug(key.label) or table.name
    _check_name("key profile", profile, {one.profile for one in config.key})
    return KeyConfig(profile=profile, token=table.name, id=key.key_id.hex(), test=asked.test)


def _check_name(kind: str, name: str, taken: set[str]) -> None:
    if not is_name(name):
        raise ConfigError("config.name", f"{name!r} cannot be the name of a {kind}: {NAME_RULE}")
    if name in taken:
        option = "--profile" if kind == "key profile" else "--name"
        raise ConfigError("config.name", f"agent.toml has a {kind} {name!r} already", hint=f"choose another {option}")


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-._").lower()[:60]


def _story(found: _Found, keys: tuple[TokenKey, ...]) -> Iterable[str]:
    token = found.token
    yield f"module  {found.looked.module.path}"
    hardware = "" if token.hardware else " (not hardware)"
    yield f"token   {token.label}, serial {token.serial}, {token.manufacturer} {token.model}{hardware}"
    for key in keys:
        yield f"key     id {key.key_id.hex()}, {key.label}, certificate: {_certificate_words(key)}"
    if not keys:
        yield "key     none yet"


def _certificate_words(key: TokenKey) -> str:
    if not key.certificates:
        return "none"
    certificate = parse_certificate(key.certificates[0])
    return f"{certificate.subject}, until {certificate.not_after:%Y-%m-%d}"


def _data(table: TokenTable, key: KeyConfig | None, text: str) -> dict[str, Any]:
    return {
        "token": table.name,
        "serial": table.serial,
        "profile": "" if key is None else key.profile,
        "id": "" if key is None else key.id,
        "added": text,
    }


def _next_steps(
    asked: AddRequest, table: TokenTable, key: KeyConfig | None, keys: tuple[TokenKey, ...]
) -> Iterable[str]:
    where = f"--dir {asked.directory} --token {table.name}"
    yield f"token {table.name} stands in {AgentFiles(asked.directory).config}"
    if key is None:
        yield f"next: privyseal key generate {where} --label LABEL --type rsa-3072"
    elif not next(one for one in keys if one.key_id.hex() == key.id).certificates:
        yield f'next: privyseal key csr {where} --id {key.id} --subject "CN=…,O=…,C=…" -o request.pem'
    else:
        yield f"next: privyseal agent run --dir {asked.directory}"
