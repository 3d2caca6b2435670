# SPDX-License-Identifier: Apache-2.0
"""What a PKCS#11 module shows to anybody, without a login."""

from dataclasses import dataclass

from privyseal.ports.token import PinState

__all__ = ["ModuleContents", "PublicCertificate", "SeenToken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicCertificate:
    """A certificate that the token shows before any login."""

    key_id: bytes
    der: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenToken:
    """A token in a slot.

    Attributes:
        hardware: What the slot says (CKF_HW_SLOT); SoftHSM2 never is.
        initialized: Whether it has been given a label and PINs; before that it holds nothing.
        login_required: Whether its keys need a PIN.
        problem: Why its certificates could not be read; empty if they were.
    """

    slot: int
    label: str
    serial: str
    manufacturer: str
    model: str
    hardware: bool
    initialized: bool
    login_required: bool
    pin_state: PinState
    certificates: tuple[PublicCertificate, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleContents:
    """A module that loads.

    Attributes:
        library: Manufacturer, name and version as it says itself.
        slots: How many slots it has, empty ones included.
    """

    library: str
    slots: int
    tokens: tuple[SeenToken, ...]
