# SPDX-License-Identifier: Apache-2.0
"""PE images of other projects, as `tools/fetch_inputs.py` keeps them; a missing one skips, in CI it fails."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["MICROSOFT_SIGNED", "UNSIGNED", "Input", "pe_inputs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A file that the fetching tool knows by this name."""

    name: str

    @property
    def path(self) -> Path:
        """Where it lies; skips or fails the test if it was not fetched."""
        chosen = os.environ.get("PRIVYSEAL_INPUTS")
        folder = Path(chosen) if chosen else Path.home() / ".cache" / "privyseal" / "inputs"
        path = folder / self.name
        if not path.is_file():
            reason = f"{self.name} is missing: run python tools/fetch_inputs.py"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    def read(self) -> bytes:
        """Its bytes; skips or fails the test if it was not fetched."""
        return self.path.read_bytes()


def _inputs(*names: str) -> tuple[Input, ...]:
    return tuple(Input(name=name) for name in names)


#: x86, x64 and ARM64 from four linkers; the ones from Wine end in an overlay, and in odd sizes.
UNSIGNED = _inputs(
    "setuptools-cli-32.exe",
    "setuptools-cli-64.exe",
    "setuptools-cli-arm64.exe",
    "setuptools-gui-32.exe",
    "setuptools-gui-64.exe",
    "setuptools-gui-arm64.exe",
    "distlib-t32.exe",
    "distlib-t64.exe",
    "distlib-t64-arm.exe",
    "distlib-w32.exe",
    "distlib-w64.exe",
    "distlib-w64-arm.exe",
    "pywin32-arm64-pythonservice.exe",
    "pywin32-arm64-perfmondata.dll",
    "wine-arp.exe",
    "wine-netio.sys",
    "winsign-unsigned64.exe",
)

#: Signed by Microsoft, with timestamps; those of msvc have a nested signature, too.
MICROSOFT_SIGNED = _inputs(
    "msvc-amd64-concrt140.dll",
    "msvc-amd64-msvcp140.dll",
    "msvc-amd64-msvcp140_1.dll",
    "msvc-amd64-msvcp140_2.dll",
    "msvc-amd64-msvcp140_atomic_wait.dll",
    "msvc-amd64-msvcp140_codecvt_ids.dll",
    "msvc-amd64-vcamp140.dll",
    "msvc-amd64-vccorlib140.dll",
    "msvc-amd64-vcomp140.dll",
    "msvc-amd64-vcruntime140.dll",
    "msvc-amd64-vcruntime140_1.dll",
    "msvc-amd64-vcruntime140_threads.dll",
    "msvc-arm64-msvcp140_1.dll",
    "debugpy-attach_amd64.dll",
    "debugpy-attach_x86.dll",
    "debugpy-inject_dll_amd64.exe",
    "debugpy-inject_dll_x86.exe",
    "debugpy-run_code_on_dllmain_amd64.dll",
    "debugpy-run_code_on_dllmain_x86.dll",
)


def pe_inputs() -> tuple[Input, ...]:
    """Every PE image, unsigned ones first."""
    return UNSIGNED + MICROSOFT_SIGNED
