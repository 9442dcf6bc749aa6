"""What is exchanged where silos share A and keep B: a layout of factors A alone, and its gate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from data_contracts.adapters.adapter_format import (
    adapter_bytes_limit,
    adapter_entries,
    check_adapter,
    lora_a_name,
    lora_b_name,
    open_adapter,
)
from data_contracts.adapters.block_quantisation import SCHEMES
from data_contracts.adapters.quantised_format import quantised_entries
from data_contracts.adapters.starting_adapter import InitialAdapter, initial_a, tensors_of
from data_contracts.adapters.tensor_layout import payload_bytes
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.merge_spec import MergeSpec
from tests.data_contracts.whole_samples import LAYOUT, PAIR, moved, written
from tests.tiny_model import tiny_adapter_layout

SHARED = LAYOUT.a_alone
A = SHARED.targets[0]


def test_it_has_a_of_each_pair_and_every_whole_tensor() -> None:
    assert A.module == "model.down.lora_A.weight"
    assert (A.out_features, A.in_features) == (LAYOUT.rank, PAIR.in_features)
    assert SHARED.pairs == () and SHARED.wholes[1:] == LAYOUT.wholes
    assert set(adapter_entries(SHARED)) == set(adapter_entries(LAYOUT)) - {lora_b_name(PAIR.module)}
    assert AdapterLayout.model_validate_json(SHARED.model_dump_json()) == SHARED


@pytest.mark.parametrize("in_features", [6, 1_048_579])
def test_a_starts_as_that_of_the_seed_bit_for_bit(in_features: int) -> None:
    """Also where it is drawn in more than one block."""
    target = AdapterTarget(module="model.up", in_features=in_features, out_features=3)
    layout = LAYOUT.model_copy(update={"targets": (target,)})
    alone = InitialAdapter(layout.a_alone).module(layout.a_alone.targets[0])[1]
    generator = np.random.Generator(np.random.PCG64(_seed_words(layout, "model.up")))
    drawn = generator.random((layout.rank, in_features), dtype=np.float32)
    bound = np.float32(1.0 / np.sqrt(in_features))
    assert np.array_equal(alone, ((drawn * 2 - 1) * bound).astype(np.float32))
    assert np.array_equal(alone, initial_a(layout, target))


def _seed_words(layout: AdapterLayout, module: str) -> list[int]:
    import hashlib

    words = np.frombuffer(hashlib.sha256(module.encode()).digest(), dtype="<u4").tolist()
    return [layout.seed & 0xFFFFFFFF, layout.seed >> 32, *words]


def test_the_gate_takes_it_and_nothing_with_b(tmp_path: Path) -> None:
    tensors = moved(1, layout=SHARED)
    assert check_adapter(written(tmp_path / "a", tensors), SHARED)
    b = np.ones((PAIR.out_features, LAYOUT.rank), dtype=np.float32)
    for name in (lora_b_name(PAIR.module), "base_model.model.anything"):
        with pytest.raises(UntrustedInputError) as error:
            open_adapter(written(tmp_path / "with-b", tensors | {name: b}), SHARED)
        assert error.value.rule in ("adapter.too_large", "adapter.wrong_names"), error.value.rule
    renamed = dict(tensors)
    renamed[lora_b_name(PAIR.module)] = renamed.pop(lora_a_name(PAIR.module))
    with pytest.raises(UntrustedInputError):
        open_adapter(written(tmp_path / "renamed", renamed), SHARED)
    with pytest.raises(UntrustedInputError):
        open_adapter(written(tmp_path / "whole", moved(1)), SHARED)
    with pytest.raises(UntrustedInputError):
        open_adapter(tmp_path / "a", LAYOUT)


def test_what_starts_as_the_seed_s_a_and_stays_there_adds_nothing(tmp_path: Path) -> None:
    start = tensors_of(InitialAdapter(SHARED))
    with pytest.raises(UntrustedInputError) as error:
        check_adapter(written(tmp_path / "a", start), SHARED)
    assert error.value.rule == "adapter.zero_delta"
    moved_a = start | {lora_a_name(PAIR.module): start[lora_a_name(PAIR.module)] + 1}
    assert check_adapter(written(tmp_path / "b", moved_a), SHARED)


def test_it_takes_about_half_of_the_bytes() -> None:
    layout = tiny_adapter_layout(rank=8)
    for of in (adapter_entries, lambda each: quantised_entries(each, SCHEMES["int8"])):
        ratio = payload_bytes(of(layout.a_alone)) / payload_bytes(of(layout))
        inputs = sum(target.in_features for target in layout.targets)
        both = inputs + sum(target.out_features for target in layout.targets)
        assert ratio == pytest.approx(inputs / both, abs=0.02)
        assert 0.45 <= ratio <= 0.55
    assert adapter_bytes_limit(layout.a_alone) < 0.6 * adapter_bytes_limit(layout)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"module": "model.down.lora_B.weight"}, "a matrix with the name of one"),
        ({"module": "model.down"}, "a matrix with the name of one"),
        ({"whole": "vector", "in_features": 1}, "a matrix with the name of one"),
        ({"initial": "zeros"}, "cannot have the name of a factor"),
        ({"initial": None}, "whole and initial go together"),
        ({"module": "bias", "whole": "vector", "initial": "zeros"}, "a vector has in_features 1"),
    ],
)
def test_only_a_is_what_starts_as_a(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        AdapterTarget.model_validate(A.model_dump() | changes)


@pytest.mark.parametrize(
    ("targets", "why"),
    [
        ((A, PAIR), "factors A go without pairs"),
        ((A.model_copy(update={"out_features": 3}),), "as many rows as the rank"),
        (LAYOUT.wholes, "at least one module that carries a LoRA pair"),
    ],
)
def test_a_layout_has_pairs_or_factors_a(targets: tuple[AdapterTarget, ...], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        AdapterLayout(rank=LAYOUT.rank, alpha=4, seed=7, targets=targets)


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": {"name": "fedexp"}},
        {"optimizer": {"name": "heavy_ball"}},
        {"optimizer": {"name": "fedadam"}},
        {"robust": {"tolerated_silos": 1}},
        {"robust": {"tolerated_silos": 1, "rule": "median", "clip": "none", "mixing": "none"}},
        {"robust": {"tolerated_silos": 1, "rule": "centred_clipping"}},
    ],
)
def test_optimizers_and_defences_go_with_it(fields: dict[str, Any]) -> None:
    merge = MergeSpec.model_validate({"rule": "shared_a", "weight_cap_tokens": 1} | fields)
    assert merge.carries_change == (
        merge.optimizer.name == "heavy_ball"
        or (merge.robust is not None and merge.robust.rule == "centred_clipping")
    )


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"residual_rank": 4}, "residual_rank goes with the rule residual"),
        ({"rank_weights": "trained"}, "they need stack_truncate"),
    ],
)
def test_what_is_about_products_does_not(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        MergeSpec.model_validate({"rule": "shared_a", "weight_cap_tokens": 1} | fields)
