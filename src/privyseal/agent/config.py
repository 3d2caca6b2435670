# SPDX-License-Identifier: Apache-2.0
"""agent.toml: tokens and key profiles of this host. It alone decides level and opaque formats of a profile."""

import json
import tomllib
from pathlib import Path
from typing import Final, Literal

import msgspec

from privyseal.agent.device_config import DeviceTable, check_device
from privyseal.errors import ConfigError
from privyseal.relay.direct import split_place
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.counters import CounterKind
from privyseal.usb.selector import parse_selector
from privyseal.wire.names import NAME_RULE, is_name

__all__ = [
    "AgentConfig",
    "AgentFiles",
    "KeyConfig",
    "RecoveryTable",
    "TokenTable",
    "UsbTable",
    "hub_setting",
    "load_agent_config",
    "parse_agent_config",
    "token_config",
]


_MAX_WORKERS: Final = 64
_DAY_SECONDS: Final = 86_400
_MAX_HOURS: Final = 8_784


class AgentFiles(msgspec.Struct, frozen=True):
    """Where an agent keeps what it has; all in one directory."""

    directory: Path

    @property
    def config(self) -> Path:
        """Configuration."""
        return self.directory / "agent.toml"

    @property
    def bundle(self) -> Path:
        """The pinned trust bundle."""
        return self.directory / "bundle.json"

    @property
    def tls_key(self) -> Path:
        """Key of the TLS certificate."""
        return self.directory / "tls.key"

    @property
    def tls_certificate(self) -> Path:
        """TLS certificate."""
        return self.directory / "tls.pem"

    @property
    def request_key(self) -> Path:
        """The agent's own long-lived key."""
        return self.directory / "request.key"

    @property
    def witness_key(self) -> Path:
        """Key under which the agent cosigns checkpoints."""
        return self.directory / "witness.key"

    @property
    def sealing_key(self) -> Path:
        """Key that PINs from a desk are sealed to."""
        return self.directory / "sealing.key"

    @property
    def journal(self) -> Path:
        """Jobs, checkpoints and fences."""
        return self.directory / "journal.db"

    @property
    def control(self) -> Path:
        """Socket of the running agent, for commands."""
        return self.directory / "control.sock"

    @property
    def pin_journal(self) -> Path:
        """PIN attempts."""
        return self.directory / "pin-journal"


class TokenTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[token]]`: a software token's directory, or a PKCS#11 module and which of its tokens.

    Attributes:
        workers: Processes that sign at the same time, each with a session of its own; more than one only for a module
            that allows parallel sessions (a network HSM).
        recycle_signatures, recycle_hours: After so many signatures or hours the workers are replaced between two jobs;
            0 for never.
        count_seconds: How often the signature counter is held against the journal; each time costs a login.
        watch_seconds: How often the token is looked at while nothing is signed.
        usb: Its USB device, which is reset when nothing less helps: `0529:0620`, `0529:0620:SERIAL`, `serial:…` or a
            bus id such as `1-1.4`.
        port_power: Whether its port may be power-cycled as well.
        relocation: What follows if it may be in another place than the one on record: nothing, a record of it, or a
            quarantine until a person accepts the place.
    """

    name: str
    kind: Literal["software", "pkcs11"]
    path: str = ""
    module: str = ""
    token_label: str = ""
    serial: str = ""
    slot: int | None = None
    pin_file: str = ""
    pin_credential: str = ""
    pin_keyring: str = ""
    pin_prompt: bool = False
    hardware: bool | None = None
    counter: CounterKind = "none"
    count_seconds: float = 3600.0
    environment: dict[str, str] = {}
    call_seconds: float = 30.0
    sign_seconds: float = 60.0
    generate_seconds: float = 600.0
    respawn_seconds: float = 1.0
    workers: int = 1
    recycle_signatures: int = 10_000
    recycle_hours: float = 24.0
    watch_seconds: float = 5.0
    usb: str = ""
    port_power: bool = False
    relocation: Literal["off", "record", "quarantine"] = "record"


class KeyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[key]]`: a key profile, or one of several tokens that serve it (a pool, which hub.toml must name).

    Attributes:
        token: Name of a `[[token]]`.
        id: CKA_ID in hex; or `label`, CKA_LABEL. Neither if the token has one signing key.
        chain: PEM file with the certificates, leaf first, if the token does not hold them all.
        level: `traced` or `pinned` (see SECURITY.md).
        opaque: Formats that may be signed although the preimage shows only a digest; `*` for all.
        witness: Whether witnesses must cosign the log: `off`, `async` (they are asked, nothing waits), `before-release`
            (no signature leaves the hub before), `before-use` (the token is not used before, either).
        test: Its signatures are for trying things out: marked everywhere, and never under a public CA's certificate.
    """

    profile: str
    token: str
    id: str = ""
    label: str = ""
    chain: str = ""
    level: Literal["traced", "pinned"] = "traced"
    opaque: tuple[str, ...] = ()
    witness: Literal["off", "async", "before-release", "before-use"] = "off"
    test: bool = False


class RecoveryTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[recovery]`: commands of this host that may bring a token back, as lists of program and arguments.

    Attributes:
        restart_pcscd: Restarts the smart card service; empty for never.
        reboot: Reboots the host, at most once a day; empty for never.
        command_seconds: How long each may take.
    """

    restart_pcscd: tuple[str, ...] = ()
    reboot: tuple[str, ...] = ()
    command_seconds: float = 60.0


class UsbTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[usb]`: how clients reach a device of this host that is leased to them.

    Attributes:
        listen: HOST:PORT where clients may come without a hub in between; empty for not at all.
    """

    listen: str = ""


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What agent.toml says.

    Attributes:
        name: Under which the agent joined.
        hub: URL of the hub's mtls listener; several if several hub processes share one log.
        web: URL of the hub's web listener.
    """

    name: str
    hub: str | tuple[str, ...]
    web: str
    token: tuple[TokenTable, ...] = ()
    key: tuple[KeyConfig, ...] = ()
    recovery: RecoveryTable = RecoveryTable()
    device: tuple[DeviceTable, ...] = ()
    usb: UsbTable = UsbTable()

    @property
    def hubs(self) -> tuple[str, ...]:
        """URL of each hub."""
        return (self.hub,) if isinstance(self.hub, str) else self.hub


def hub_setting(urls: tuple[str, ...]) -> str:
    """The line of agent.toml that names the hubs; URLs hold no character that TOML or JSON would escape."""
    return f"hub = {json.dumps(urls[0] if len(urls) == 1 else urls)}"


def load_agent_config(directory: Path) -> AgentConfig:
    """Read agent.toml.

    Raises:
        ConfigError: `config.missing`, `config.malformed`.
    """
    path = AgentFiles(directory).config
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            "config.missing",
            f"there is no agent in {directory}",
            hint=f"privyseal agent join --dir {directory}",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("config.malformed", f"{path}: {error}") from error
    return parse_agent_config(text, path)


def parse_agent_config(text: str, path: Path) -> AgentConfig:
    """The same from text; `path` is where it stands, for messages.

    Raises:
        ConfigError: `config.malformed`, `config.token`, `config.address`.
    """
    try:
        config = msgspec.convert(tomllib.loads(text), AgentConfig)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError("config.malformed", f"{path}: {error}") from error
    _check_names(config, path)
    for token in config.token:
        token_config(token, path.parent)
    for key in config.key:
        if not is_name(key.profile):
            raise ConfigError("config.malformed", f"{path}: {key.profile!r} cannot be a key profile: {NAME_RULE}")
    _check_recovery(config.recovery, path)
    if config.usb.listen:
        split_place(config.usb.listen)
    for token in config.token:
        _check_bounds(token, path)
    known = {token.name for token in config.token}
    for key in config.key:
        if key.token not in known:
            raise ConfigError(
                "config.malformed",
                f"{path}: key profile {key.profile!r} names token {key.token!r}, which is not there",
            )
    for device in config.device:
        check_device(device, tokens=known, taken={key.profile for key in config.key}, path=path)
    return config


def _check_names(config: AgentConfig, path: Path) -> None:
    if not config.hubs:
        raise ConfigError("config.malformed", f"{path}: `hub` names no hub")
    for kind, names in (
        ("hub", list(config.hubs)),
        ("token", [token.name for token in config.token]),
        ("device", [device.name for device in config.device]),
        ("key profile on one token", [f"{key.profile} ({key.token})" for key in config.key]),
    ):
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ConfigError("config.malformed", f"{path}: two of one {kind}: {', '.join(sorted(twice))}")


def _check_recovery(recovery: RecoveryTable, path: Path) -> None:
    if not 0 < recovery.command_seconds <= _DAY_SECONDS:
        raise ConfigError("config.malformed", f"{path}: [recovery]: command_seconds must be above 0 and at most a day")


def _check_bounds(token: TokenTable, path: Path) -> None:
    wrong = ""
    if not 1 <= token.workers <= _MAX_WORKERS:
        wrong = f"workers must be 1 to {_MAX_WORKERS}"
    elif token.recycle_signatures < 0 or not 0 <= token.recycle_hours <= _MAX_HOURS:
        wrong = "recycle_signatures and recycle_hours must be 0 or more, and at most a year"
    elif not 0 < token.watch_seconds <= _DAY_SECONDS:
        wrong = "watch_seconds must be above 0 and at most a day"
    elif not 0 <= token.count_seconds <= _DAY_SECONDS:
        wrong = "count_seconds must be 0 to a day"
    elif token.usb:
        try:
            parse_selector(token.usb)
        except ConfigError as error:
            wrong = f"usb: {error.message}; {error.hint}"
    if wrong:
        raise ConfigError(
            "config.malformed", f"{path}: token {token.name!r}: {wrong}", hint="docs/configuration.md shows every key"
        )


def token_config(table: TokenTable, directory: Path) -> TokenConfig:
    """A token's configuration with its paths made absolute (they are relative to agent.toml)."""

    def absolute(text: str) -> str:
        return str((directory / text).resolve()) if text else ""

    return TokenConfig(
        name=table.name,
        kind=table.kind,
        journal=str(AgentFiles(directory).pin_journal.resolve()),
        path=absolute(table.path),
        module=absolute(table.module),
        token_label=table.token_label,
        serial=table.serial,
        slot=table.slot,
        pin_file=absolute(table.pin_file),
        pin_credential=table.pin_credential,
        pin_keyring=table.pin_keyring,
        pin_prompt=table.pin_prompt,
        hardware=table.hardware,
        counter=table.counter,
        environment=table.environment,
        call_seconds=table.call_seconds,
        sign_seconds=table.sign_seconds,
        generate_seconds=table.generate_seconds,
        respawn_seconds=table.respawn_seconds,
    )
