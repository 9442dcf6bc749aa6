"""Tensors that are trained whole through whole rounds: plan, silos, gate, merge, publication."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aggregator.audit.candidate_audit import unplanned
from aggregator.evidence.reader import read_attempt
from aggregator.feed.claims import sign_entry
from aggregator.feed.reading import read_federation
from aggregator.planning.draft import draft_plan
from aggregator.planning.inputs import plan_inputs
from aggregator.settings.merge import MergeSection, OptimizerSection
from aggregator.steps.merging import merge_inputs
from data_contracts.adapters.adapter_format import check_adapter
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from tests.data_contracts.whole_samples import LAYOUT
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

SILOS = {
    "a": Behaviour.HONEST,
    "b": Behaviour.HONEST,
    "c": Behaviour.HONEST,
}


def opened_with_heads(federation: SimulatedFederation) -> Verified[RoundPlan]:
    """Round 1 of a run whose model lacks a head; later plans take over its layout."""
    c = federation.coordinator()
    feed = read_federation(c)
    inputs = plan_inputs(c, feed)
    targets = inputs.layout.pairs + LAYOUT.wholes
    layout = inputs.layout.model_copy(update={"targets": targets})
    return sign_entry(c, feed, draft_plan(c.settings, replace(inputs, layout=layout), 1, 1))


@pytest.mark.parametrize(
    "merge",
    [
        MergeSection(rule="alternating"),
        MergeSection(optimizer=OptimizerSection(name="diloco"), compression="int4"),
    ],
    ids=lambda merge: f"{merge.rule}-{merge.compression}",
)
def test_heads_are_gated_merged_published_and_started_from(
    make_federation: MakeFederation, merge: Any
) -> None:
    federation = make_federation({"merge": merge}, **SILOS)
    c = federation.coordinator()
    for number in (1, 2):
        plan = opened_with_heads(federation) if number == 1 else federation.open(number)
        assert plan.record.layout.wholes == LAYOUT.wholes
        federation.play(plan)
        attempt = read_attempt(c, read_federation(c), plan)
        assert attempt.close is not None and attempt.candidate is not None
        close, candidate = attempt.close.record, attempt.candidate.record
        assert len(close.admitted) == len(SILOS)
        assert list(unplanned(plan.record, close, candidate)) == []
        exactness = {module.module: module.error for module in candidate.modules}
        assert all(exactness[target.module] == 0 for target in LAYOUT.wholes)
        published = check_adapter(c.published / "adapter_model.safetensors", plan.record.layout)
        config = json.loads((c.published / "adapter_config.json").read_text())
        assert config["modules_to_save"] == ["classifier", "norm"]
        if merge.optimizer is None or merge.optimizer.name != "diloco":
            inputs = merge_inputs(c, plan.record, close)
            for target in LAYOUT.wholes:
                mean = sum(
                    float(share) * adapter.source.module(target)[1].astype(np.float64)
                    for adapter, share in inputs.shares(target)
                )
                np.testing.assert_allclose(published.module(target)[1], mean, rtol=1e-6)
