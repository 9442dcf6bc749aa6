"""The check of the data by its contract, and the verdict that leaves of it."""

import logging

from data_contracts.errors import DataStewardError
from data_contracts.protocol.records import Verdict
from data_contracts.protocol.records.verdict import VERDICT_VALIDITY
from silo_agent.gate.outcome import GateOutcome
from silo_agent.leaks.rules import TOO_FEW, too_few_fault
from silo_agent.policy.plan_context import PolicyRefusal
from silo_agent.release.doors import CHECK_FAILED, NOT_EVALUABLE
from silo_agent.restarts import ProcessDiedError
from silo_agent.silo import Silo
from silo_agent.steps.answer import refuse, refuse_fault
from silo_agent.steps.charge import charge
from silo_agent.steps.own_attempt import OwnAttempt, Step

log = logging.getLogger("silo-agent")


def check_data(silo: Silo, attempt: OwnAttempt) -> Step:
    """Judge the data, unless the contract that the plan names is gone."""
    contract = attempt.out.require_open(Verdict)
    attempt.report.show("checking_data")
    try:
        outcome = silo.gate.check(
            lambda records: attempt.report.show("checking_data", step=records)
        )
    except DataStewardError as error:
        return refuse_fault(silo, attempt, error, NOT_EVALUABLE)
    except ProcessDiedError as error:
        return refuse_fault(silo, attempt, error, CHECK_FAILED)
    if _are_too_few(silo, outcome):
        return refuse(silo, attempt, TOO_FEW)
    charged = charge(silo, attempt, contract, outcome)
    if isinstance(charged, PolicyRefusal):
        return refuse(silo, attempt, charged)
    verdict = _verdict(silo, attempt, outcome)
    attempt.out.record(verdict.model_copy(update={"privacy": charged}))
    log.log(
        logging.INFO if outcome.passed else logging.WARNING,
        "data contract %s: %s",
        "passed" if outcome.passed else "failed",
        "; ".join(o.rule for o in outcome.outcomes if not o.success) or "every rule holds",
    )
    for note in outcome.operator_notes:
        log.warning("for the silo operator only: %s", note)
    return Step.CHECKED_DATA


def _are_too_few(silo: Silo, outcome: GateOutcome) -> bool:
    """Whether the leak check could not let any adapter go: known here, before a privacy budget is
    charged and anything is trained for nothing."""
    records = (outcome.train_records, outcome.heldout_records)
    fault = too_few_fault(*records, silo.release.in_force.policy().leak_check)
    if fault is None or not outcome.passed:
        return False
    log.warning("for the silo operator only: %s", fault)
    return True


def _verdict(silo: Silo, attempt: OwnAttempt, outcome: GateOutcome) -> Verdict:
    """With exact numbers of records; the release reduces them to what may leave."""
    now = silo.clock.now()
    return Verdict.on(
        attempt.plan,
        now,
        silo=silo.name,
        contract_digest=outcome.contract_digest,
        findings_digest=outcome.findings_digest,
        passed=outcome.passed,
        outcomes=outcome.outcomes,
        licences=outcome.licences,
        offered=outcome.records,
        used=outcome.train_records + outcome.heldout_records,
        expires_at=min(outcome.expires_at, now + VERDICT_VALIDITY),
    )
