# SPDX-License-Identifier: Apache-2.0
"""The worker's half of a scan: load a module and read what it shows to anybody. No PIN is ever presented here."""

import contextlib
from typing import Final

from privyseal.tokens.ckr import Ckr
from privyseal.tokens.contents import ModuleContents, PublicCertificate, SeenToken
from privyseal.tokens.cryptoki import Module
from privyseal.tokens.cryptoki_types import SlotFlags, TokenFlags
from privyseal.tokens.pkcs11_keys import read_certificates
from privyseal.tokens.token_objects import pin_state

__all__ = ["is_software", "read_module"]

#: A slot list longer than this is not walked through: the answer must fit one message.
_MAX_TOKENS: Final = 64


def is_software(manufacturer: str) -> bool:
    """Whether a token is known to be no hardware, whatever its slot says."""
    return manufacturer.startswith("SoftHSM")


def read_module(path: str) -> ModuleContents:
    """Load a module and read what it shows.

    Raises:
        TokenError: `token.module`; `Ckr` of a function that all the rest depends on.
    """
    module = Module(path)
    module.initialize()
    tokens = []
    for slot in module.slots()[:_MAX_TOKENS]:
        # A token may be pulled out while it is looked at, or its reader be foreign to this module.
        with contextlib.suppress(Ckr):
            tokens.append(_read_token(module, slot))
    return ModuleContents(library=module.description(), slots=len(module.slots(with_token=False)), tokens=tuple(tokens))


def _read_token(module: Module, slot: int) -> SeenToken:
    description = module.token(slot)
    flags = description.flags
    is_initialized = bool(flags & TokenFlags.TOKEN_INITIALIZED)
    certificates: tuple[PublicCertificate, ...] = ()
    problem = ""
    if is_initialized:
        try:
            certificates = _public_certificates(module, slot)
        except Ckr as error:
            problem = error.message
    return SeenToken(
        slot=slot,
        label=description.label,
        serial=description.serial,
        manufacturer=description.manufacturer,
        model=description.model,
        hardware=not is_software(description.manufacturer) and bool(module.slot_flags(slot) & SlotFlags.HW_SLOT),
        initialized=is_initialized,
        login_required=bool(flags & TokenFlags.LOGIN_REQUIRED),
        pin_state=pin_state(flags),
        certificates=certificates,
        problem=problem,
    )


def _public_certificates(module: Module, slot: int) -> tuple[PublicCertificate, ...]:
    session = module.open_session(slot)
    try:
        found = read_certificates(module, session)
    finally:
        with contextlib.suppress(Ckr):
            module.close_session(session)
    return tuple(PublicCertificate(key_id=one.key_id, der=one.der) for one in found)
