# SPDX-License-Identifier: Apache-2.0
"""The flags of SignTool's commands, as Microsoft documents them: those that are honoured, and why others are not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["COMMANDS", "EXCLUSIONS", "Flag"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag.

    Attributes:
        name: In lower case, without `/` or `-`.
        values: How many arguments follow it.
        repeats: Whether it may be given more than once.
        refused: Why it is not honoured; empty if it is.
    """

    name: str
    values: int = 0
    repeats: bool = False
    refused: str = ""


_KEY: Final = (
    "the key is behind the hub and its PIN on the token's host, so no store, provider, container or password is named "
    "here; choose the key by its certificate: /n /i /r /sha1 /f /a"
)
_TEMPLATE: Final = "certificate templates are known to Windows' stores only; choose by /n /i /r /sha1 /f /a"
_LIBRARY: Final = "signing goes to the hub already; leave the library away"
_XML: Final = "the XML file has no documented form; /dg writes FILE.dig and FILE.p7u"
_PKCS7: Final = "signatures over files of any kind in PKCS #7 files are not made here"
_SEAL: Final = "sealing signatures are not made here"
_MARKER: Final = "a signature that Windows checks less strictly is not made here"
_ATTRIBUTE: Final = "hub and agent accept the signed attributes in one form only"
_CATALOG: Final = "there is no catalog database here; only signatures within files are judged"
_POLICY: Final = "only the Default Authenticode policy (/pa) is judged here"
_MEANING: Final = "what WinVerifyTrust does with several signatures is not judged here; give /all or /ds"
_DESCRIPTION: Final = "the description is not read back here"


def _plain(*names: str) -> tuple[Flag, ...]:
    return tuple(Flag(name=name) for name in names)


def _valued(*names: str, repeats: bool = False) -> tuple[Flag, ...]:
    return tuple(Flag(name=name, values=1, repeats=repeats) for name in names)


def _refused(why: str, *names: str, values: int = 0) -> tuple[Flag, ...]:
    return tuple(Flag(name=name, values=values, repeats=True, refused=why) for name in names)


def _table(*groups: tuple[Flag, ...]) -> Mapping[str, Flag]:
    return {flag.name: flag for group in (*groups, _plain("q", "v", "debug")) for flag in group}


COMMANDS: Final[Mapping[str, Mapping[str, Flag]]] = {
    "sign": _table(
        _plain("a", "as", "ds", "nph", "ph", "uw"),
        _valued("d", "dg", "di", "du", "f", "fd", "i", "n", "r", "sha1", "t", "td", "tr", "u"),
        _valued("ac", repeats=True),
        _refused(_KEY, "csp", "kc", "p", "s", values=1),
        _refused(_KEY, "sm"),
        _refused(_TEMPLATE, "c", values=1),
        _refused(_LIBRARY, "dlib", "dmdf", values=1),
        _refused(_XML, "dxml"),
        _refused(_PKCS7, "p7", "p7ce", "p7co", values=1),
        _refused(_SEAL, "seal", "itos", "force", "nosealwarn"),
        _refused(_SEAL, "tseal", values=1),
        _refused(_MARKER, "rmc"),
        _refused(_ATTRIBUTE, "sa", values=2),
    ),
    "verify": _table(
        _plain("a", "all", "pa", "ph", "tw"),
        _valued("ds", "r"),
        _valued("ca", "sha1", "u", repeats=True),
        _refused(_CATALOG, "ad", "as"),
        _refused(_CATALOG, "ag", "c", "hash", "o", values=1),
        _refused(_POLICY, "bp", "enclave", "kp", "p7", "sl"),
        _refused(_POLICY, "pg", "p7content", values=1),
        _refused(_MEANING, "ms"),
        _refused(_DESCRIPTION, "d"),
    ),
    "timestamp": _table(
        _valued("t", "td", "tp", "tr"),
        _refused(_PKCS7, "p7"),
        _refused(_SEAL, "force", "nosealwarn"),
        _refused(_SEAL, "tseal", values=1),
    ),
    "remove": _table(_plain("c", "s", "u")),
}

#: Flags that are not given together: the first named, with any of the others.
EXCLUSIONS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "sign": {
        "t": ("tr",),
        "ph": ("nph",),
        "dg": ("di", "ds", "as", "t", "td", "tr"),
        "ds": ("di", "ac", "as", "d", "du", "nph", "ph", "t", "td", "tr"),
        "di": ("a", "ac", "as", "d", "du", "f", "fd", "i", "n", "nph", "ph", "r", "sha1", "u", "uw"),
    },
    "verify": {"all": ("ds",)},
    "timestamp": {"t": ("tr",)},
    "remove": {"s": ("c", "u")},
}
