"""Figures of a leak check as they leave where the contract names `leak-figures`."""

from data_contracts.dataset.small_cells import SMALL_CELL, reported_total
from data_contracts.protocol.records.leak_statement import LeakStatement
from data_contracts.protocol.wire_types import decimal_from_float
from silo_agent.leaks.figures import LeakFigures

PLACES = 2


def statement(figures: LeakFigures | None) -> LeakStatement | None:
    """Rounded; of fewer than SMALL_CELL records on a side nothing but that there were so few."""
    if figures is None:
        return None
    told = figures.verbatim
    is_small = figures.fewest < SMALL_CELL
    membership = None if is_small else figures.membership
    few_answers = told is None or min(told.of_trained, told.of_heldout) < SMALL_CELL
    return LeakStatement(
        records=reported_total(figures.fewest),
        auc=decimal_from_float(membership.auc, PLACES) if membership else None,
        auc_low=decimal_from_float(membership.low, PLACES) if membership else None,
        repeated=None if told is None or few_answers else decimal_from_float(told.excess, PLACES),
    )
