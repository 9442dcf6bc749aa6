"""What a plan in confidential mode masks of an adapter, and the gate for a file that was masked."""

from pathlib import Path

from data_contracts.confidential.attempt import binding_of, terms_of
from data_contracts.masking.fixed_point import FixedPoint
from data_contracts.masking.masked_file import masked_bytes, open_masked
from data_contracts.masking.payload import Payload
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan


def fixed_point_of(plan: RoundPlan) -> FixedPoint:
    """How a plan's changes become integers, for as many silos as its cohort has."""
    return FixedPoint(len(plan.cohort), terms_of(plan).largest_change)


def payload_of(plan: RoundPlan) -> Payload:
    """Which numbers of an adapter a plan's silos mask."""
    return Payload(plan.exchanged, plan.recipe.trained_factors)


def require_masked(path: Path, plan: Verified[RoundPlan], silo: str) -> None:
    """Raise UntrustedInputError unless a file is one that `silo` masked in this attempt."""
    open_masked(path, binding_of(plan), silo, payload_of(plan.record).entries)


def masked_size(plan: RoundPlan) -> int:
    """Bytes of every masked file of the plan."""
    return masked_bytes(payload_of(plan).entries)
