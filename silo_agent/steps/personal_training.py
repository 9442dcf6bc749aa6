"""One training of a personal adapter: from what it goes on from to what is kept of it."""

import logging
from dataclasses import dataclass
from datetime import datetime

from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.status import Phase
from silo_agent.collaborators import GlobalAdapter, PersonalWork
from silo_agent.config import SiloConfig
from silo_agent.metrics.readings import NO_READINGS, Readings
from silo_agent.personal.job import personal_job, personal_layout, what_acts_beside
from silo_agent.personal.kept import (
    MadeFor,
    PersonalAdapter,
    PersonalAdapters,
    PersonalFacts,
    why_anew,
)
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.silo import Silo
from silo_agent.training.job import TrainingJob
from silo_agent.training.results import TrainingResult

log = logging.getLogger("silo-agent")


class OwnReporter(StatusReporter):
    """Shows the personal adapter's training on this machine alone; nothing of it leaves."""

    def show(
        self, phase: Phase, *, step: int = 0, steps: int = 0, readings: Readings = NO_READINGS
    ) -> None:
        """As any training, under a phase of its own."""
        own: Phase = "training_personal" if phase == "training" else phase
        super().show(own, step=step, steps=steps, readings=readings)


@dataclass(frozen=True)
class PersonalTraining:
    """A training for a plan's `starting` adapter or, by `made_for`, for what its round published.

    It is made on the records that the data gate's `findings` (a digest) allow, in `seconds`, with
    as many `steps` as the round has where nothing is said.
    """

    plan: Verified[RoundPlan]
    starting: GlobalAdapter
    made_for: MadeFor
    findings: str
    seconds: int
    steps: int | None = None

    def done(self, silo: Silo) -> PersonalFacts | None:
        """Train, measure and keep it; None where time was over before it was measured."""
        plan, section = self.plan.record, silo.config.personal
        previous = self._before(silo.config)
        jobs: list[TrainingJob] = []

        def make(federated: TrainingJob, end: datetime) -> TrainingJob:
            beside = what_acts_beside(federated, section.method, plan, self.starting)
            path = previous.trained if previous is not None else None
            job = self._with_steps(federated)
            jobs.append(personal_job(job, section, beside, path, end))
            return jobs[-1]

        work = PersonalWork(self.starting, self.findings, self.seconds, make)
        result = silo.trainer.train_personal(plan, work, reporter(silo, self.plan))
        return self._keep(silo.config, jobs[-1], result)

    def _with_steps(self, federated: TrainingJob) -> TrainingJob:
        if self.steps is None:
            return federated
        recipe = federated.recipe.model_copy(update={"local_steps": self.steps})
        return federated.model_copy(update={"recipe": recipe})

    def _before(self, config: SiloConfig) -> PersonalAdapter | None:
        """What the training goes on from; where it begins anew although there is one, it says why.

        For what a round published also that of the round itself.
        """
        plan = self.plan.record
        first_later = plan.round + (self.made_for == "published")
        before = PersonalAdapters(config.home, plan.run).newest(before=first_later)
        if before is None:
            return None
        why = why_anew(before.facts, config.personal.method, own_layout(config, plan), plan)
        if why:
            text = "round %d: the personal adapter begins anew: in round %d %s"
            log.warning(text, plan.round, before.facts.round, why)
        return None if why else before

    def _keep(
        self, config: SiloConfig, job: TrainingJob, result: TrainingResult
    ) -> PersonalFacts | None:
        if result.personal is None:
            return None
        plan, beside, starting = self.plan.record, job.starting_residual, self.starting.path
        facts = PersonalFacts(
            method="ditto" if config.personal.method == "ditto" else "dual",
            federation=plan.federation,
            run=plan.run,
            round=plan.round,
            attempt=plan.attempt,
            base_model=plan.base_model,
            prompt_date=plan.day,
            task=plan.learned,
            precision=job.precision,
            issued_at=plan.issued_at,
            layout=job.layout,
            beside_layout=job.residual_layout,
            digest=artifact_of_file(result.adapter).digest,
            beside_digest=artifact_of_file(beside).digest if beside else None,
            global_digest=artifact_of_file(starting).digest if starting else None,
            steps=result.steps,
            tokens=result.tokens,
            heldout_digest=artifact_of_file(job.heldout_records).digest,
            heldout_sequences=job.heldout_sequences,
            measures=result.personal,
            made_for=self.made_for,
        )
        PersonalAdapters(config.home, plan.run).keep(facts, result.adapter, beside)
        return facts


def reporter(silo: Silo, plan: Verified[RoundPlan]) -> OwnReporter:
    """What shows the training here."""
    return OwnReporter(None, silo.clock, silo.config, plan, silo.metrics)


def own_layout(config: SiloConfig, plan: RoundPlan) -> AdapterLayout:
    """Of a personal adapter as it is asked for now."""
    return personal_layout(config.personal.method, plan.layout_of(config.silo))


def kept_of(config: SiloConfig, plan: RoundPlan) -> PersonalAdapter | None:
    """The round's, if it was made by what is asked for now, for this very attempt."""
    kept = PersonalAdapters(config.home, plan.run).of_round(plan.round)
    if kept is None or kept.facts.attempt != plan.attempt:
        return None
    anew = why_anew(kept.facts, config.personal.method, own_layout(config, plan), plan)
    return None if anew else kept
