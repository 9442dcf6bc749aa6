"""Training as MLflow shows it: an experiment for the silo, a run for each attempt of a round.

MLflow's REST API is spoken directly, version 2.0 (mlflow.org/docs/latest/rest-api.html): its client
reports to its makers how it is used, and excludes versions of packages that are pinned here. So a
server has an environment of its own, and a run gets what is written here and nothing else.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from infra.loopback import is_loopback
from silo_agent.metrics.readings import Moment

if TYPE_CHECKING:
    import httpx

API = "/api/2.0/mlflow/"
MOST_METRICS = 1000
"""In one request, as MLflow limits them."""
TIMEOUT_SECONDS = 10.0
ATTEMPT = "consortia.attempt"
NO_SUCH_EXPERIMENT = "RESOURCE_DOES_NOT_EXIST"
OK, NOT_FOUND = 200, 404


class MlflowError(Exception):
    """The server has said no."""


class MlflowLog:
    """Writes to the server at `address`, into the experiment of this name.

    Raises httpx.HTTPError where the server is away, and MlflowError where it refuses.
    """

    def __init__(self, address: str, experiment: str) -> None:
        self._address, self._name = address.rstrip("/"), experiment
        self._connection: httpx.Client | None = None
        self._attempt, self._run_id = "", ""

    def write(self, moments: Sequence[Moment]) -> None:
        """Append to the runs of these moments; after a fault, the run is looked for again."""
        try:
            for attempt, of_it in groupby(moments, _attempt_of):
                self._append(attempt, list(of_it))
        except Exception:
            self._attempt = ""
            raise

    def close(self) -> None:
        """Say of the run that nothing more comes, and hang up."""
        self._finish()
        if self._connection is not None:
            self._connection.close()

    def _append(self, attempt: str, moments: list[Moment]) -> None:
        if attempt != self._attempt:
            self._finish()
            self._run_id = self._run(attempt, moments[0])
            self._attempt = attempt
        metrics = [
            {"key": name, "value": value, "timestamp": _milliseconds(moment), "step": moment.step}
            for moment in moments
            for name, value in moment.measured.items()
        ]
        for first in range(0, len(metrics), MOST_METRICS):
            batch = metrics[first : first + MOST_METRICS]
            self._ask("runs/log-batch", {"run_id": self._run_id, "metrics": batch})

    def _finish(self) -> None:
        if self._attempt:
            self._ask("runs/update", {"run_id": self._run_id, "status": "FINISHED"})
        self._attempt = ""

    def _run(self, attempt: str, moment: Moment) -> str:
        """Id of the run of an attempt: the one that an earlier start of the agent made, or new."""
        experiment = self._experiment()
        wanted = {
            "experiment_ids": [experiment],
            "filter": f"tags.`{ATTEMPT}` = '{attempt}'",
            "max_results": 1,
        }
        for run in self._ask("runs/search", wanted).get("runs", []):
            return str(run["info"]["run_id"])
        new = {
            "experiment_id": experiment,
            "run_name": f"{moment.run} round {moment.round} attempt {moment.attempt}",
            "start_time": _milliseconds(moment),
            "tags": [{"key": ATTEMPT, "value": attempt}],
        }
        return str(self._ask("runs/create", new)["run"]["info"]["run_id"])

    def _experiment(self) -> str:
        """Id of the experiment, made where there is none."""
        answer = self._http().get(
            f"{API}experiments/get-by-name", params={"experiment_name": self._name}
        )
        if answer.status_code == NOT_FOUND and NO_SUCH_EXPERIMENT in answer.text:
            return str(self._ask("experiments/create", {"name": self._name})["experiment_id"])
        return str(_said(answer)["experiment"]["experiment_id"])

    def _ask(self, what: str, question: dict[str, Any]) -> dict[str, Any]:
        return _said(self._http().post(f"{API}{what}", json=question))

    def _http(self) -> "httpx.Client":
        if self._connection is None:
            import httpx

            # A proxy is another machine: to it, loopback is itself. No redirect is followed.
            self._connection = httpx.Client(
                base_url=self._address,
                trust_env=not is_loopback(self._address),
                timeout=TIMEOUT_SECONDS,
            )
        return self._connection


def _said(answer: "httpx.Response") -> dict[str, Any]:
    if answer.status_code != OK:
        raise MlflowError(f"{answer.url.path} answered {answer.status_code}: {answer.text[:200]}")
    said: dict[str, Any] = answer.json()
    return said


def _attempt_of(moment: Moment) -> str:
    return f"{moment.run}/{moment.round}/{moment.attempt}"


def _milliseconds(moment: Moment) -> int:
    return round(moment.at.timestamp() * 1000)
