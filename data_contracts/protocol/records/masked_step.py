"""Which plans can have the optimizer `fedexp` behind masks: those whose step is the one that it
would be if the silos' changes were seen.

It takes two numbers: the weighted mean of the changes' squared norms, which silos mask beside their
changes, and the squared norm of the mean change, which has to follow from what is opened.
"""

from decimal import Decimal

from data_contracts.protocol.records.merge_spec import FedExP, MergeSpec
from data_contracts.protocol.records.training_recipe import TrainedFactors


def step_fault(
    merge: MergeSpec, trained: TrainedFactors, clip_norm: Decimal | None, exact: int, width: int
) -> tuple[str, str] | None:
    """What is expected and what is found where the step behind masks would be another one.

    `trained` is what the round trains. `exact`: the width of images from which any sum of changes
    is rebuilt exactly; `width`: that of the plan.
    """
    if not isinstance(merge.optimizer, FedExP):
        return None
    if clip_norm is None:
        return (
            "a masking.clip_norm with fedexp, which is the range of the norms that are masked",
            "none",
        )
    if merge.rule == "fed_sb" and trained != "core":
        return (
            "another optimizer than fedexp in the first round under fed_sb, in which factors are "
            "summed and not products, whose norm the step needs",
            "fedexp",
        )
    if merge.rule == "sketch" and width < exact:
        return (
            f"a sketch_width of at least {exact} with fedexp (all ranks of silos and start "
            "together), from which the norm of the sum follows",
            f"{width}",
        )
    return None
