"""One round at one silo: plan -> policy -> data gate -> training -> release -> evaluation.

Where silos share their adapters, a request to measure coalitions is answered after the evaluation.

`advance` does the next thing that is due, judging only by what lies in storage and in the silo's
own outbox, so it can be killed anywhere and called again. `run_round` calls it until the round is
over for this silo. Neither needs Prefect, an inbound port or anything but the silo's bucket pair.
"""

import logging
from decimal import Decimal
from enum import Enum

from data_contracts.errors import DataStewardError, SiloOperatorError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.bucket_layout import RoundId, attempt_of
from data_contracts.protocol.dsse import to_base64
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.program_version import program_version
from data_contracts.protocol.records import (
    Acceptance,
    Candidate,
    CoalitionLosses,
    Evaluation,
    Membership,
    Refusal,
    RoundPlan,
    SiloRecord,
    Submission,
    Verdict,
)
from data_contracts.protocol.records.verdict import VERDICT_VALIDITY
from data_contracts.protocol.wire_types import decimal_from_float
from silo_agent.collaborators import EvaluatedAdapters
from silo_agent.compression.sent_adapter import SentAdapters
from silo_agent.contribution.coalition_measuring import Asked, answer_request, not_shared
from silo_agent.federation.coordinator_view import CoordinatorView, read_coordinator
from silo_agent.federation.feed import FeedView, refresh_feed
from silo_agent.federation.global_adapters import GlobalAdapters
from silo_agent.home.agent_disk import prune_between_steps
from silo_agent.home.catching_up import catch_up
from silo_agent.policy.policy import (
    PlanContext,
    PolicyFile,
    PolicyRefusal,
    judge_plan,
)
from silo_agent.release.doors import (
    CHECK_FAILED,
    DATA_UNUSABLE,
    EVALUATION_FAILED,
    LOCAL_ADAPTER,
    LOSSES,
    NO_CONTRACT,
    NOT_EVALUABLE,
    TRAINING_FAILED,
    objection,
    refusal_for,
)
from silo_agent.release.egress import (
    leaving_licences,
    leaving_losses,
    leaving_outcomes,
    leaving_records,
)
from silo_agent.release.release import Grounds, Released
from silo_agent.restarts import ProcessDiedError
from silo_agent.silo import Silo

log = logging.getLogger("silo-agent")


class Step(Enum):
    """What `advance` did, or why there is nothing to do."""

    REFUSED = "refused"
    ACCEPTED = "accepted"
    CHECKED_DATA = "checked data"
    SUBMITTED = "submitted"
    EVALUATED = "evaluated"
    MEASURED = "measured coalitions"
    WAITING = "waiting for the coordinator"
    FINISHED = "finished"


def poll_once(silo: Silo) -> Step | None:
    """Read the feed and advance its newest plan by one step; None when no plan concerns us.

    First what no round needs is removed: nothing of this agent runs between two steps.
    """
    catch_up(silo)
    feed = refresh_feed(silo)
    if silo.pruning.is_due(feed.feed, silo.clock.now()):
        prune_between_steps(silo, feed.feed)
    step = _step(silo, feed)
    if step not in (None, Step.WAITING, Step.FINISHED):
        silo.pruning.stepped()
    return step


def _step(silo: Silo, feed: FeedView) -> Step | None:
    plan = feed.plan
    if plan is None or silo.name not in plan.record.cohort:
        _require_own_key(silo, feed.newest)
        return None
    if _signs_from_the_next_plan(silo, feed, plan):
        return None
    _require_own_key(silo, feed.membership_of(plan))
    _require_not_revoked(silo, feed, plan)
    if feed.coordinator(plan).only is not None:
        # Whoever holds the coordinator's key now ends this attempt and opens the next.
        return Step.WAITING
    return advance(silo, plan, feed)


def run_round(silo: Silo) -> Step | None:
    """Take part in the newest round until it is over for this silo, or the agent is stopped."""
    while not silo.is_stopped():
        step = poll_once(silo)
        if step in (None, Step.FINISHED):
            return step
        if step is Step.WAITING:
            silo.clock.sleep(silo.config.agent.poll_seconds)
    return None


def advance(silo: Silo, plan: Verified[RoundPlan], feed: FeedView) -> Step:
    """Do the one thing that is due for this plan."""
    round_id = attempt_of(plan)
    held_back = _hold_back_unsent(silo, plan, feed, round_id)
    if held_back is not None:
        return held_back
    silo.release.deliver_pending(round_id)
    done = silo.release.released(round_id)
    if feed.aborted or done.refusal is not None:
        return Step.FINISHED
    if done.acceptance is None:
        return _answer(silo, plan, feed)
    if done.verdict is None:
        return _check_data(silo, plan, feed)
    if not done.verdict.record.passed:
        return Step.FINISHED
    if done.evaluation is not None:
        asked = Asked(plan, done, done.verdict.record, feed)
        return Step.MEASURED if answer_request(silo, asked) else Step.FINISHED
    coordinator = read_coordinator(silo, plan, feed)
    if done.submission is None and coordinator.close is None:
        return _train(silo, plan, feed, done.verdict)
    if coordinator.candidate is None:
        return Step.FINISHED if coordinator.decision is not None else Step.WAITING
    _notice_omission(done, coordinator)
    _remember_accepted(silo, done, coordinator)
    return _evaluate(silo, plan, feed, done.verdict, coordinator.candidate)


def _signs_from_the_next_plan(silo: Silo, feed: FeedView, plan: Verified[RoundPlan]) -> bool:
    """Whether this silo's key was replaced since the plan: the old one would have to finish it."""
    own = silo.release.public_key
    return own != feed.membership_of(plan).key_of(silo.name) and own == feed.newest.key_of(
        silo.name
    )


def _require_own_key(silo: Silo, membership: Membership) -> None:
    """A record under another key than the membership's would be ignored by everybody."""
    known = membership.key_of(silo.name)
    if known != silo.release.public_key:
        raise SiloOperatorError(
            f"signing key of {silo.name}",
            expected=f"the key that membership {membership.number} names for this silo",
            found="another key" if known else "a membership without this silo",
            action="restore the silo's key, or give its public key to the federation operator "
            "and compare fingerprints",
        )


def _require_not_revoked(silo: Silo, feed: FeedView, plan: Verified[RoundPlan]) -> None:
    if feed.feed.silo_key(plan, silo.name) is None:
        raise SiloOperatorError(
            f"signing key of {silo.name}",
            expected="a key that counts",
            found=f"one that was revoked, as membership {feed.newest.number} knows",
            action="make a new key, and give its public key to the federation operator",
        )


def _answer(silo: Silo, plan: Verified[RoundPlan], feed: FeedView) -> Step:
    policy = silo.policy()
    context = PlanContext(
        silo=silo.name,
        federation=silo.config.federation,
        membership=feed.membership_of(plan),
        contract=silo.terms(feed.parties(silo.name)),
        now=silo.clock.now(),
    )
    refusal = judge_plan(plan.record, policy, context)
    if refusal is not None:
        return _refuse(silo, plan, policy, refusal)
    silo.release.record(
        Acceptance.on(
            plan,
            silo.clock.now(),
            silo=silo.name,
            policy_digest=policy.digest or "",
            shares_individual_delta=not_shared(policy) is None,
            agreement=to_base64(context.contract.agreement) if context.contract else None,
            program=program_version(),
        ),
    )
    _tell_versions(plan.record)
    log.info("round %d accepted under the silo's policy", plan.record.round)
    return Step.ACCEPTED


def _refuse(
    silo: Silo, plan: Verified[RoundPlan], policy: PolicyFile, refusal: PolicyRefusal
) -> Step:
    silo.release.record(
        Refusal.on(
            plan,
            silo.clock.now(),
            silo=silo.name,
            policy_digest=policy.digest,
            rule=refusal.rule,
            reason=refusal.reason,
            program=program_version(),
        )
    )
    log.warning("round %d refused by %s: %s", plan.record.round, refusal.rule, refusal.reason)
    if policy.problem:
        log.warning("the policy cannot be read: %s", policy.problem)
    return Step.REFUSED


def _tell_versions(plan: RoundPlan) -> None:
    if plan.program is not None and plan.program != program_version():
        log.warning(
            "the coordinator runs version %s, this agent %s; see docs/upgrade.md",
            plan.program,
            program_version(),
        )


def _refuse_dead(
    silo: Silo, plan: Verified[RoundPlan], error: ProcessDiedError, otherwise: PolicyRefusal
) -> Step:
    """The rule leaves; which process, which log and its last line do not."""
    log.error("for the silo operator only: %s", error)
    return _refuse(silo, plan, silo.policy(), refusal_for(error, otherwise))


def _check_data(silo: Silo, plan: Verified[RoundPlan], feed: FeedView) -> Step:
    terms = silo.terms(feed.parties(silo.name))
    if terms is None or terms.digest != plan.record.contract_digest_of(silo.name):
        return _refuse(silo, plan, silo.policy(), NO_CONTRACT)
    reporter = silo.reporter(plan, terms)
    reporter.show("checking_data")
    try:
        counted = "rule-counts" in terms.egress
        outcome = silo.gate.check(
            lambda records: reporter.show("checking_data", step=records if counted else 0)
        )
    except DataStewardError as error:
        log.error("for the silo operator only: %s", error)
        return _refuse(silo, plan, silo.policy(), NOT_EVALUABLE)
    except ProcessDiedError as error:
        return _refuse_dead(silo, plan, error, CHECK_FAILED)
    verdict = Verdict.on(
        plan,
        silo.clock.now(),
        silo=silo.name,
        contract_digest=outcome.contract_digest,
        findings_digest=outcome.findings_digest,
        passed=outcome.passed,
        outcomes=leaving_outcomes(outcome, terms.egress),
        licences=leaving_licences(outcome, terms.egress),
        registered_licences=terms.registered_licences,
        evaluates="losses" in terms.egress,
        **leaving_records(outcome, terms.egress),
        expires_at=min(outcome.expires_at, silo.clock.now() + VERDICT_VALIDITY),
    )
    silo.release.record(verdict)
    log.log(
        logging.INFO if outcome.passed else logging.WARNING,
        "data contract %s: %s",
        "passed" if outcome.passed else "failed",
        "; ".join(o.rule for o in outcome.outcomes if not o.success) or "every rule holds",
    )
    for note in outcome.operator_notes:
        log.warning("for the silo operator only: %s", note)
    return Step.CHECKED_DATA


def _train(
    silo: Silo, plan: Verified[RoundPlan], feed: FeedView, verdict: Verified[Verdict]
) -> Step:
    if silo.clock.now() >= plan.record.submit_by:
        return Step.WAITING
    terms = silo.terms(feed.parties(silo.name))
    refusal = objection(verdict.record, plan, terms, silo.clock.now())
    if refusal is not None:
        return _refuse(silo, plan, silo.policy(), refusal)
    reporter = silo.reporter(plan, terms)
    starting = _global_adapters(silo).starting(plan.record)
    try:
        local = silo.trainer.train(plan.record, verdict.record, starting, reporter)
    except DataStewardError as error:
        log.error("for the silo operator only: %s", error)
        return _refuse(silo, plan, silo.policy(), DATA_UNUSABLE)
    except ProcessDiedError as error:
        return _refuse_dead(silo, plan, error, TRAINING_FAILED)
    signers = feed.ever(silo.name)
    sent = _sent_adapters(silo).file(plan.record, local.adapter, starting.path, signers)
    # Asked again: training takes hours, and only what is in force now opens the way out.
    terms = silo.terms(feed.parties(silo.name))
    refusal = objection(verdict.record, plan, terms, silo.clock.now())
    if refusal is not None:
        return _refuse(silo, plan, silo.policy(), refusal)
    reporter.show("releasing", step=local.steps, steps=local.steps)
    silo.release.record(
        Submission.on(
            plan,
            silo.clock.now(),
            silo=silo.name,
            verdict_digest=verdict.digest,
            adapter=artifact_of_file(sent),
            tokens=local.tokens,
            steps=local.steps,
            first_step_loss=decimal_from_float(local.first_step_loss),
            last_step_loss=decimal_from_float(local.last_step_loss),
            training_seconds=round(local.seconds),
        ),
        Grounds(sent, plan, terms),
    )
    log.info(
        "round %d: local adapter released after %d training steps on %d tokens; training loss "
        "%.4f nats per answer token in the first step, %.4f in the last",
        plan.record.round,
        local.steps,
        local.tokens,
        local.first_step_loss,
        local.last_step_loss,
    )
    return Step.SUBMITTED


def _evaluate(
    silo: Silo,
    plan: Verified[RoundPlan],
    feed: FeedView,
    verdict: Verified[Verdict],
    candidate: Verified[Candidate],
) -> Step:
    terms = silo.terms(feed.parties(silo.name))
    closed = objection(verdict.record, plan, terms, silo.clock.now(), LOSSES)
    if closed is not None:
        log.warning("no losses leave: %s", closed.reason)
        return Step.FINISHED
    reporter = silo.reporter(plan, terms)
    known = _global_adapters(silo)
    adapters = EvaluatedAdapters(
        starting=known.starting(plan.record),
        candidate=known.candidate(plan.record, candidate.record),
    )
    try:
        losses = silo.trainer.evaluate(plan.record, verdict.record, adapters, reporter)
    except DataStewardError as error:
        log.error("for the silo operator only: %s", error)
        return Step.FINISHED
    except ProcessDiedError as error:
        # What this silo trained still counts: the round was closed before.
        return _refuse_dead(silo, plan, error, EVALUATION_FAILED)
    terms = silo.terms(feed.parties(silo.name))
    closed = objection(verdict.record, plan, terms, silo.clock.now(), LOSSES)
    if closed is not None:
        log.warning("no losses leave: %s", closed.reason)
        return Step.FINISHED
    leaving = leaving_losses(losses, terms.egress if terms is not None else ())
    silo.release.record(
        Evaluation.on(
            plan,
            silo.clock.now(),
            silo=silo.name,
            candidate_digest=candidate.digest,
            tokens=leaving.tokens,
            base_loss=decimal_from_float(leaving.base),
            starting_loss=decimal_from_float(leaving.starting),
            candidate_loss=decimal_from_float(leaving.candidate),
            silo_only_loss=_decimal(leaving.silo_only),
            records=leaving.records,
            change_error=_decimal(leaving.change_error),
            base_change_error=_decimal(leaving.base_change_error),
        )
    )
    reporter.show("done")
    log.info(
        "round %d: candidate measured on %d held-out answer tokens: %.4f nats per token, %.4f with "
        "the adapter before, %.4f with the base model alone (lower is better)",
        plan.record.round,
        losses.tokens,
        losses.candidate,
        losses.starting,
        losses.base,
    )
    return Step.EVALUATED


def _decimal(value: float | None) -> Decimal | None:
    return None if value is None else decimal_from_float(value)


def _notice_omission(done: Released, coordinator: CoordinatorView) -> None:
    """Say so when the close record leaves out what this silo submitted in time."""
    if done.submission is None or coordinator.close is None:
        return
    close = coordinator.close.record
    named = {a.submission_digest for a in close.admitted}
    named |= {r.submission_digest for r in close.rejected if r.submission_digest}
    if done.submission.digest not in named:
        log.warning("the close record names neither admission nor rejection of our submission")


def _hold_back_unsent(
    silo: Silo, plan: Verified[RoundPlan], feed: FeedView, round_id: RoundId
) -> Step | None:
    """What was signed but never reached storage leaves only if its door is open now."""
    unsent = silo.release.unsent(round_id)
    verdict = silo.release.released(round_id).verdict
    for record_type, leaving in _DOORS:
        if record_type not in unsent or verdict is None:
            continue
        terms = silo.terms(feed.parties(silo.name))
        closed = objection(verdict.record, plan, terms, silo.clock.now(), leaving)
        if closed is None and record_type is CoalitionLosses:
            closed = not_shared(silo.policy())
        if closed is not None:
            silo.release.withdraw(round_id, record_type)
            log.warning("an unsent %s does not leave: %s", record_type.kind, closed.reason)
            if record_type is Submission:
                return _refuse(silo, plan, silo.policy(), closed)
            return Step.FINISHED
    return None


_DOORS: tuple[tuple[type[SiloRecord], str], ...] = (
    (Submission, LOCAL_ADAPTER),
    (Evaluation, LOSSES),
    (CoalitionLosses, LOSSES),
)
"""What a contract's egress has to allow for each record that is more than an answer or counts."""


def _remember_accepted(silo: Silo, done: Released, coordinator: CoordinatorView) -> None:
    """What this silo's data looked like in a round that counted is what drift is measured from."""
    if done.submission is None or done.verdict is None or coordinator.close is None:
        return
    admitted = {item.submission_digest for item in coordinator.close.record.admitted}
    if done.submission.digest in admitted:
        silo.gate.remember(done.verdict.record.findings_digest)


def _sent_adapters(silo: Silo) -> SentAdapters:
    return SentAdapters(silo.config.home, silo.name, silo.release, silo.plans)


def _global_adapters(silo: Silo) -> GlobalAdapters:
    return GlobalAdapters(silo.config.home, silo.plans)
