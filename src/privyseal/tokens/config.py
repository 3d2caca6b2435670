# SPDX-License-Identifier: Apache-2.0
"""What a token's adapter must be told. Holds names and paths only, never a PIN."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from privyseal.errors import ConfigError
from privyseal.tokens.counters import CounterKind

__all__ = ["TokenConfig"]

#: systemd.exec(5): a file name; ours begin with no dot.
_CREDENTIAL: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenConfig:
    """One token. All paths are text, so that the value can travel to the worker process as it is.

    Attributes:
        name: By which people know the token in this configuration.
        kind: `software` (encrypted key files) or `pkcs11` (a vendor's module).
        journal: The PIN journal; tokens of one host may share it. It must outlive restarts.
        path: Directory of a software token.
        module: Path of a PKCS#11 module.
        token_label, serial, slot: Which token of the module; all that are given must match, one token only.
        pin_file: File that holds the PIN. At most one of the four is given; none if the token asks for no PIN.
        pin_credential: Name of a systemd credential that holds it.
        pin_keyring: `service/account` in the keyring of the user's session.
        pin_prompt: A person hands it in after each start, with `unlock`.
        hardware: Whether the token is hardware, where the module does not tell; SoftHSM2 never is.
        counter: What signature counter its card keeps, if it does; read through pcscd, beside the module.
        environment: Variables for the module (such as SOFTHSM2_CONF). Whoever may look at the worker process
            can read them: never secrets.
        start_seconds: Deadline for starting the worker and loading the module.
        call_seconds: Deadline for every call, login included, up to C_Sign.
        sign_seconds: Deadline for C_Sign alone.
        generate_seconds: Deadline for C_GenerateKeyPair alone: RSA keys of 4096 bits take minutes on some tokens.
        close_seconds: How long `close` waits for a call in progress, and for the module to end its sessions; and
            how long a worker still runs whose supervisor is gone.
        respawn_seconds: Least time between two starts of the worker.
    """

    name: str
    kind: Literal["software", "pkcs11"]
    journal: str
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
    environment: Mapping[str, str] = field(default_factory=dict)
    start_seconds: float = 30.0
    call_seconds: float = 30.0
    sign_seconds: float = 60.0
    generate_seconds: float = 600.0
    close_seconds: float = 5.0
    respawn_seconds: float = 1.0

    def __post_init__(self) -> None:
        place = {"software": self.path, "pkcs11": self.module}.get(self.kind)
        if place is None:
            raise self._error(f"kind {self.kind!r} is neither software nor pkcs11")
        if not place:
            raise self._error("a software token needs `path`, a pkcs11 token needs `module`")
        if self.counter != "none" and self.kind == "software":
            raise self._error("a software token has no `counter`: one in a file would prove nothing")
        if not self.journal:
            raise self._error("`journal` is missing: PIN attempts must be remembered across restarts")
        self._check_pin_source()
        for name in ("start_seconds", "call_seconds", "sign_seconds", "generate_seconds", "close_seconds"):
            if not 0 < getattr(self, name) <= 86_400:
                raise self._error(f"`{name}` must be above 0 and at most a day")
        if not 0 <= self.respawn_seconds <= 86_400:
            raise self._error("`respawn_seconds` must be 0 to a day")
        for key, value in self.environment.items():
            if not key or "=" in key or "\0" in key + value:
                raise self._error(f"environment variable {key!r} has a name or value that no process can have")

    def _check_pin_source(self) -> None:
        given = [name for name in ("pin_file", "pin_credential", "pin_keyring", "pin_prompt") if getattr(self, name)]
        if len(given) > 1:
            raise self._error(f"the PIN comes from one place, not from {' and '.join(f'`{name}`' for name in given)}")
        if self.pin_credential and not _CREDENTIAL.fullmatch(self.pin_credential):
            raise self._error(f"`pin_credential` {self.pin_credential!r} is not the name of a systemd credential")
        service, _, account = self.pin_keyring.partition("/")
        if self.pin_keyring and not (service and account):
            raise self._error(f'`pin_keyring` {self.pin_keyring!r} is not of the form "service/account"')

    def _error(self, message: str) -> ConfigError:
        return ConfigError("config.token", f"token {self.name!r}: {message}", hint="see `privyseal config check`")
