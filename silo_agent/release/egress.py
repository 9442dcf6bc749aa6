"""What of a gate's outcome and of an evaluation the contract's egress policy lets out of the silo.

Which rules hold always leaves, because nobody can join a round without it; counts leave only where
the contract says so.
"""

from dataclasses import replace

from data_contracts.dataset.small_cells import SMALL_CELL, reported_total
from data_contracts.protocol.records.verdict import LicenceCount, RuleOutcome
from silo_agent.collaborators import HeldoutLosses
from silo_agent.gate.outcome import GateOutcome


def leaving_outcomes(outcome: GateOutcome, egress: tuple[str, ...]) -> tuple[RuleOutcome, ...]:
    """Outcomes of rules, without their counts unless `rule-counts` may leave."""
    if "rule-counts" in egress:
        return outcome.outcomes
    hidden = {"element_count": 0, "unexpected_count": None}
    return tuple(rule.model_copy(update=hidden) for rule in outcome.outcomes)


def leaving_licences(outcome: GateOutcome, egress: tuple[str, ...]) -> tuple[LicenceCount, ...]:
    """Licence ids, without their counts unless `licence-counts` may leave.

    The ids leave with every verdict: what the merged adapter inherits follows from them.
    """
    if "licence-counts" in egress:
        return outcome.licences
    return tuple(count.model_copy(update={"records": None}) for count in outcome.licences)


def leaving_records(outcome: GateOutcome, egress: tuple[str, ...]) -> dict[str, int | None]:
    """`offered` and `used` of the verdict: None unless `rule-counts` may leave."""
    if "rule-counts" not in egress or not reported_total(outcome.records):
        return {"offered": None, "used": None}
    left_out = outcome.records - outcome.train_records - outcome.heldout_records
    return {
        "offered": outcome.records,
        "used": outcome.records - (left_out - left_out % SMALL_CELL),
    }


def leaving_losses(losses: HeldoutLosses, egress: tuple[str, ...]) -> HeldoutLosses:
    """Losses, without the number of records unless `rule-counts` may leave.

    The number and the standard errors of fewer than SMALL_CELL records never leave: an error that
    a handful of records decide says something about each.
    """
    if losses.records is None or losses.records < SMALL_CELL:
        return replace(losses, records=None, change_error=None, base_change_error=None)
    return losses if "rule-counts" in egress else replace(losses, records=None)
