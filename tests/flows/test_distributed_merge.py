"""The merge on a real Dask cluster of two processes, under a real Prefect server."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
    PREFECT_HOME,
    PREFECT_RESULTS_DEFAULT_SERIALIZER,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    temporary_settings,
)

from aggregator.merge.adapter_merge import merge_adapters, merge_on_threads
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.merge.rules import MergedModule
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.errors import FederationOperatorError
from flows.round.distributed_merge import merge_on_dask
from infra.stack.local_stack import RunningPrefect
from tests.aggregator.adapter_samples import dense
from tests.aggregator.merge.test_merge_resume import KilledError, inputs, stepped_inputs

pytestmark = [pytest.mark.long, pytest.mark.stack]

MODULES = 12


@dataclass(frozen=True)
class Cluster:
    """A scheduler, and where Prefect keeps all it knows."""

    address: str
    prefect_state: Path


@pytest.fixture(scope="module")
def cluster(prefect_server: RunningPrefect) -> Iterator[Cluster]:
    server, state = prefect_server, prefect_server.process.state_dir
    settings = {
        PREFECT_HOME: server.env["PREFECT_HOME"],
        PREFECT_API_URL: server.env["PREFECT_API_URL"],
        PREFECT_API_AUTH_STRING: server.env["PREFECT_API_AUTH_STRING"],
        PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: True,
        PREFECT_RESULTS_DEFAULT_SERIALIZER: "json",
        PREFECT_SERVER_EPHEMERAL_ENABLED: False,
    }
    # Before the workers, which are processes of their own and talk to Prefect too.
    direct = pytest.MonkeyPatch()
    for name in ("NO_PROXY", "no_proxy"):
        direct.setenv(name, server.env[name])
    local = LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    )
    with temporary_settings(updates=settings), local:
        yield Cluster(local.scheduler_address, state)
    direct.undo()


def runs(cluster: Cluster) -> list[tuple[str | None, dict[str, Any]]]:
    """State and parameters of every merge that Prefect knows, the newest first."""
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs()
    merges = [run for run in found if run.name.startswith("merge-")]
    merges.sort(key=lambda run: str(run.created), reverse=True)
    return [(run.state_name, run.parameters) for run in merges]


def test_within_a_task_the_bytes_are_those_of_threads_and_prefect_holds_none_of_them(
    cluster: Cluster, tmp_path: Path
) -> None:
    value = inputs(tmp_path)
    on_threads = merge_adapters(value, tmp_path / "threads", merge_modules=merge_on_threads)

    @task(cache_policy=NO_CACHE)
    def merge(coordinator: object) -> str:
        merger = merge_on_dask(cluster.address, slice_modules=2)
        return merge_adapters(value, tmp_path / "dask", merge_modules=merger).adapter.digest

    @flow
    def federated_round() -> str:
        # Like a coordinator with its keys, a lock can be sent to no other process.
        return merge(threading.Lock())

    assert federated_round() == on_threads.adapter.digest
    ours, theirs = (open_adapter(tmp_path / name, value.layout) for name in ("dask", "threads"))
    for target in value.layout.targets:
        np.testing.assert_allclose(dense(ours, target), dense(theirs, target), rtol=1e-5, atol=1e-5)
    assert runs(cluster)[0] == ("Completed", {"modules": MODULES, "slices": 6})
    a, b = ours.module(value.layout.targets[0])
    stored = b"".join(p.read_bytes() for p in cluster.prefect_state.rglob("*") if p.is_file())
    for secret in (a.tobytes()[:64], b.tobytes()[:64], value.locals[0].digest.encode()):
        assert secret not in stored
    assert str(tmp_path).encode() not in stored
    assert b"merge-12-modules" in stored


def test_a_step_and_ranks_of_their_own_give_the_bytes_of_threads(
    cluster: Cluster, tmp_path: Path
) -> None:
    value = stepped_inputs(tmp_path)
    merger = merge_on_dask(cluster.address, slice_modules=6)
    on_dask = merge_adapters(value, tmp_path / "dask", merge_modules=merger)
    assert value.step is not None and value.step > 1
    assert on_dask.adapter == merge_adapters(value, tmp_path / "threads").adapter


@pytest.mark.campaign
def test_a_merge_that_stopped_in_the_middle_continues(cluster: Cluster, tmp_path: Path) -> None:
    value = inputs(tmp_path)
    on_dask = merge_on_dask(cluster.address, slice_modules=1)
    asked: list[int] = []

    def interrupted(value: MergeInputs, missing: list[int]) -> Iterator[tuple[int, MergedModule]]:
        asked.append(len(missing))
        for done, pair in enumerate(on_dask(value, missing)):
            if done == 5:
                raise KilledError
            yield pair

    into = tmp_path / "merged"
    with pytest.raises(KilledError):
        merge_adapters(value, into, merge_modules=interrupted)
    assert not into.exists()
    assert runs(cluster)[0][0] == "Cancelled"
    merged = merge_adapters(value, into, merge_modules=on_dask)
    assert asked == [MODULES]
    assert runs(cluster)[0] == ("Completed", {"modules": MODULES - 5, "slices": MODULES - 5})
    assert merged.adapter == merge_adapters(value, tmp_path / "threads").adapter


@pytest.mark.campaign
def test_a_worker_that_is_killed_costs_no_more_than_its_slices(
    cluster: Cluster, tmp_path: Path
) -> None:
    value = inputs(tmp_path)
    with Client(cluster.address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        pids: dict[str, int] = client.run(os.getpid)
    killed = next(iter(pids.values()))

    def kill_one(done: int, total: int) -> None:
        if done == 1:
            os.kill(killed, signal.SIGKILL)

    on_dask = merge_on_dask(cluster.address, slice_modules=1)
    into = tmp_path / "merged"
    merged = merge_adapters(value, into, on_progress=kill_one, merge_modules=on_dask)
    assert len(pids) == 2
    assert not psutil.pid_exists(killed)
    assert merged.adapter == merge_adapters(value, tmp_path / "threads").adapter


@pytest.mark.campaign
def test_a_worker_that_does_not_see_the_adapters_names_the_file(
    cluster: Cluster, tmp_path: Path
) -> None:
    value = inputs(tmp_path)
    (tmp_path / "3.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(FederationOperatorError, match=r"3\.safetensors.*same path"):
        merge_adapters(value, tmp_path / "m", merge_modules=merge_on_dask(cluster.address, 6))


@pytest.fixture(scope="module")
def other_machine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a process prints that has other vector instructions and lacks the extra `dask`."""
    directory = tmp_path_factory.mktemp("inputs")
    value = inputs(directory)
    assert value.fingerprint
    (directory / "payload").write_bytes(zlib.compress(pickle.dumps(value)))
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.modules['prefect_dask'] = None\n"
        "from data_contracts.errors import FederationOperatorError\n"
        "from flows.round.distributed_merge import merge_on_dask, merge_slice\n"
        "payload = Path(sys.argv[1]).read_bytes()\n"
        "for use in (lambda: merge_slice.fn(payload, [0]), merge_on_dask):\n"
        "    try:\n"
        "        use()\n"
        "    except FederationOperatorError as error:\n"
        "        print(error)\n"
    )
    command = [sys.executable, "-c", script, str(directory / "payload")]
    env = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_machine_that_computes_otherwise_merges_nothing(other_machine: str) -> None:
    assert "Dask worker: expected the coordinator's versions of PyTorch and NumPy" in other_machine
    assert "DEFAULT" in other_machine


def test_without_the_extra_it_says_what_to_install(other_machine: str) -> None:
    assert "pip install consortia[dask]" in other_machine
