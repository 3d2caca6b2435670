# SPDX-License-Identifier: Apache-2.0
"""A hub, witnesses and a client as programs: a log that grows is cosigned, one that was forked or cut is not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api_client import api_of, ask
from installation import Up, copy_of_program
from lying_hub import HUB
from lying_logs import log_of, show_log
from lying_web import WebHub, running_hub
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from privyseal.tlog.cosignature import Cosigner, parse_cosigner_vkey
from privyseal.tlog.note import NoteSigner, VerifierKey, parse_note, parse_vkey
from privyseal.tlog.receipt import Receipt
from privyseal.tlog.witness import MAX_BODY_BYTES
from programs import Outcome, Running, privyseal, refused, succeeded
from running_witness import RunningWitness, make_witness, running_witness

STRANGER = Cosigner(name="witness.example/w1", key=Ed25519PrivateKey.from_private_bytes(b"s" * 32)).verifier.vkey


def log_key(up: Up) -> VerifierKey:
    return parse_vkey(up.client().load_bundle().statement.log_key)


def grow(up: Up) -> None:
    answer = api_of(up.client())("POST", "/v1/signatures?wait=60&enough=1", ask(up.client()).body)
    assert answer.document["state"] == "done"


def asked(up: Up, witness: RunningWitness, *more: str | Path) -> Outcome:
    return up.run("log", "witness", "--to", witness.url, "--witness", witness.vkey, *more)


def test_a_log_that_grows_is_cosigned_and_anybody_can_check_that(up: Up, tmp_path: Path) -> None:
    with running_witness(tmp_path / "w", log_key(up)) as witness:
        sizes = []
        for _ in range(3):
            grow(up)
            out = tmp_path / "cosigned"
            told = succeeded(asked(up, witness, "--out", out, "--json")).document
            checked = succeeded(up.run("log", "verify", "--witness", witness.vkey, out, "--json")).document
            assert [checked[name] for name in ("size", "root", "cosigned")] == [
                told[name] for name in ("size", "root", "cosigned")
            ]
            assert told["note"] == out.read_text()
            sizes.append(told["size"])
        assert sizes == sorted(set(sizes))
        shown = succeeded(privyseal("witness", "show", "--dir", witness.directory, "--json")).document
        assert shown["logs"][log_key(up).name] == {"size": told["size"], "root": told["root"]}
        refused(up.run("log", "verify", "--witness", STRANGER, out), 3, "quorum.not_met")

    spoiled = tmp_path / "spoiled"
    spoiled.write_text(out.read_text().replace(f"\n{told['size']}\n", f"\n{told['size'] + 1}\n"))
    refused(up.run("log", "verify", "--witness", witness.vkey, spoiled), 3, "note.signature")


def test_a_witness_cosigns_with_both_its_keys_and_either_is_checked_alone(up: Up, tmp_path: Path) -> None:
    with running_witness(tmp_path / "w", log_key(up)) as witness:
        assert [parse_cosigner_vkey(vkey).algorithm for vkey in witness.vkeys] == ["Ed25519", "ML-DSA-44"]
        shown = succeeded(privyseal("witness", "show", "--dir", witness.directory, "--json")).document
        assert shown["keys"] == list(witness.vkeys)
        assert all(
            vkey in succeeded(privyseal("witness", "show", "--dir", witness.directory)).out for vkey in witness.vkeys
        )
        both, out = tuple(f"--witness={vkey}" for vkey in witness.vkeys), tmp_path / "cosigned"
        told = succeeded(up.run("log", "witness", "--to", witness.url, *both, "--out", out, "--json")).document
        assert len({one["time"] for one in told["cosigned"]}) == 1
        names = [(line.name, len(line.signature)) for line in parse_note(out.read_text()).signatures]
        assert names[-2:] == [("witness.example/w1", 72), ("witness.example/w1", 2428)]
        single = succeeded(asked(up, replace(witness, vkeys=witness.vkeys[1:]), "--json")).document
        assert len(single["cosigned"]) == 1

    for named in (both, both[:1], both[1:]):
        checked = succeeded(up.run("log", "verify", *named, out, "--json")).document
        assert len(checked["cosigned"]) == len(named)
    policy = tmp_path / "policy"
    lines = (f"witness ed {witness.vkeys[0]}", f"witness pq {witness.vkeys[1]}", "group w 1 ed pq", "quorum w")
    policy.write_text("\n".join(lines) + "\n")
    succeeded(up.run("log", "verify", "--policy", policy, out))
    policy.write_text("\n".join(lines).replace("w 1", "w 2") + "\n")
    refused(up.run("log", "verify", "--policy", policy, out), 1, "quorum.malformed")


def test_the_note_is_printed_where_it_is_written_nowhere(up: Up, tmp_path: Path) -> None:
    with running_witness(tmp_path / "w", log_key(up)) as witness:
        grow(up)
        printed = succeeded(asked(up, witness))

    (tmp_path / "note").write_text(printed.out)
    assert "cosigned" in printed.err
    succeeded(up.run("log", "verify", "--witness", witness.vkey, tmp_path / "note"))


def test_a_quorum_of_witnesses_is_asked_and_checked_without_the_hub(up: Up, tmp_path: Path) -> None:
    key = log_key(up)
    with running_witness(tmp_path / "a", key) as first, running_witness(tmp_path / "b", key, name="w2") as second:
        gone = make_witness(tmp_path / "c", "w3")
        policy = tmp_path / "policy"
        lines = (
            f"log {key.vkey}",
            f"witness A {first.vkey} {first.url}",
            f"witness B {second.vkey} {second.url}",
            f"witness C {gone.vkey} http://127.0.0.1:1/",
            "group two 2 A B C",
            "quorum two",
        )
        policy.write_text("\n".join(lines) + "\n")
        out = tmp_path / "cosigned"
        told = succeeded(up.run("log", "witness", "--policy", policy, "--out", out, "--json")).document
        assert [one["witness"] for one in told["cosigned"]] == ["A", "B"]
        assert told["missing"] == {"C": "witness.unreachable"}

    nowhere = tmp_path / "no-client"
    nowhere.mkdir()
    succeeded(privyseal("log", "verify", "--policy", policy, out, cwd=nowhere))
    policy.write_text("\n".join(lines).replace("2 A B C", "all A B C") + "\n")
    refused(privyseal("log", "verify", "--policy", policy, out, cwd=nowhere), 3, "quorum.not_met")


def test_a_receipt_is_renewed_and_then_verifies_by_a_policy_without_any_network(up: Up, tmp_path: Path) -> None:
    app, key = copy_of_program(tmp_path, "app.exe"), log_key(up)
    succeeded(up.run("sign", "--key", "demo", app))
    receipt = tmp_path / "app.exe.tlog-proof"
    policy = tmp_path / "policy"
    asked = ("verify", "--offline", "--trust", up.directory / "test-root.pem", "--policy", policy, app)
    with running_witness(tmp_path / "w", key) as witness:
        policy.write_text(f"log {key.vkey}\nwitness A {witness.vkey} {witness.url}\nquorum A\n")
        assert "log cosign" in refused(privyseal(*asked, cwd=tmp_path), 3, "quorum.not_met").err
        grow(up)
        before = receipt.read_bytes()
        told = succeeded(up.run("log", "cosign", "--policy", policy, receipt, "--json")).document
        assert told["cosigned"] == ["A"]
        (tmp_path / "before").write_bytes(before.replace(b"index ", b"index 1"))
        refused(up.run("log", "cosign", "--policy", policy, tmp_path / "before"), 3, "proof.inclusion")

    found = succeeded(privyseal(*asked, "--json", cwd=tmp_path)).document["receipt"]
    assert (found["cosigned"], found["size"], found["index"]) == (["A"], told["size"], told["index"])
    assert "cosigned by A" in succeeded(privyseal(*asked, cwd=tmp_path)).out
    succeeded(up.run("verify", app, "--trust", up.directory / "test-root.pem"))
    receipt.unlink()
    refused(privyseal(*asked, cwd=tmp_path), 3, "receipt.missing")
    receipt.write_bytes(before)
    refused(privyseal(*asked, cwd=tmp_path), 3, "quorum.not_met")


def test_a_hub_whose_log_lost_a_receipt_s_entry_is_told(hub: WebHub, tmp_path: Path) -> None:
    honest = log_of(*"abcde")
    signer = NoteSigner(name=HUB, key=hub.trust.log_key)
    note = sign_checkpoint(Checkpoint(origin=HUB, size=5, root=honest.root()), signer)
    receipt = Receipt(index=3, proof=honest.inclusion(3), checkpoint=note, extra=honest.entries[3])
    place = tmp_path / "a.tlog-proof"
    place.write_text(receipt.encode())
    show_log(hub, log_of(*"abcXefg"))
    with running_witness(tmp_path / "w", hub_key(hub)) as witness:
        asked = ("log", "cosign", "--to", witness.url, "--witness", witness.vkey, place)
        refused(privyseal(*asked, config=hub.config.path), 10, "log.fork")
    assert place.read_text() == receipt.encode()


def test_a_witness_that_does_not_know_the_log_tells_what_it_needs(up: Up, tmp_path: Path) -> None:
    with running_witness(tmp_path / "w") as witness:
        outcome = refused(asked(up, witness), 2, "witness.unknown_log")

    assert log_key(up).vkey in outcome.err


def test_a_cosignature_by_another_key_is_not_taken(up: Up, tmp_path: Path) -> None:
    with running_witness(tmp_path / "w", log_key(up)) as witness:
        refused(up.run("log", "witness", "--to", witness.url, "--witness", STRANGER), 3, "witness.other_key")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("witness",), "usage.witness"),
        (("witness", "--to", "http://127.0.0.1:1"), "usage.witness"),
        (("witness", "--to", "ftp://127.0.0.1", "--witness", STRANGER), "witness.url"),
        (("cosign", "--to", "http://127.0.0.1:1", "--witness", STRANGER), "usage.arguments"),
        (("cosign", "file"), "usage.witness"),
        (("verify", "missing"), "log.place"),
        (("verify", "file"), "usage.witness"),
        (("verify", "--vkey", STRANGER, "file"), "log.key"),
        (("verify", "--witness", STRANGER), "usage.witness"),
        (("verify", "--witness", STRANGER, "missing"), "file.missing"),
        (("verify", "--policy", "missing", "missing"), "file.missing"),
    ],
    ids=" ".join,
)
def test_what_was_not_asked_well_is_said(up: Up, tmp_path: Path, arguments: tuple[str, ...], code: str) -> None:
    (tmp_path / "file").touch()

    refused(up.run("log", *arguments, cwd=tmp_path), 2, code)


def test_a_witness_that_is_not_there_is_unavailable(up: Up) -> None:
    refused(up.run("log", "witness", "--to", "http://127.0.0.1:1", "--witness", STRANGER), 7, "witness.unreachable")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[WebHub]:
    """A hub that shows whatever log a test gives it."""
    (tmp_path / "hub").mkdir()
    with running_hub(tmp_path / "hub") as hub:
        show_log(hub, log_of(*"abcde"))
        yield hub


def put_before(hub: WebHub, witness: RunningWitness, *more: str | Path) -> Outcome:
    return privyseal("log", "witness", "--to", witness.url, "--witness", witness.vkey, *more, config=hub.config.path)


def hub_key(hub: WebHub) -> VerifierKey:
    return parse_vkey(hub.trust.bundle.statement.log_key)


def test_a_forked_log_is_noticed(hub: WebHub, tmp_path: Path) -> None:
    with running_witness(tmp_path / "w", hub_key(hub)) as witness:
        succeeded(put_before(hub, witness))
        for forked in (log_of(*"abcXe"), log_of(*"abcXefg"), log_of(*"abcdXfg")):
            show_log(hub, forked)
            refused(put_before(hub, witness, "--out", tmp_path / "out"), 10, "log.fork")
            evidence = open_checkpoint((tmp_path / "out.refused").read_bytes(), origin=HUB, verifiers=(hub_key(hub),))
            assert evidence.root == forked.root()
        assert not (tmp_path / "out").exists()
        show_log(hub, log_of(*"abcdefg"))
        succeeded(put_before(hub, witness))


def test_a_log_that_was_cut_is_noticed_also_by_a_witness_that_started_again(hub: WebHub, tmp_path: Path) -> None:
    witness = make_witness(tmp_path / "w")
    witness.know(hub_key(hub))
    witness.start()
    succeeded(put_before(hub, witness))
    assert witness.running is not None
    witness.running.kill()
    witness.start()
    assert witness.running is not None
    try:
        show_log(hub, log_of(*"abcd"))
        refused(put_before(hub, witness), 10, "log.rewound")
        show_log(hub, log_of(*"abcde"))
        succeeded(put_before(hub, witness))
        witness.running.stop()
    finally:
        witness.running.end()


def test_a_log_under_another_key_is_not_cosigned(hub: WebHub, tmp_path: Path) -> None:
    other = NoteSigner(name=HUB, key=Ed25519PrivateKey.generate()).verifier
    with running_witness(tmp_path / "w", other) as witness:
        refused(put_before(hub, witness), 2, "witness.unknown_log")


def test_a_second_process_on_one_memory_is_refused(hub: WebHub, tmp_path: Path) -> None:
    with running_witness(tmp_path / "w", hub_key(hub)) as witness:
        second = Running("witness", "run", "--dir", witness.directory, "--listen", "127.0.0.1:0", said=tmp_path / "2")
        assert second.process.wait(timeout=30) == 2
        assert "[witness.running]" in second.log


@pytest.mark.parametrize("lost", ["state.json", "guard.json"])
def test_a_witness_that_lost_what_it_remembers_does_not_start(hub: WebHub, tmp_path: Path, lost: str) -> None:
    with running_witness(tmp_path / "w", hub_key(hub)) as witness:
        succeeded(put_before(hub, witness))
    (witness.directory / lost).unlink()

    refused(privyseal("witness", "run", "--dir", witness.directory), 10, "witness.state_missing")
    refused(privyseal("witness", "init", "--dir", witness.directory, "--name", "w"), 2, "witness.exists")


def test_whatever_is_sent_to_a_witness_it_answers_and_goes_on(hub: WebHub, tmp_path: Path) -> None:
    pool = urllib3.PoolManager(retries=False, timeout=10.0)
    with running_witness(tmp_path / "w", hub_key(hub)) as witness:

        def status(body: bytes, path: str = "/add-checkpoint", **more: str) -> int:
            return pool.request("POST", witness.url + path, body=body, headers=more).status

        assert status(b"") == 400
        assert status(b"\xff" * 1000) == 400
        assert status(b"old 0\n" * 1000) == 400
        assert status(b"x" * (MAX_BODY_BYTES + 1)) == 413
        assert status(b"not gzip", **{"Content-Encoding": "gzip"}) == 400
        assert status(b"", "/elsewhere") == 404
        assert pool.request("GET", witness.url + "/add-checkpoint").status == 405
        succeeded(put_before(hub, witness))
    pool.clear()
