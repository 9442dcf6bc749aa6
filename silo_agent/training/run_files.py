"""The files through which training processes and the agent talk, all under one private directory.

A child writes progress lines, one result file and, when it fails, one failure file; the agent only
reads them. Results and failures are complete or absent.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from data_contracts.errors import (
    ConsortiaError,
    DataStewardError,
    FederationOperatorError,
    SiloOperatorError,
    UntrustedInputError,
)
from infra.disk.durable_files import write_durably
from infra.processes.exit_codes import DONE, FAULT
from silo_agent.restarts import ProcessDiedError
from silo_agent.training.job import TrainingJob
from silo_agent.training.results import Progress, TrainingResult

ValueT = TypeVar("ValueT", bound=BaseModel)

_KINDS = {
    kind.__name__: kind
    for kind in (FederationOperatorError, SiloOperatorError, DataStewardError, ProcessDiedError)
}


class RunFiles:
    """Names of the files under a job's output directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.job = directory / "job.json"
        self.progress = directory / "progress.jsonl"
        self.evaluation_log = directory / "log-evaluation.txt"
        self.failure = directory / "failure.json"
        self.result = directory / "result.json"
        self.checkpoints = directory / "checkpoints"
        self.shards = directory / "shards"
        self.adapter = directory / "adapter.safetensors"
        self.silo_only_adapter = directory / "silo-only-adapter.safetensors"

    def prepare(self) -> None:
        """Make the directory private and remove what an earlier attempt reported."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory.chmod(0o700)
        for path in (self.progress, self.failure, *self.directory.glob("log-*.txt")):
            path.unlink(missing_ok=True)


def write_result(path: Path, result: BaseModel, fingerprint: str) -> None:
    """Write `result` together with the fingerprint of the job that it answers."""
    document = {"fingerprint": fingerprint, "result": result.model_dump(mode="json")}
    write_durably(path, json.dumps(document).encode())


def read_result(path: Path, kind: type[ValueT], fingerprint: str) -> ValueT | None:
    """The result in `path`, or None when there is none for a job with this fingerprint."""
    try:
        document = json.loads(path.read_bytes())
        if document["fingerprint"] != fingerprint:
            return None
        return kind.model_validate(document["result"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def training_result(job: TrainingJob, fingerprint: str) -> TrainingResult | None:
    """The result of this job, or None when there is none that has enough steps for it."""
    result = read_result(RunFiles(job.output_dir).result, TrainingResult, fingerprint)
    return result if result is not None and result.steps >= job.fewest_steps else None


def write_failure(path: Path, error: ConsortiaError) -> None:
    """Report `error` to the agent; of several ranks the last one to fail is kept."""
    fields = {
        "kind": type(error).__name__,
        "problem": error.problem,
        "expected": error.expected,
        "found": error.found,
        "action": error.action,
        "rule": getattr(error, "rule", None),
    }
    write_durably(path, json.dumps(fields).encode())


def exit_code_of(work: Callable[[], None], failure: Path) -> int:
    """Do `work` in a child; what a person can mend is left in `failure`, and its code returned."""
    try:
        work()
    except ConsortiaError as error:
        write_failure(failure, error)
        return FAULT
    return DONE


def read_failure(path: Path) -> ConsortiaError | None:
    """The error that a child reported, as the same kind of error, or None."""
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    kind, rule = fields.pop("kind"), fields.pop("rule")
    if kind == UntrustedInputError.__name__:
        return UntrustedInputError(**fields, rule=rule)
    return _KINDS.get(kind, ConsortiaError)(**fields)


class ProgressWriter:
    """Appends progress lines; a writer without a path (ranks other than 0) writes nothing.

    `gpu_memory` is asked at each line for the most bytes that this process had on its GPU.
    """

    def __init__(
        self, path: Path | None, gpu_memory: Callable[[], int | None] = lambda: None
    ) -> None:
        self._path, self._gpu_memory = path, gpu_memory

    def report(self, progress: Progress) -> None:
        """One line of JSON, flushed at once."""
        if self._path is None:
            return
        line = progress.model_copy(update={"gpu_memory_bytes": self._gpu_memory()})
        with self._path.open("a") as file:
            file.write(line.model_dump_json() + "\n")

    def phase(self, phase: str) -> None:
        """Enter a phase that has no steps."""
        self.report(Progress(phase=phase))


class StepMeter:
    """Turns finished steps into progress: tokens per second and seconds left, since `start`."""

    def __init__(self, phase: str, first_step: int, steps: int) -> None:
        self._phase, self._first, self._steps = phase, first_step, steps
        self._tokens = 0
        self._start = time.monotonic()

    def after(self, step: int, loss: float | None, tokens: int) -> Progress:
        """Progress after `step` (counted from 1), which processed `tokens`; a loss of None is that
        of nothing."""
        self._tokens += tokens
        elapsed = max(time.monotonic() - self._start, 1e-6)
        per_step = elapsed / max(step - self._first, 1)
        return Progress(
            phase=self._phase,
            step=step,
            steps=self._steps,
            loss=loss,
            tokens_per_second=round(self._tokens / elapsed, 1),
            eta_seconds=round(per_step * (self._steps - step), 1),
        )


class ProgressReader:
    """Reads the lines that were added since the last call; an unfinished line waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def new(self) -> list[Progress]:
        """Progress values in the order in which they were written."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._position)
            complete = file.read().rpartition(b"\n")[0]
        if not complete:
            return []
        self._position += len(complete) + 1
        return [value for line in complete.split(b"\n") if (value := _progress(line)) is not None]


def _progress(line: bytes) -> Progress | None:
    try:
        return Progress.model_validate_json(line)
    except ValidationError:
        return None
