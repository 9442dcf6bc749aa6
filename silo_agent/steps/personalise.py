"""The adapter of this silo's own: trained after the submission, while the others are waited for.

Whatever ends it, the silo's part in the round goes on: what was begun is gone on with after a
restart, and given up when its time is over or something stands in its way.
"""

import logging
from datetime import datetime

from data_contracts.errors import ConsortiaError, StorageError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records import RoundPlan, Submission
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.evaluation import MAX_LOSS
from data_contracts.protocol.records.status import Phase
from silo_agent.collaborators import GlobalAdapter, HeldoutLosses
from silo_agent.config import SiloConfig
from silo_agent.federation.global_adapters import GlobalAdapters
from silo_agent.metrics.readings import NO_READINGS, Readings
from silo_agent.personal.job import personal_job, personal_layout, what_acts_beside
from silo_agent.personal.kept import (
    Compared,
    PersonalAdapter,
    PersonalAdapters,
    PersonalFacts,
    why_anew,
)
from silo_agent.personal.told import compared_words, losses_words
from silo_agent.release.release import DoorClosedError
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.silo import Silo
from silo_agent.steps.own_attempt import OwnAttempt, Step
from silo_agent.training.job import TrainingJob
from silo_agent.training.processes.launch import TrainingInterruptedError
from silo_agent.training.results import TrainingResult

LEAST_SECONDS = 60.0
"""With less time than that until losses are due, it is left to the evaluation."""

log = logging.getLogger("silo-agent")


class OwnReporter(StatusReporter):
    """Shows the personal adapter's training on this machine alone; nothing of it leaves."""

    def show(
        self, phase: Phase, *, step: int = 0, steps: int = 0, readings: Readings = NO_READINGS
    ) -> None:
        """As any training, under a phase of its own."""
        own: Phase = "training_personal" if phase == "training" else phase
        super().show(own, step=step, steps=steps, readings=readings)


def is_personal_due(silo: Silo, attempt: OwnAttempt) -> bool:
    """Whether it is to be trained now: after the submission, with time left, and not yet done."""
    plan = attempt.plan
    done, is_on = attempt.done, silo.config.personal.is_on
    if not is_on or done.submission is None or done.refusal or attempt.feed.aborted:
        return False
    left = (plan.record.evaluate_by - silo.clock.now()).total_seconds()
    is_given_up = plan.digest in silo.personal.given_up
    return left >= LEAST_SECONDS and not is_given_up and _kept(silo.config, plan.record) is None


def personalise(silo: Silo, attempt: OwnAttempt) -> Step:
    """Train it, and keep it with what it is worth; what fails is said, and is no refusal.

    Raises TrainingInterruptedError when the agent is stopped.
    """
    number = attempt.plan.record.round
    if attempt.plan.record.shares_a:
        return _given_up(silo, attempt, _words_of_shared_a(silo.config.personal.method))
    try:
        # The contract as it is now has to allow training, as for the submission.
        attempt.out.require_open(Submission)
        facts = _trained(silo, attempt)
    except DoorClosedError as closed:
        return _given_up(silo, attempt, closed.refusal.reason)
    except TrainingInterruptedError as interruption:
        if interruption.cause != "deadline":
            raise
        return _given_up(silo, attempt, "its time was over")
    except StorageError:
        raise
    except (ConsortiaError, OSError, ValueError) as error:
        # Also what elsewhere ends the agent: the federation's round does not need this.
        return _given_up(silo, attempt, _words(error))
    if facts is None:
        return _given_up(silo, attempt, "its time was over before it was measured")
    log.info("round %d: personal adapter: %s", number, losses_words(facts))
    _show_as_before(silo, attempt)
    return Step.PERSONALISED


def compare_personal(silo: Silo, plan: RoundPlan, losses: HeldoutLosses) -> float | None:
    """Tell this silo's people what its personal adapter is worth beside the others, on the same
    records; what of it leaves, or None."""
    section = silo.config.personal
    kept = _kept(silo.config, plan) if section.is_on else None
    if kept is None or kept.facts.heldout_sequences != silo.config.training.heldout_sequences:
        return None
    compared = Compared(everybody=losses.candidate, silo_only=losses.silo_only, base=losses.base)
    try:
        PersonalAdapters(silo.config.home, plan.run).compare(kept.facts, compared)
    except (ConsortiaError, OSError) as error:
        log.warning("round %d: not kept beside the personal adapter: %s", plan.round, _words(error))
    personal = min(kept.facts.measures.used.nats, float(MAX_LOSS))
    text = "round %d: of the same records: %s"
    log.info(text, plan.round, compared_words(personal, compared))
    return personal if section.share_loss else None


def _show_as_before(silo: Silo, attempt: OwnAttempt) -> None:
    """What the silo's status said when this began."""
    report = OwnReporter(None, silo.clock, silo.config, attempt.plan, silo.metrics)
    report.show("done" if attempt.done.evaluation else "releasing")


def _words(error: Exception) -> str:
    """The first line, which says what; some libraries say the same again in others."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _words_of_shared_a(method: str) -> str:
    return (
        f'method = "{method}" under [personal] is not trained in a run with the rule shared_a, in '
        "which this silo's own B with the A of all is its adapter"
    )


def _given_up(silo: Silo, attempt: OwnAttempt, why: str) -> Step:
    log.warning("round %d: no personal adapter: %s", attempt.plan.record.round, why)
    _show_as_before(silo, attempt)
    silo.personal.given_up.add(attempt.plan.digest)
    return Step.PERSONALISED


def _trained(silo: Silo, attempt: OwnAttempt) -> PersonalFacts | None:
    plan, section, verdict = attempt.plan.record, silo.config.personal, attempt.done.verdict
    if verdict is None:
        raise ValueError("a submission rests on a verdict")
    report = OwnReporter(None, silo.clock, silo.config, attempt.plan, silo.metrics)
    starting = GlobalAdapters(silo.config.home, silo.plans).starting(plan)
    previous = _before(silo.config, plan)
    jobs: list[TrainingJob] = []

    def make(federated: TrainingJob, end: datetime) -> TrainingJob:
        beside = what_acts_beside(federated, section.method, plan, starting)
        path = previous.trained if previous is not None else None
        jobs.append(personal_job(federated, section, beside, path, end))
        return jobs[-1]

    result = silo.trainer.train_personal(plan, verdict.record, starting, make, report)
    return _keep(silo.config, plan, jobs[-1], starting, result)


def _before(config: SiloConfig, plan: RoundPlan) -> PersonalAdapter | None:
    """What the training goes on from; where it begins anew although there is one, it says why."""
    before = PersonalAdapters(config.home, plan.run).newest(before=plan.round)
    if before is None:
        return None
    why = why_anew(before.facts, config.personal.method, _layout(config, plan), plan)
    if why:
        text = "round %d: the personal adapter begins anew: in round %d %s"
        log.warning(text, plan.round, before.facts.round, why)
    return None if why else before


def _layout(config: SiloConfig, plan: RoundPlan) -> AdapterLayout:
    return personal_layout(config.personal.method, plan.layout_of(config.silo))


def _kept(config: SiloConfig, plan: RoundPlan) -> PersonalAdapter | None:
    """The round's, if it was made by what is asked for now, for this very attempt."""
    kept = PersonalAdapters(config.home, plan.run).of_round(plan.round)
    if kept is None or kept.facts.attempt != plan.attempt:
        return None
    anew = why_anew(kept.facts, config.personal.method, _layout(config, plan), plan)
    return None if anew else kept


def _keep(
    config: SiloConfig,
    plan: RoundPlan,
    job: TrainingJob,
    starting: GlobalAdapter,
    result: TrainingResult,
) -> PersonalFacts | None:
    if result.personal is None:
        return None
    beside = job.starting_residual
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
        global_digest=artifact_of_file(starting.path).digest if starting.path else None,
        steps=result.steps,
        tokens=result.tokens,
        heldout_digest=artifact_of_file(job.heldout_records).digest,
        heldout_sequences=job.heldout_sequences,
        measures=result.personal,
    )
    PersonalAdapters(config.home, plan.run).keep(facts, result.adapter, beside)
    return facts
