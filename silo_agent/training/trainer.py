"""The real trainer: a plan and the silo's configuration become a job for the training child."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records import RoundPlan, Verdict
from data_contracts.protocol.records.status import Phase
from infra.clock import Clock
from silo_agent.collaborators import (
    AdapterLosses,
    EvaluatedAdapters,
    GlobalAdapter,
    HeldoutLosses,
    LocalTraining,
)
from silo_agent.config import SiloConfig
from silo_agent.gate.splits import Splits
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.restarts import with_restarts
from silo_agent.training.job import (
    EvaluatedAdapter,
    EvaluationJob,
    EvaluationResult,
    Progress,
    TrainingJob,
    TrainingResult,
)
from silo_agent.training.jobs import BASE, HELDOUT, LocalJobs, coalition_adapters, measured
from silo_agent.training.losses import LossBook, Measured
from silo_agent.training.machine_lock import machine_lock
from silo_agent.training.processes.launch import run_evaluation, run_training
from silo_agent.training.ranks.record_sums import change_error


@dataclass(frozen=True)
class DeepSpeedTrainer:
    """Trains and evaluates in child processes; satisfies `silo_agent.agent.Trainer`."""

    config: SiloConfig
    splits: Callable[[str], Splits]
    clock: Clock
    is_stopped: Callable[[], bool]

    def train(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        starting_adapter: Path | None,
        report: StatusReporter,
    ) -> LocalTraining:
        """One local training; a result or checkpoint of exactly this job is reused."""
        splits, jobs = self.splits(verdict.findings_digest), LocalJobs(self.config, plan)
        starting = jobs.starting(starting_adapter)
        job = jobs.training(starting, splits)
        deadline = self.clock.now() + timedelta(seconds=self._seconds_left(plan))

        def run() -> TrainingResult:
            return run_training(
                job,
                on_progress=_shower(report),
                should_stop=self.is_stopped,
                deadline=deadline,
            )

        with self._turn(report):
            result = with_restarts(run, self.config.agent.max_restarts)
        _remember(jobs, job, starting, result)
        return LocalTraining(
            adapter=result.adapter,
            tokens=result.tokens,
            steps=result.steps,
            first_step_loss=result.first_step_loss,
            last_step_loss=result.last_step_loss,
            seconds=result.seconds,
        )

    def evaluate(
        self, plan: RoundPlan, verdict: Verdict, adapters: EvaluatedAdapters, report: StatusReporter
    ) -> HeldoutLosses:
        """Losses on the held-out split; only what was not measured before is computed.

        Base, starting adapter and candidate are compared record by record.
        """
        heldout = self.splits(verdict.findings_digest).heldout
        jobs = LocalJobs(self.config, plan)
        book, silo_only = jobs.book(heldout), jobs.silo_only()
        starting = measured("starting", adapters.starting)
        candidate = measured("candidate", adapters.candidate)
        compared, alone = (BASE, starting, candidate), (silo_only,) if silo_only else ()
        # Twice: the book gives up what turns out to be of other records than are measured now.
        for _ in range(2):
            missing = (*book.without_records(compared), *_unknown(book, alone))
            if missing:
                self._measure(jobs.evaluation(missing, heldout, per_record=True), book, report)
        return _heldout_losses(
            *(_known(book, adapter) for adapter in compared),
            silo_only=_known(book, silo_only).loss if silo_only else None,
        )

    def measure(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        adapters: Sequence[GlobalAdapter],
        report: StatusReporter,
    ) -> AdapterLosses:
        """As `evaluate`, for any adapters of the run's layout, in their order."""
        heldout = self.splits(verdict.findings_digest).heldout
        jobs, wanted = LocalJobs(self.config, plan), coalition_adapters(adapters)
        book = jobs.book(heldout)
        missing = _unknown(book, wanted)
        if missing:
            self._measure(jobs.evaluation(missing, heldout), book, report)
        known = [_known(book, adapter) for adapter in wanted]
        return AdapterLosses(known[0].tokens, tuple(entry.loss for entry in known))

    def _measure(self, job: EvaluationJob, book: LossBook, report: StatusReporter) -> None:
        limit = timedelta(seconds=self.config.training.time_limit_seconds)
        deadline = self.clock.now() + limit

        def run() -> EvaluationResult:
            return run_evaluation(
                job,
                on_progress=_shower(report),
                should_stop=self.is_stopped,
                deadline=deadline,
            )

        with self._turn(report):
            result = with_restarts(run, self.config.agent.max_restarts)
        for adapter in job.adapters:
            entry = result.loss(adapter.name, HELDOUT)
            book.put(adapter, Measured(entry.loss, entry.tokens, entry.records))

    def _seconds_left(self, plan: RoundPlan) -> int:
        left = (plan.submit_by - self.clock.now()).total_seconds()
        return max(1, min(self.config.training.time_limit_seconds, round(left)))

    def _turn(self, report: StatusReporter) -> AbstractContextManager[None]:
        lock = self.config.training.lock
        return machine_lock(
            self.config.path(lock) if lock else None,
            self.clock,
            lambda: report.show("waiting_for_gpu"),
            self.is_stopped,
        )


def _remember(
    jobs: LocalJobs, job: TrainingJob, starting: GlobalAdapter, result: TrainingResult
) -> None:
    """Keep what training measured on the way, and the silo-only adapter for the next round."""
    book, tokens = jobs.book(job.heldout_records), result.heldout_tokens
    if result.base_loss is not None:
        book.put(BASE, Measured(result.base_loss, tokens, result.base_records))
    if result.starting_loss is not None:
        before = Measured(result.starting_loss, tokens, result.starting_records)
        book.put(measured("starting", starting), before)
    if result.silo_only_adapter is None or result.silo_only_loss is None:
        return
    kept = jobs.silo_only_path(job.round)
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(".part")
    part.write_bytes(result.silo_only_adapter.read_bytes())
    part.replace(kept)
    silo_only = jobs.silo_only()
    if silo_only is not None:
        book.put(silo_only, Measured(result.silo_only_loss, tokens))


def _shower(report: StatusReporter) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        report.show(
            _phase(progress),
            step=progress.step,
            steps=progress.steps,
            tokens_per_second=progress.tokens_per_second or 0.0,
            eta_seconds=progress.eta_seconds or 0.0,
        )

    return show


def _phase(progress: Progress) -> Phase:
    """The status phase for what the training child says it is doing."""
    if "held-out" in progress.phase:
        return "evaluating"
    if not progress.steps:
        return "loading_model"
    return "training_baseline" if progress.phase.startswith("silo-only") else "training"


def _heldout_losses(
    base: Measured, starting: Measured, candidate: Measured, *, silo_only: float | None
) -> HeldoutLosses:
    return HeldoutLosses(
        tokens=candidate.tokens,
        base=base.loss,
        starting=starting.loss,
        candidate=candidate.loss,
        silo_only=silo_only,
        records=len(candidate.records),
        change_error=change_error(candidate.records, starting.records),
        base_change_error=change_error(candidate.records, base.records),
    )


def _unknown(book: LossBook, wanted: Sequence[EvaluatedAdapter]) -> tuple[EvaluatedAdapter, ...]:
    return tuple(adapter for adapter in wanted if book.get(adapter) is None)


def _known(book: LossBook, adapter: EvaluatedAdapter) -> Measured:
    loss = book.get(adapter)
    if loss is None:
        raise SiloOperatorError(
            f"held-out loss of the {adapter.name} adapter",
            expected="a loss for every adapter that was to be measured",
            found="none",
            action="look into the evaluation log in the work directory and start the agent again",
        )
    return loss
