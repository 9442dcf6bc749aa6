"""`consortia storage usage | prune` and `silo-agent disk`, as they are typed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from flows.commands.storage_commands import storage_app
from flows.federation.admin import Joining, add_silo, init_federation
from infra.disk.file_lock import try_lock
from infra.signing_keys import create_key
from infra.stack.local_stack import RunningStorage, StoragePorts, add_identity, start_object_storage
from infra.storage.policies import pruning_policy
from infra.storage.s3_bucket import S3Bucket
from silo_agent.cli import app as silo_app
from silo_agent.loop import LOCK_NAME
from tests.data_contracts.dataset.contract_samples import CONTRACT
from tests.flows.test_cli import terms
from tests.silo_agent.ready_silo import ReadySilo

WIDE = {"COLUMNS": "200"}


def typed(app: Typer, *arguments: object, fails: bool = False) -> str:
    done = CliRunner(env=WIDE).invoke(app, [str(each) for each in arguments])
    assert (done.exit_code != 0) == fails, (done.output, done.exception)
    return " ".join((done.output + str(done.exception or "")).split())


@pytest.fixture
def silo(tmp_path: Path) -> ReadySilo:
    return ReadySilo(tmp_path)


def test_a_silo_s_disk_is_shown_before_its_first_round(silo: ReadySilo) -> None:
    said = typed(silo_app, "disk", "--home", silo.home)
    assert "outbox" in said and "of it surplus │ 0 │ 0 B" in said
    assert "removed 0 files" in typed(silo_app, "disk", "--prune", "--home", silo.home)


def test_a_running_agent_prunes_by_itself(silo: ReadySilo) -> None:
    with (silo.home / LOCK_NAME).open("a") as file:
        assert try_lock(file)
        typed(silo_app, "disk", "--home", silo.home)
        said = typed(silo_app, "disk", "--prune", "--home", silo.home, fails=True)
    assert "no other agent on this home directory" in said


@pytest.mark.parametrize("line", ["keep_rounds = 0", "keep_rounds = -1", "keep_round = 1"])
def test_a_rule_that_keeps_too_little_is_refused(silo: ReadySilo, line: str) -> None:
    silo.edit("silo-agent.toml", "keep_rounds = 1 ", f"{line} ")
    said = typed(silo_app, "disk", "--home", silo.home, fails=True)
    assert "setting disk" in said


@pytest.mark.long
@pytest.mark.stack
def test_the_storage_of_a_federation_is_counted_and_pruned(
    tmp_path: Path, object_storage: RunningStorage
) -> None:
    home, contract = tmp_path / "fed", tmp_path / "contract.yaml"
    contract.write_text(CONTRACT)
    founded = replace(terms(object_storage.endpoint_url, tmp_path), federation="pruned")
    init_federation(home, founded, object_storage)
    key = create_key(tmp_path / "one.pem").public_key_hex
    add_silo(home, Joining("north", key, contract), object_storage)
    name = founded.federation
    admin = object_storage.settings_for("admin")
    S3Bucket(admin, f"{name}-inbox-north").put("notes.txt", b"mine")

    said = typed(storage_app, "usage", "--home", home)
    assert f"{name}-plans │ members │ 4" in said
    assert f"{name}-inbox-north │ other │ 1 │ 4 B │ not of" in said, "also where it is narrow"
    said = typed(storage_app, "prune", "--home", home, fails=True)
    assert "a credential that may delete" in said and "--credentials" in said

    granted = typed(storage_app, "prune-policy", "--home", home)
    assert json.loads(granted) == json.loads(pruning_policy(name))
    assert "Bypass" not in granted and "PutObject" not in granted
    operator = add_identity(object_storage, "pruner", pruning_policy(name), f"{name}-plans")
    secrets = tmp_path / "operator.toml"
    secret = operator.secret_key.get_secret_value()
    secrets.write_text(f'access_key = "{operator.access_key}"\nsecret_key = "{secret}"\n')
    given = ("prune", "--home", home, "--credentials", secrets)
    assert "others can read" in typed(storage_app, *given, fails=True)
    secrets.chmod(0o600)
    assert "would be removed (with --yes): in storage 0 objects" in typed(storage_app, *given)
    assert "removed: in storage 0 objects, 0 B" in typed(storage_app, *given, "--yes")
    assert not [path for path in home.rglob("*") if path.is_file() and _holds(path, secret)]


@pytest.mark.long
@pytest.mark.stack
def test_the_coordinator_s_own_credential_may_not_prune(tmp_path: Path) -> None:
    storage = start_object_storage(tmp_path / "stack", StoragePorts.automatic())
    try:
        home = tmp_path / "fed"
        init_federation(home, terms(storage.endpoint_url, tmp_path), storage)
        own = home / "keys" / "storage-credentials.toml"
        said = typed(storage_app, "prune", "--home", home, "--credentials", own, fails=True)
        assert "AccessDenied" in said or "rights" in said
    finally:
        storage.stop()


def _holds(path: Path, secret: str) -> bool:
    return secret.encode() in path.read_bytes()
