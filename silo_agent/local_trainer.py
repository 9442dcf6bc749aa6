"""The real trainer: a plan and the silo's configuration become a job for the training child."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from data_contracts.records import RoundPlan, Verdict
from data_contracts.records.status import Phase
from infra.clock import Clock
from infra.model_files import model_digest
from silo_agent.collaborators import EvaluatedAdapters, HeldoutLosses, LocalTraining, Splits
from silo_agent.config import SiloConfig
from silo_agent.heldout_losses import LossBook, Measured
from silo_agent.machine_lock import machine_lock
from silo_agent.policy import read_policy, require_policy
from silo_agent.status_reporter import StatusReporter
from silo_agent.training.job import (
    EvaluatedAdapter,
    EvaluationJob,
    HeldoutSet,
    Progress,
    SiloOnlyBaseline,
    TrainingJob,
    TrainingResult,
)
from silo_agent.training.launch import run_evaluation, run_training

HELDOUT = "heldout"


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
        splits = self.splits(verdict.findings_digest)
        job = self._job(plan, starting_adapter, splits)
        deadline = self.clock.now() + timedelta(seconds=self._seconds_left(plan))
        with self._turn(report):
            result = run_training(
                job,
                on_progress=_shower(report),
                should_stop=self.is_stopped,
                deadline=deadline,
            )
        self._remember(plan, splits, starting_adapter, result)
        return LocalTraining(
            adapter=result.adapter,
            tokens=result.tokens,
            steps=result.steps,
            first_step_loss=result.first_step_loss,
            last_step_loss=result.last_step_loss,
            seconds=result.seconds,
        )

    def evaluate(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        adapters: EvaluatedAdapters,
        report: StatusReporter,
    ) -> HeldoutLosses:
        """Losses on the held-out split; only what was not measured before is computed."""
        heldout = self.splits(verdict.findings_digest).heldout
        book = self._book(plan, heldout)
        silo_only = self._silo_only_path(plan, plan.round)
        wanted: dict[str, Path | None] = {
            "base": None,
            "starting": adapters.starting,
            "candidate": adapters.candidate,
        }
        if silo_only.exists():
            wanted["silo_only"] = silo_only
        missing = {name: path for name, path in wanted.items() if book.get(path) is None}
        if missing:
            self._measure(plan, heldout, book, missing, report)
        losses = {name: book.get(path) for name, path in wanted.items()}
        return HeldoutLosses(
            tokens=_known(losses["candidate"]).tokens,
            base=_known(losses["base"]).loss,
            starting=_known(losses["starting"]).loss,
            candidate=_known(losses["candidate"]).loss,
            silo_only=_known(losses["silo_only"]).loss if "silo_only" in losses else None,
        )

    def _job(self, plan: RoundPlan, starting_adapter: Path | None, splits: Splits) -> TrainingJob:
        training = self.config.training
        book = self._book(plan, splits.heldout)
        previous = self._silo_only_path(plan, plan.round - 1)
        return TrainingJob(
            model_dir=self._model_dir(plan),
            adapter=plan.adapter,
            recipe=plan.recipe,
            round=plan.round,
            starting_adapter=starting_adapter,
            train_records=splits.train,
            heldout_records=splits.heldout,
            output_dir=self._work_dir(plan),
            zero_stage=training.zero_stage,
            ranks=training.ranks,
            device=training.device,
            threads_per_rank=training.threads_per_rank,
            checkpoint_every_steps=training.checkpoint_every_steps,
            heldout_sequences=training.heldout_sequences,
            measure_base=book.get(None) is None,
            measure_starting=book.get(starting_adapter) is None,
            measure_local=False,
            silo_only=SiloOnlyBaseline(
                enabled=training.silo_only_baseline,
                previous_adapter=previous if previous.exists() else None,
            ),
        )

    def _measure(
        self,
        plan: RoundPlan,
        heldout: Path,
        book: LossBook,
        adapters: dict[str, Path | None],
        report: StatusReporter,
    ) -> None:
        training = self.config.training
        job = EvaluationJob(
            model_dir=self._model_dir(plan),
            adapter=plan.adapter,
            adapters=tuple(EvaluatedAdapter(name=n, path=p) for n, p in adapters.items()),
            heldout=(HeldoutSet(name=HELDOUT, records=heldout),),
            sequence_length=plan.recipe.sequence_length,
            heldout_sequences=training.heldout_sequences,
            output_dir=self._work_dir(plan) / "evaluation",
            device=training.device,
            threads=training.ranks * training.threads_per_rank,
        )
        with self._turn(report):
            result = run_evaluation(
                job,
                on_progress=_shower(report),
                should_stop=self.is_stopped,
                deadline=self.clock.now() + timedelta(seconds=training.time_limit_seconds),
            )
        for name, path in adapters.items():
            entry = result.loss(name, HELDOUT)
            book.put(path, Measured(entry.loss, entry.tokens))

    def _remember(
        self,
        plan: RoundPlan,
        splits: Splits,
        starting_adapter: Path | None,
        result: TrainingResult,
    ) -> None:
        """Keep what training measured on the way, and the silo-only adapter for the next round."""
        book = self._book(plan, splits.heldout)
        tokens = result.heldout_tokens
        if result.base_loss is not None:
            book.put(None, Measured(result.base_loss, tokens))
        if result.starting_loss is not None:
            book.put(starting_adapter, Measured(result.starting_loss, tokens))
        if result.silo_only_adapter is not None and result.silo_only_loss is not None:
            kept = self._silo_only_path(plan, plan.round)
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(".part")
            part.write_bytes(result.silo_only_adapter.read_bytes())
            part.replace(kept)
            book.put(kept, Measured(result.silo_only_loss, tokens))

    def _model_dir(self, plan: RoundPlan) -> Path:
        """Local path of the plan's base model, its files checked against the plan's digest."""
        model = require_policy(read_policy(self.config.path(self.config.policy))).model(
            plan.base_model.digest
        )
        path = self.config.path(model.path) if model else None
        found = model_digest(path, self.config.home / "model-digests.json") if path else "no model"
        if path is None or found != plan.base_model.digest:
            raise SiloOperatorError(
                f"base model {plan.base_model.name}",
                expected=f"files with digest {plan.base_model.digest}",
                found=found,
                action="restore the model's files, or correct its digest in the policy",
            )
        return path

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

    def _book(self, plan: RoundPlan, heldout: Path) -> LossBook:
        return LossBook(self.config.home, plan, heldout, self.config.training.heldout_sequences)

    def _work_dir(self, plan: RoundPlan) -> Path:
        """One directory per round, not per attempt: a retry finds what was trained before."""
        return self.config.home / "work" / plan.run / f"round-{plan.round:04d}"

    def _silo_only_path(self, plan: RoundPlan, round_number: int) -> Path:
        directory = self.config.home / "silo-only" / plan.run
        return directory / f"round-{round_number:04d}.safetensors"


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


def _known(measured: Measured | None) -> Measured:
    if measured is None:
        raise SiloOperatorError(
            "held-out loss",
            expected="a loss for every adapter that was to be measured",
            found="none",
            action="look into the evaluation log in the work directory and start the agent again",
        )
    return measured
