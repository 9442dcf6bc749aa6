"""What an operator or auditor sees: help without heavy imports, one message per fault."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aggregator.settings.federation import load_settings
from data_contracts.errors import StorageError
from flows.commands.federation_commands import federation_app
from flows.commands.storage_commands import storage_app
from flows.federation.admin import (
    FederationTerms,
    Joining,
    add_silo,
    describe,
    init_federation,
)
from flows.round.operations import require_place_for_copies
from infra.disk.durable_files import write_durably
from infra.signing_keys import create_key
from infra.stack.attached_storage import remember_storage
from infra.stack.local_stack import RunningStorage
from infra.storage.s3_client import connect
from tests.data_contracts.dataset.contract_samples import CONTRACT

pytestmark = pytest.mark.long


def consortia(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_one_message(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in ("error:", "expected", "found", "To fix it", *words):
        assert word in done.stderr, done.stderr


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def terms(endpoint_url: str, tmp_path: Path) -> FederationTerms:
    return FederationTerms(
        federation="oncology",
        run="run-1",
        purpose="Testing",
        model_name="tiny",
        model_licence="Apache-2.0",
        model_path=tmp_path / "model",
        prefect_api_url="http://127.0.0.1:9/api",
        endpoint_url=endpoint_url,
    )


def test_a_federation_without_settings_says_how_to_create_one(tmp_path: Path) -> None:
    done = consortia("round", "status", "--home", str(tmp_path))
    assert_one_message(done, "consortia federation init")


@pytest.mark.parametrize("options", [(), ("--public", __file__, "--by-silos")])
def test_contributions_are_measured_either_here_or_by_silos(options: tuple[str, ...]) -> None:
    done = consortia("round", "contributions", "1", *options)
    assert done.returncode == 2
    assert "give either --public FILE or --by-silos" in " ".join(done.stderr.split())


def test_a_taken_port_is_named(tmp_path: Path, taken_port: int) -> None:
    done = consortia(
        "stack",
        "start",
        "--state",
        str(tmp_path),
        "--s3-port",
        str(taken_port),
        "--prefect-port",
        "0",
    )
    assert_one_message(done, str(taken_port), "--s3-port")


def test_storage_that_is_down_is_named_and_leaves_no_federation_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    credentials = b'access_key = "a"\nsecret_key = "b"\n'
    write_durably(home / "keys" / "storage-credentials.toml", credentials)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"127\.0\.0\.1:9"):
            init_federation(home, terms("http://127.0.0.1:9", tmp_path), None)
        assert not (home / "federation.toml").exists(), "so that it can be run again"


@pytest.mark.stack
def test_init_shows_fingerprints_and_storage_has_policies(
    tmp_path: Path, object_storage: RunningStorage
) -> None:
    home = tmp_path / "home"
    init_federation(home, terms(object_storage.endpoint_url, tmp_path), object_storage)
    assert [who for who, _ in describe(home)][:5] == [
        "federation",
        "membership",
        "feed",
        "root key (1 of 1 sign)",
        "coordinator",
    ]
    answers = {
        who: CliRunner().invoke(storage_app, ["policy", who, "--home", str(home)]).output
        for who in ("coordinator", "north")
    }
    unfounded = ["policy", "north", "--federation", "oncology"]
    assert CliRunner().invoke(storage_app, unfounded).output == answers["north"]
    allowed = {
        who: {
            (action, resource.removeprefix("arn:aws:s3:::"))
            for statement in json.loads(text)["Statement"]
            for action in statement["Action"]
            for resource in statement["Resource"]
        }
        for who, text in answers.items()
    }
    assert ("s3:PutObject", "oncology-plans/*") in allowed["coordinator"]
    assert ("s3:PutObjectRetention", "oncology-inbox-*/*") in allowed["coordinator"]
    assert ("s3:PutObject", "oncology-inbox-north/*") in allowed["north"]
    actions = {action for granted in allowed.values() for action, _ in granted}
    assert not any("Delete" in action or "Bypass" in action for action in actions)
    assert {resource for _, resource in allowed["north"]} == {
        "oncology-plans",
        "oncology-plans/*",
        "oncology-inbox-north",
        "oncology-inbox-north/*",
    }


@pytest.mark.stack
def test_the_storage_of_a_federation_is_tried_bucket_by_bucket(
    tmp_path: Path, object_storage: RunningStorage
) -> None:
    home, contract = tmp_path / "fed", tmp_path / "contract.yaml"
    contract.write_text(CONTRACT)
    founded = replace(terms(object_storage.endpoint_url, tmp_path), federation="tried")
    init_federation(home, founded, object_storage)
    one, other = (create_key(tmp_path / name).public_key_hex for name in ("one.pem", "two.pem"))
    add_silo(home, Joining("north", one, contract), object_storage)
    admin = connect(object_storage.settings_for("admin"), "")
    with pytest.raises(StorageError, match="a bucket named tried-inbox-elsewhere"):
        add_silo(home, Joining("elsewhere", other, contract), None)
    admin.create_bucket(Bucket="tried-inbox-elsewhere", ObjectLockEnabledForBucket=True)
    add_silo(home, Joining("elsewhere", other, contract), None)

    def check(*, fails: bool = False) -> str:
        done = CliRunner().invoke(storage_app, ["check", "--home", str(home)])
        assert (done.exit_code != 0) == fails, (done.output, done.exception)
        return " ".join((done.output + str(done.exception or "")).split())

    said = check()
    assert "one winner of racing creates" in said
    assert "the coordinator passes over no lock" in said
    assert "inbox of elsewhere: not tried, nothing there to try it on" in said
    admin.delete_bucket(Bucket="tried-inbox-elsewhere")
    assert "inbox of elsewhere: not tried, no such bucket" in check()
    settings = home / "federation.toml"
    settings.write_text(settings.read_text().replace('place = "inbox"', 'place = "copy"'))
    assert "a bucket named tried-ledger" in check(fails=True)
    with pytest.raises(StorageError, match="a bucket named tried-ledger"):
        require_place_for_copies(load_settings(home))
    with pytest.raises(StorageError, match="a bucket named tried-inbox-third"):
        add_silo(home, Joining("third", other, contract), None)
    admin.create_bucket(Bucket="tried-ledger")
    assert "tried-ledger" in check()
    require_place_for_copies(load_settings(home))


@pytest.mark.stack
def test_a_membership_lives_by_its_commands(tmp_path: Path, object_storage: RunningStorage) -> None:
    """Real storage, one command after the other, as in the first year of a federation."""
    home, contract = tmp_path / "fed", tmp_path / "contract.yaml"
    contract.write_text(CONTRACT)
    remember_storage(object_storage)
    founded = terms(object_storage.endpoint_url, tmp_path)
    init_federation(home, replace(founded, federation="first-year"), object_storage)
    keys = {name: create_key(tmp_path / f"{name}.pem").public_key_hex for name in "abcd"}

    def federation(*arguments: str, fails: bool = False) -> str:
        done = CliRunner().invoke(federation_app, [*arguments, "--home", str(home)])
        assert (done.exit_code != 0) == fails, (done.output, done.exception)
        return " ".join(done.output.split())

    stack = ("--stack", str(object_storage.state_dir), "--contract", str(contract))
    said = federation("add-silo", "--silo", "north", "--public-key", keys["a"], *stack)
    assert "membership 2 is published" in said
    said = federation("add-silo", "--silo", "north", "--public-key", keys["a"], *stack)
    assert "membership 2 says so already" in said
    later = ("--from-round", "3")
    federation("add-silo", "--silo", "south", "--public-key", keys["b"], *later, *stack)
    federation("rotate-key", "--silo", "north", "--public-key", keys["c"])
    federation("rotate-key", "--coordinator")
    assert "membership 6 is published" in federation("renew")
    said = federation("rotate-key", "--add-root", keys["d"], "--threshold", "2")
    assert "Not published yet" in said and "1 of the 2 root keys of membership 7" in said
    (draft,) = home.glob("*.draft.json")
    trust = ("--trust", str(home / "membership.json"))
    signed = CliRunner().invoke(
        federation_app, ["sign", str(draft), "--root-key", str(tmp_path / "d.pem"), *trust]
    )
    assert "2 root keys have to sign" in signed.output
    assert "membership 7 is published" in federation("publish", str(draft))
    both = ("--root-key", str(tmp_path / "d.pem"))
    federation("remove-silo", "--silo", "south", "--from-round", "9", *both)
    federation("revoke", "--silo", "north", *both)
    said = federation("revoke", "--coordinator", "--last-entry", "0", "--yes", *both)
    assert "storage credential too" in said
    said = federation("show")
    assert "number 10" in said and "south (rounds 3 to 8)" in said and "north" not in said
    assert federation("rotate-key", "--coordinator", "--silo", "north", fails=True)
    assert federation("revoke", "--coordinator", fails=True)
    assert federation("revoke", "--silo", "south", "--last-entry", "0", fails=True)
    assert len(list((home / "keys").glob("coordinator-key*.pem"))) == 3


def test_a_report_of_somebody_else_fails_with_exit_1(tmp_path: Path) -> None:
    garbage = tmp_path / "report.json"
    garbage.write_text("{}")
    trust = tmp_path / "membership.json"
    trust.write_text("{}")
    assert_one_message(
        consortia("report", "verify", str(garbage), "--trust", str(trust)), "report bundle"
    )


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("flows.cli, silo_agent.cli", "prefect torch transformers great_expectations deepspeed"),
        ("flows.round.operations", "prefect torch"),
        ("flows.round.federated_training, flows.deployment.deployments", "torch"),
    ],
)
def test_only_what_is_used_is_loaded(modules: str, heavy: str) -> None:
    """Help needs none of the large libraries, and of a round's steps only the merge needs torch."""
    script = (
        f"import sys, {modules}\n"
        f"heavy = set({heavy.split()})\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
