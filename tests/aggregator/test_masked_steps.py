"""FedExP behind masks: which plans have it, how far rounds step, and what an auditor sees."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from aggregator.audit.candidate_audit import unplanned
from aggregator.audit.report_audit import audit
from aggregator.merge.step_formula import step_size
from aggregator.planning.starting_point import StartingPoint
from aggregator.report.files import read_bundle
from aggregator.settings.federation import AdapterSection, SiloAdapterSection
from aggregator.settings.masking import MaskingSection
from aggregator.settings.merge import MergeSection, OptimizerSection
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, narrowed
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records import Candidate, RoundPlan
from data_contracts.protocol.records.candidate import StepNorms
from data_contracts.protocol.records.merge_spec import FedExP, MergeRule
from silo_agent.training.run_files import RunFiles
from tests.aggregator.federation_samples import adapter_ref
from tests.aggregator.test_confidential_rounds import FOUR, attempt_in, product
from tests.aggregator.test_planning import MASKED, drafted
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation

FEDEXP = {"name": "fedexp"}
CLIPPED = MaskingSection(clip_norm=10)
BEGUN = StartingPoint(adapter=adapter_ref("published"))
MOST = Decimal(50)


def plan_of(rule: str, starting: StartingPoint | None = None, **changes: Any) -> RoundPlan:
    merge = MergeSection(
        rule=rule, compression="none", optimizer=FEDEXP, sketch_width=changes.pop("width", None)
    )
    return drafted(starting=starting, **MASKED | {"merge": merge, "masking": CLIPPED} | changes)


@pytest.mark.parametrize(
    ("rule", "starting"), [("sketch", None), ("shared_a", None), ("fed_sb", BEGUN)]
)
def test_where_what_is_opened_tells_the_step_there_is_one(
    rule: str, starting: StartingPoint | None
) -> None:
    plan = plan_of(rule, starting)
    assert plan.masks_norms
    assert plan.merge.optimizer.name == "fedexp"


@pytest.mark.parametrize(
    ("rule", "changes", "found"),
    [
        ("sketch", {"masking": MaskingSection()}, "a masking.clip_norm with fedexp.*found none"),
        ("sketch", {"masking": None}, "a masking.clip_norm with fedexp"),
        ("fed_sb", {}, "the first round under fed_sb, in which factors are summed"),
        ("average", {"starting": BEGUN}, "needs stack_truncate, sketch, fed_sb or shared_a"),
        ("frozen_a", {}, "needs stack_truncate, sketch, fed_sb or shared_a"),
    ],
)
def test_where_it_would_be_another_step_no_plan_is_made(
    rule: str, changes: dict[str, Any], found: str
) -> None:
    with pytest.raises(FederationOperatorError, match=found):
        plan_of(rule, **changes)


MANY = tuple(f"bank-{n:02d}" for n in range(14))


def test_a_sketch_that_is_not_exact_tells_no_step() -> None:
    """Of 14 silos of rank 2 the least width is 24, and all ranks with the start's are 30."""
    many: dict[str, Any] = {"silos": MANY, "members": MANY}
    with pytest.raises(FederationOperatorError, match=r"sketch_width of at least 30 .*found 24"):
        plan_of("sketch", **many)
    plan = plan_of("sketch", **many, width=30)
    assert plan.sketch_width == 30
    narrow = plan.model_dump()
    narrow["merge"]["sketch_width"] = 29
    with pytest.raises(ValidationError, match="sketch_width of at least 30"):
        RoundPlan.model_validate(narrow)


@pytest.mark.parametrize(
    ("rule", "starting", "changes", "said"),
    [
        ("shared_a", None, {"masking": {"clip_norm": None}}, "clip_norm with fedexp"),
        ("fed_sb", BEGUN, {"starting_adapter": None}, "trained_factors must be"),
    ],
)
def test_a_silo_takes_no_plan_whose_step_would_be_another_one(
    rule: str, starting: StartingPoint | None, changes: dict[str, Any], said: str
) -> None:
    """Whatever a coordinator signs."""
    plan = plan_of(rule, starting).model_dump()
    changed = {k: plan[k] | v if isinstance(v, dict) else v for k, v in changes.items()}
    with pytest.raises(ValidationError, match=said):
        RoundPlan.model_validate(plan | changed)


def stepping(
    make: MakeFederation, rule: MergeRule, optimizer: OptimizerSection, **fields: Any
) -> SimulatedFederation:
    section = MaskingSection(
        key_minutes=5, share_minutes=5, reveal_minutes=10, largest_change=300, clip_norm=5000
    )
    merge = MergeSection(rule=rule, optimizer=optimizer, compression="none")
    return make({"masking": section, "merge": merge} | fields, **FOUR)


def changes_of(
    federation: SimulatedFederation, plan: RoundPlan, start: AdapterSource, name: str
) -> list[np.ndarray]:
    """What one silo changed, dense; of what the run exchanges."""
    home = federation.silos[f"silo-{name}"].home
    path = RunFiles(home / "work" / plan.run / f"round-{plan.round:04d}").adapter
    local = open_adapter(path, plan.layout_of(f"silo-{name}"))
    if plan.shares_a:
        shared = [target.a_alone(plan.layout.rank) for target in plan.layout.pairs]
        return [
            local.module(pair)[0].astype(float) - start.module(target)[1]
            for pair, target in zip(plan.layout.pairs, shared, strict=True)
        ]
    begun = narrowed(start, local.layout)
    return [product(local, target) - product(begun, target) for target in plan.layout.targets]


def step_of_changes(
    federation: SimulatedFederation, plan: RoundPlan, start: AdapterSource
) -> float:
    """From what silos trained, which all weigh the same."""
    every = [changes_of(federation, plan, start, name) for name in "abcd"]
    own = np.mean([sum(float(np.square(part).sum()) for part in silo) for silo in every])
    means = [np.mean(parts, axis=0) for parts in zip(*every, strict=True)]
    merged = sum(float(np.square(mean).sum()) for mean in means)
    return step_size(float(own), merged, float(MOST))


OWN_RANKS = {"silo-a": SiloAdapterSection(rank=1, alpha=8)}


@pytest.mark.parametrize(
    ("rule", "own_ranks"), [("shared_a", {}), ("sketch", {}), ("sketch", OWN_RANKS)]
)
def test_rounds_step_as_far_as_if_the_changes_were_seen(
    make_federation: MakeFederation, rule: MergeRule, own_ranks: dict[str, SiloAdapterSection]
) -> None:
    optimizer = OptimizerSection(name="fedexp", max_step=MOST, momentum="0.2")
    adapter = AdapterSection(rank=2, alpha=4)
    federation = stepping(
        make_federation, rule, optimizer, adapter=adapter, silo_adapters=own_ranks
    )
    c, start = federation.coordinator(), None
    for number in (1, 2):
        plan = federation.open(number)
        federation.play(plan)
        candidate = attempt_in(federation, plan).candidate
        assert candidate is not None, [s.faults for s in federation.silos.values()]
        begun = InitialAdapter(plan.record.exchanged) if start is None else start
        wanted = step_of_changes(federation, plan.record, begun)
        # Simulated silos train to anything, so later they agree to undo the start.
        assert wanted > 1.9 or number == 2
        assert candidate.record.step is not None
        assert float(candidate.record.step) == pytest.approx(wanted, rel=1e-4)
        bundle = read_bundle(c.reports / f"run-1-round-{number:04d}.json")
        failed = [each for each in audit(bundle, federation.pinned) if each.outcome == "fail"]
        assert failed == []
        start = opened(federation, plan.record, candidate.record)


def opened(federation: SimulatedFederation, plan: RoundPlan, candidate: Candidate) -> AdapterSource:
    path = federation.directory / f"start-{plan.round}"
    path.write_bytes(federation.plans.objects[f"blobs/{candidate.adapter.digest}"])
    return open_adapter(path, plan.exchanged)


def test_what_the_step_follows_from_is_told_and_computed_again(
    make_federation: MakeFederation,
) -> None:
    optimizer = OptimizerSection(name="fedexp", max_step=MOST)
    federation = stepping(make_federation, "shared_a", optimizer)
    plan = federation.open(1)
    federation.play(plan)
    attempt = attempt_in(federation, plan)
    assert attempt.candidate is not None
    assert attempt.close is not None
    close, candidate = attempt.close.record, attempt.candidate.record
    assert list(unplanned(plan.record, close, candidate)) == []
    assert candidate.step_norms is not None

    def faults(**changes: Any) -> list[str]:
        changed = candidate.model_copy(update=changes)
        return list(unplanned(plan.record, close, changed))

    (said,) = faults(step=Decimal("1.000001"))
    assert "the step is 1.000001, but from the norms that were opened follows" in said
    assert said.endswith(f"{candidate.step}")
    (said,) = faults(step_norms=None)
    assert "does not tell it" in said
    longer = candidate.step_norms.model_copy(update={"mean_square": Decimal(10**9)})
    (said,) = faults(step_norms=longer)
    assert said.endswith("follows 50.000000")
    plain = plan.record.model_copy(update={"masking": None})
    assert list(unplanned(plain, close, candidate)) == [
        "norms go with a step of changes that are masked, and with no other"
    ]


def test_norms_that_no_honest_silos_have_step_no_further_than_the_plan_allows() -> None:
    """A silo that lies can move the sum of squares anywhere, below zero too."""
    optimizer = plan_of("shared_a").merge.optimizer
    assert isinstance(optimizer, FedExP)
    told = {"-5": 1.0, "0": 1.0, "99999999999": float(optimizer.max_step)}
    for mean_square, step in told.items():
        norms = StepNorms(mean_square=Decimal(mean_square), square_of_mean=Decimal("0.5"))
        assert (
            step_size(
                float(norms.mean_square), float(norms.square_of_mean), float(optimizer.max_step)
            )
            == step
        )


def test_cores_step_from_their_second_round_on(make_federation: MakeFederation) -> None:
    """The first one, of whole pairs, has another optimizer; the run changes to fedexp after it."""
    federation = stepping(make_federation, "fed_sb", OptimizerSection(name="fedavg"), steps=2)
    federation.play(federation.open(1))
    federation.merge = MergeSection(
        rule="fed_sb",
        compression="none",
        optimizer=OptimizerSection(name="fedexp", max_step=MOST),
    )
    federation.settings = federation._settings()
    plan = federation.open(2)
    assert plan.record.sends_cores
    federation.play(plan)
    candidate = attempt_in(federation, plan).candidate
    assert candidate is not None, [s.faults for s in federation.silos.values()]
    assert candidate.record.step is not None
    assert candidate.record.step > 1
    report = read_bundle(Path(federation.coordinator().reports) / "run-1-round-0002.json")
    claims = audit(report, federation.pinned)
    assert [claim for claim in claims if claim.outcome == "fail"] == []
