# SPDX-License-Identifier: Apache-2.0
"""The registry of formats: each preimage is of one format only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lied_to_agent import make_format
from lying_hub import pe_preimage
from pe_samples import make_pe
from privyseal.errors import MalformedInputError, PrivysealError, UnsupportedInputError
from privyseal.formats.model import Binding, Format, Preimage
from privyseal.formats.registry import FORMATS, detect_format, format_named, read_preimage

TWIN = make_format("twin", Binding.WHOLE)


def code_of(caught: pytest.ExceptionInfo[PrivysealError]) -> str:
    return caught.value.code


def test_names_are_unique_and_for_people_and_programs() -> None:
    names = [one.name for one in FORMATS]

    assert len(set(names)) == len(names)
    assert all(name == name.lower() and name.isascii() and " " not in name for name in names)
    assert all(one.title for one in FORMATS)


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
def test_a_format_is_found_by_its_name(one: Format) -> None:
    assert format_named(one.name) is one


@pytest.mark.parametrize("name", ["", "AUTHENTICODE-PE", "authenticode-pe ", "*"])
def test_an_unknown_name_is_refused_and_known_ones_are_told(name: str) -> None:
    with pytest.raises(UnsupportedInputError) as caught:
        format_named(name)

    assert code_of(caught) == "format.unknown"
    assert "authenticode-pe" in caught.value.message


def test_a_program_is_recognised_by_its_content() -> None:
    assert detect_format(make_pe()[:4096], "whatever.txt").name == "authenticode-pe"


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"", "file.empty"),
        (b"M", "format.not_recognised"),
        (b"hello", "format.not_recognised"),
        (b"\x7fELF" + bytes(4092), "format.not_recognised"),
    ],
    ids=["empty", "one-byte", "text", "elf"],
)
def test_what_is_no_format(head: bytes, code: str) -> None:
    with pytest.raises(PrivysealError) as caught:
        detect_format(head, "app.exe")

    assert code_of(caught) == code
    assert "app.exe" in caught.value.message


@given(st.binary(max_size=4096), st.text(max_size=20))
def test_any_head_is_judged(head: bytes, name: str) -> None:
    try:
        found = detect_format(head, name)
    except (MalformedInputError, UnsupportedInputError):
        return
    assert found in FORMATS


def test_a_preimage_says_what_it_is_of() -> None:
    facts = read_preimage("authenticode-pe", pe_preimage())

    assert (facts.artifact.algorithm, facts.digest_algorithm) == ("sha256", "sha256")
    assert facts.artifact.digest in pe_preimage().detail


@pytest.mark.parametrize("formats", [(*FORMATS, TWIN), (TWIN, *FORMATS)], ids=["behind", "before"])
@pytest.mark.parametrize("name", ["authenticode-pe", "twin"])
def test_a_preimage_that_two_formats_read_is_of_neither(name: str, formats: tuple[Format, ...]) -> None:
    with pytest.raises(MalformedInputError) as caught:
        read_preimage(name, pe_preimage(), formats)

    assert code_of(caught) == "preimage.ambiguous"


def test_what_the_other_format_refuses_is_of_the_one() -> None:
    preimage = Preimage(signed=b"not an Authenticode preimage")

    assert read_preimage("twin", preimage, (*FORMATS, TWIN)).digest_algorithm == "sha256"


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_noise_is_no_preimage(signed: bytes, detail: bytes) -> None:
    for one in FORMATS:
        with pytest.raises((MalformedInputError, UnsupportedInputError)):
            read_preimage(one.name, Preimage(signed=signed, detail=detail))
