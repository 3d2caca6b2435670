# SPDX-License-Identifier: Apache-2.0
"""`[[device]]` of agent.toml: USB devices that are lent as a whole."""

from collections.abc import Collection
from pathlib import Path
from typing import Final, Literal

import msgspec

from privyseal.errors import ConfigError
from privyseal.usb.selector import UsbSelector, parse_selector
from privyseal.usbip.card_events import LeaseRules
from privyseal.wire.names import NAME_RULE, is_name

__all__ = ["DeviceTable", "check_device"]

_DAY_MINUTES: Final = 1440


class DeviceTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[device]]`: a USB device that is lent to one client at a time (`privyseal device attach`).

    Attributes:
        name: Under which it is lent; a client's invitation names it as it names key profiles.
        usb: Which: `0529:0620`, `0529:0620:SERIAL`, `serial:…` or a bus id such as `1-1.4`.
        token: Name of the `[[token]]` that it is: both share one queue, and the token signs nothing while its device is
            lent. Empty if no module of this host uses it.
        level: `traced` or `pinned`, as for a `[[key]]`.
        classes: What else than tokens and smart card readers it may be: `storage`, `hid`.
        minutes: The longest lease.
        refuse: What a lease does not allow: `key-generation`, `pin-change`, `initialisation`, `unreadable` (what the
            agent cannot read could be any of them).
        operations: After so many private-key operations a lease ends; 0 for never.
        end_at_refused_pin: Whether a lease ends when the card refuses a PIN.
        finish_seconds: So long has a holder who is asked to finish, as a higher class of requests waits; 0 for as long
            as its lease lasts.
        grace_seconds: So long a holder may be cut off by its network; at most 30.
        release: A command that makes what else uses the device on this host let go of it, before it is lent: pcscd
            holds every reader, also while nobody uses it. Program and arguments; empty if there is no such program.
        take_back: The command that undoes that, when the device is back.
    """

    name: str
    usb: str
    token: str = ""
    level: Literal["traced", "pinned"] = "traced"
    classes: tuple[Literal["storage", "hid"], ...] = ()
    minutes: float = 60.0
    refuse: tuple[Literal["key-generation", "pin-change", "initialisation", "unreadable"], ...] = ()
    operations: int = 0
    end_at_refused_pin: bool = False
    finish_seconds: float = 0.0
    grace_seconds: float = 0.0
    release: tuple[str, ...] = ()
    take_back: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Name of the queue at this agent: its token's, or its own."""
        return self.token or self.name

    @property
    def selector(self) -> UsbSelector:
        """Which device it is.

        Raises:
            ConfigError: `usb.selector`.
        """
        return parse_selector(self.usb)

    @property
    def rules(self) -> LeaseRules:
        """What a lease does not allow."""
        return LeaseRules(
            refuse_key_generation="key-generation" in self.refuse,
            refuse_pin_change="pin-change" in self.refuse,
            refuse_initialisation="initialisation" in self.refuse,
            refuse_unreadable="unreadable" in self.refuse,
            max_private_key_operations=self.operations or None,
            end_at_refused_pin=self.end_at_refused_pin,
        )


def check_device(table: DeviceTable, *, tokens: Collection[str], taken: Collection[str], path: Path) -> None:
    """See to it that a table can be meant.

    Args:
        table: The table.
        tokens: Names of the tokens.
        taken: Names that key profiles have.
        path: Where it stands.

    Raises:
        ConfigError: `config.malformed`.
    """
    wrong = ""
    if not is_name(table.name):
        wrong = f"that cannot be its name: {NAME_RULE}"
    elif table.name in taken:
        wrong = "a key profile has that name"
    elif table.token and table.token not in tokens:
        wrong = f"it names token {table.token!r}, which is not there"
    elif not table.token and table.name in tokens:
        wrong = "a token has that name; if the device is that token, say so: token = ..."
    elif not 0 < table.minutes <= _DAY_MINUTES:
        wrong = f"minutes must be above 0 and at most {_DAY_MINUTES}"
    elif table.operations < 0 or table.finish_seconds < 0 or not 0 <= table.grace_seconds <= 30:
        wrong = "operations and finish_seconds must be 0 or more, grace_seconds 0 to 30"
    else:
        try:
            parse_selector(table.usb)
        except ConfigError as error:
            wrong = f"usb: {error.message}; {error.hint}"
    if wrong:
        raise ConfigError(
            "config.malformed", f"{path}: device {table.name!r}: {wrong}", hint="docs/configuration.md shows every key"
        )
