"""A silo's files, layouts, memory and personal adapter where a plan trains tensors whole."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.adapters.adapter_format import check_adapter, open_adapter
from data_contracts.adapters.starting_adapter import tensors_of
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout, SiloLayout
from data_contracts.protocol.records.merge_spec import MergeSpec
from infra.base_model.coverage import coverage_words
from infra.base_model.weight_files import TensorHeader
from silo_agent.collaborators import GlobalAdapter
from silo_agent.config import TrainingSection
from silo_agent.personal.job import Beside, personal_job, personal_layout, what_acts_beside
from silo_agent.personal.joined import JoinedAdapter, joined_file
from silo_agent.personal_settings import PersonalSection
from silo_agent.training.adapter_file import write_adapter
from silo_agent.training.engine_spec import PINNED
from silo_agent.training.job import TrainingJob
from silo_agent.training.layout import rest_file, starting_file
from silo_agent.training.memory import estimate, parameters_of, whole_parameters
from silo_agent.training.memory_plan import work_of
from silo_agent.training.rank_work import Choice
from silo_agent.training.ranks.starting_tensors import starting_tensors, widened_tensors
from tests.aggregator.federation_samples import federation
from tests.data_contracts.whole_samples import (
    BIAS_NAME,
    LAYOUT,
    NORM_NAME,
    PAIR,
    START,
    WEIGHT,
    WEIGHT_NAME,
    InMemory,
    moved,
    written,
)
from tests.silo_agent.training.test_memory import QUERY_AND_VALUE, SHAPE, work
from tests.silo_agent.training.tiny_jobs import TinySilo

WHOLES = (WEIGHT_NAME, BIAS_NAME, NORM_NAME)
SAMPLE = federation().plan.record
SILO = SAMPLE.cohort[0]
PLAN = SAMPLE.model_copy(update={"layout": LAYOUT, "silo_layouts": ()})


def narrow_plan() -> RoundPlan:
    own = SiloLayout(silo=SILO, rank=1, alpha=1, modules=(PAIR.module,))
    return PLAN.model_copy(update={"silo_layouts": (own,)})


def test_a_trained_adapter_is_written_in_shapes_of_the_tensors(tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", LAYOUT, moved(1))
    read = dict(starting_tensors(LAYOUT, tmp_path / "a"))
    assert all(np.array_equal(read[name], tensor) for name, tensor in moved(1).items())
    assert dict(starting_tensors(LAYOUT, None)).keys() == read.keys()
    column = moved(1) | {BIAS_NAME: moved(1)[BIAS_NAME][:, None]}
    with pytest.raises(SiloOperatorError, match=r"expected shape \(5,\)(.|\n)*\(5, 1\)"):
        write_adapter(tmp_path / "b", LAYOUT, column)


def test_an_adapter_of_lower_rank_keeps_its_head_where_it_is_widened(tmp_path: Path) -> None:
    narrow = LAYOUT.model_copy(update={"rank": 1, "alpha": 3})
    path = written(tmp_path / "a", moved(2, layout=narrow))
    found = dict(widened_tensors(LAYOUT, narrow, path))
    for name in WHOLES:
        assert np.array_equal(found[name], moved(2, layout=narrow)[name])
    without = narrow.without_wholes
    path = written(tmp_path / "b", moved(2, layout=without))
    found = dict(widened_tensors(LAYOUT, without, path))
    for name in WHOLES:
        assert np.array_equal(found[name], tensors_of(START)[name])


def test_a_narrower_silo_has_the_heads_and_the_rest_has_none(tmp_path: Path) -> None:
    plan, start = narrow_plan(), written(tmp_path / "start", moved(3))
    own_file = starting_file(plan, SILO, start, tmp_path / "work")
    rest = rest_file(plan, SILO, start, tmp_path / "work")
    assert own_file is not None and rest is not None
    own = tensors_of(check_adapter(own_file, plan.layout_of(SILO)))
    for name in WHOLES:
        assert np.array_equal(own[name], moved(3)[name])
    assert open_adapter(rest, LAYOUT.without_wholes).layout.wholes == ()


def test_memory_counts_every_number_of_a_head_whatever_factor_is_trained() -> None:
    head = WEIGHT.model_copy(update={"in_features": 64, "out_features": 50_000})
    bias = LAYOUT.wholes[1].model_copy(update={"out_features": 50_000})
    targets = (*QUERY_AND_VALUE.targets, head, bias)
    layout = QUERY_AND_VALUE.model_copy(update={"targets": targets})
    whole = 64 * 50_000 + 50_000
    assert whole_parameters(layout) == whole
    for factors in ("both", "a", "b"):
        pairs = parameters_of(QUERY_AND_VALUE, factors)
        assert parameters_of(layout, factors) == pairs + whole
    plain, with_head = (
        {part.name: part.size_bytes for part in estimate(SHAPE, each, Choice(1)).parts}
        for each in (work(), work(layout=layout))
    )
    more = {name: size - plain[name] for name, size in with_head.items() if size != plain[name]}
    # Working parameters twice, the one that PEFT keeps, gradients; and of two ranks a share of
    # float32 parameters and of both moments. Its gradient goes through the bucket, its inputs are
    # kept for the backward pass.
    assert more == {
        "adapter, gradients, optimizer": whole * 4 * (2 + 1 + 1) + whole * 3 * 4 // 2,
        "communication buckets": whole * 4,
        "activations kept for the backward pass": 64 * work().sequence_length * 4,
    }


def test_what_acts_beside_a_narrower_layout_has_no_head() -> None:
    held, training = PINNED["cpu"], TrainingSection()
    found = work_of(narrow_plan(), SILO, training, held)
    assert found.residual_layout == LAYOUT.without_wholes
    assert found.layout.wholes == LAYOUT.wholes
    dual = work_of(PLAN, SILO, training, held, PersonalSection(method="dual"))
    assert dual.residual_layout == LAYOUT, "the federation's head acts beside the personal pairs"


def joined_product(adapter: Any) -> np.ndarray:
    a, b = adapter.module(PAIR)
    return np.asarray(adapter.layout.scaling * (b.astype(float) @ a.astype(float)))


def test_joined_adapters_have_the_head_of_the_one_that_has_it(tmp_path: Path) -> None:
    federated = InMemory(LAYOUT, moved(4))
    narrow = LAYOUT.without_wholes.model_copy(update={"rank": 1, "alpha": 3})
    personal = InMemory(narrow, moved(5, layout=narrow))
    for parts in ((federated, personal), (personal, federated)):
        joined = JoinedAdapter(parts)
        assert joined.layout.wholes == LAYOUT.wholes
        for target in LAYOUT.wholes:
            assert np.array_equal(joined.module(target)[1], federated.module(target)[1])
        expected = joined_product(federated) + joined_product(personal)
        np.testing.assert_allclose(joined_product(joined), expected, rtol=1e-5, atol=1e-7)
    joined_file(tmp_path / "joined", (federated, personal))
    read = tensors_of(open_adapter(tmp_path / "joined", JoinedAdapter(parts).layout))
    assert np.array_equal(read[BIAS_NAME], federated.tensors[BIAS_NAME])


def test_two_heads_are_not_joined() -> None:
    parts = (InMemory(LAYOUT, moved(4)), InMemory(LAYOUT, moved(5)))
    with pytest.raises(ValueError, match="in one of the adapters only"):
        JoinedAdapter(parts).layout  # noqa: B018


@pytest.mark.parametrize("layout", [LAYOUT, LAYOUT.without_wholes])
def test_a_dual_personal_adapter_has_no_head_of_its_own(layout: AdapterLayout) -> None:
    assert personal_layout("dual", layout) == LAYOUT.without_wholes
    assert personal_layout("ditto", layout) is layout


def federated_job(root: Path) -> TrainingJob:
    records = root / "records.jsonl"
    silo = TinySilo(root, root / "model", records, records)
    return silo.job("work", layout=LAYOUT, residual_layout=None)


@pytest.mark.parametrize("has_start", [False, True])
def test_beside_dual_pairs_the_federation_s_head_acts_also_before_there_is_one(
    tmp_path: Path, *, has_start: bool
) -> None:
    job = federated_job(tmp_path)
    path = written(tmp_path / "start", moved(6)) if has_start else None
    beside = what_acts_beside(job, "dual", PLAN, GlobalAdapter(path))
    assert beside.layout == LAYOUT and beside.path is not None
    wanted = moved(6) if has_start else tensors_of(START)
    found = tensors_of(open_adapter(beside.path, LAYOUT))
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    section = PersonalSection(method="dual")
    own = personal_job(job, section, beside, None, datetime(2100, 1, 1, tzinfo=UTC))
    assert own.layout == LAYOUT.without_wholes
    assert own.residual_layout == LAYOUT
    plain = PLAN.model_copy(update={"layout": LAYOUT.without_wholes})
    assert has_start or what_acts_beside(job, "dual", plain, GlobalAdapter(None)).path is None


def test_beside_dual_pairs_a_head_and_a_residual_act_as_one(tmp_path: Path) -> None:
    merge = MergeSpec(rule="residual", weight_cap_tokens=9, residual_rank=3)
    plan = PLAN.model_copy(update={"merge": merge})
    assert plan.residual_layout is not None
    residual = written(tmp_path / "residual", moved(7, layout=plan.residual_layout))
    starting = GlobalAdapter(written(tmp_path / "start", moved(6)), residual)
    beside = what_acts_beside(federated_job(tmp_path), "dual", plan, starting)
    assert beside.layout is not None and beside.path is not None
    assert (beside.layout.rank, beside.layout.wholes) == (LAYOUT.rank + 3, LAYOUT.wholes)
    joined = open_adapter(beside.path, beside.layout)
    assert np.array_equal(tensors_of(joined)[WEIGHT_NAME], moved(6)[WEIGHT_NAME])


def test_a_ditto_adapter_trains_its_head(tmp_path: Path) -> None:
    section = PersonalSection(method="ditto")
    end = datetime(2100, 1, 1, tzinfo=UTC)
    own = personal_job(federated_job(tmp_path), section, Beside(None, None), None, end)
    assert own.layout == LAYOUT


def test_coverage_tells_heads_beside_what_lora_covers() -> None:
    weights = {f"{PAIR.module}.weight": TensorHeader("F32", (3, 6))}
    assert coverage_words(weights, LAYOUT.targets) == (
        "LoRA on 1 modules, with 100.0 % of the model's weights; 3 tensors of 41 numbers trained "
        "whole"
    )
