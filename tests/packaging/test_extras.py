# SPDX-License-Identifier: Apache-2.0
"""Each extra alone brings what its packages import, and the bare install stays the light client.

The environments hold our wheel, what the runtime lock pins for one extra, and nothing else.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: What works without any extra.
LIGHT = (
    "privyseal.errors",
    "privyseal.pki",
    "privyseal.formats",
    "privyseal.tlog",
    "privyseal.policy",
    "privyseal.wire",
    "privyseal.ports",
    "privyseal.identity",
    "privyseal.client",
    "privyseal.cli.main",
)
EXTRAS = {
    "hub": ("privyseal.storage", "privyseal.hub", "privyseal.witness"),
    "agent": ("privyseal.tokens", "privyseal.storage.journal", "privyseal.storage.durable_file", "privyseal.agent"),
    "demo": ("distlib",),
    "keyring": ("keyring.core",),
    "usb": (
        "privyseal.relay",
        *(f"privyseal.{name}" for name in ("usbip", "usb") if (ROOT / "src/privyseal" / name / "__init__.py").exists()),
    ),
}

#: Imports packages with all modules in them, prints their names.
IMPORT_ALL = """
import importlib, json, pkgutil
names = []
for package in {packages!r}:
    module = importlib.import_module(package)
    names.append(package)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), package + "."):
        importlib.import_module(found.name)
        names.append(found.name)
print(json.dumps(names))
"""

#: Makes modules that only POSIX has impossible to import, as on a system without them.
WITHOUT_POSIX = """
import sys
absent = {"fcntl", "pwd", "resource", "termios"}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in absent:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
for name in absent:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A virtual environment with Privyseal in it."""

    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, apart from this checkout and this process's settings."""
        program, *rest = arguments
        return subprocess.run(
            [str(self.folder / "bin" / program), *rest],
            cwd=self.folder,
            env={"PATH": os.defpath, "HOME": str(self.folder), "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def python(self, code: str) -> str:
        """What a piece of Python prints there; a traceback fails the test."""
        result = self.run("python", "-I", "-W", "error", "-c", code)
        assert result.returncode == 0, result.stderr
        return result.stdout


def _uv(*arguments: str) -> None:
    """Run uv with the package index that pip is configured for."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    index = re.search(r"(?m)^(?:global|:env:)\.index-url='([^']+)'", asked)
    result = subprocess.run(
        [sys.executable, "-m", "uv", "--quiet", "--no-config", "--system-certs", *arguments],
        env=os.environ | ({"UV_DEFAULT_INDEX": index[1]} if index else {}),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if re.search(r"(?i)failed to fetch|connect error|dns error", result.stderr):
        pytest.skip("no package index can be reached")
    assert result.returncode == 0, result.stderr


Environments = Callable[[str], Environment]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as a release builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=60,
    )
    (built,) = folder.glob("privyseal-*.whl")
    return built


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environments:
    """Gives the environment of an extra (empty: the bare install), made once."""

    @cache
    def make(extra: str) -> Environment:
        folder = tmp_path_factory.mktemp(f"with-{extra or 'nothing'}")
        wanted = f"privyseal[{extra}] @ {wheel.as_uri()}" if extra else f"privyseal @ {wheel.as_uri()}"
        _uv("venv", "--python", sys.executable, "--allow-existing", str(folder))
        _uv(
            *("pip", "install", "--python", str(folder / "bin" / "python"), "--only-binary", ":all:"),
            *("--constraint", str(ROOT / "requirements" / "runtime.txt"), wanted),
        )
        return Environment(folder=folder)

    return make


def import_all(environment: Environment, packages: tuple[str, ...], *, before: str = "") -> list[str]:
    names: list[str] = json.loads(environment.python(before + IMPORT_ALL.format(packages=packages)))
    return names


def test_the_bare_install_is_library_client_and_command_line(environment: Environments) -> None:
    names = import_all(environment(""), LIGHT)

    assert {"privyseal.client", "privyseal.formats.authenticode.pe", "privyseal.tlog.receipt"} <= set(names)


def test_the_bare_install_stays_light(environment: Environments) -> None:
    found = environment("").python(
        "import importlib.metadata, json;"
        "print(json.dumps([d.name.lower() for d in importlib.metadata.distributions()]))"
    )

    assert {"privyseal", "cryptography", "msgspec", "urllib3"} <= set(json.loads(found))
    heavy = {"aiohttp", "structlog", "prometheus-client", "prometheus_client", "sqlalchemy", "asyncpg", "jinja2"}
    assert {*heavy, "setuptools"} & set(json.loads(found)) == set()


def test_the_bare_command_line_explains_itself(environment: Environments) -> None:
    result = environment("").run("privyseal", "--help")

    assert result.returncode == 0, result.stderr
    assert "sign" in result.stdout
    assert "verify" in result.stdout


def test_without_its_extras_a_service_says_what_to_install(environment: Environments, tmp_path: Path) -> None:
    result = environment("").run("privyseal", "up", "--dir", str(tmp_path))

    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "privyseal[" in result.stderr


def test_the_version_is_one(environment: Environments) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    result = environment("").run("privyseal", "--version")

    assert result.returncode == 0, result.stderr
    assert version in result.stdout.split()
    code = "import importlib.metadata as m, privyseal; print(m.version('privyseal'), privyseal.__version__)"
    assert environment("").python(code).split() == [version, version]


def test_the_licence_and_the_type_marker_are_in_the_wheel(environment: Environments) -> None:
    names = environment("").python(
        "import importlib.metadata; print(*importlib.metadata.files('privyseal'), sep='\\n')"
    )

    assert "privyseal/py.typed" in names
    assert "privyseal/storage/migrations/versions/r0001_hub.py" in names
    assert ".dist-info/licenses/LICENSE" in names
    assert "tests/" not in names


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_an_extra_alone_brings_what_its_packages_import(environment: Environments, extra: str) -> None:
    names = import_all(environment(extra), (*EXTRAS[extra], "privyseal.cli.main"))

    assert {*EXTRAS[extra], "privyseal.cli.main"} <= set(names)


def test_the_client_needs_no_module_that_only_posix_has(environment: Environments) -> None:
    names = import_all(environment(""), LIGHT, before=WITHOUT_POSIX)

    assert "privyseal.client" in names
    with pytest.raises(AssertionError, match="No module named 'fcntl'"):
        environment("").python(WITHOUT_POSIX + "import fcntl")
