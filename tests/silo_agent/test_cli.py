"""What a silo operator sees: one message that says what to do, and an exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_contracts.protocol.dsse import fingerprint
from infra.encryption.identities import load_identities, load_identity
from infra.signing_keys import create_key, load_key
from silo_agent.config import load_config
from silo_agent.policy.policy_file import read_policy
from tests.data_contracts.dataset.contract_samples import sample_record, sample_records
from tests.silo_agent.gate_samples import SampleSilo
from tests.silo_agent.test_policy import EXACT, POLICY

pytestmark = pytest.mark.long

NO_SCREEN = {
    name: value
    for name, value in os.environ.items()
    if name not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
}


def silo_agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "silo_agent.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=NO_SCREEN,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("silo") / "home"
    done = silo_agent(
        *("init", "--home", str(home), "--silo", "north", "--federation", "oncology"),
        *("--endpoint-url", "http://127.0.0.1:9"),
    )
    assert done.returncode == 0, done.stderr
    key = load_key(home / "keys" / "signing-key.pem").public_key_hex
    assert key in done.stdout
    assert fingerprint(key).split()[0] in done.stdout
    return home


def assert_one_message(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in ("error:", "expected", "found", "To fix it", *words):
        assert word in done.stderr, done.stderr


def test_a_new_silo_has_private_keys_and_refuses_everything(home: Path) -> None:
    assert (home / "keys" / "signing-key.pem").stat().st_mode & 0o077 == 0
    assert (home / "keys" / "findings.key").stat().st_mode & 0o077 == 0
    assert load_config(home).silo == "north"
    assert read_policy(home / "policy.toml").policy is None, "the template names no purpose yet"


def test_the_recipient_is_printed_and_replaced(home: Path) -> None:
    path = home / "keys" / "identity.txt"
    before = load_identity(path).recipient
    assert path.stat().st_mode & 0o077 == 0
    assert before in (home / "NEXT-STEPS.md").read_text()
    assert silo_agent("key", "--recipient", "--home", str(home)).stdout.strip() == before
    new = silo_agent("key", "--new-recipient", "--home", str(home)).stdout.strip()
    assert new == load_identity(path).recipient != before
    assert {each.recipient for each in load_identities(path)} == {before, new}
    key = load_key(home / "keys" / "signing-key.pem").public_key_hex
    assert silo_agent("key", "--home", str(home)).stdout.strip() == key


def test_init_does_not_overwrite(home: Path) -> None:
    before = (home / "keys" / "signing-key.pem").read_bytes()
    done = silo_agent(
        *("init", "--home", str(home), "--silo", "north", "--federation", "oncology"),
        *("--endpoint-url", "http://127.0.0.1:9"),
    )
    assert_one_message(done, "no configuration yet")
    assert (home / "keys" / "signing-key.pem").read_bytes() == before


def test_an_unedited_policy_is_named_by_check(home: Path) -> None:
    assert_one_message(silo_agent("check", "--home", str(home)), "policy")


@pytest.fixture
def silo(tmp_path: Path) -> SampleSilo:
    """A home that can be checked, but for its data."""
    silo = SampleSilo(tmp_path)
    silo.write_config()
    (tmp_path / "policy.toml").write_text(POLICY.format(**EXACT))
    return silo


def test_a_check_tells_its_own_silo_everything_and_writes_the_page(silo: SampleSilo) -> None:
    silo.write_records([*sample_records(), sample_record(40, licence="GPL-3.0-only")])
    done = silo_agent("check", "--home", str(silo.home), "--data", "--open")
    assert_one_message(done, "licence.allowed")
    assert "row 41 (record-40): states GPL-3.0-only: not on the contract's list" in done.stdout
    assert "1 of 41" in done.stdout
    assert "withheld" not in done.stdout
    assert f"page          {silo.home / 'steward.html'}\n" in done.stdout
    assert "record-40" in (silo.home / "steward.html").read_text(encoding="utf-8")


def test_a_check_of_good_data_ends_well_where_there_is_no_screen(silo: SampleSilo) -> None:
    silo.write_records([*sample_records()])
    done = silo_agent("check", "--home", str(silo.home), "--data", "--open")
    assert done.returncode == 0, done.stderr
    assert (silo.home / "steward.html").exists()
    assert silo_agent("check", "--home", str(silo.home), "--data").returncode == 0


def test_a_check_without_data_writes_the_page_too(silo: SampleSilo) -> None:
    done = silo_agent("check", "--home", str(silo.home), "--data", "--open")
    assert_one_message(done, "data.available")
    assert "no such file or folder" in done.stdout
    page = (silo.home / "steward.html").read_text(encoding="utf-8")
    assert "No record was looked at." in page


def test_run_without_a_membership_says_whom_to_ask(home: Path) -> None:
    credentials = home / "keys" / "storage-credentials.toml"
    credentials.write_text('access_key = "a"\nsecret_key = "b"\n')
    credentials.chmod(0o600)
    done = silo_agent("run", "--home", str(home))
    assert_one_message(done, "membership", "federation operator")


def test_credentials_that_others_can_read_are_refused(home: Path) -> None:
    credentials = home / "keys" / "storage-credentials.toml"
    credentials.write_text('access_key = "a"\nsecret_key = "b"\n')
    credentials.chmod(0o644)
    assert_one_message(silo_agent("run", "--home", str(home)), "chmod 600")


def test_a_home_without_configuration_says_how_to_make_one(tmp_path: Path) -> None:
    assert_one_message(silo_agent("run", "--home", str(tmp_path)), "silo-agent init")


def test_a_wrong_setting_is_named(home: Path, tmp_path: Path) -> None:
    text = (home / "silo-agent.toml").read_text()
    (tmp_path / "silo-agent.toml").write_text(text.replace("zero_stage = 2", "zero_stage = 4"))
    assert_one_message(silo_agent("status", "--home", str(tmp_path)), "training.zero_stage")


def test_the_kill_switch_keeps_the_agent_from_starting(home: Path) -> None:
    (home / "STOP").touch()
    try:
        done = silo_agent("run", "--home", str(home))
        assert_one_message(done, "kill switch", "--clear-stop")
    finally:
        (home / "STOP").unlink()


def test_a_key_file_with_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    create_key(path)
    path.write_bytes(b"not a key")
    with pytest.raises(Exception, match="Ed25519 private key in PEM"):
        load_key(path)


def test_residuals_are_forgotten_on_request_only(home: Path) -> None:
    state = home / "error-feedback" / "run-1"
    state.mkdir(parents=True)
    (state / "0001.json").write_text("{}")
    done = silo_agent("reset-error-feedback", "run-1", "--home", str(home))
    assert done.returncode == 0, done.stderr
    assert "forgotten" in done.stdout
    assert list(state.iterdir()) == []
