"""The real trainer: a plan and the silo's configuration become a job for the training child."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records import RoundPlan, Verdict
from data_contracts.protocol.records.status import Phase
from infra.clock import Clock
from infra.disk.durable_files import keep_durably
from silo_agent.collaborators import (
    EvaluatedAdapters,
    GlobalAdapter,
    HeldoutLosses,
    PersonalWork,
    Right,
)
from silo_agent.config import SiloConfig
from silo_agent.gate.splits import Splits
from silo_agent.metrics.readings import Readings
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.restarts import with_restarts
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, TrainingJob
from silo_agent.training.jobs import (
    BASE,
    HELDOUT,
    WORK,
    LocalJobs,
    coalition_adapters,
    measured,
)
from silo_agent.training.loss import Loss, change_error
from silo_agent.training.loss_book import LossBook
from silo_agent.training.memory_plan import personal_choice
from silo_agent.training.nodes.chosen import chosen_launcher
from silo_agent.training.own_steps import ends_by
from silo_agent.training.precision import held_words
from silo_agent.training.private_job import private_part, with_secret
from silo_agent.training.processes.launch import run_evaluation, run_training
from silo_agent.training.processes.machine_launch import GroupShape
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.results import Progress, TrainingResult
from silo_agent.training.shared_machine import SharedMachine

_CHOSEN = ("zero_stage", "micro_batch", "gradient_checkpointing")
RANKS = Path(WORK) / "ranks"
"""Directory of the home with the log of what starts the ranks."""

log = logging.getLogger("silo-agent")

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class DeepSpeedTrainer:
    """Trains and evaluates in ranks that stay; satisfies `silo_agent.collaborators.Trainer`."""

    config: SiloConfig
    splits: Callable[[str], Splits]
    clock: Clock
    is_stopped: Callable[[], bool]

    def train(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        starting: GlobalAdapter,
        report: StatusReporter,
    ) -> TrainingResult:
        """One local training; a result or checkpoint of exactly this job is reused."""
        splits, jobs = self.splits(verdict.findings_digest), LocalJobs(self.config, plan)
        seconds = self._seconds_left(plan)
        private = private_part(self.config.home, plan, verdict, splits)
        job = jobs.training(starting, splits, private)
        # Of what its steps take, so much more is for the check of what they made.
        checked = job.leak_check.share_of_training if job.leak_check else 0.0
        end = ends_by(self.clock.now(), seconds / (1 + checked))
        job = job.model_copy(update={"end_by": end})
        job = with_secret(self.config.home, verdict, job, self.clock.now())
        log.info("round %d trains in %s", plan.round, held_words(self.config))
        result = self._in_processes(partial(run_training, job), seconds, report)
        if result.micro_batch < job.micro_batch:
            log.warning("this base model mixes sequences of a micro-batch: it was trained with 1")
        _remember(jobs, job, starting, result)
        return result

    def train_personal(
        self, plan: RoundPlan, work: PersonalWork, report: StatusReporter
    ) -> TrainingResult:
        """What is made of the round's own job; a result or checkpoint of just that is reused."""
        splits = self.splits(work.findings)
        # A third is for measuring: without that nothing of the steps is kept.
        end = ends_by(self.clock.now(), max(1, work.seconds * 2 // 3))
        job = work.make(LocalJobs(self.config, plan).training(work.starting, splits), end)
        choice = personal_choice(job.model_dir, plan, self.config)
        fits = {name: getattr(choice, name) for name in _CHOSEN}
        job = job.model_copy(update=fits)
        return self._in_processes(partial(run_training, job), work.seconds, report)

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
            silo_only=_known(book, silo_only).nats if silo_only else None,
        )

    def measure(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        adapters: Sequence[GlobalAdapter],
        report: StatusReporter,
    ) -> tuple[Loss, ...]:
        """As `evaluate`, for any adapters of the run's layout, in their order."""
        heldout = self.splits(verdict.findings_digest).heldout
        jobs, wanted = LocalJobs(self.config, plan), coalition_adapters(adapters)
        book = jobs.book(heldout)
        missing = _unknown(book, wanted)
        if missing:
            self._measure(jobs.evaluation(missing, heldout), book, report)
        return tuple(_known(book, adapter) for adapter in wanted)

    def give_back_idle(self) -> None:
        """End ranks that have waited for a job too long, or whose memory another agent needs."""
        self._ranks.give_back(is_wanted=self._machine.is_memory_wanted)

    def close(self) -> None:
        """End the ranks; nothing of them is left."""
        self._ranks.end()

    def _measure(self, job: EvaluationJob, book: LossBook, report: StatusReporter) -> None:
        seconds = self.config.training.time_limit_seconds
        result = self._in_processes(partial(run_evaluation, job), seconds, report)
        if not result.together:
            log.info("held-out losses: each conversation was measured in a sequence of its own")
        for adapter in job.adapters:
            book.put(adapter, result.loss(adapter.name, HELDOUT))

    def _in_processes(
        self, run: Callable[..., ResultT], seconds: int, report: StatusReporter
    ) -> ResultT:
        """What `run` returns when it is this agent's turn; all its restarts share `seconds`."""
        deadline = self.clock.now() + timedelta(seconds=seconds)
        watched = partial(
            run,
            ranks=self._ranks,
            on_progress=_shower(report),
            should_stop=self.is_stopped,
            deadline=deadline,
        )
        with self._turn(report):
            return with_restarts(watched, self.config.agent.max_restarts)

    def _seconds_left(self, plan: RoundPlan) -> int:
        left = (plan.submit_by - self.clock.now()).total_seconds()
        return max(1, min(self.config.training.time_limit_seconds, round(left)))

    def _turn(self, report: StatusReporter) -> AbstractContextManager[None]:
        def wait() -> None:
            report.show("waiting_for_gpu")
            self.give_back_idle()

        return self._machine.turn(wait, self.is_stopped)

    @cached_property
    def _machine(self) -> SharedMachine:
        lock = self.config.training.lock
        return SharedMachine(self.config.path(lock) if lock else None, self.clock)

    @cached_property
    def _ranks(self) -> ResidentRanks:
        return ResidentRanks(
            self.config.home / RANKS,
            self.config.training.keep_minutes * 60,
            self.clock,
            self._make_room,
            self._machine.kept,
            chosen_launcher(self.config, self.config.home / RANKS),
        )

    def _make_room(self, shape: GroupShape) -> None:
        is_known = shape.device == "cpu" and shape.rank_bytes is not None
        here = self.config.training.ranks_per_machine
        self._machine.make_room(here * (shape.rank_bytes or 0) if is_known else None)


def _remember(
    jobs: LocalJobs, job: TrainingJob, starting: GlobalAdapter, result: TrainingResult
) -> None:
    """Keep what training measured on the way, and the silo-only adapter for the next round."""
    book = jobs.book(job.heldout_records)
    if result.base is not None:
        book.put(BASE, result.base)
    if result.starting is not None:
        book.put(measured("starting", starting), result.starting)
    if result.silo_only_adapter is None:
        return
    keep_durably(result.silo_only_adapter, jobs.silo_only_path(job.round))
    silo_only = jobs.silo_only()
    if silo_only is not None and result.silo_only is not None:
        book.put(silo_only, result.silo_only)


def _shower(report: StatusReporter) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        report.show(
            _phase(progress),
            step=progress.step,
            steps=progress.steps,
            readings=Readings(
                tokens_per_second=progress.tokens_per_second,
                eta_seconds=progress.eta_seconds,
                loss=progress.loss,
                memory_bytes=progress.memory_bytes,
                gpu_memory_bytes=progress.gpu_memory_bytes,
            ),
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
    base: Loss, starting: Loss, candidate: Loss, *, silo_only: float | None
) -> HeldoutLosses:
    return HeldoutLosses(
        tokens=candidate.tokens,
        base=base.nats,
        starting=starting.nats,
        candidate=candidate.nats,
        silo_only=silo_only,
        records=len(candidate.records),
        change_error=change_error(candidate.records, starting.records),
        base_change_error=change_error(candidate.records, base.records),
        right=_right(base, starting, candidate),
    )


def _right(base: Loss, starting: Loss, candidate: Loss) -> Right | None:
    if base.right is None or starting.right is None or candidate.right is None:
        return None
    return Right(base.right, starting.right, candidate.right)


def _unknown(book: LossBook, wanted: Sequence[EvaluatedAdapter]) -> tuple[EvaluatedAdapter, ...]:
    return tuple(adapter for adapter in wanted if book.get(adapter) is None)


def _known(book: LossBook, adapter: EvaluatedAdapter) -> Loss:
    loss = book.get(adapter)
    if loss is None:
        raise SiloOperatorError(
            f"held-out loss of the {adapter.name} adapter",
            expected="a loss for every adapter that was to be measured",
            found="none",
            action="look into the evaluation log in the work directory and start the agent again",
        )
    return loss
