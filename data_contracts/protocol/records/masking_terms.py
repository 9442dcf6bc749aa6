"""What a plan in confidential mode says of masks: how many silos a sum needs, and by when."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import Field, model_validator

from data_contracts.protocol.records.merge_spec import MASKED_RULES, MergeSpec
from data_contracts.protocol.wire_types import DecimalString, Instant, Part

LEAST_MASKED_SILOS, MOST_MASKED_SILOS = 3, 50
"""Of two silos each knows the other's part of their sum; every silo seals a share for every other
one, so their number is bounded."""


def least_threshold(silos: int) -> int:
    """Fewest of so many silos that a sum may be of: more than two thirds.

    Two lists of survivors then cannot both be signed by so many, unless a third of all silos signs
    both (Bonawitz et al. 2017, section 6.2).
    """
    return 2 * silos // 3 + 1


class MaskingTerms(Part):
    """The protocol's numbers.

    `threshold`: silos that a sum needs, and shares that open a secret; one number. The deadlines
    are those for mask keys, for sealed shares, and, after the close, for countersignatures and
    shares together. `largest_change`: entries of a silo's change are cut to plus and minus that.
    `clip_norm`: and before that its whole change to this Frobenius norm; None: to none. Under
    `fed_sb` that is the norm of cores' changes, and with `fedexp` that of products.
    """

    threshold: Annotated[int, Field(ge=2, le=MOST_MASKED_SILOS)]
    keys_by: Instant
    shares_by: Instant
    reveal_by: Instant
    largest_change: Annotated[DecimalString, Field(gt=0, le=1_000_000)] = Decimal("1")
    clip_norm: Annotated[DecimalString, Field(gt=0, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _is_in_order(self) -> "MaskingTerms":
        if not self.keys_by < self.shares_by < self.reveal_by:
            raise ValueError("expected keys_by < shares_by < reveal_by")
        return self

    def lies_within(self, issued_at: datetime, submit_by: datetime, evaluate_by: datetime) -> bool:
        """Whether keys and shares are due before the submissions of a plan, and what opens its sum
        between these and the evaluations."""
        before = issued_at < self.keys_by < self.shares_by < submit_by
        return before and submit_by < self.reveal_by < evaluate_by


def masking_fault(merge: MergeSpec, silos: int, threshold: int) -> tuple[str, str] | None:
    """What is expected and what is found where `merge` of so many silos cannot be masked."""
    if merge.rule not in MASKED_RULES:
        return f"a rule that is linear in what silos send: {', '.join(sorted(MASKED_RULES))}", (
            f"{merge.rule}, which needs the adapter of each silo"
        )
    if merge.robust is not None:
        return "no defence: each looks at the change of every silo", merge.robust.rule
    if silos > MOST_MASKED_SILOS:
        return f"a cohort of at most {MOST_MASKED_SILOS} silos", f"{silos}"
    if not least_threshold(silos) <= threshold <= silos:
        return (
            f"a threshold from {least_threshold(silos)}, more than two thirds of {silos} silos, to "
            f"{silos}",
            f"{threshold}",
        )
    return None
