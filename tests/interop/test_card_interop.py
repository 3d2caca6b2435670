# SPDX-License-Identifier: Apache-2.0
"""The lab's card as programs see it that we did not write: pcscd, OpenSC, OpenSSL; and our driver through them."""

from collections.abc import Iterator

import pytest

from card_calls import ALWAYS_ID, RELEASE_ID, Outcome, sign
from interop_tools import run_program
from lab.card_lab import PIN, CardLab, card_lab
from lab.piv.apdu import Ins
from lab.piv.objects import SERIAL
from privyseal.tokens.factory import open_token

pytestmark = pytest.mark.interop

SIGNED = Outcome(code="signed")


@pytest.fixture(scope="module", params=["rsa2048", "p256"])
def started(request: pytest.FixtureRequest) -> Iterator[CardLab]:
    """A card with a key of this kind in 9A and one of the other kind in 9C."""
    other = {"rsa2048": "p256", "p256": "rsa2048"}[request.param]
    with card_lab(layout={0x9A: request.param, 0x9C: other}) as lab:
        yield lab


@pytest.fixture
def lab(started: CardLab) -> CardLab:
    started.renew()
    return started


@pytest.mark.parametrize("slot", [0x9A, 0x9C])
def test_openssl_verifies_what_pkcs11_tool_signed(lab: CardLab, slot: int) -> None:
    files = {name: lab.directory / name for name in ("data", "signature", "public.der")}
    files["data"].write_bytes(b"a release")
    files["public.der"].write_bytes(lab.spki(slot))
    is_rsa = lab.kind(slot) == "rsa2048"
    mechanism = ("SHA256-RSA-PKCS",) if is_rsa else ("ECDSA-SHA256", "--signature-format", "openssl")
    key_id = {0x9A: RELEASE_ID, 0x9C: ALWAYS_ID}[slot].hex()

    lab.pkcs11_tool(
        *("--login", "--pin", PIN.decode(), "--sign", "--id", key_id, "--mechanism", *mechanism),
        *("--input-file", str(files["data"]), "--output-file", str(files["signature"])),
    )

    verify = ("dgst", "-sha256", "-keyform", "DER", "-verify", files["public.der"])
    assert run_program("openssl", *verify, "-signature", files["signature"], files["data"]) == (0, "Verified OK\n")
    files["data"].write_bytes(b"another release")
    status, _ = run_program("openssl", *verify, "-signature", files["signature"], files["data"])
    assert status != 0
    assert lab.card.state.operations == 1


async def test_our_driver_gives_the_pin_again_for_each_signature_of_9c_alone(lab: CardLab) -> None:
    token = open_token(lab.config())

    outcomes = [await sign(lab, token, key_id) for key_id in (RELEASE_ID, RELEASE_ID, ALWAYS_ID, ALWAYS_ID)]
    info = await token.info()
    await token.close()

    assert outcomes == [SIGNED] * 4
    assert (info.serial, info.manufacturer, info.hardware) == (SERIAL, "piv_II", True)
    state = lab.card.state
    assert (state.operations, state.pins_arrived, state.pins_refused) == (4, 3, 0)


def test_the_signature_counter_is_read_where_an_openpgp_card_has_it(lab: CardLab) -> None:
    select = "00A4040009A00000030800001000"

    def counter(apdu: str) -> str:
        answer = lab.run("opensc-tool", "--card-driver", "default", "-s", select, "-s", apdu).decode()
        return answer.rsplit("Received", 1)[1]

    assert "00 00 00" in counter("00CA009300")
    sign_once = ("--login", "--pin", PIN.decode(), "--sign", "--id", ALWAYS_ID.hex(), "--mechanism")
    (lab.directory / "digest").write_bytes(bytes(32))
    lab.pkcs11_tool(
        *sign_once,
        "ECDSA" if lab.kind(0x9C) == "p256" else "RSA-PKCS",
        "--input-file",
        str(lab.directory / "digest"),
        "--output-file",
        str(lab.directory / "signature"),
    )

    assert "00 00 01" in counter("00CA009300")
    assert "7A 05 93 03 00 00 01" in counter("00CA007A00")
    assert "93 03 00 00 01" in counter("00CB3FFF035C019300")
    assert lab.card.count(Ins.GENERAL_AUTHENTICATE) == 1
