"""What a private plan costs here: asked before the plan is answered, charged before its verdict.

The verdict names the charge, so it is on disk before the first byte that rests on it leaves. Killed
anywhere, the same plan on the same data finds its own charge again.
"""

import logging

from data_contracts.protocol.records.privacy_terms import PrivacyStatement
from silo_agent.gate.outcome import GateOutcome
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.policy.plan_context import PolicyRefusal
from silo_agent.policy.privacy_rules import (
    BUDGET_SPENT,
    DELTA_TOO_LARGE,
    REPLAYED,
    STAGE,
)
from silo_agent.privacy.charging import Asked, charge_of, known_units, objection
from silo_agent.privacy.ledger import PrivacyLedger
from silo_agent.privacy.ledger_lines import LedgerLines, statement_of
from silo_agent.privacy.spent import spent_of
from silo_agent.silo import Silo
from silo_agent.steps.own_attempt import OwnAttempt
from silo_agent.training.private_stage import is_private_stage

log = logging.getLogger("silo-agent")


def objections(silo: Silo, attempt: OwnAttempt, contract: ContractTerms | None) -> frozenset[str]:
    """Ids of rules of this silo's settings and ledger against a private plan, as far as they are
    known before the check. Raises SiloOperatorError for a ledger that was put back."""
    if attempt.plan.record.privacy is None:
        return frozenset()
    found = {STAGE.rule} if not is_private_stage(silo.config.training) else set()
    if contract is not None and contract.privacy is not None:
        terms = attempt.plan.record.privacy
        lines = _ledger_lines(silo, attempt)
        units = known_units(lines, contract.privacy.population, terms.unit)
        # A number that is not known yet is known after the check.
        asked = Asked(attempt.plan, terms, contract.privacy, units or 10**9)
        against = objection(lines, asked)
        if against is not None and _is_certain(against, units):
            _tell_objection(lines, asked, against)
            found.add(against.rule)
    return frozenset(found)


def charge(
    silo: Silo, attempt: OwnAttempt, contract: ContractTerms, outcome: GateOutcome
) -> PrivacyStatement | PolicyRefusal | None:
    """Charge a private plan for the data that passed; None for a plain plan or data that failed.

    Raises SiloOperatorError for a ledger that was put back: then nothing is charged.
    """
    terms, budget = attempt.plan.record.privacy, contract.privacy
    if terms is None or budget is None or not outcome.passed:
        return None
    ledger, lines = PrivacyLedger(silo.config.home), _ledger_lines(silo, attempt)
    known = lines.charge_for(attempt.plan.digest, outcome.findings_digest)
    if known is not None:
        closed = lines.closed(known[0].number)
        return statement_of(*known) if closed is None else REPLAYED
    asked = Asked(attempt.plan, terms, budget, outcome.units(terms.unit), outcome.findings_digest)
    against = objection(lines, asked)
    if against is not None:
        _tell_objection(lines, asked, against)
        return against
    made = ledger.charge(lines, charge_of(lines, asked, silo.clock.now()))
    _tell(statement_of(*made))
    return statement_of(*made)


def settle(silo: Silo, attempt: OwnAttempt) -> None:
    """Nothing is trained any more on a plan whose submission is out, or which was given up: its
    secret goes. Does so once, after a kill too."""
    done = attempt.done
    is_over = done.submission is not None or done.refusal is not None or attempt.feed.aborted
    if attempt.plan.record.privacy is None or not is_over:
        return
    submission = done.submission.digest if done.submission else None
    PrivacyLedger(silo.config.home).close(attempt.plan.digest, submission, silo.clock.now())


def _ledger_lines(silo: Silo, attempt: OwnAttempt) -> LedgerLines:
    """All of them, against every verdict that this silo has signed and that is still there."""
    keys = attempt.feed.ever(silo.name).silo_keys | {silo.release.outbox.public_key}
    signed = silo.release.signed_privacy(silo.name, keys)
    return PrivacyLedger(silo.config.home).read(signed)


def _is_certain(against: PolicyRefusal, units: int | None) -> bool:
    """What follows from a number of units that nobody has counted yet is no reason."""
    return units is not None or against == REPLAYED or against.rule == "policy.privacy_unit"


def _tell_objection(lines: LedgerLines, asked: Asked, against: PolicyRefusal) -> None:
    """Numbers and what to do, which only this silo's people see."""
    budget = asked.budget
    if against == BUDGET_SPENT:
        log.warning(
            "for the silo operator only: epsilon %s of %s is spent for %s, and %d steps at noise "
            "%s more would go over it; `silo-agent privacy` shows every charge. A larger budget is "
            "the data steward's to decide, in a new version of the contract",
            spent_of(lines, budget),
            budget.epsilon,
            budget.population,
            asked.steps.steps,
            asked.terms.noise_multiplier,
        )
    if against == DELTA_TOO_LARGE:
        log.warning(
            "for the silo operator only: delta %s is above one in %d %ss; the data steward sets a "
            "smaller fl.privacy.delta in a new version of the contract",
            f"{budget.delta:f}",
            asked.units,
            budget.unit,
        )


def _tell(statement: PrivacyStatement) -> None:
    log.info(
        "privacy: charged epsilon %s at delta %s to %s; %s of %s are spent in %d trainings",
        statement.epsilon,
        f"{statement.delta:f}",
        statement.population,
        statement.epsilon_lifetime,
        statement.epsilon_budget,
        statement.entries,
    )
