# SPDX-License-Identifier: Apache-2.0
"""`privyseal sign`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from privyseal.cli.outcomes import outcome_data, outcome_lines, sum_up, tell
from privyseal.cli.progress import watching
from privyseal.cli.render import emit, say
from privyseal.client.reading import Plan, Reading
from privyseal.client.selection import Selection, make_folders, select
from privyseal.formats.model import Placement, SignOptions

if TYPE_CHECKING:
    from privyseal.client.signing import Signer

__all__ = ["sign"]

_FLAG: Final = Parameter(negative="")


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Which files.

    Attributes:
        output: Write here instead of signing in place: a file, or a directory for several.
        files_from: Take names from this file, one a line or each ended by NUL; - is standard input. May be repeated.
        exclude: Leave out names that match this pattern. May be repeated.
        skip_signed: Leave files alone that carry a signature.
        continue_on_error: Sign the others if some cannot be read.
        dry_run: Say what would be signed.
    """

    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None
    files_from: Annotated[tuple[str, ...], Parameter(negative="", allow_leading_hyphen=True)] = ()
    exclude: Annotated[tuple[str, ...], _FLAG] = ()
    skip_signed: Annotated[bool, _FLAG] = False
    continue_on_error: Annotated[bool, _FLAG] = False
    dry_run: Annotated[bool, _FLAG] = False


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What stands in the signature.

    Attributes:
        digest: Digest algorithm.
        placement: Where the signature goes in a file that has one: instead of it, nested in it, or as one more entry
            of the certificate table (UEFI).
        page_hashes: Put digests of the image's pages into the signature.
        description: Program name that Windows shows when it asks for consent.
        url: URL that Windows shows beside it.
        timestamp: URL of a TSA (RFC 3161) to ask instead of those in client.toml; may be repeated: asked in this order.
        no_timestamp: Sign without a timestamp although client.toml names TSAs.
    """

    digest: Literal["sha256", "sha384", "sha512"] = "sha256"
    placement: Literal["replace", "nested", "entry"] = "replace"
    page_hashes: Annotated[bool, _FLAG] = False
    description: Annotated[str, Parameter(name=["--description", "-d"])] = ""
    url: Annotated[str, Parameter(name=["--url", "-u"])] = ""
    timestamp: Annotated[tuple[str, ...], _FLAG] = ()
    no_timestamp: Annotated[bool, _FLAG] = False


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """How long it may take.

    Attributes:
        wait: Wait for the signatures. With --no-wait the request is only handed in (exit 7, unless it is signed
            already), and the same command fetches the signatures later.
        timeout: Seconds, for all of it together; then exit 7. Without it, it goes on for as long as signatures come,
            and ends when none came for `wait_seconds` of client.toml.
        priority: Class in the hub's queue: a higher one is signed before a lower one, of all clients.
    """

    wait: bool = True
    timeout: Annotated[float | None, Parameter(validator=Number(gte=0))] = None
    priority: Literal["release", "normal", "nightly"] = "normal"


def sign(
    *files: str,
    key: str,
    which: Which | None = None,
    how: How | None = None,
    when: When | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> int:
    """Sign files: hashed and embedded here, only the small structures that are signed travel.

    The receipt is left beside each signed file as FILE.tlog-proof. On any failure a file is as it was. Whatever was
    interrupted, the same command goes on where it stopped and signs nothing twice.

    Parameters
    ----------
    files
        Files, directories (everything in them that can be signed), or patterns.
    key
        Name of the key profile.
    as_json
        Print a JSON document; for several files one a line as they end, then a summary.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    which, how, when = which or Which(), how or How(), when or When()
    selection = Selection(names=files, lists=which.files_from, excludes=which.exclude, output=which.output)
    works = select(selection)
    if not which.dry_run and not selection.is_one_file:
        make_folders(works)
    with Reading(works, _plan(which, how)) as reading:
        signer = _signer(key, how, when, config)
        if selection.is_one_file:
            (outcome,) = signer.sign_read(reading)
            if outcome.error is not None:
                raise outcome.error
            emit(outcome_data(outcome) | {"sent_bytes": signer.sent_bytes}, outcome_lines(outcome), as_json=as_json)
            return 0
        with watching(quiet=as_json) as watcher:
            outcomes = signer.sign_read(reading, lambda one: tell(one, watcher, as_json=as_json))
            seconds = watcher.elapsed_seconds
    return sum_up(outcomes, seconds, signer.sent_bytes, as_json=as_json)


def _signer(key: str, how: How, when: When, config: str) -> "Signer":
    """Imported while the files are hashed, which needs no interpreter."""
    from privyseal.client.config import load_client_config  # noqa: PLC0415 - see above
    from privyseal.client.signing import Signer  # noqa: PLC0415
    from privyseal.client.time_limit import TimeLimit  # noqa: PLC0415
    from privyseal.client.timestamping import open_timestamper  # noqa: PLC0415

    loaded = load_client_config(config)
    timestamper = None if how.no_timestamp else open_timestamper(loaded, how.timestamp, notice=say)
    if when.wait:
        seconds = loaded.wait_seconds if when.timeout is None else when.timeout
        limit = TimeLimit(seconds=seconds, in_all=when.timeout is not None, notice=say)
    else:
        limit = TimeLimit(seconds=0, notice=say)
    return Signer(loaded, profile=key, timestamper=timestamper, limit=limit, priority=when.priority)


def _plan(which: Which, how: How) -> Plan:
    return Plan(
        options=SignOptions(
            digest_algorithm=how.digest,
            program_name=how.description,
            program_url=how.url,
            page_hashes=how.page_hashes,
            placement=Placement(how.placement),
        ),
        continue_on_error=which.continue_on_error,
        skip_signed=which.skip_signed,
        dry_run=which.dry_run,
    )
