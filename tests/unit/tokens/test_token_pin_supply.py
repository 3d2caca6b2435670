# SPDX-License-Identifier: Apache-2.0
"""Where the PIN comes from, and what becomes of PIN files while the PIN is changed."""

import os
from pathlib import Path

import pytest

from privyseal.errors import ConfigError, TokenError
from privyseal.ports.token import PinState
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_history import PinHistory
from privyseal.tokens.pin_journal import PinJournal
from privyseal.tokens.pin_supply import PinSupply

OLD, NEW = b"canary-old-1", b"canary-new-2"
NOTHING = PinHistory()


def config(directory: Path, **source: object) -> TokenConfig:
    return TokenConfig(
        name="lab",
        kind="software",
        path=str(directory),
        journal=str(directory / "journal"),
        **source,  # type: ignore[arg-type]
    )


def buffer(pin: bytes) -> PinBuffer:
    filled = PinBuffer()
    filled.fill(pin)
    return filled


def private(path: Path, content: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def refusal(supply: PinSupply) -> TokenError:
    with pytest.raises(TokenError) as caught, supply.pin(NOTHING):
        pytest.fail("there is no PIN")
    return caught.value


def test_what_was_read_is_wiped_and_what_was_typed_is_kept(tmp_path: Path) -> None:
    typed = buffer(OLD)
    with PinSupply(config(tmp_path), prompted=typed).pin(NOTHING) as pin:
        assert bytes(pin.view) == OLD
    assert bytes(typed.view) == OLD

    path = private(tmp_path / "pin", OLD)
    with PinSupply(config(tmp_path, pin_file=str(path)), prompted=None).pin(NOTHING) as pin:
        assert bytes(pin.view) == OLD
    assert len(pin) == 0


@pytest.mark.parametrize("prompt", [True, False])
def test_without_a_pin_the_next_step_is_named(tmp_path: Path, prompt: bool) -> None:  # noqa: FBT001 - a parameter
    error = refusal(PinSupply(config(tmp_path, pin_prompt=prompt), prompted=None))

    assert error.code == "token.pin_missing"
    assert "privyseal token unlock lab --dir DIR --prompt" in error.hint


def test_a_credential_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private(tmp_path / "token-pin", OLD)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    with PinSupply(config(tmp_path, pin_credential="token-pin"), prompted=None).pin(NOTHING) as pin:
        assert bytes(pin.view) == OLD

    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert refusal(PinSupply(config(tmp_path, pin_credential="token-pin"), prompted=None)).code == (
        "token.pin_credential"
    )


BACKEND = """
import os
from keyring.backend import KeyringBackend

class Keyring(KeyringBackend):
    priority = 1
    def get_password(self, service, username):
        if service == "broken":
            raise RuntimeError("canary-old-1")
        path = os.path.join(os.environ["HOME"], f"{service}.{username}")
        return open(path).read() if os.path.exists(path) else None
    def set_password(self, service, username, password):
        raise NotImplementedError
"""


@pytest.fixture
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backend of `keyring` that keeps its secrets in files."""
    (tmp_path / "file_keyring.py").write_text(BACKEND)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "file_keyring.Keyring")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_keyring_is_asked_for_service_and_account(keyring: Path, capfd: pytest.CaptureFixture[str]) -> None:
    private(keyring / "privyseal.lab", OLD)

    with PinSupply(config(keyring, pin_keyring="privyseal/lab"), prompted=None).pin(NOTHING) as pin:
        assert bytes(pin.view) == OLD
    assert len(pin) == 0

    for account, why in (("privyseal/other", "has nothing for privyseal/other"), ("broken/lab", "could not be asked")):
        error = refusal(PinSupply(config(keyring, pin_keyring=account), prompted=None))
        assert error.code == "token.pin_keyring"
        assert why in error.message
    assert "canary" not in "".join(capfd.readouterr())


def test_a_secret_that_cannot_be_a_pin_is_refused(keyring: Path) -> None:
    for content, code in ((b"", "token.pin_missing"), (b"a\nb", "token.pin_file"), (b"x" * 300, "token.pin_keyring")):
        (keyring / "privyseal.lab").write_bytes(content)
        error = refusal(PinSupply(config(keyring, pin_keyring="privyseal/lab"), prompted=None))
        assert error.code == code, content


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"pin_file": "/a", "pin_prompt": True}, "one place"),
        ({"pin_credential": "a", "pin_keyring": "b/c"}, "one place"),
        ({"pin_credential": "../etc/passwd"}, "name of a systemd credential"),
        ({"pin_credential": ".."}, "name of a systemd credential"),
        ({"pin_keyring": "no-account"}, "service/account"),
        ({"pin_keyring": "/lab"}, "service/account"),
    ],
)
def test_a_source_that_makes_no_sense_is_refused(tmp_path: Path, source: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        config(tmp_path, **source)
    assert caught.value.code == "config.token"


# A change of the PIN that ends at any point


class Changing:
    """A PIN file, and a token's journal, while its PIN is changed by a process that may end at any step."""

    def __init__(self, directory: Path) -> None:
        self.path = private(directory / "pin", OLD)
        self.fresh = directory / "pin.new"
        self.config = config(directory, pin_file=str(self.path))
        self.journal = PinJournal(self.config.journal)
        self.right = OLD
        self.presented: list[bytes] = []

    def login(self) -> str:
        """A login after a restart; what the token or the journal says."""
        supply = PinSupply(self.config, prompted=None)
        try:
            with (
                supply.pin(self.journal.history("S")) as pin,
                self.journal.attempt(serial="S", pin=pin, pin_state=PinState.OK) as attempt,
            ):
                self.presented.append(bytes(pin.view))
                is_right = bytes(pin.view) == self.right
                attempt.conclude("accepted" if is_right else "refused")
                if is_right:
                    supply.accepted()
                return "accepted" if is_right else "refused"
        except TokenError as error:
            return error.code

    def change(self, ends: str) -> None:
        """Change the PIN, up to the step named."""
        supply = PinSupply(self.config, prompted=None)
        new = buffer(NEW)
        with (
            supply.pin(self.journal.history("S")) as old,
            self.journal.attempt(serial="S", pin=old, pin_state=PinState.OK, new=new) as attempt,
        ):
            if ends == "attempt":
                return
            supply.prepare(new)
            if ends == "prepared":
                return
            self.right = NEW
            if ends == "token":
                return
            attempt.conclude("changed")
            if ends == "journalled":
                return
            supply.adopt(new)


@pytest.fixture
def changing(tmp_path: Path) -> Changing:
    made = Changing(tmp_path)
    assert made.login() == "accepted"
    made.presented.clear()
    return made


@pytest.mark.parametrize("ends", ["attempt", "prepared"])
def test_a_change_that_did_not_reach_the_token_leaves_the_old_pin(changing: Changing, ends: str) -> None:
    changing.change(ends)

    assert [changing.login(), changing.login()] == ["accepted", "accepted"]
    assert changing.presented == [OLD, OLD]
    assert changing.path.read_bytes() == OLD
    assert not changing.fresh.exists()


@pytest.mark.parametrize("ends", ["journalled", "adopted"])
def test_a_change_that_is_journalled_needs_no_try_to_find_out(changing: Changing, ends: str) -> None:
    changing.change(ends)

    assert changing.login() == "accepted"
    assert changing.presented == [NEW]
    assert changing.path.read_bytes() == NEW
    assert changing.path.stat().st_mode & 0o777 == 0o600
    assert not changing.fresh.exists()


def test_a_change_of_unknown_outcome_costs_one_try_and_a_person(changing: Changing) -> None:
    changing.change("token")

    assert [changing.login() for _ in range(3)] == ["refused", "token.pin_blocked", "token.pin_blocked"]
    assert changing.fresh.read_bytes() == NEW, "the new PIN is not lost"
    changing.journal.clear("S")
    assert [changing.login(), changing.login()] == ["accepted", "accepted"]
    assert changing.presented == [OLD, NEW, NEW]
    assert changing.path.read_bytes() == NEW


def test_a_pin_file_that_is_gone_after_a_change_is_replaced_by_the_new_one(changing: Changing) -> None:
    changing.change("journalled")
    changing.path.unlink()

    assert changing.login() == "accepted"
    assert changing.path.read_bytes() == NEW


def test_a_file_beside_the_pin_that_no_change_left_there_is_not_touched(changing: Changing) -> None:
    private(changing.fresh, b"some-other-secret")

    assert changing.login() == "accepted"
    assert changing.fresh.read_bytes() == b"some-other-secret"
    assert changing.path.read_bytes() == OLD


def test_a_wide_new_pin_file_is_refused(changing: Changing) -> None:
    changing.change("journalled")
    changing.fresh.chmod(0o644)

    assert changing.login() == "token.pin_file"


def test_the_old_pin_is_not_presented_after_a_change(changing: Changing) -> None:
    """Somebody puts the old file back, from a backup say."""
    changing.change("adopted")
    assert changing.login() == "accepted"
    private(changing.path, OLD)

    assert changing.login() == "token.pin_blocked"
    assert changing.presented == [NEW]


def test_the_present_pin_is_no_new_one(changing: Changing) -> None:
    old, new = buffer(OLD), buffer(OLD)
    with (
        pytest.raises(TokenError) as caught,
        changing.journal.attempt(serial="S", pin=old, pin_state=PinState.OK, new=new),
    ):
        pytest.fail("it would have been presented")

    assert caught.value.code == "token.pin_new"
    assert changing.login() == "accepted"
