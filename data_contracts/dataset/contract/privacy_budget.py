"""How much of one unit all private trainings together may reveal, as a contract says it."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from data_contracts.dataset.contract.closed_terms import Terms
from data_contracts.protocol.records.privacy_terms import MOST_EPSILON, PrivacyUnit
from data_contracts.protocol.wire_types import DecimalString, RuleId

MOST_DELTA = Decimal("0.01")
"""Delta is the probability with which the guarantee may fail altogether for one unit."""


class PrivacyBudget(Terms):
    """Lifetime budget of a population: everybody whose records this set, in any version of it and
    under any contract that names the same population, holds or held.

    What a unit is: one record, or all records of one subject. A silo's ledger says what was spent.
    """

    population: RuleId
    unit: PrivacyUnit
    epsilon: Annotated[DecimalString, Field(gt=0, le=MOST_EPSILON)]
    delta: Annotated[DecimalString, Field(gt=0, le=MOST_DELTA)]
