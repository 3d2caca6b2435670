# SPDX-License-Identifier: Apache-2.0
"""New tables at the end of agent.toml: what stands there already stays byte for byte, comments included."""

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec

from privyseal.agent.config import AgentFiles, KeyConfig, TokenTable, parse_agent_config
from privyseal.errors import ConfigError

__all__ = ["append_tables", "tables_text"]


def tables_text(*, tokens: tuple[TokenTable, ...] = (), keys: tuple[KeyConfig, ...] = ()) -> str:
    """`[[token]]` and `[[key]]` tables as TOML, without what is a default."""
    parts = [f"[[token]]\n{_fields(token)}" for token in tokens] + [f"[[key]]\n{_fields(key)}" for key in keys]
    return "\n".join(parts)


def append_tables(directory: Path, *, tokens: tuple[TokenTable, ...] = (), keys: tuple[KeyConfig, ...] = ()) -> None:
    """Append tables to agent.toml; the new file is in place as a whole or not at all.

    Raises:
        ConfigError: `config.missing`, `config.malformed`; `config.not_appended` if the file would not say then what it
            says now and the new tables (it may define its tokens in a way that cannot be added to).
    """
    path = AgentFiles(directory).config.resolve()
    added = tables_text(tokens=tokens, keys=keys)
    try:
        before = path.read_bytes()
    except OSError as error:
        raise ConfigError("config.missing", f"cannot read {path}: {error.strerror}") from error
    after = before + (b"" if before.endswith(b"\n") else b"\n") + b"\n" + added.encode()
    config = parse_agent_config(before.decode("utf-8", errors="replace"), path)
    expected = msgspec.structs.replace(config, token=(*config.token, *tokens), key=(*config.key, *keys))
    try:
        fits = parse_agent_config(after.decode("utf-8", errors="replace"), path) == expected
    except ConfigError as error:
        raise _not_appended(path, error.message, added) from error
    if not fits:
        raise _not_appended(path, "it would not say the same and these tables", added)
    _replace(path, after)


def _not_appended(path: Path, reason: str, added: str) -> ConfigError:
    return ConfigError(
        "config.not_appended",
        f"{path} is left as it is, as tables cannot be appended to it: {reason}",
        hint=f"put these lines into it by hand:\n{added}",
    )


def _replace(path: Path, data: bytes) -> None:
    """Temporary file beside it, fsync, rename; mode as before."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _fields(table: TokenTable | KeyConfig) -> str:
    lines = [
        f"{field.name} = {_value(value)}\n"
        for field in msgspec.structs.fields(table)
        if (value := getattr(table, field.name)) != _default(field)
    ]
    return "".join(lines)


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return _string(value)
        case Mapping():
            return "{ " + ", ".join(f"{_string(name)} = {_value(one)}" for name, one in value.items()) + " }"
        case tuple():
            return "[" + ", ".join(_value(one) for one in value) + "]"
        case _:
            return str(value)


def _string(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for DEL, which TOML wants escaped as well."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
