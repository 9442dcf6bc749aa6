"""Readiness of differential privacy: the budget, what was spent, a ledger that is whole."""

from data_contracts.dataset.contract import DataContract
from data_contracts.errors import ConsortiaError
from silo_agent.privacy.charging import known_units
from silo_agent.privacy.ledger import PrivacyLedger
from silo_agent.privacy.spent import spent_of, summary_words
from silo_agent.readiness.checklist import Item, of_fault, there, tried, wrong
from silo_agent.readiness.facts import Facts
from silo_agent.release.outbox import OUTBOX, kept_statements
from silo_agent.training.private_stage import is_private_stage

NAME = "privacy"


def privacy(facts: Facts) -> list[Item]:
    """Nothing where neither contract nor ledger speaks of it."""
    budget = facts.contract.terms.privacy if isinstance(facts.contract, DataContract) else None
    ledger = PrivacyLedger(facts.config.home)
    signed = kept_statements(facts.config.home / OUTBOX)
    lines = tried(lambda: ledger.peek(signed))
    if isinstance(lines, ConsortiaError):
        return [of_fault(NAME, lines)]
    words = summary_words(lines, budget)
    if words is None:
        return []
    if not is_private_stage(facts.config.training):
        step = 'set zero_stage = "auto" or 1 under [training], without offload'
        return [wrong(NAME, f"{words}; no training is private as [training] is set", step)]
    if budget is not None and spent_of(lines, budget) >= budget.epsilon:
        step = "nothing is trained for this population any more; raise fl.privacy.epsilon in a new "
        return [wrong(NAME, words, f"{step}version of the contract only if its people allow it")]
    units = None if budget is None else known_units(lines, budget.population, budget.unit)
    if budget is not None and units is not None and budget.delta * units > 1:
        step = f"set fl.privacy.delta below one in {units:,}, in a new version of the contract"
        return [wrong(NAME, f"{words}; the data have {units:,} units", step)]
    return [there(NAME, words)]
