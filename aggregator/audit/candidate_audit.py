"""What a candidate claims of its merge, against the signed plan and the close record.

The arithmetic cannot be repeated without the local adapters; this can: that the merge was the one
that the plan announced, in the plan's layout, over the admitted silos and nobody else, that it
stepped no further than the plan allows, and behind masks as far as follows from what was opened,
and that an alarm that calls for a person was not passed over.
"""

from collections.abc import Iterator

from aggregator.merge.step_formula import step_of
from aggregator.robust.robust_weights import SILOS_FOR_A_VOTE
from data_contracts.protocol.records import Candidate, Close, RoundPlan
from data_contracts.protocol.records.merge_spec import FedExP
from data_contracts.protocol.wire_types import decimal_from_float


def unplanned(plan: RoundPlan, close: Close, candidate: Candidate) -> Iterator[str]:
    """A sentence for everything in the candidate that plan and close do not allow."""
    if candidate.merge_rule != plan.merge.rule:
        yield f"merged by {candidate.merge_rule}, but the plan says {plan.merge.rule}"
    if [m.module for m in candidate.modules] != [t.module for t in plan.exchanged.targets]:
        yield "the merged modules are not those of the plan"
    yield from _unplanned_files(plan, candidate)
    yield from _unplanned_influences(plan, close, candidate)
    yield from _unplanned_step(plan, candidate)


def _unplanned_files(plan: RoundPlan, candidate: Candidate) -> Iterator[str]:
    merge = plan.merge
    if (candidate.residual is not None) != (merge.residual_rank is not None):
        yield "a residual goes with the rule residual and with no other"
    if (candidate.server_state is not None) != bool(merge.optimizer_state):
        yield f"the optimizer {merge.optimizer.name} does not keep what the candidate names"


def _unplanned_influences(plan: RoundPlan, close: Close, candidate: Candidate) -> Iterator[str]:
    admitted = [item.silo for item in close.admitted] if plan.merge.robust else []
    if [part.silo for part in candidate.influences] != admitted:
        yield "influences are not those of the admitted silos under the plan's defence"
    alarmed = any(part.alarm for part in candidate.influences)
    if candidate.needs_person != (alarmed and len(admitted) < SILOS_FOR_A_VOTE):
        yield "whether a person has to look does not follow from the alarms"


def _unplanned_step(plan: RoundPlan, candidate: Candidate) -> Iterator[str]:
    optimizer, step = plan.merge.optimizer, candidate.step
    if not isinstance(optimizer, FedExP):
        if step is not None:
            yield f"a step goes with fedexp, but the plan's optimizer is {optimizer.name}"
    elif step is None or not 1 <= step <= optimizer.max_step:
        yield f"the step is {step}, but the plan lets it be from 1 to {optimizer.max_step}"
    if (norms := candidate.step_norms) is None:
        if plan.masks_norms:
            yield "what the step follows from was opened, and the candidate does not tell it"
    elif not plan.masks_norms or not isinstance(optimizer, FedExP):
        yield "norms go with a step of changes that are masked, and with no other"
    elif step != (found := decimal_from_float(step_of(norms, optimizer))):
        yield f"the step is {step}, but from the norms that were opened follows {found}"
