"""The embedded services as they really run."""

import base64
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from data_contracts.errors import ConsortiaError
from infra.processes.local_processes import recorded_processes
from infra.stack.attached_storage import remember_storage
from infra.stack.local_stack import (
    RunningPrefect,
    RunningStorage,
    StoragePorts,
    add_federation,
    add_silo,
    ensure_auth_string,
    start_object_storage,
    start_stack,
)
from infra.stack.seaweedfs import identities_path
from infra.storage.s3_bucket import S3Bucket
from infra.storage.s3_client import connect

pytestmark = [pytest.mark.long, pytest.mark.stack]


def test_what_is_stored_survives_sigkill(tmp_path: Path) -> None:
    storage = start_object_storage(tmp_path, StoragePorts.automatic())
    try:
        settings = add_federation(storage, "crash")
        S3Bucket(settings, "crash-plans").put_once("key", b"kept")
        storage.process.kill()
        storage = start_object_storage(tmp_path, StoragePorts.automatic())
        again = add_federation(storage, "crash")
        assert again.secret_key == settings.secret_key
        assert S3Bucket(again, "crash-plans").get("key", 10) == b"kept"
        S3Bucket(again, "crash-plans").put_once("key", b"kept")
    finally:
        storage.stop()
    assert not storage.process.is_running()
    assert recorded_processes(tmp_path) == []
    assert not any(Path(path).exists() for path in storage.process.leftovers)


def test_a_taken_port_is_named_before_anything_starts(
    object_storage: RunningStorage, tmp_path: Path
) -> None:
    taken = StoragePorts(object_storage.ports.s3, 0, 0, 0)
    with pytest.raises(ConsortiaError, match=rf"port {taken.s3} for .*taken by weed \(process \d+"):
        start_object_storage(tmp_path, taken)
    assert recorded_processes(tmp_path) == []


def test_a_stack_of_which_one_half_does_not_start_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "prefect").write_text("no directory for the server's files")
    with pytest.raises(ConsortiaError, match="starting prefect-server: expected it to answer"):
        start_stack(tmp_path, 0, 0, keep=True)
    assert recorded_processes(tmp_path) == []


def test_a_stack_whose_ports_are_taken_is_not_started(
    object_storage: RunningStorage, tmp_path: Path
) -> None:
    taken = object_storage.ports.s3
    with pytest.raises(ConsortiaError, match=rf"port {taken} for the Prefect .*--prefect-port"):
        start_stack(tmp_path, 0, taken, keep=True)
    with pytest.raises(ConsortiaError, match=rf"port {taken} for the object .*--s3-port"):
        start_stack(tmp_path, taken, 0, keep=True)
    assert recorded_processes(tmp_path) == []


def test_storage_that_runs_is_not_started_again_on_another_port(
    object_storage: RunningStorage,
) -> None:
    state, port = object_storage.state_dir, object_storage.ports.s3
    remember_storage(object_storage)
    with pytest.raises(ConsortiaError, match=rf"found process \d+\. .*stack stop --state {state}"):
        start_stack(state, port + 1, 0, keep=True)
    with pytest.raises(ConsortiaError, match=rf"port {port} for the Prefect .*--prefect-port"):
        start_stack(state, port, port, keep=True)
    assert object_storage.process.is_running()


def test_secrets_lie_in_private_files(object_storage: RunningStorage) -> None:
    path = identities_path(object_storage.state_dir)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    logs = object_storage.process.log_path
    assert stat.S_IMODE(logs.parent.stat().st_mode) == 0o700
    secret = object_storage.settings_for("admin").secret_key.get_secret_value()
    assert secret not in logs.read_text(encoding="utf-8", errors="replace")


def test_adding_again_changes_nothing(object_storage: RunningStorage) -> None:
    add_federation(object_storage, "again")
    first = add_silo(object_storage, "again", "silo-a")
    before = identities_path(object_storage.state_dir).read_bytes()
    add_federation(object_storage, "again")
    assert add_silo(object_storage, "again", "silo-a") == first
    assert identities_path(object_storage.state_dir).read_bytes() == before


def test_an_unknown_identity_is_named(object_storage: RunningStorage) -> None:
    with pytest.raises(ConsortiaError, match=r"storage identity nobody: expected one of admin"):
        object_storage.settings_for("nobody")


def test_plans_have_no_versions_and_inboxes_lock_nothing_by_themselves(
    object_storage: RunningStorage,
) -> None:
    add_federation(object_storage, "kinds")
    settings = add_silo(object_storage, "kinds", "silo-a")
    admin = connect(object_storage.settings_for("admin"), "kinds-plans")
    assert "Status" not in admin.get_bucket_versioning(Bucket="kinds-plans")
    inbox = "kinds-inbox-silo-a"
    assert admin.get_bucket_versioning(Bucket=inbox)["Status"] == "Enabled"
    S3Bucket(settings, inbox).put_once("key", b"1")
    found = S3Bucket(settings, inbox).stat("key")
    assert found is not None and found.version is not None and found.lock is None
    rules = admin.get_bucket_lifecycle_configuration(Bucket=inbox)["Rules"]
    expiring = {rule["Filter"]["Prefix"] for rule in rules if "Expiration" in rule}
    assert expiring == {"status/", "probe/"}


def test_neither_side_changes_what_a_bucket_does(object_storage: RunningStorage) -> None:
    coordinator = add_federation(object_storage, "settings")
    silo = add_silo(object_storage, "settings", "silo-a")
    inbox = {"Bucket": "settings-inbox-silo-a"}
    locked = {"Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}}
    for settings in (coordinator, silo):
        client = connect(settings, "")
        changes: list[Callable[[], object]] = [
            partial(client.put_bucket_versioning, VersioningConfiguration={"Status": "Suspended"}),
            partial(
                client.put_bucket_lifecycle_configuration, LifecycleConfiguration={"Rules": []}
            ),
            partial(
                client.put_object_lock_configuration,
                ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"} | locked,
            ),
            partial(client.put_bucket_policy, Policy="{}"),
            client.delete_bucket,
        ]
        for change in changes:
            with pytest.raises(ClientError, match="AccessDenied"):
                change(**inbox)
        with pytest.raises(ClientError, match="AccessDenied"):
            client.create_bucket(Bucket="settings-inbox-silo-b")


def test_the_prefect_server_asks_for_its_password(prefect_server: RunningPrefect) -> None:
    server, auth_file = prefect_server, prefect_server.process.state_dir / "prefect-auth"
    auth = ensure_auth_string(auth_file)
    assert auth == auth_file.read_text()
    assert stat.S_IMODE(auth_file.stat().st_mode) == 0o600
    assert _status(f"{server.api_url}/health", auth) == 200
    assert _status(f"{server.api_url}/admin/version", auth) == 200
    assert _status(f"{server.api_url}/admin/version", "consortia:guess") == 401
    assert _status(f"{server.api_url}/admin/version", None) == 401
    # With the password but without a CSRF token, as a page in the operator's browser would.
    assert _status(f"{server.api_url}/flows/filter", auth, b"{}") == 403
    assert auth not in repr(server)


def test_a_client_with_the_server_s_settings_writes_and_reads(
    prefect_server: RunningPrefect,
) -> None:
    assert _flow_that_a_client_registers(prefect_server.env) == "registered-by-a-client"


def _flow_that_a_client_registers(env: Mapping[str, str]) -> str:
    script = (
        "from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as client:\n"
        "    flow = client.create_flow_from_name('registered-by-a-client')\n"
        "    print(client.read_flow(flow).name)\n"
    )
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, env=dict(env), capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def _status(url: str, auth: str | None, body: bytes | None = None) -> int:
    headers = {"Content-Type": "application/json"}
    if auth is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
