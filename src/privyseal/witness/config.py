# SPDX-License-Identifier: Apache-2.0
"""witness.toml and the files beside it, and how they are made."""

import tomllib
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.errors import ConfigError, MalformedInputError
from privyseal.identity.keyfile import load_ed25519, save_private_key, write_private
from privyseal.storage.durable_file import PosixFileSystem
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.note import VerifierKey, parse_vkey
from privyseal.witness.memory import MemoryPlace, WitnessMemory

__all__ = ["LogTable", "WitnessConfig", "WitnessFiles", "init_witness", "load_cosigner", "load_witness_config"]

_CONFIG_TEXT = """\
# A Privyseal witness. Its key and what it remembers lie beside this file.

# The witness's name; it stands in every cosignature and cannot be changed later.
name = "{name}"

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

    @property
    def key(self) -> Path:
        """Key that cosigns."""
        return self.directory / "witness.key"

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
        listen: HOST:PORT to bind.
        guard: Path of the second copy of what it remembers, relative to the directory.
    """

    name: str
    listen: str
    guard: str = "guard.json"
    log: tuple[LogTable, ...] = ()

    @property
    def keys(self) -> dict[str, tuple[VerifierKey, ...]]:
        """The keys of each known log, by origin."""
        keys: dict[str, tuple[VerifierKey, ...]] = {}
        for table in self.log:
            keys[table.origin] = (*keys.get(table.origin, ()), parse_vkey(table.key))
        return keys

    def place(self, directory: Path, key: Cosigner) -> MemoryPlace:
        """Where what it remembers is kept."""
        files = WitnessFiles(directory)
        return MemoryPlace(state=files.state, guard=directory / self.guard, lock=files.lock, witness=key.verifier.vkey)


def load_witness_config(directory: Path) -> WitnessConfig:
    """Read witness.toml.

    Raises:
        ConfigError: `config.missing`, `config.malformed`.
    """
    path = WitnessFiles(directory).config
    try:
        config = msgspec.convert(tomllib.loads(path.read_text("utf-8")), WitnessConfig)
        _ = config.keys
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


def load_cosigner(directory: Path, config: WitnessConfig) -> Cosigner:
    """The witness's key under its name.

    Raises:
        ConfigError: `config.name`, `file.missing`, `file.too_open`, `file.not_a_key`.
    """
    return _cosigner(config.name, load_ed25519(WitnessFiles(directory).key))


def _cosigner(name: str, key: Ed25519PrivateKey) -> Cosigner:
    try:
        return Cosigner(name=name, key=key)
    except MalformedInputError as error:
        raise ConfigError("config.name", f"{name!r} cannot be a witness's name: {error.message}") from error


def init_witness(directory: Path, *, name: str, listen: str) -> Cosigner:
    """Make a witness in a new directory: key, configuration, and an empty memory.

    Raises:
        ConfigError: `witness.exists`, `config.name`.
        OSError: if a file cannot be written.
    """
    files = WitnessFiles(directory)
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(
            "witness.exists",
            f"{directory} is not empty",
            hint="give a new directory with --dir: a witness's key and what it remembers are never overwritten",
        )
    cosigner = _cosigner(name, key := Ed25519PrivateKey.generate())
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    save_private_key(files.key, key)
    quoted = {"name": name, "listen": listen}
    text = _CONFIG_TEXT.format(**{field: _toml(value) for field, value in quoted.items()})
    write_private(files.config, text.encode())
    WitnessMemory.create(load_witness_config(directory).place(directory, cosigner), PosixFileSystem())
    return cosigner


def _toml(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
