"""What is written to an MLflow server, told by one that answers as the real one does.

The server here keeps what the API's page says of each request and refuses any other; the last test
runs a real MLflow where one is at hand.
"""

import json
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import psutil
import pytest

from infra.loopback import LOOPBACK
from infra.processes.process_tree import descendants, kill_and_wait
from silo_agent.metrics.metrics import InBackground, Metrics
from silo_agent.metrics.mlflow_log import MOST_METRICS, MlflowError, MlflowLog
from tests.loopback_server import serving
from tests.silo_agent.metrics.moments import LOADING, MOMENT, moment
from tests.silo_agent.metrics.test_prometheus_page import free_port

PREFIX = "/api/2.0/mlflow/"
NONE = (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"})
MLFLOW = "CONSORTIA_TEST_MLFLOW"
"""Names the program `mlflow` of an environment of its own."""

Answer = tuple[int, dict[str, Any]]


@dataclass
class Runs:
    """A tracking server's memory: experiments by name, runs by id, each with all that was said."""

    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    fault: Answer | None = None

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        """What the API answers."""
        what = urlsplit(path).path.removeprefix(PREFIX)
        self.asked.append(what)
        if self.fault is not None:
            return self.fault
        if (method, what) == ("GET", "experiments/get-by-name"):
            (name,) = parse_qs(urlsplit(path).query)["experiment_name"]
            found = self.experiments.get(name)
            return (200, {"experiment": {"experiment_id": found}}) if found else NONE
        assert method == "POST"
        if what == "experiments/create":
            self.experiments[body["name"]] = str(len(self.experiments) + 1)
            return 200, {"experiment_id": self.experiments[body["name"]]}
        if what == "runs/search":
            wanted = body["filter"].partition(" = ")[2].strip("'")
            runs = [r for r in self.runs.values() if r["tags"]["consortia.attempt"] == wanted]
            return 200, {"runs": [{"info": {"run_id": run["id"]}} for run in runs]}
        return 200, self._of_a_run(what, body)

    def _of_a_run(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        if what == "runs/create":
            run_id = f"run{len(self.runs)}"
            tags = {tag["key"]: tag["value"] for tag in body.pop("tags")}
            self.runs[run_id] = {**body, "id": run_id, "tags": tags, "metrics": []}
            return {"run": {"info": {"run_id": run_id}}}
        run = self.runs[body.pop("run_id")]
        if what == "runs/update":
            run |= body
            return {"run_info": {}}
        assert what == "runs/log-batch"
        assert len(body["metrics"]) <= MOST_METRICS
        run["metrics"] += body["metrics"]
        return {}


@contextmanager
def server(runs: Runs) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"{}")
            status, said = runs.answer(self.command, self.path, body)
            sent = json.dumps(said).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", said["to"])
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST  # noqa: N815 - the name that http.server asks for

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with serving(Handler) as address:
        yield address


def test_an_attempt_is_a_run_with_the_numbers_of_every_step() -> None:
    runs = Runs()
    with server(runs) as address:
        log = MlflowLog(address, "oncology north")
        log.write([moment(1, 2.5), moment(2, 2.25)])
        log.write([moment(1, 3.5, phase="evaluating"), LOADING])
        log.close()
    assert runs.experiments == {"oncology north": "1"}
    (run,) = runs.runs.values()
    assert run["run_name"] == "run-1 round 3 attempt 2"
    assert (run["experiment_id"], run["status"]) == ("1", "FINISHED")
    assert run["tags"] == {"consortia.attempt": "run-1/3/2"}, "and nothing of this machine"
    losses = [(m["key"], m["value"], m["step"]) for m in run["metrics"] if "loss" in m["key"]]
    assert losses == [
        ("training/loss", 2.5, 1),
        ("training/loss", 2.25, 2),
        ("heldout/loss", 3.5, 1),
    ]
    assert {m["timestamp"] for m in run["metrics"]} == {int(MOMENT.at.timestamp() * 1000)}


def test_an_agent_that_comes_back_goes_on_with_its_run() -> None:
    runs = Runs()
    with server(runs) as address:
        for step in (1, 2):
            log = MlflowLog(f"{address}/", "oncology north")
            log.write([moment(step, 2.5)])
            log.close()
        log = MlflowLog(address, "oncology north")
        log.write([moment(3, 2.5), moment(1, 2.5, attempt=3), moment(1, 2.5, run="run-2")])
        log.close()
    assert [run["tags"]["consortia.attempt"] for run in runs.runs.values()] == [
        "run-1/3/2",
        "run-1/3/3",
        "run-2/3/2",
    ]
    assert {run["status"] for run in runs.runs.values()} == {"FINISHED"}
    assert [m["step"] for m in runs.runs["run0"]["metrics"] if "loss" in m["key"]] == [1, 2, 3]


def test_many_numbers_are_sent_in_requests_of_at_most_a_thousand() -> None:
    runs = Runs()
    with server(runs) as address:
        MlflowLog(address, "x").write([moment(step, 2.0) for step in range(1, 601)])
    assert runs.asked.count("runs/log-batch") == 3
    assert len(runs.runs["run0"]["metrics"]) == 2400


@pytest.mark.parametrize("status", [302, 401, 404, 500])
def test_what_the_server_refuses_is_a_fault_and_no_redirect_is_followed(status: int) -> None:
    elsewhere, runs = Runs(), Runs()
    with server(elsewhere) as other, server(runs) as address:
        runs.fault = (status, {"to": f"{other}{PREFIX}experiments/get-by-name", "error": "no"})
        with pytest.raises(MlflowError, match=f"answered {status}: .*no"):
            MlflowLog(address, "x").write([MOMENT])
    assert elsewhere.asked == []


def test_a_server_that_forgot_everything_gets_a_new_run() -> None:
    runs = Runs()
    with server(runs) as address:
        log = MlflowLog(address, "x")
        log.write([moment(1, 2.5)])
        runs.fault = (500, {})
        with pytest.raises(MlflowError):
            log.write([moment(2, 2.5)])
        runs.fault, runs.runs, runs.experiments = None, {}, {}
        log.write([moment(3, 2.5)])
    assert [m["step"] for m in runs.runs["run0"]["metrics"] if "loss" in m["key"]] == [3]


def test_a_server_of_this_machine_is_never_asked_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{LOOPBACK}:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    runs = Runs()
    with server(runs) as address:
        MlflowLog(address, "x").write([MOMENT])
    assert runs.runs


def test_one_that_is_away_disturbs_nothing_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = f"http://{LOOPBACK}:{free_port()}"
    exporter = InBackground("MLflow", MlflowLog(address, "x"))
    with caplog.at_level(logging.WARNING), Metrics([exporter]) as metrics:
        for step in range(1, 20):
            metrics.show(moment(step, 2.0))
            time.sleep(0.01)
    (record,) = caplog.records
    assert record.getMessage().startswith("MLflow: not written, training goes on: ConnectError")


@pytest.mark.skipif(MLFLOW not in os.environ, reason=f"{MLFLOW} names no MLflow to try it with")
def test_a_real_server_takes_it(tmp_path: Path) -> None:
    port, store = free_port(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [os.environ[MLFLOW], "server", "--host", LOOPBACK, "--port", str(port)]
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": ""}
    with subprocess.Popen(
        [*command, "--workers", "1", "--backend-store-uri", store],
        cwd=tmp_path,
        env=quiet,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            address = f"http://{LOOPBACK}:{port}"
            until_it_answers(f"{address}/health")
            for attempt in (2, 2, 3):
                log = MlflowLog(address, "oncology north")
                log.write([replace(moment(step, 2.5 / step), attempt=attempt) for step in (1, 2)])
                log.close()
            found = httpx.post(
                f"{address}{PREFIX}runs/search", json={"experiment_ids": ["1"]}, trust_env=False
            ).json()["runs"]
        finally:
            kill_and_wait([*descendants(process.pid), psutil.Process(process.pid)])
    names = sorted(run["info"]["run_name"] for run in found)
    assert names == ["run-1 round 3 attempt 2", "run-1 round 3 attempt 3"]
    values = {metric["key"]: metric["value"] for metric in found[0]["data"]["metrics"]}
    assert values["training/loss"] == 1.25
    assert values["training/memory_bytes"] == 1.9e9
    assert {run["info"]["status"] for run in found} == {"FINISHED"}


def until_it_answers(address: str) -> None:
    for _ in range(600):
        try:
            if httpx.get(address, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError("MLflow never answered")
