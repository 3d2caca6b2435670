# SPDX-License-Identifier: Apache-2.0
"""witness.toml and the files beside it, and how they are made."""

import tomllib
from pathlib import Path
from typing import Final, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from privyseal.errors import ConfigError, MalformedInputError
from privyseal.identity.keyfile import (
    load_ed25519,
    load_ml_dsa_44,
    new_ml_dsa_44,
    save_private_key,
    write_private,
)
from privyseal.storage.durable_file import PosixFileSystem
from privyseal.tlog.cosignature import Cosigner, LogKey, parse_log_vkey
from privyseal.witness.memory import MemoryPlace, WitnessMemory

__all__ = [
    "BOTH_KEYS",
    "KeyType",
    "LogTable",
    "WitnessConfig",
    "WitnessFiles",
    "init_witness",
    "load_cosigners",
    "load_witness_config",
]

#: What a witness cosigns with; each type has a file of its own.
KeyType = Literal["ed25519", "ml-dsa-44"]
BOTH_KEYS: Final[tuple[KeyType, ...]] = ("ed25519", "ml-dsa-44")

#: An ML-DSA-44 cosignature has no room for more.
_MAX_ORIGIN_BYTES: Final = 255

_CONFIG_TEXT = """\
# A Privyseal witness. Its keys and what it remembers lie beside this file.

# The witness's name; it stands in every cosignature and cannot be changed later.
name = "{name}"

# What it cosigns with; a cosignature of each leaves with every answer. Cannot be changed later either.
keys = [{keys}]

# HTTP: POST /add-checkpoint (C2SP tlog-witness).
listen = "{listen}"

# What was cosigned last is remembered twice, in state.json and here. Keep both out of backups; on another disk,
# the second one also shows that the first was brought back from an older copy.
guard = "guard.json"

# The logs it cosigns for.
# [[log]]
# origin = "hub.example/log"
# key = "hub.example/log+0123abcd+AV..."
"""


class WitnessFiles(msgspec.Struct, frozen=True):
    """Where a witness keeps what it has; all in one directory, but for the guard."""

    directory: Path

    @property
    def config(self) -> Path:
        """Configuration."""
        return self.directory / "witness.toml"

    def key(self, kind: KeyType) -> Path:
        """Key that cosigns."""
        return self.directory / f"witness-{kind}.key"

    @property
    def state(self) -> Path:
        """What was cosigned last."""
        return self.directory / "state.json"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the witness."""
        return self.directory / "lock"


class LogTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A log that the witness knows; several of one origin are several keys of it.

    Attributes:
        origin: First line of its checkpoints.
        key: Verifier key (C2SP signed-note `vkey`).
    """

    origin: str
    key: str


class WitnessConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What witness.toml says.

    Attributes:
        name: The witness's key name.
        keys: Which keys it cosigns with, each once.
        listen: HOST:PORT to bind.
        guard: Path of the second copy of what it remembers, relative to the directory.
    """

    name: str
    keys: tuple[KeyType, ...] = BOTH_KEYS
    listen: str
    guard: str = "guard.json"
    log: tuple[LogTable, ...] = ()

    def __post_init__(self) -> None:
        if not self.keys or len(set(self.keys)) != len(self.keys):
            raise ValueError("`keys` names at least one type of key, each once")
        for table in self.log:
            if len(table.origin.encode()) > _MAX_ORIGIN_BYTES:
                raise ValueError(f"the origin {table.origin[:80]!r} has more than {_MAX_ORIGIN_BYTES} bytes")

    @property
    def log_keys(self) -> dict[str, tuple[LogKey, ...]]:
        """The keys of each known log, by origin."""
        keys: dict[str, tuple[LogKey, ...]] = {}
        for table in self.log:
            keys[table.origin] = (*keys.get(table.origin, ()), parse_log_vkey(table.key))
        return keys

    def place(self, directory: Path, cosigners: tuple[Cosigner, ...]) -> MemoryPlace:
        """Where what it remembers is kept."""
        files = WitnessFiles(directory)
        return MemoryPlace(
            state=files.state,
            guard=directory / self.guard,
            lock=files.lock,
            witness=tuple(one.verifier.vkey for one in cosigners),
        )


def load_witness_config(directory: Path) -> WitnessConfig:
    """Read witness.toml.

    Raises:
        ConfigError: `config.missing`, `config.malformed`.
    """
    path = WitnessFiles(directory).config
    try:
        config = msgspec.convert(tomllib.loads(path.read_text("utf-8")), WitnessConfig)
        _ = config.log_keys
    except OSError as error:
        raise ConfigError(
            "config.missing",
            f"there is no witness in {directory}",
            hint=f"privyseal witness init --dir {directory} --name NAME",
        ) from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ConfigError("config.malformed", f"{path}: {error}") from error
    except MalformedInputError as error:
        raise ConfigError("config.malformed", f"{path}: a [[log]]'s key: {error.message}") from error
    return config


def load_cosigners(directory: Path, config: WitnessConfig) -> tuple[Cosigner, ...]:
    """The witness's keys under its name, in the order of the configuration.

    Raises:
        ConfigError: `config.name`, `file.missing`, `file.too_open`, `file.not_a_key`.
    """
    return tuple(_cosigner(config.name, _load(WitnessFiles(directory), kind)) for kind in config.keys)


def _load(files: WitnessFiles, kind: KeyType) -> Ed25519PrivateKey | MLDSA44PrivateKey:
    return load_ed25519(files.key(kind)) if kind == "ed25519" else load_ml_dsa_44(files.key(kind))


def _cosigner(name: str, key: Ed25519PrivateKey | MLDSA44PrivateKey) -> Cosigner:
    try:
        return Cosigner(name=name, key=key)
    except MalformedInputError as error:
        raise ConfigError("config.name", f"{name!r} cannot be a witness's name: {error.message}") from error


def init_witness(
    directory: Path, *, name: str, listen: str, keys: tuple[KeyType, ...] = BOTH_KEYS
) -> tuple[Cosigner, ...]:
    """Make a witness in a new directory: keys, configuration, and an empty memory.

    Raises:
        ConfigError: `witness.exists`, `config.name`, `mldsa.unsupported`.
        OSError: if a file cannot be written.
    """
    files = WitnessFiles(directory)
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(
            "witness.exists",
            f"{directory} is not empty",
            hint="give a new directory with --dir: a witness's key and what it remembers are never overwritten",
        )
    made = {kind: Ed25519PrivateKey.generate() if kind == "ed25519" else new_ml_dsa_44() for kind in keys}
    cosigners = tuple(_cosigner(name, key) for key in made.values())
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for kind, key in made.items():
        save_private_key(files.key(kind), key)
    text = _CONFIG_TEXT.format(name=_toml(name), listen=_toml(listen), keys=", ".join(f'"{kind}"' for kind in keys))
    write_private(files.config, text.encode())
    WitnessMemory.create(load_witness_config(directory).place(directory, cosigners), PosixFileSystem())
    return cosigners


def _toml(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
