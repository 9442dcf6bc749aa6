"""Local training, and the submission of what it made."""

import logging
from decimal import Decimal
from pathlib import Path

from data_contracts.errors import DataStewardError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan, Submission, Verdict
from data_contracts.protocol.records.model_family import CAUSAL_TASK
from data_contracts.protocol.wire_types import decimal_from_float
from silo_agent.compression.sent_adapter import SentAdapters
from silo_agent.config import TrainingSection
from silo_agent.federation.coordinator_view import CoordinatorView
from silo_agent.leaks import kept
from silo_agent.leaks.rules import objection
from silo_agent.leaks.stated import statement
from silo_agent.masking.kept_secrets import KeptSecrets
from silo_agent.masking.masked_change import mask_local
from silo_agent.personal.own_factors import begun_with, released, tell_begun
from silo_agent.policy.plan_context import PolicyRefusal
from silo_agent.privacy.ledger import NotTrainedError
from silo_agent.release.doors import DATA_UNUSABLE, TRAINING_FAILED, refusal_for
from silo_agent.restarts import ProcessDiedError
from silo_agent.silo import Silo
from silo_agent.steps.answer import refuse, refuse_fault
from silo_agent.steps.mask import own_place
from silo_agent.steps.own_attempt import OwnAttempt, Step
from silo_agent.training.own_steps import steps_here
from silo_agent.training.results import PackingCounts, TrainingResult

log = logging.getLogger("silo-agent")


def train(
    silo: Silo, attempt: OwnAttempt, verdict: Verified[Verdict], coordinator: CoordinatorView
) -> Step:
    """Train on what the verdict allows, unless the time to submit is over; a masked plan's share
    book was opened before."""
    plan = attempt.plan.record
    if silo.clock.now() >= plan.submit_by:
        return Step.WAITING
    attempt.out.require_open(Submission)
    place = None if plan.masking is None else own_place(silo, attempt, coordinator)
    home, shared = silo.config.home, silo.adapters.starting(plan)
    tell_begun(home, plan, shared)
    starting = begun_with(home, plan, shared)
    try:
        local = silo.trainer.train(plan, verdict.record, starting, attempt.report)
    except DataStewardError as error:
        return refuse_fault(silo, attempt, error, DATA_UNUSABLE)
    except ProcessDiedError as error:
        return refuse_fault(silo, attempt, error, refusal_for(error, TRAINING_FAILED))
    except NotTrainedError as error:
        return refuse_fault(silo, attempt, error, error.refusal)
    leak = _leak(silo, plan, local)
    if leak is not None:
        return refuse(silo, attempt, leak)
    leaves = released(home, plan, local.adapter)
    if place is None:
        sent_adapters = SentAdapters(home, silo.name, silo.release.outbox, silo.plans)
        sent = sent_adapters.file(plan, leaves, shared.path, attempt.feed.ever(silo.name))
    else:
        sent = KeptSecrets.of(home, attempt.plan).masked
        mask_local(plan, place, leaves, shared.path, told_tokens(plan, local), sent)
    attempt.report.show("releasing", step=local.steps, steps=local.steps)
    book = coordinator.book.digest if place is not None and coordinator.book else None
    submission = _submission(silo, attempt, local, sent, verdict.digest)
    attempt.out.record(submission.model_copy(update={"book_digest": book}), sent)
    if place is not None:
        KeptSecrets.of(home, attempt.plan).forget_own()
    _tell(plan, local)
    _tell_fewer(silo.config.training, plan, local.steps)
    return Step.SUBMITTED


def _leak(silo: Silo, plan: RoundPlan, local: TrainingResult) -> PolicyRefusal | None:
    """Why the adapter stays in; what was measured is kept here and told to this silo's people.

    A policy that has become unreadable meanwhile has the limits of one that says nothing of them.
    """
    limits, figures = silo.release.in_force.policy().leak_check, local.leaks
    refusal = objection(figures, limits)
    if not limits.is_on:
        log.warning("round %d: the policy says that %s", plan.round, limits.off)
    elif figures is not None:
        check = kept.keep(silo.config.home, plan, silo.clock.now(), figures, limits, refusal)
        log.info("for the silo operator only: leak check, %s", kept.words(check))
    return refusal


def _tell(plan: RoundPlan, local: TrainingResult) -> None:
    if plan.privacy is not None:
        text = "round %d: local adapter of %d private steps released; its losses are not measured"
        log.info(text, plan.round, local.steps)
    else:
        _tell_losses(plan, local)
    if not local.packing.together and plan.learned == CAUSAL_TASK:
        _tell_apart(plan.round)
    _tell_packing(plan.round, local.packing)


def _tell_losses(plan: RoundPlan, local: TrainingResult) -> None:
    log.info(
        "round %d: local adapter released after %d training steps on %d tokens; training loss "
        "%.4f %s in the first step, %.4f in the last",
        plan.round,
        local.steps,
        local.tokens,
        local.first_step_loss,
        plan.learned.loss.unit,
        local.last_step_loss,
    )


def _tell_fewer(training: TrainingSection, plan: RoundPlan, steps: int) -> None:
    planned, here = plan.recipe.local_steps, steps_here(plan.recipe, training)
    if steps < planned:
        why = "its time was over" if steps < here else "steps_at_most in silo-agent.toml says so"
        text = "round %d: %d of %d steps were done, because %s; the adapter weighs by its tokens"
        log.info(text, plan.round, steps, planned, why)


def _tell_apart(number: int) -> None:
    log.warning(
        "round %d: the base model mixes conversations that share a sequence, so each had one "
        "of its own, and a step fewer tokens than the plan allows",
        number,
    )


def _tell_packing(number: int, packing: PackingCounts) -> None:
    """What was done otherwise than a plan leads to expect."""
    if packing.spell_controls:
        log.warning(
            "round %d: %d of %d conversations spell control tokens of the base model, which were "
            "taken as text",
            number,
            packing.spell_controls,
            packing.conversations,
        )
    for count, why in _left_out(packing):
        log.warning("round %d: %d %s", number, count, why)
    if packing.apart:
        log.warning(
            "round %d: the base model's chat template changes earlier turns when later ones "
            "follow, so %d answers of conversations were told one by one, each behind what comes "
            "before it",
            number,
            packing.apart,
        )
    elif packing.continued:
        log.info(
            "round %d: %d of %d pieces go on with a document that is longer than a sequence",
            number,
            packing.continued,
            packing.conversations,
        )


def _left_out(packing: PackingCounts) -> list[tuple[int, str]]:
    """How many records were left out, and why, for each reason that is no lack of room."""
    told = [
        (
            packing.refused,
            "conversations were left out, because the base model's chat template refuses them or "
            "does not render all of their turns (some do not take a system message, or two turns "
            "of one side in a row)",
        ),
        (
            packing.without_border,
            "conversations were left out, because the base model's chat template gives no border "
            "before an answer",
        ),
        (
            packing.too_long_apart,
            "conversations were left out, because their answers, each told behind all that comes "
            "before it, are too long: split them into shorter ones",
        ),
        (
            packing.untellable,
            "records were left out, because they spell control tokens of the base model and "
            "cannot be told as text with its tokenizer",
        ),
    ]
    return [(count, why) for count, why in told if count]


def told_tokens(plan: RoundPlan, local: TrainingResult) -> int:
    """What the silo counts for; of a private training as many as the plan has, since how many were
    drawn says something about the records."""
    return plan.recipe.tokens_per_round if plan.privacy else local.tokens


def _told(plan: RoundPlan, loss: float | None) -> Decimal | None:
    """Losses of private steps stay here."""
    return None if plan.privacy or loss is None else decimal_from_float(loss)


def _submission(
    silo: Silo, attempt: OwnAttempt, local: TrainingResult, sent: Path, verdict_digest: str
) -> Submission:
    plan = attempt.plan.record
    return Submission.on(
        attempt.plan,
        silo.clock.now(),
        silo=silo.name,
        verdict_digest=verdict_digest,
        adapter=silo.release.digests.artifact(sent),
        tokens=told_tokens(plan, local),
        steps=local.steps,
        first_step_loss=_told(plan, local.first_step_loss),
        last_step_loss=_told(plan, local.last_step_loss),
        training_seconds=0 if plan.privacy else round(local.seconds),
        base_weights=None if local.base_weights == "full" else local.base_weights,
        leaks=None if plan.privacy else statement(local.leaks),
    )
