"""Adapters of the run pass the gate in their own layouts before the silo uses them."""

from pathlib import Path

import numpy as np
import pytest

from data_contracts.adapters.starting_adapter import InitialAdapter, tensors_of
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.merge_spec import MergeSpec
from silo_agent.collaborators import GlobalAdapter
from silo_agent.federation.global_adapters import GlobalAdapters
from silo_agent.training.adapter_file import write_adapter
from tests.aggregator.federation_samples import federation
from tests.simulator.memory_bucket import InMemoryBucket

FED = federation()
PLAN = FED.plan.record.model_copy(
    update={
        "merge": MergeSpec(rule="residual", weight_cap_tokens=1000, residual_rank=3),
        "starting_adapter": None,
    }
)


def residual_layout() -> AdapterLayout:
    """The layout of the plan's residual."""
    layout = PLAN.residual_layout
    assert layout is not None
    return layout


@pytest.fixture
def bucket() -> InMemoryBucket:
    return InMemoryBucket("plans")


@pytest.fixture
def known(tmp_path: Path, bucket: InMemoryBucket) -> GlobalAdapters:
    return GlobalAdapters(tmp_path / "home", bucket)


def published(bucket: InMemoryBucket, path: Path, layout: AdapterLayout, b: float) -> ArtifactRef:
    """An adapter in storage whose B has this value everywhere."""
    tensors = tensors_of(InitialAdapter(layout))
    filled = {n: np.full_like(t, b) if ".lora_B." in n else t for n, t in tensors.items()}
    write_adapter(path, layout, filled)
    ref = artifact_of_file(path)
    bucket.put_blob(path, ref)
    return ref


def test_round_1_starts_from_the_base_model(known: GlobalAdapters) -> None:
    assert known.starting(PLAN) == GlobalAdapter(None, None)


@pytest.mark.parametrize("b", [0.0, 0.5])
def test_adapter_and_residual_are_fetched_once_and_checked(
    tmp_path: Path, bucket: InMemoryBucket, known: GlobalAdapters, b: float
) -> None:
    """A residual of zeros says that averaging the factors missed nothing."""
    adapter = published(bucket, tmp_path / "a", PLAN.layout, 0.1)
    residual = published(bucket, tmp_path / "r", residual_layout(), b)
    plan = PLAN.model_copy(update={"starting_adapter": adapter, "starting_residual": residual})
    starting = known.starting(plan)
    assert starting.path is not None and starting.residual is not None
    assert artifact_of_file(starting.path) == adapter
    assert artifact_of_file(starting.residual) == residual
    assert starting.residual == GlobalAdapters.kept(known.home, residual)
    bucket.objects.clear()
    assert known.starting(plan) == starting


def test_the_candidate_comes_with_its_own_residual(
    tmp_path: Path, bucket: InMemoryBucket, known: GlobalAdapters
) -> None:
    adapter = published(bucket, tmp_path / "a", PLAN.layout, 0.1)
    residual = published(bucket, tmp_path / "r", residual_layout(), 0.2)
    changes = {"adapter": adapter, "residual": residual}
    close = FED.close([FED.silo(silo) for silo in PLAN.cohort])
    candidate = FED.candidate(close).record.model_copy(update=changes)
    found = known.candidate(PLAN, candidate)
    assert found.residual is not None and artifact_of_file(found.residual) == residual
    alone = candidate.model_copy(update={"residual": None})
    assert known.candidate(PLAN, alone) == GlobalAdapter(found.path, None)


@pytest.mark.parametrize(
    ("plan", "layout", "rule"),
    [
        (PLAN, PLAN.layout, "adapter.wrong_shape"),
        (FED.plan.record.model_copy(update={"starting_adapter": None}), None, "residual.unex"),
    ],
)
def test_a_residual_of_another_layout_or_rule_is_not_used(
    tmp_path: Path,
    bucket: InMemoryBucket,
    known: GlobalAdapters,
    plan: RoundPlan,
    layout: AdapterLayout | None,
    rule: str,
) -> None:
    residual = published(bucket, tmp_path / "r", layout or residual_layout(), 0.2)
    changed = plan.model_copy(update={"starting_residual": residual})
    with pytest.raises(UntrustedInputError) as raised:
        known.starting(changed)
    assert raised.value.rule.startswith(rule)
