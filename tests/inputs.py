# SPDX-License-Identifier: Apache-2.0
"""PE images of other projects, as `tools/fetch_inputs.py` keeps them; a missing one skips, in CI it fails."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["EFI", "EFI_SIGNED", "MICROSOFT_SIGNED", "MORE_UNSIGNED", "OLD_SIGNED", "UNSIGNED", "Input", "pe_inputs"]


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

#: Every size modulo 8 with an overlay, installers whose sections overlap, DLLs of MinGW with debugging symbols.
MORE_UNSIGNED = _inputs(
    "wine-mountmgr.sys",
    "wine-icmp.dll",
    "wine-vcomp90.dll",
    "wine-iprop.dll",
    "wine-websocket.dll",
    "wine-cng.sys",
    "wine-dhcpcsvc6.dll",
    "wine-shfolder.dll",
    "wine-sas.dll",
    "mingw-libgcc_s_seh-1.dll",
    "mingw-libssp-0.dll",
    "nsis-default.exe",
    "nsis-modern.exe",
    "nsis-System.dll",
    "debian-win32-loader.exe",
    "winsign-unsigned.exe",
    "winsign-helper.exe",
)

#: Firmware programs, unsigned; memtest86+ and syslinux have headers that no Windows program has.
EFI = _inputs(
    "shim-shimx64.efi",
    "shim-mmx64.efi",
    "shim-fbx64.efi",
    "systemd-systemd-bootx64.efi",
    "systemd-linuxx64.efi.stub",
    "memtest-memtest86+ia32.efi",
    "memtest-memtest86+x64.efi",
    "syslinux-syslinux.efi",
)

#: Firmware programs with one signature of Debian's, or (shimx64) two of Microsoft's in two entries.
EFI_SIGNED = _inputs(
    "shim-shimx64.efi.signed",
    "shim-mmx64.efi.signed",
    "grub-grubx64.efi.signed",
    "fwupd-fwupdx64.efi.signed",
)

#: Signed with SHA-1, with a PKCS #9 countersignature.
OLD_SIGNED = _inputs("winsign-signed.exe")

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
    return UNSIGNED + MORE_UNSIGNED + EFI + MICROSOFT_SIGNED + EFI_SIGNED + OLD_SIGNED
