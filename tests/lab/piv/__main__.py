# SPDX-License-Identifier: Apache-2.0
"""`python -m lab.piv`: a card in a reader of pcscd's, until its stdin ends."""

import argparse
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lab.piv.control import serve_control
from lab.piv.keys import DEFAULT_LAYOUT, load_or_make_keys
from lab.piv.station import Station
from lab.piv.twin import Twin, run_twin_wire
from lab.piv.vpcd import VPCD_PORT, run_vpcd_wire
from privyseal.usbip.card_events import LeaseRules


def _slot_and_kind(text: str) -> tuple[int, str]:
    slot, kind = text.split("=")
    return int(slot, 16), kind


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.piv", description=__doc__)
    parser.add_argument("--keys", type=Path, required=True, help="directory of its keys; made if it has none")
    parser.add_argument("--control", type=Path, required=True, help="unix socket for orders")
    parser.add_argument("--pin", default="731946", help="six to eight digits")
    parser.add_argument("--key", type=_slot_and_kind, action="append", help="such as 9a=p256, 9c=rsa2048")
    parser.add_argument("--port", type=int, default=VPCD_PORT, help="where vpcd listens")
    parser.add_argument("--record", type=Path, help="where to write down all commands and answers")
    parser.add_argument("--twin", type=Path, help="in a serial reader at this device instead, which is made")
    parser.add_argument("--twin-record", type=Path, help="where to write down all messages to and from that reader")
    parser.add_argument("--protocol", type=int, choices=(0, 1), default=1, help="which the card speaks in it")
    parser.add_argument("--damage", type=int, default=0, help="one of how many T=1 blocks is damaged on its way")
    parser.add_argument("--no-operations", action="store_true", help="whether a lease's rules allow none in it")
    options = parser.parse_args()
    keys = load_or_make_keys(options.keys, DEFAULT_LAYOUT | dict(options.key or ()))
    station = Station(keys, pin=options.pin, record=options.record)
    serve_control(options.control, station)
    wire: Callable[[], None] = partial(run_vpcd_wire, station, port=options.port)
    if options.twin:
        twin = Twin(station, protocol=options.protocol, damage=options.damage)
        rules = LeaseRules(max_private_key_operations=0 if options.no_operations else None)
        wire = partial(run_twin_wire, twin, device=options.twin, record=options.twin_record, rules=rules)
    threading.Thread(target=wire, daemon=True).start()
    sys.stdin.buffer.read()


main()
