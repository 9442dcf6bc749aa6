"""The adapter of this silo's own: trained after the submission, while the others are waited for.

Whatever ends it, the silo's part in the round goes on: what was begun is gone on with after a
restart, and given up when its time is over or something stands in its way.
"""

import logging

from data_contracts.errors import ConsortiaError, StorageError
from data_contracts.protocol.records import RoundPlan, Submission
from data_contracts.protocol.records.evaluation import MAX_LOSS
from silo_agent.collaborators import HeldoutLosses
from silo_agent.federation.global_adapters import GlobalAdapters
from silo_agent.personal.kept import Compared, PersonalAdapters, PersonalFacts
from silo_agent.personal.told import compared_words, losses_words
from silo_agent.release.release import DoorClosedError
from silo_agent.silo import Silo
from silo_agent.steps.own_attempt import OwnAttempt, Step
from silo_agent.steps.personal_training import PersonalTraining, kept_of, reporter
from silo_agent.training.processes.launch import TrainingInterruptedError

LEAST_SECONDS = 60.0
"""With less time than that until losses are due, it is left to the evaluation."""

log = logging.getLogger("silo-agent")


def is_personal_due(silo: Silo, attempt: OwnAttempt) -> bool:
    """Whether it is to be trained now: after the submission, with time left, and not yet done."""
    plan = attempt.plan
    done, section = attempt.done, silo.config.personal
    if (
        not (section.is_on and section.every_round)
        or done.submission is None
        or done.refusal
        or attempt.feed.aborted
    ):
        return False
    left = (plan.record.evaluate_by - silo.clock.now()).total_seconds()
    is_given_up = plan.digest in silo.personal.given_up
    return left >= LEAST_SECONDS and not is_given_up and kept_of(silo.config, plan.record) is None


def personalise(silo: Silo, attempt: OwnAttempt) -> Step:
    """Train it, and keep it with what it is worth; what fails is said, and is no refusal.

    Raises TrainingInterruptedError when the agent is stopped.
    """
    number = attempt.plan.record.round
    if attempt.plan.record.shares_a:
        return _given_up(silo, attempt, words_of_shared_a(silo.config.personal.method))
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
    show_as_before(silo, attempt)
    return Step.PERSONALISED


def compare_personal(silo: Silo, plan: RoundPlan, losses: HeldoutLosses) -> float | None:
    """Tell this silo's people what its personal adapter is worth beside the others, on the same
    records; what of it leaves, or None."""
    section = silo.config.personal
    kept = kept_of(silo.config, plan) if section.is_on else None
    if kept is None or kept.facts.made_for != "starting":
        return None
    if kept.facts.heldout_sequences != silo.config.training.heldout_sequences:
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


def show_as_before(silo: Silo, attempt: OwnAttempt) -> None:
    """What the silo's status said when this began."""
    report = reporter(silo, attempt.plan)
    report.show("done" if attempt.done.evaluation else "releasing")


def _words(error: Exception) -> str:
    """The first line, which says what; some libraries say the same again in others."""
    return (str(error) or type(error).__name__).splitlines()[0]


def words_of_shared_a(method: str) -> str:
    """Why there is none under this rule."""
    return (
        f'method = "{method}" under [personal] is not trained in a run with the rule shared_a, in '
        "which this silo's own B with the A of all is its adapter"
    )


def _given_up(silo: Silo, attempt: OwnAttempt, why: str) -> Step:
    log.warning("round %d: no personal adapter: %s", attempt.plan.record.round, why)
    show_as_before(silo, attempt)
    silo.personal.given_up.add(attempt.plan.digest)
    return Step.PERSONALISED


def _trained(silo: Silo, attempt: OwnAttempt) -> PersonalFacts | None:
    plan, verdict = attempt.plan.record, attempt.done.verdict
    if verdict is None:
        raise ValueError("a submission rests on a verdict")
    # Losses are due in twice the time for it.
    half = (plan.evaluate_by - silo.clock.now()).total_seconds() / 2
    training = PersonalTraining(
        plan=attempt.plan,
        starting=GlobalAdapters(silo.config.home, silo.plans).starting(plan),
        made_for="starting",
        findings=verdict.record.findings_digest,
        seconds=max(1, min(silo.config.training.time_limit_seconds, round(half))),
    )
    return training.done(silo)
