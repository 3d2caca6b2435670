# SPDX-License-Identifier: Apache-2.0
"""The house rules of CONTRIBUTING.md that a machine can check, over every file of the project."""

import ast
import re
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from privyseal import errors

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40

#: Files and functions that may be longer, each with its reason.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

#: Modules that may catch everything: the last boundary before a caller, where a traceback would leak.
CATCHES_ALL = {
    "src/privyseal/agent/control.py": "an unforeseen error becomes a problem document without details",
    "src/privyseal/hub/http/routes.py": "an unforeseen error becomes a problem document without details",
    "src/privyseal/usb/exporter.py": "an unforeseen error of a tap ends the export of one device, and nothing else",
    "src/privyseal/tokens/keyring_pin.py": "a keyring's own error ends the process that asked it, without its text",
}

#: Words of docs/glossary.md's "never say" column, as far as a pattern can tell the word from its honest uses:
#: pattern, where it is banned, what to say instead.
BANNED: tuple[tuple[str, str, str], ...] = (
    (r"(?i)\bdongles?\b", "", "token"),
    (r"(?i)\b(token|vendor|PKCS ?#?11)('s)? drivers?\b", "", "module"),
    (r"(?i)\b(token|smart card)('s)? password\b", "", "PIN"),
    (
        r"(?<!cosign-)\bblobs?\b",
        "src/privyseal/pki src/privyseal/formats docs README.md",
        "the structure's name",
    ),
    (r"(?i)\bsig(nature)? section\b", "", "attribute certificate table"),
    (r"(?i)\btime[ -]servers?\b", "", "TSA"),
    (r"(?i)(?<![-\w])stamps?\b(?!ing)", "", "timestamp token"),
    (r"(?i)\bblock[ -]?chains?\b", "", "log"),
    (r"(?i)\bledgers?\b", "", "log"),
    (r"\bSTHs?\b|(?i:signed tree heads?)", "", "checkpoint"),
    (r"(?i)(?<![-\w])plugs?\b", "", "attach"),
    (r"(?i)\b(device|USB|share) shares?\b|\bshare ids?\b", "", "export, bus id"),
    (r"(?i)\b(privyseal|signing|hub) servers?\b", "", "hub"),
    (r"(?i)\b(hub|agent|client|signing|privyseal)[ -]nodes?\b", "", "hub, agent or client"),
    (r"(?i)\b(hub|signing|privyseal) users?\b", "", "client"),
    (r"\bvaults?\b", "", "hub"),
    (r"(?i)\bjoin[ _-]tokens?\b", "", "join code"),
)

#: The glossary, its source, and this test must be able to name what is banned.
MAY_NAME_BANNED_WORDS = {"docs/glossary.md", "tests/unit/test_repository.py"}

FOREIGN: tuple[tuple[str, str], ...] = (
    (r"://[a-z0-9.-]*(?:pypi|pythonhosted|debian|ubuntu|npmjs)\b", "a package registry's address"),
    (r"\b(?:files\.)?pythonhosted\.org|\bregistry\.npmjs\b|\bpypi\.org\b", "a package registry's name"),
    (r"(?<![\w.~])/(?:work|root|Users)/\w", "a path of one machine"),
    (r"(?<![\w.~])/home/\w", "a path of one machine"),
)


@cache
def project_files() -> tuple[str, ...]:
    """Names of all files that are tracked or would be, relative to the checkout."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return tuple(sorted(name for name in listing.split("\0") if name and (ROOT / name).is_file()))


def files(*suffixes: str, under: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of the project's files with one of these suffixes (none given: every text file)."""
    for name in project_files():
        if name.startswith(under) and (not suffixes or name.endswith(suffixes)):
            try:
                yield name, (ROOT / name).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # a binary file


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), name)


def sources(under: str = "src/") -> tuple[str, ...]:
    names = tuple(name for name in project_files() if name.startswith(under) and name.endswith(".py"))
    assert names, f"no Python file under {under}"
    return names


def test_every_program_names_its_licence_first() -> None:
    nameless = [
        name
        for name, text in files(".py", ".sh", ".c", "Makefile")
        if not any("SPDX-License-Identifier: Apache-2.0" in line for line in text.splitlines()[:2])
    ]

    assert nameless == []


def test_every_module_says_what_it_is() -> None:
    assert [name for name in sources() if not ast.get_docstring(parsed(name))] == []


def test_files_are_short() -> None:
    lengths = {name: text.count("\n") for name, text in files(".py")}
    long = {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES and name not in LONG_FILES}

    assert long == {}
    assert {name for name in LONG_FILES if lengths.get(name, 0) <= MAX_FILE_LINES} == set(), "not long any more"


def functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Name and length in lines of each function, its docstring not counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node, clean=False) is not None:
                lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            yield node.name, lines


def test_functions_are_short() -> None:
    long = {
        f"{name}::{function}": lines
        for name in sources()
        for function, lines in functions(parsed(name))
        if lines > MAX_FUNCTION_LINES
    }

    assert {place: lines for place, lines in long.items() if place not in LONG_FUNCTIONS} == {}
    assert set(LONG_FUNCTIONS) - set(long) == set(), "not long any more"


@pytest.mark.parametrize(("pattern", "where", "instead"), BANNED, ids=[pattern for pattern, _, _ in BANNED])
def test_words_are_those_of_the_glossary(pattern: str, where: str, instead: str) -> None:
    folders = tuple(where.split()) or ("",)
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in files(".py", ".md", ".toml", ".sh", ".html", ".txt", "Makefile")
        if name.startswith(folders) and name not in MAY_NAME_BANNED_WORDS
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]

    assert found == [], f"say {instead!r}"


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (BANNED[0][0], "the Dongle is"),
        (BANNED[3][0], "a blob of"),
        (BANNED[6][0], "a stamp by the TSA"),
        (BANNED[9][0], "a signed tree head"),
        (BANNED[16][0], "its join_token"),
        (FOREIGN[0][0], "https://" + "mirror.debian.example/x"),
        (FOREIGN[2][0], "see /" + "root/notes"),
    ],
)
def test_the_patterns_find_what_they_ban(pattern: str, says: str) -> None:
    assert re.search(pattern, says)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (BANNED[3][0], "the format cosign-blob"),
        (BANNED[6][0], "a timestamp, and time stamping"),
        (BANNED[10][0], "a plugin"),
        (FOREIGN[2][0], "/usr/root/x and ~/work/x and build/work/x"),
    ],
)
def test_the_patterns_pass_honest_words(pattern: str, says: str) -> None:
    assert not re.search(pattern, says)


def test_no_file_names_a_registry_or_a_place_on_one_machine() -> None:
    found = [
        f"{name}:{number}: {what}"
        for name, text in files()
        if name != "tests/unit/test_repository.py"
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, what in FOREIGN
        if re.search(pattern, line)
    ]

    assert found == []


TAXONOMY = {
    name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.PrivysealError)
}


def raised_codes(tree: ast.Module) -> Iterator[tuple[str, str | None, int]]:
    """Branch, code (None if it is not written out there) and line of each error made in a module."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
        if name in TAXONOMY:
            given = [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg == "code")]
            code = given[0].value if given and isinstance(given[0], ast.Constant) else None
            yield name, code if isinstance(code, str) else None, node.lineno


def test_error_codes_are_dotted_and_lower_case() -> None:
    codes = [
        f"{name}:{line}: {code}"
        for name in sources()
        for _, code, line in raised_codes(parsed(name))
        if code is not None and not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*(\.[a-z][a-z0-9]*(_[a-z0-9]+)*)+", code)
    ]

    assert codes == []


def test_an_error_code_belongs_to_one_branch() -> None:
    branches = defaultdict(set)
    for name in sources():
        for branch, code, _ in raised_codes(parsed(name)):
            if code is not None:
                branches[code].add(branch)

    assert branches, "no error code found at all"
    assert {code: sorted(names) for code, names in branches.items() if len(names) > 1} == {}


def test_errors_outside_the_taxonomy_are_not_raised() -> None:
    """`NotImplementedError` would be a stub, and a bare `Exception` has no code."""
    found = [
        f"{name}:{node.lineno}"
        for name in sources()
        for node in ast.walk(parsed(name))
        if isinstance(node, ast.Raise) and node.exc is not None
        for raised in [node.exc.func if isinstance(node.exc, ast.Call) else node.exc]
        if isinstance(raised, ast.Name) and raised.id in {"Exception", "BaseException", "NotImplementedError"}
    ]

    assert found == []


def test_no_module_catches_everything() -> None:
    found = [
        name
        for name in sources()
        for node in ast.walk(parsed(name))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id == "Exception"))
    ]

    assert found == sorted(CATCHES_ALL)


def test_open_ends_are_not_left_in_files() -> None:
    words = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")

    assert [name for name, text in files(".py", ".sh", ".md", "Makefile") if words.search(text)] == []


def locked(name: str) -> dict[str, str]:
    """Pinned versions of a lock file by canonical name."""
    text = (ROOT / "requirements" / name).read_text()
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, flags=re.MULTILINE)
    return {canonicalize_name(package): version for package, version in pins}


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt"])
def test_locks_pin_everything_by_hash_and_name_no_index(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    statements = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text)).splitlines()

    assert statements
    assert [line for line in statements if "://" in line or line.startswith("-")] == []
    assert [line.split()[0] for line in statements if not re.match(r"[\w.-]+==\S+ .*--hash=sha256:", line)] == []


@pytest.mark.parametrize(
    ("name", "extras"), [("runtime.txt", {"hub", "agent", "usb", "demo"}), ("dev.txt", {"hub", "agent", "dev"})]
)
def test_locks_are_not_older_than_pyproject(name: str, extras: set[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = list(project["project"]["dependencies"]) + list(project["build-system"]["requires"])
    for extra in extras:
        asked += project["project"]["optional-dependencies"][extra]
    pins = locked(name)

    unmet = [
        text
        for text in asked
        for requirement in [Requirement(text)]
        if requirement.name != "privyseal"
        and pins.get(canonicalize_name(requirement.name), "none") not in requirement.specifier
    ]

    assert unmet == [], "run `make lock`"


def test_both_locks_agree() -> None:
    runtime, dev = locked("runtime.txt"), locked("dev.txt")

    assert {package: version for package, version in runtime.items() if dev.get(package) != version} == {}


def test_changelog_fragments_are_named_and_say_something() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    kinds = "|".join(kind["directory"] for kind in project["tool"]["towncrier"]["type"])
    fragments = dict(files(under="news/"))
    wrong = [name for name in fragments if not re.fullmatch(rf"news/[a-z0-9-]+\.({kinds})\.md", name)]

    assert fragments
    assert wrong == []
    assert [name for name, text in fragments.items() if not text.strip().endswith((".", "`"))] == []


def test_decisions_are_numbered_without_a_gap_and_weigh_both_sides() -> None:
    records = [(name, text) for name, text in files(".md", under="docs/adr/") if not name.endswith("README.md")]
    numbers = [int(Path(name).name[:4]) for name, _ in records]

    assert numbers == list(range(len(numbers)))
    assert numbers
    incomplete = [
        name
        for name, text in records
        if not all(f"\n## {part}\n" in text for part in ("Context", "Decision", "Consequences"))
        or "Good:" not in text
        or "Bad:" not in text
    ]
    assert incomplete == []


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{name}: {target}"
        for name, text in files(".md")
        for target in re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", text)
        if not (ROOT / name).parent.joinpath(target).exists()
    ]

    assert broken == []
