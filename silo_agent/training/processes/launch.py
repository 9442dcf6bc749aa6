"""The agent's side of training: start the ranks, watch them, come back with a result.

This process never imports torch. A result is read only from a file that is bound to the job's
fingerprint; when one lies there already, nothing is started. Whatever happens (stop, deadline,
Ctrl-C, a failed rank), no process is left running when a function here raises, and a later call
goes on from the last complete checkpoint. When it returns, only ranks that were handed in stay.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import Literal, Protocol, TypeVar

from pydantic import BaseModel

from data_contracts.adapters.adapter_format import check_adapter
from data_contracts.errors import SiloOperatorError, UntrustedInputError
from infra.clock import Clock, SystemClock
from infra.disk.durable_files import write_durably
from silo_agent.training.job import EvaluationJob, TrainingJob
from silo_agent.training.memory_plan import rank_bytes
from silo_agent.training.orders import Order
from silo_agent.training.processes.machine_launch import Failed, GroupShape
from silo_agent.training.processes.rank_memory import RankMemory
from silo_agent.training.processes.rank_processes import Launch, rank_processes
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.results import EvaluationResult, Progress, TrainingResult
from silo_agent.training.run_files import (
    ProgressReader,
    RunFiles,
    read_failure,
    read_result,
    training_result,
)

ResultT = TypeVar("ResultT", bound=BaseModel)
OnProgress = Callable[[Progress], None]

POLL_SECONDS = 0.1


class TrainingInterruptedError(SiloOperatorError):
    """Training was ended from outside before it was complete; `cause` says by what."""

    def __init__(
        self, problem: str, *, expected: str, found: str, action: str, cause: str = "stopped"
    ) -> None:
        super().__init__(problem, expected=expected, found=found, action=action)
        self.cause = cause


class Running(Protocol):
    """What does a job: ranks or a process, with all that they are at or below `pid`."""

    @property
    def pid(self) -> int: ...

    def exit_code(self) -> int | None: ...

    def failed(self, code: int) -> Failed: ...


def run_training(
    job: TrainingJob,
    *,
    ranks: ResidentRanks | None = None,
    on_progress: OnProgress | None = None,
    deadline: datetime | None = None,
    should_stop: Callable[[], bool] | None = None,
    clock: Clock | None = None,
) -> TrainingResult:
    """Train one adapter (and the silo-only baseline, if asked); returns what was measured.

    In `ranks`, or in such that start and end with the job. A deadline that passes during the
    baseline ends the baseline only. Raises TrainingInterruptedError on stop or deadline, the error
    that a rank reported, and ProcessDiedError when one failed without a report.
    """
    files, fingerprint = RunFiles(job.output_dir), job.fingerprint()
    earlier = _earlier_training(files, job, fingerprint)
    if earlier is not None and not _misses_something(job, earlier):
        return earlier
    watch = _Watch(files, on_progress, deadline, should_stop, clock or SystemClock())
    recipe = job.recipe
    peak = rank_bytes(job.engine, recipe.sequence_length, recipe.tokens_per_round)
    shape = GroupShape(job.model_dir, job.device, job.ranks, job.threads_per_rank, peak)
    try:
        watch.until_done(job, _in_ranks(ranks, files, fingerprint, shape, "training"))
    except TrainingInterruptedError as interruption:
        without_baseline = training_result(job, fingerprint)
        if interruption.cause != "deadline" or without_baseline is None:
            raise
        return without_baseline
    return _result_of(files, TrainingResult, fingerprint)


def run_evaluation(
    job: EvaluationJob,
    *,
    ranks: ResidentRanks | None = None,
    on_progress: OnProgress | None = None,
    deadline: datetime | None = None,
    should_stop: Callable[[], bool] | None = None,
    clock: Clock | None = None,
) -> EvaluationResult:
    """Held-out loss of every adapter on every set; raises as `run_training`.

    In `ranks`, for which the job describes an engine, or in one process.
    """
    files, fingerprint = RunFiles(job.output_dir), job.fingerprint()
    earlier = read_result(files.result, EvaluationResult, fingerprint)
    if earlier is not None:
        return earlier
    watch = _Watch(files, on_progress, deadline, should_stop, clock or SystemClock())
    watch.until_done(job, _evaluating(ranks, job, files, fingerprint))
    return _result_of(files, EvaluationResult, fingerprint)


Started = Callable[[], AbstractContextManager[Running]]


def _in_ranks(
    ranks: ResidentRanks | None,
    files: RunFiles,
    fingerprint: str,
    shape: GroupShape,
    kind: Literal["training", "evaluation"],
) -> Started:
    """A job as an order to ranks; without any, to such that end with it."""
    group = ranks or ResidentRanks(files.directory)
    order = Order(
        kind=kind,
        job=files.job,
        fingerprint=fingerprint,
        device=shape.device,
        threads=shape.threads_per_rank,
        is_last=group.is_last,
    )
    return partial(group.doing, order, shape)


def _evaluating(
    ranks: ResidentRanks | None, job: EvaluationJob, files: RunFiles, fingerprint: str
) -> Started:
    if ranks is not None and job.engine is not None:
        threads = max(1, job.threads // job.engine.ranks)
        peak = rank_bytes(job.engine, job.sequence_length, 0)
        shape = GroupShape(job.model_dir, job.device, job.engine.ranks, threads, peak)
        return _in_ranks(ranks, files, fingerprint, shape, "evaluation")
    launch = Launch(
        "silo_agent.training.ranks.evaluate",
        (str(files.job), fingerprint),
        ranks=None,
        threads=job.threads,
        log=files.evaluation_log,
        name="evaluation",
    )
    return partial(rank_processes, launch)


class _Watch:
    """Polls the processes, passes progress on, and decides when to give up."""

    def __init__(
        self,
        files: RunFiles,
        on_progress: OnProgress | None,
        deadline: datetime | None,
        should_stop: Callable[[], bool] | None,
        clock: Clock,
    ) -> None:
        self._files = files
        self._on_progress = on_progress
        self._deadline = deadline
        self._should_stop = should_stop
        self._clock = clock
        self._reader = ProgressReader(files.progress)

    def until_done(self, job: BaseModel, start: Started) -> None:
        """Return when the job is done; otherwise end every process and raise."""
        self._files.prepare()
        write_durably(self._files.job, job.model_dump_json().encode())
        self._stop_if_due()
        if self._on_progress is not None:
            self._on_progress(Progress(phase="starting the processes"))
        with start() as running:
            memory = RankMemory(running.pid)
            while True:
                code = running.exit_code()
                self._pass_progress_on(memory)
                if code == 0:
                    return
                if code is not None:
                    raise read_failure(self._files.failure) or running.failed(code).error()
                self._stop_if_due()
                time.sleep(POLL_SECONDS)

    def _pass_progress_on(self, memory: RankMemory) -> None:
        new = self._reader.new()
        if not new or self._on_progress is None:
            return
        held = {"memory_bytes": memory.largest()}
        for progress in new:
            self._on_progress(progress.model_copy(update=held))

    def _stop_if_due(self) -> None:
        if self._should_stop is not None and self._should_stop():
            raise _interrupted("stopped", "a stop by the silo's kill switch")
        if self._deadline is not None and self._clock.now() >= self._deadline:
            raise _interrupted("deadline", f"the deadline, {self._deadline.isoformat()}, passed")


def _earlier_training(files: RunFiles, job: TrainingJob, fingerprint: str) -> TrainingResult | None:
    """An earlier result whose adapter still passes the gate; a damaged one is trained again."""
    result = training_result(job, fingerprint)
    if result is None:
        return None
    try:
        check_adapter(result.adapter, job.layout)
    except (FileNotFoundError, UntrustedInputError):
        files.result.unlink()
        return None
    return result


def _misses_something(job: TrainingJob, result: TrainingResult) -> bool:
    """A baseline, or what a personal adapter is worth; no baseline is trained where the time was
    over before the last step."""
    is_whole = result.steps == job.recipe.local_steps
    baseline = job.silo_only.enabled and is_whole and result.silo_only_adapter is None
    return baseline or (job.personal is not None and result.personal is None)


def _result_of(files: RunFiles, kind: type[ResultT], fingerprint: str) -> ResultT:
    result = read_result(files.result, kind, fingerprint)
    if result is None:
        raise SiloOperatorError(
            "training process",
            expected=f"a result in {files.result}",
            found="none, although the job is done",
            action=f"look into the logs in {files.directory}",
        )
    return result


def _interrupted(cause: Literal["stopped", "deadline"], found: str) -> TrainingInterruptedError:
    return TrainingInterruptedError(
        "training process",
        expected="to be left running until its last step",
        found=found,
        action="lift the stop or give it more time, and run the round again; training goes on "
        "from its last checkpoint",
        cause=cause,
    )
