# SPDX-License-Identifier: Apache-2.0
"""The command tree. Commands are named by import path and imported when they run, so that each starts fast."""

from keyword import iskeyword
from typing import Final

from cyclopts import App, Parameter

import privyseal

__all__ = ["app"]

_EXIT_CODES: Final = """\
Exit codes: 0 ok, 1 bad input, 2 usage or configuration, 3 verification failed, 4 denied, 5 waiting for approval,
6 not authenticated, 7 unavailable (retry), 8 token or USB, 9 some files failed, 10 log integrity, 130 interrupted.
"""


def _default(value: object) -> str | None:
    return None if value in (None, False, "", (), ("*",)) else str(value)


app = App(
    name="privyseal",
    help="One hardware signing token, every build server.\n\n" + _EXIT_CODES,
    version=privyseal.__version__,
    help_format="plaintext",
    # No --empty-FLAG for each list, and no default that only says "nothing".
    default_parameter=Parameter(negative_iterable=(), show_default=_default),
    suppress_keyboard_interrupt=False,  # the boundary has a word and an exit code for it
)


def _noun(name: str, text: str, commands: tuple[tuple[str, str], ...], *, module: str = "", below: App = app) -> App:
    noun = App(name=name, help=text)
    for command, summary in commands:
        function = command.replace("-", "_") + ("_" if iskeyword(command) else "")
        noun.command(f"privyseal.cli.{module or name}:{function}", name=command, help=summary)
    below.command(noun)
    return noun


app.command("privyseal.cli.up:up", name="up", help="Run hub and agent here, with everything embedded.")
app.command("privyseal.cli.demo:demo", name="demo", help="Sign a real EXE in a temporary installation, step by step.")
app.command("privyseal.cli.sign:sign", name="sign", help="Sign files: one, or a whole release.")
app.command("privyseal.cli.verify:verify", name="verify", help="Verify the signatures of files, and their receipts.")
app.command(
    "privyseal.cli.timestamp:timestamp", name="timestamp", help="Put timestamps beside signatures that have none."
)
app.command(
    "privyseal.cli.status:status",
    name="status",
    help="Key profiles, tokens, queues and the log, as the hub sees them; --watch goes on.",
)
app.command(
    "privyseal.cli.doctor:doctor",
    name="doctor",
    help="What is wrong here, and what to do: configuration, files, hub, clock, token, certificate.",
)
app.command(
    "privyseal.cli.signtool.command:signtool",
    name="signtool",
    help="Sign with the command line of Microsoft's SignTool; /? tells more.",
)
_noun(
    "hub",
    "The hub: policy, queue, log.",
    (
        ("init", "Make a new hub, and the authority key that you keep."),
        ("run", "Run a hub in the foreground."),
        ("migrate", "Upgrade the hub's database, or move it to PostgreSQL (on the hub's machine)."),
        ("trust", "Show the trust bundle, or change the witnesses and agents that it names."),
        ("invite", "Make a join code for a client or an agent (needs an authority key)."),
        ("revoke", "End a client's or agent's standing (needs an authority key)."),
    ),
)
_noun(
    "agent",
    "The agent beside the token.",
    (
        ("join", "Join a hub with a join code."),
        ("run", "Run an agent in the foreground."),
        ("show", "This agent's name and hub, and the key that PINs are sealed to."),
        ("export", "Write out what this agent signed under, for `log verify --agent`."),
    ),
)
_noun(
    "client",
    "Clients of a hub.",
    (
        ("join", "Join a hub with a join code; writes client.toml."),
        ("show", "This client's name, hub and request key, and the log's key."),
        ("grant", "Let a client use a key profile, also a pinned one (needs an authority key)."),
    ),
)
_noun(
    "key",
    "Signing keys.",
    (
        ("list", "Signing keys on this host's tokens, with their certificates."),
        ("generate", "Make a key pair on a token, which it cannot leave."),
        ("csr", "Make a certification request (PKCS#10), signed by a key on a token."),
        ("import", "Check a CA's certificates and put them beside their key."),
        ("custody", "Who can have used keys, from the log alone: proven and unproven time, counters, freezes."),
        ("accept", "Let a frozen key be used again, after its signature counter did not match."),
        ("test-certificate", "Have a self-made test root certify a key, to try everything before the real one."),
    ),
)
_token = _noun(
    "token",
    "Tokens of this host.",
    (
        ("list", "The configured tokens and their state."),
        ("scan", "PKCS#11 modules of this machine and the tokens in them. Logs in to none."),
        ("add", "Put a token and a key profile into agent.toml."),
        ("test", "Sign many times in a row and say how the token took it: times, faults, recoveries."),
        ("unlock", "Allow PIN attempts again after a refused or unknown one; hand a PIN in."),
        ("drain", "Take a token out of use, also over restarts, once what it is signing has ended."),
        ("resume", "Take a token back into use after `drain` or a quarantine."),
        ("recycle", "Replace a token's workers between two jobs."),
        ("reset", "Reset a token's USB device, or replace its workers."),
    ),
)
_noun(
    "pin",
    "The PINs of this host's tokens.",
    (
        ("change", "Give a token another PIN."),
        ("custody", "Give a token a PIN that no person knows, with a recovery copy for m of n authority keys."),
        ("recover", "Print the PIN of a recovery copy (needs authority keys)."),
    ),
    module="token_pin",
    below=_token,
)
_noun(
    "signature",
    "Signatures apart from their files, for reproducible builds.",
    (
        ("remove", "Take every signature out of files."),
        ("extract", "Write a file's signature into a file of its own."),
        ("attach", "Put an extracted signature into the same file, built again."),
    ),
)
_noun(
    "log",
    "The log of one hub.",
    (
        ("verify", "Recompute the whole log, or an export of it, and check all that it says."),
        ("show", "Print log entries, also as they come."),
        ("find", "What the log holds of a file, a signature or a digest."),
        ("report", "Everything that a key was used for in an interval."),
        ("export", "Write the log as files for any web server."),
        ("prune", "Let entries of a hub's log go that are old enough (on the hub's machine)."),
        ("anchor", "Have a TSA timestamp the newest checkpoint."),
        ("witness", "Have the newest checkpoint cosigned by witnesses."),
        ("cosign", "Prove receipts under a checkpoint that witnesses have cosigned."),
        ("reopen", "Give up a log whose newest entries are lost, and begin another that cites it."),
    ),
)
_noun(
    "witness",
    "A witness: cosigns checkpoints of logs that only grow.",
    (
        ("init", "Make a new witness."),
        ("run", "Run a witness in the foreground."),
        ("show", "Its key, the logs it knows, and what it cosigned last."),
    ),
)
_noun(
    "queue",
    "What waits at the hub to be signed.",
    (
        ("list", "What waits and is under way, in the order in which it will be signed."),
        ("show", "One of this client's requests: where each item stands, and what became of it."),
        ("cancel", "Cancel a request: this client's own, or any with an authority key."),
        ("move", "Put a request into another class of the queue (needs an authority key)."),
    ),
)
_noun(
    "device",
    "USB devices that agents lend as a whole.",
    (
        ("list", "The devices: which there are, who has one, what a signature costs there."),
        ("attach", "Borrow a device, and attach it to this host until Ctrl-C; --keep goes on for ever."),
        ("run", "Borrow a device for one command, and say what it was used for."),
        ("leases", "Who has a device, since when, why and until when; and who waits."),
        ("detach", "End this client's own lease of a device, from another shell."),
        ("kick", "End anybody's lease of a device (needs an authority key)."),
    ),
)
_noun(
    "config",
    "Configuration.",
    (("check", "Read a configuration as the programs do."), ("show", "The client configuration in force.")),
)
