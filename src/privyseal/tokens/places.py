# SPDX-License-Identifier: Apache-2.0
"""Where PKCS#11 modules usually lie, and what p11-kit's configuration names (pkcs11.conf(5))."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["FoundModule", "find_modules", "variable_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Product:
    """A vendor's module.

    Attributes:
        files: Patterns of its file name.
        places: Patterns of its own directories, beside those of all libraries.
        variable: The environment variable that names its configuration file, if it has one.
    """

    name: str
    files: tuple[str, ...]
    places: tuple[str, ...] = ()
    variable: str = ""


_PRODUCTS: Final = (
    _Product(
        name="SafeNet eToken",
        files=("libeToken.so*", "libeTPkcs11.so*", "libeTPkcs11.dylib", "libIDPrimePKCS11.so*"),
        places=("/Library/Frameworks/eToken.framework/Versions/*", "/usr/local/lib"),
    ),
    _Product(name="OpenSC", files=("opensc-pkcs11.so",), places=("/Library/OpenSC/lib",)),
    _Product(name="YubiKey PIV", files=("libykcs11.so*", "libykcs11.dylib")),
    _Product(name="YubiHSM 2", files=("yubihsm_pkcs11.so", "yubihsm_pkcs11.dylib"), variable="YUBIHSM_PKCS11_CONF"),
    _Product(name="SoftHSM2", files=("libsofthsm2.so",), variable="SOFTHSM2_CONF"),
    _Product(
        name="Thales Luna",
        files=("libCryptoki2_64.so", "libCryptoki2.so"),
        places=("/usr/safenet/lunaclient/lib", "/usr/lunasa/lib"),
        variable="ChrystokiConfigurationPath",
    ),
    _Product(name="Nitrokey NetHSM", files=("libnethsm_pkcs11.*", "p11nethsm.*"), variable="P11NETHSM_CONFIG_FILE"),
)

_LIBRARIES: Final = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/*-linux-gnu*",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/opt/homebrew/lib",
)
_BELOW: Final = ("", "pkcs11", "softhsm", "opensc")
_P11_KIT: Final = (
    "/etc/pkcs11/modules",
    "/usr/share/p11-kit/modules",
    "/usr/local/share/p11-kit/modules",
    "/opt/homebrew/share/p11-kit/modules",
)
_MODULE_LINE: Final = re.compile(r"^\s*module\s*:\s*(\S.*?)\s*$", re.MULTILINE)
_MAX_CONFIGURATION_BYTES: Final = 64 * 1024
#: p11-kit's own modules lead back to others, or hold no keys.
_NOT_A_TOKEN: Final = re.compile(r"p11-kit-(trust|client|proxy)\.|pkcs11-spy\.|onepin-opensc")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModule:
    """A file that is probably a PKCS#11 module.

    Attributes:
        product: What its name says; or p11-kit's configuration file that names it.
    """

    path: Path
    product: str


def find_modules(root: Path = Path("/")) -> tuple[FoundModule, ...]:
    """Modules at the usual places below `root`; each file once, whatever links lead to it."""
    found: dict[Path, FoundModule] = {}
    for candidate in (*_usual(root), *_named_by_p11_kit(root)):
        if candidate.path.is_file() and not _NOT_A_TOKEN.match(candidate.path.name):
            found.setdefault(candidate.path.resolve(), candidate)
    return tuple(found.values())


def variable_of(module: str) -> str:
    """The environment variable that names the configuration file of a module, by the module's name; or empty."""
    name = Path(module).name
    for product in _PRODUCTS:
        if product.variable and any(Path(name).match(pattern) for pattern in product.files):
            return product.variable
    return ""


def _usual(root: Path) -> Iterator[FoundModule]:
    for product in _PRODUCTS:
        folders = [f"{library}/{below}" for library in _LIBRARIES for below in _BELOW]
        for folder in (*product.places, *folders):
            for pattern in product.files:
                for path in sorted(root.glob(f"{folder.strip('/')}/{pattern}")):
                    yield FoundModule(path=path, product=product.name)


def _named_by_p11_kit(root: Path) -> Iterator[FoundModule]:
    for folder in _P11_KIT:
        for configuration in sorted(root.glob(f"{folder.strip('/')}/*.module")):
            for name in _modules_in(configuration):
                yield from (FoundModule(path=path, product=str(configuration)) for path in _located(root, name))


def _modules_in(configuration: Path) -> list[str]:
    try:
        with configuration.open("rb") as file:
            text = file.read(_MAX_CONFIGURATION_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return []
    return _MODULE_LINE.findall(text)


def _located(root: Path, name: str) -> list[Path]:
    """A relative name is looked for in p11-kit's module directories."""
    if name.startswith("/"):
        return [root / name.lstrip("/")]
    return sorted(path for library in _LIBRARIES for path in root.glob(f"{library.strip('/')}/pkcs11/{name}"))
