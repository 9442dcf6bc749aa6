"""Every merge rule through whole rounds: plan, silos, gate, merge, publication and report."""

import json
import shutil
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from aggregator.evidence.look import look
from aggregator.evidence.reader import read_attempt
from aggregator.evidence.spool import spool
from aggregator.federated_round import close_round, report_round
from aggregator.feed.reading import read_federation
from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.step_size import stepped
from aggregator.merge.weighted_sum import WeightedSum
from aggregator.settings.federation import SiloAdapterSection
from aggregator.settings.merge import MergeSection, OptimizerSection, RobustSection
from aggregator.steps.merging import merge_inputs
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.starting_adapter import AdapterSource
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.bucket_layout import blob_key
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Candidate, RoundPlan, RoundReport
from tests.aggregator.adapter_samples import dense
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

THREE = dict.fromkeys("abc", Behaviour.HONEST)
FIVE = dict.fromkeys("abcde", Behaviour.HONEST)


def played(federation: SimulatedFederation, number: int) -> tuple[RoundPlan, Candidate]:
    plan = federation.open(number)
    federation.play(plan)
    return plan.record, candidate_of(federation, plan)


def candidate_of(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> Candidate:
    c = federation.coordinator()
    attempt = read_attempt(c, read_federation(c), plan)
    assert attempt.candidate is not None
    return attempt.candidate.record


def report_of(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> RoundReport:
    report, _ = report_round(federation.coordinator(), federation.look(plan))
    return report.record


@pytest.mark.parametrize(
    ("rule", "exact"),
    [
        ("stack_truncate", False),
        ("average", False),
        ("frozen_a", True),
        ("alternating", True),
        ("fedsvd", True),
        ("residual", False),
        ("zero_pad", False),
        ("shared_a", True),
        ("fed_sb", True),
        ("diloco", False),
    ],
)
def test_two_rounds_of_every_rule(make_federation: MakeFederation, rule: str, exact: bool) -> None:
    fields: dict[str, Any] = {"rule": rule, "residual_rank": 4 if rule == "residual" else None}
    if rule == "diloco":
        rule, fields = "stack_truncate", {"optimizer": OptimizerSection(name="diloco")}
    federation = make_federation({"merge": MergeSection(**fields)}, **THREE)
    first, _ = played(federation, 1)
    second, candidate = played(federation, 2)
    assert second.starting_adapter is not None
    assert candidate.merge_rule == rule
    assert candidate.error is not None
    assert (candidate.error < 1e-5) == exact
    assert len(candidate.modules) == len(second.layout.targets)
    assert (candidate.residual is not None) == (rule == "residual")
    assert (candidate.server_state is not None) == ("optimizer" in fields)
    assert (second.server_state is not None) == ("optimizer" in fields)
    if rule == "residual":
        assert second.starting_residual is not None
        c = federation.coordinator()
        open_adapter(spool(c, c.plans, candidate.residual), second.residual_layout)  # type: ignore[arg-type]
        assert (c.published / "residual" / "adapter_config.json").exists()
    if rule == "alternating":
        assert (first.recipe.trained_factors, second.recipe.trained_factors) == ("b", "a")


def test_without_a_choice_rounds_carry_on_a_part_of_the_last_change(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation({}, **THREE)
    c = federation.coordinator()
    published: list[AdapterSource] = []
    for number in (1, 2, 3):
        plan = federation.open(number)
        federation.play(plan)
        attempt = read_attempt(c, read_federation(c), plan)
        assert attempt.close is not None
        inputs = merge_inputs(c, plan.record, attempt.close.record)
        for target in plan.record.layout.targets:
            products = [dense(adapter.source, target) for adapter in inputs.locals]
            expected = np.mean(products, axis=0)
            if number > 1:
                expected = expected + 0.3 * dense(published[-1], target)
            if number > 2:
                expected = expected - 0.3 * dense(published[-2], target)
            found = WeightedSum(target, inputs.product_summands(target)).dense().numpy()
            scale = float(np.abs(expected).max())
            np.testing.assert_allclose(found, expected, atol=1e-5 * scale)
        candidate = candidate_of(federation, plan).adapter
        published.append(open_adapter(spool(c, c.plans, candidate), plan.record.layout))


def test_the_step_is_chosen_in_the_round_and_told(make_federation: MakeFederation) -> None:
    """By fedexp with momentum, beside a silo of lower rank whose ranks alone it takes part in."""
    optimizer = OptimizerSection(name="fedexp", max_step="1.5", momentum="0.3")
    merge = MergeSection(optimizer=optimizer, rank_weights="trained")
    own = {"silo-a": SiloAdapterSection(rank=2, alpha=4)}
    federation = make_federation({"merge": merge, "silo_adapters": own}, **THREE)
    c = federation.coordinator()
    for number in (1, 2):
        plan = federation.open(number)
        federation.play(plan)
        candidate, report = candidate_of(federation, plan), report_of(federation, plan)
        attempt = read_attempt(c, read_federation(c), plan)
        assert attempt.close is not None
        inputs = stepped(merge_inputs(c, plan.record, attempt.close.record))
        assert (inputs.earlier is None) == (number == 1)
        assert candidate.step is not None
        assert float(candidate.step) == inputs.step
        assert 1 <= candidate.step <= Decimal("1.5")
        assert report.step == candidate.step
        assert report.outcome == "published"
        again = merge_adapters(inputs, c.workspace / f"again-{number}")
        assert again.adapter == candidate.adapter


@pytest.mark.parametrize(
    ("rule", "compression"),
    [
        ("stack_truncate", "int8"),
        ("average", "int4"),
        pytest.param("frozen_a", "int4", marks=pytest.mark.campaign),
        pytest.param("fedsvd", "int8", marks=pytest.mark.campaign),
        pytest.param("residual", "int4", marks=pytest.mark.campaign),
        pytest.param("alternating", "int8", marks=pytest.mark.campaign),
        pytest.param("zero_pad", "int8", marks=pytest.mark.campaign),
        pytest.param("shared_a", "int4", marks=pytest.mark.campaign),
    ],
)
def test_compressed_rounds(make_federation: MakeFederation, rule: str, compression: str) -> None:
    """Two rounds, so that the second carries an error."""
    residual = 4 if rule == "residual" else None
    merge = {"rule": rule, "compression": compression, "residual_rank": residual}
    federation = make_federation({"merge": MergeSection.model_validate(merge)}, **THREE)
    plan = federation.open(1)
    federation.play(plan)
    assert report_of(federation, plan).outcome == "published"
    second = federation.open(2)
    federation.play(second)
    report = report_of(federation, second)
    assert [silo.faults for silo in federation.silos.values()] == [[], [], []]
    assert [silo.outcome for silo in report.silos] == ["admitted"] * 3
    assert report.outcome == "published"
    state = federation.silos["silo-a"].home / "error-feedback"
    (last,) = state.rglob("*0002.json")
    assert json.loads(last.read_text())["origin"]["round"] == 1


def test_a_frozen_factor_that_moved_is_rejected(make_federation: MakeFederation) -> None:
    # A whole adapter: what compresses it at a silo would refuse the factor there.
    merge = MergeSection(rule="frozen_a", compression="none")
    federation = make_federation({"merge": merge}, **THREE, x=Behaviour.THAWED)
    plan = federation.open(1)
    federation.play(plan)
    outcomes = {silo.silo: (silo.outcome, silo.rule) for silo in report_of(federation, plan).silos}
    assert outcomes["silo-x"] == ("rejected", "adapter.frozen_factor")
    assert outcomes["silo-a"] == ("admitted", None)


def test_an_attempt_whose_deltas_cancel_is_aborted_and_the_next_one_opens(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation({}, a=Behaviour.HONEST, x=Behaviour.MIRRORED)
    plan = federation.open(1)
    federation.play(plan)
    report = report_of(federation, plan)
    assert (report.outcome, report.rule) == ("aborted", "merge.unusable")
    attempt = read_attempt(
        federation.coordinator(), read_federation(federation.coordinator()), plan
    )
    assert attempt.abort is not None
    assert "found zero in every module" in attempt.abort.record.reason
    assert report.published_adapter is None
    assert [silo.outcome for silo in report.silos] == ["admitted", "admitted"]
    federation.silos["silo-x"].behaviour = Behaviour.HONEST
    again = federation.open(1)
    assert again.record.attempt == 2
    federation.play(again)
    assert report_of(federation, again).outcome == "published"


def test_silos_with_layouts_of_their_own(make_federation: MakeFederation) -> None:
    own = {"silo-a": SiloAdapterSection(rank=2, alpha=5, target_modules=("q_proj",))}
    federation = make_federation({"silo_adapters": own}, **THREE)
    plan, _ = played(federation, 1)
    layout = plan.layout_of("silo-a")
    assert (layout.rank, layout.alpha) == (2, 5)
    assert all(target.module.endswith("q_proj") for target in layout.targets)
    second = federation.open(2)
    federation.play(second)
    report = report_of(federation, second)
    assert report.outcome == "published"
    assert [silo.outcome for silo in report.silos] == ["admitted"] * 3


def test_the_report_says_what_the_defence_made_of_each_silo(
    make_federation: MakeFederation,
) -> None:
    merge = MergeSection(robust=RobustSection(tolerated_silos=1))
    federation = make_federation({"quorum": 5, "merge": merge}, **FIVE)
    plan = federation.open(1)
    federation.play(plan)
    report = report_of(federation, plan)
    parts = [silo.influence for silo in report.silos]
    assert all(part is not None for part in parts)
    total = sum(part.influence for part in parts if part is not None)
    assert np.isclose(float(total), 1, atol=1e-5)


def test_an_alarm_among_three_holds_the_candidate_for_a_person(
    make_federation: MakeFederation,
) -> None:
    merge = MergeSection(robust=RobustSection(tolerated_silos=1, mixing="none", rule="mean"))
    federation = make_federation(
        {"quorum": 3, "merge": merge}, a=Behaviour.HONEST, b=Behaviour.HONEST, x=Behaviour.LOUD
    )
    plan = federation.open(1)
    federation.play(plan)
    report = report_of(federation, plan)
    assert (report.outcome, report.rule) == ("held", "robust.alarm")
    assert report.published_adapter is None
    alarmed = [silo.silo for silo in report.silos if silo.influence and silo.influence.alarm]
    assert alarmed == ["silo-x"]


def test_no_silo_is_judged_by_a_starting_adapter_that_storage_withholds(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(**THREE)
    federation.play(federation.open(1))
    plan = federation.open(2)
    for _ in range(4):
        federation.silos_act()
    starting = plan.record.starting_adapter
    assert starting is not None
    c = federation.coordinator()
    shutil.rmtree(c.workspace / "spool")
    del federation.plans.objects[blob_key(starting.digest)]
    with pytest.raises(UntrustedInputError, match=f"blob {starting.digest[:16]}"):
        close_round(c, look(c, plan))
