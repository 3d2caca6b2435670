# SPDX-License-Identifier: Apache-2.0
"""Let oscrypto 1.3.0 (which signify, a test judge, stands on) read OpenSSL versions such as 3.0.22.

Its pattern knows one digit in the last place only; that is fixed in its repository, but was never released.
This patches the two modules in the environment of the Python that runs it, once, and is never needed by the
product.
"""

import importlib.util
import sys
from pathlib import Path

MODULES = ("_libcrypto_cffi.py", "_libcrypto_ctypes.py")
WRONG = r"(\\d\\.\\d\\.\\d[a-z]*)"
RIGHT = r"(\\d\\.\\d\\.\\d+[a-z]*)"


def main() -> int:
    """Patch what is there; 1 if oscrypto has a form that this does not know."""
    spec = importlib.util.find_spec("oscrypto")
    if spec is None or spec.origin is None:
        print("oscrypto is not installed; nothing to patch", file=sys.stderr)
        return 0
    for name in MODULES:
        path = Path(spec.origin).parent / "_openssl" / name
        text = path.read_text(encoding="utf-8")
        if RIGHT in text:
            continue
        if WRONG not in text:
            print(f"{path}: the version pattern is not the one that is known to be wrong", file=sys.stderr)
            return 1
        path.write_text(text.replace(WRONG, RIGHT), encoding="utf-8")
        print(f"patched {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
