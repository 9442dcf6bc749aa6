"""Whether this silo takes part: the plan is judged by its policy, and the answer is signed."""

import logging

from data_contracts.errors import ConsortiaError
from data_contracts.protocol.dsse import to_base64
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.program_version import program_version
from data_contracts.protocol.records import Acceptance, Refusal, RoundPlan
from infra.encryption.identities import recipients_of
from silo_agent.masking.opened_sums import OpenedSums
from silo_agent.policy.plan_context import PlanContext, PolicyRefusal
from silo_agent.policy.rules import judge_plan
from silo_agent.release.doors import not_shared
from silo_agent.silo import Silo
from silo_agent.steps.charge import objections
from silo_agent.steps.own_attempt import OwnAttempt, Step
from silo_agent.training.capacity import lacks

log = logging.getLogger("silo-agent")


def answer(silo: Silo, attempt: OwnAttempt) -> Step:
    """Accept or refuse the plan."""
    policy, plan = silo.release.in_force.policy(), attempt.plan
    contract = silo.release.in_force.contract(attempt.out.parties)
    context = PlanContext(
        silo=silo.name,
        federation=silo.config.federation,
        membership=attempt.feed.membership_of(plan),
        contract=contract,
        now=silo.clock.now(),
        goes_back=attempt.feed.goes_back,
        sums_opened=_sums_opened(silo, plan),
        is_second_sum=_is_second_sum(silo, plan),
        lacks=lacks(plan.record, policy, silo.config),
        recipients=recipients_of(silo.identities),
        objections=objections(silo, attempt, contract),
        erasures=attempt.feed.feed.erasures,
    )
    refusal = judge_plan(plan.record, policy, context)
    if refusal is not None:
        return refuse(silo, attempt, refusal)
    attempt.out.record(
        Acceptance.on(
            plan,
            silo.clock.now(),
            silo=silo.name,
            policy_digest=policy.digest or "",
            shares_individual_delta=not_shared(policy) is None,
            agreement=to_base64(contract.agreement) if contract else None,
            program=program_version(),
        ),
    )
    _tell_versions(plan.record)
    log.info("round %d accepted under the silo's policy", plan.record.round)
    return Step.ACCEPTED


def _sums_opened(silo: Silo, plan: Verified[RoundPlan]) -> int:
    """How many sums from the plan's start this silo has helped to open."""
    return len(OpenedSums.of(silo.config.home, plan).others()) if plan.record.masking else 0


def _is_second_sum(silo: Silo, plan: Verified[RoundPlan]) -> bool:
    """Whether it would be the second one of a round, or of the same training."""
    record = plan.record
    if record.masking is None:
        return False
    revealed = silo.release.outbox.has_revealed(record.run, record.round, other_than=plan.digest)
    return revealed or OpenedSums.of(silo.config.home, plan).has_second()


def refuse(silo: Silo, attempt: OwnAttempt, refusal: PolicyRefusal) -> Step:
    """End this silo's part in the attempt; the rule and its fixed sentence leave."""
    policy, number = silo.release.in_force.policy(), attempt.plan.record.round
    attempt.out.record(
        Refusal.on(
            attempt.plan,
            silo.clock.now(),
            silo=silo.name,
            policy_digest=policy.digest,
            rule=refusal.rule,
            reason=refusal.reason,
            program=program_version(),
        )
    )
    log.warning("round %d refused by %s: %s", number, refusal.rule, refusal.reason)
    if policy.problem:
        log.warning("the policy cannot be read: %s", policy.problem)
    return Step.REFUSED


def refuse_fault(
    silo: Silo, attempt: OwnAttempt, error: ConsortiaError, refusal: PolicyRefusal
) -> Step:
    """The rule leaves; which process, which log and its last line do not."""
    log.error("for the silo operator only: %s", error)
    return refuse(silo, attempt, refusal)


def _tell_versions(plan: RoundPlan) -> None:
    if plan.program is not None and plan.program != program_version():
        log.warning(
            "the coordinator runs version %s, this agent %s; see docs/upgrade.md",
            plan.program,
            program_version(),
        )
