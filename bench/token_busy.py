# SPDX-License-Identifier: Apache-2.0
"""How busy a slow token is kept by eight clients, how soon a hanging one is back, and what the agent weighs.

Run by `make bench`; `python bench/token_busy.py` alone. Nothing here asserts: it prints figures.
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from api_client import api_of, ask
from installation import Site, add_to_agent, agent_text, make_site
from lab.fault_shim import FaultyToken, around
from lab.shim_orders import delays
from softhsm import EC_ID, fresh_softhsm

CLIENTS = 8
ROUNDS = 40
SIGN_MS = 50
SIGN_SECONDS = 1.0


def text(faulty: FaultyToken) -> str:
    """The token with its P-256 key, which takes as long as the shim says and hardly more."""
    token = agent_text(faulty).split("\n[[key]]")[0]
    return f'{token}sign_seconds = {SIGN_SECONDS}\n\n[[key]]\nprofile = "slow"\ntoken = "lab"\nid = "{EC_ID.hex()}"\n'


def sign(site: Site) -> None:
    asked = ask(site.client(), "slow")
    api = api_of(site.client())
    try:
        reply = api("POST", "/v1/signatures?wait=60&enough=1", asked.body)
    finally:
        api.close()
    states = [item["state"] for item in reply.document["items"]]
    if states != ["signed"]:
        sys.exit(f"not signed: {reply.document}")


def busy(site: Site) -> None:
    def client() -> None:
        for _ in range(ROUNDS):
            sign(site)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begun
    signing = CLIENTS * ROUNDS * SIGN_MS / 1000
    print(f"\nA token of {SIGN_MS} ms, {CLIENTS} clients that ask one by one, {CLIENTS * ROUNDS} signatures")
    print(
        f"  wall {wall:.2f} s, of which the token signs at least {signing:.2f} s: busy {signing / wall:.1%} (aim: 98 %)"
    )


def hang(site: Site, faulty: FaultyToken) -> None:
    times = []
    for _ in range(5):
        faulty.break_with("C_Sign hang")
        calls = faulty.calls("C_Sign")
        asked = threading.Thread(target=sign, args=(site,))
        begun = time.perf_counter()
        asked.start()
        while faulty.calls("C_Sign") == calls:
            time.sleep(0.005)
        faulty.heal()
        asked.join()
        times.append(time.perf_counter() - begun)
    times.sort()
    print(f"\nA hang in C_Sign, with a deadline of {SIGN_SECONDS:g} s: the same request is signed after all")
    print(f"  request to receipt: p50 {times[2]:.2f} s, longest {times[-1]:.2f} s (aim: the deadline and 1 s)")


def weight(site: Site) -> None:
    agent = site.running["agent"].process.pid
    (worker, *_) = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    print("\nResident memory of the agent (aim: at most 80 MB: it runs on a Pi)")
    for name, pid in (("agent", agent), ("worker", int(worker))):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        shared = int(Path(f"/proc/{pid}/statm").read_text().split()[2])
        page = os.sysconf("SC_PAGE_SIZE")
        print(f"  {name:<7} {pages * page / 1e6:5.1f} MB, of which shared with others {shared * page / 1e6:.1f} MB")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="privyseal-busy-") as directory:
        (Path(directory) / "hsm").mkdir()
        faulty = around(fresh_softhsm(Path(directory) / "hsm"))
        site = make_site(Path(directory) / "site")
        try:
            add_to_agent(site, text(faulty))
            site.start_agent()
            site.until_online("slow")
            sign(site)
            faulty.break_with(delays("C_Sign", SIGN_MS))
            busy(site)
            faulty.heal()
            hang(site, faulty)
            weight(site)
        finally:
            faulty.heal()
            site.end()


if __name__ == "__main__":
    main()
