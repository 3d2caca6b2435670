# SPDX-License-Identifier: Apache-2.0
"""The process behind `module_probe`: `python module_server.py MODULE`, then one JSON line for each call and answer."""

import ctypes
import dataclasses
import json
import os
import sys
from typing import Any

from privyseal.tokens.ckr import Ckr
from privyseal.tokens.cryptoki import Module
from privyseal.tokens.cryptoki_types import PROTOTYPES, ULONG, UserType


def _call(module: Module, method: str, arguments: list[Any]) -> Any:
    match method, arguments:
        case "login", [session, pin]:
            buffer = ctypes.create_string_buffer(pin.encode(), len(pin))
            module.login(session, UserType.USER, ctypes.addressof(buffer), len(pin))
            value: Any = None
        case "sign", [session, data]:
            value = module.sign(session, bytes.fromhex(data)).hex()
        case "find", [session, kind, text]:
            value = module.find(session, (kind, bytes.fromhex(text)))
        case "token", [slot]:
            value = dataclasses.asdict(module.token(slot))
        case "all_slots", []:
            value = module.slots(with_token=False)
        case "raw", [function]:
            # Its return value, called with nothing but NULL and 0.
            _, types = PROTOTYPES[function]
            value = module._raw(function, *(0 if kind in (ULONG, ctypes.c_ubyte) else None for kind in types))
        case _:
            value = getattr(module, method)(*arguments)
    return value


def main() -> None:
    # The module prints; what it prints must not look like an answer.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        module = Module(sys.argv[1])
        for line in sys.stdin:
            method, *arguments = json.loads(line)
            try:
                answer = {"value": _call(module, method, arguments)}
            except Ckr as error:
                answer = {"function": error.function, "rv": error.ckr}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
