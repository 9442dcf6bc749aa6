"""A candidate has to be the merge that the plan announced: every departure is a sentence."""

from decimal import Decimal
from typing import Any

import pytest

from aggregator.audit.candidate_audit import unplanned
from data_contracts.protocol.records import Candidate, Close
from data_contracts.protocol.records.candidate import ModuleExactness, SiloInfluence
from data_contracts.protocol.records.merge_spec import FedAvgM, FedExP, MergeSpec, RobustSpec
from tests.aggregator.federation_samples import COHORT, Federation, adapter_ref, federation

OUTLIER = "hospital-c"
ROBUST = RobustSpec(tolerated_silos=0, mixing="none", rule="mean")


def merged(fed: Federation, **changes: Any) -> tuple[Close, Candidate]:
    """A close that admits the whole cohort and a candidate of it."""
    close = fed.close([fed.silo(silo) for silo in COHORT])
    return close.record, fed.candidate(close, **changes).record


def faults(fed: Federation, **changes: Any) -> list[str]:
    return list(unplanned(fed.plan.record, *merged(fed, **changes)))


def layout(**changes: Any) -> MergeSpec:
    return MergeSpec(**{"rule": "stack_truncate", "weight_cap_tokens": 10**6, **changes})


def influences(*silos: str, alarmed: str | None = None) -> tuple[SiloInfluence, ...]:
    return tuple(
        SiloInfluence(
            silo=silo,
            influence=Decimal("0.33"),
            kept=Decimal(1),
            norm=Decimal(2),
            distance=Decimal(1),
            alarm=silo == alarmed,
        )
        for silo in silos
    )


PLAIN = federation(merge=layout())
DEFENDED = federation(merge=layout(robust=ROBUST), quorum=len(COHORT))
MOMENTUM = federation(merge=layout(optimizer=FedAvgM()))
STEPPED = federation(merge=layout(optimizer=FedExP(max_step=Decimal(2))))
RESIDUAL = federation(merge=layout(rule="residual", residual_rank=4))
OTHER_MODULE = (ModuleExactness(module="model.k_proj", discarded_energy=Decimal(0)),)


def test_what_the_plan_announced_passes() -> None:
    assert faults(PLAIN) == []
    assert faults(MOMENTUM, server_state=adapter_ref("state")) == []
    assert faults(RESIDUAL, merge_rule="residual", residual=adapter_ref("residual")) == []
    assert faults(STEPPED, step=Decimal(1)) == faults(STEPPED, step=Decimal(2)) == []
    assert faults(DEFENDED, influences=influences(*COHORT)) == []
    alarmed = influences(*COHORT, alarmed=OUTLIER)
    assert faults(DEFENDED, influences=alarmed, needs_person=True) == []


@pytest.mark.parametrize(
    ("fed", "changes", "sentence"),
    [
        (PLAIN, {"merge_rule": "average"}, "merged by average, but the plan says stack_truncate"),
        (PLAIN, {"modules": OTHER_MODULE}, "the merged modules are not those of the plan"),
        (PLAIN, {"residual": adapter_ref("residual")}, "a residual goes with"),
        (PLAIN, {"server_state": adapter_ref("state")}, "the optimizer fedavg does not keep"),
        (MOMENTUM, {}, "the optimizer fedavgm does not keep"),
        (RESIDUAL, {"merge_rule": "residual"}, "a residual goes with"),
        (
            PLAIN,
            {"step": Decimal(1)},
            "a step goes with fedexp, but the plan's optimizer is fedavg",
        ),
        (STEPPED, {}, "the step is None, but the plan lets it be from 1 to 2"),
        (STEPPED, {"step": Decimal("0.9")}, "the step is 0.9, but the plan lets it be from 1 to 2"),
        (STEPPED, {"step": Decimal("2.1")}, "the step is 2.1, but the plan lets it be from 1 to 2"),
        (PLAIN, {"influences": influences(*COHORT)}, "influences are not those"),
        (DEFENDED, {}, "influences are not those"),
        (DEFENDED, {"influences": influences(*COHORT[:2])}, "influences are not those"),
        (
            DEFENDED,
            {"influences": influences(*COHORT), "needs_person": True},
            "whether a person has to look",
        ),
        (
            DEFENDED,
            {"influences": influences(*COHORT, alarmed=OUTLIER)},
            "whether a person has to look",
        ),
    ],
)
def test_every_departure_from_the_plan_is_named(
    fed: Federation, changes: dict[str, Any], sentence: str
) -> None:
    found = faults(fed, **changes)
    assert len(found) == 1
    assert found[0].startswith(sentence)
