"""What a plan in confidential mode masks of an adapter, and the gate for a file that was masked."""

from pathlib import Path

from data_contracts.confidential.attempt import binding_of, terms_of
from data_contracts.masking.extra_numbers import SQUARED_NORM, ExtraNumber
from data_contracts.masking.fixed_point import FixedPoint
from data_contracts.masking.masked_file import masked_bytes, open_masked
from data_contracts.masking.payload import Payload
from data_contracts.masking.pieces import MaskedNumbers
from data_contracts.masking.sketch import SketchPayload
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan


def fixed_point_of(plan: RoundPlan) -> FixedPoint:
    """How a plan's changes become integers, for as many silos as its cohort has."""
    return FixedPoint(len(plan.cohort), terms_of(plan).largest_change)


def payload_of(plan: RoundPlan) -> MaskedNumbers:
    """Which numbers a plan's silos mask."""
    return sketch_of(plan) if plan.is_sketched else factors_of(plan)


def factors_of(plan: RoundPlan) -> Payload:
    """The numbers of what silos send, under every rule but `sketch`."""
    return Payload(plan.submitted, plan.recipe.trained_factors, _extras(plan))


def sketch_of(plan: RoundPlan) -> SketchPayload:
    """The images of products, under the rule `sketch`; others in every round."""
    return SketchPayload(plan.layout, plan.sketch_width, plan.recipe.seed, _extras(plan))


def _extras(plan: RoundPlan) -> tuple[ExtraNumber, ...]:
    """The squared norm of a change, which `clip_norm` bounds, where the step needs it."""
    largest = terms_of(plan).clip_norm
    if largest is None or not plan.masks_norms:
        return ()
    return (ExtraNumber(SQUARED_NORM, largest * largest, degree=2),)


def require_masked(path: Path, plan: Verified[RoundPlan], silo: str) -> None:
    """Raise UntrustedInputError unless a file is one that `silo` masked in this attempt."""
    open_masked(path, binding_of(plan), silo, payload_of(plan.record).entries)


def masked_size(plan: RoundPlan) -> int:
    """Bytes of every masked file of the plan."""
    return masked_bytes(payload_of(plan).entries)
