import numpy as np
import pytest

from data_contracts.adapters.adapter_format import expected_shapes, lora_a_name, lora_b_name
from data_contracts.adapters.starting_adapter import (
    Float32Array,
    InitialAdapter,
    initial_a,
    narrowed,
    tensors_of,
)
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from tests.tiny_model import tiny_adapter_layout


def test_initial_adapter_has_exactly_the_tensors_of_the_layout() -> None:
    layout = tiny_adapter_layout()
    tensors = tensors_of(InitialAdapter(layout))
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected_shapes(layout)
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())


def test_a_fills_the_kaiming_bound_and_b_is_zero() -> None:
    layout = tiny_adapter_layout(rank=16)
    tensors = tensors_of(InitialAdapter(layout))
    for target in layout.targets:
        a, b = tensors[lora_a_name(target.module)], tensors[lora_b_name(target.module)]
        bound = target.in_features**-0.5
        assert 0.95 * bound < np.abs(a).max() <= bound
        assert abs(a.mean()) < 0.1 * bound
        assert not b.any()


def test_a_module_is_drawn_independently_of_the_others() -> None:
    layout = tiny_adapter_layout()
    reversed_layout = AdapterLayout(
        rank=layout.rank, alpha=layout.alpha, seed=layout.seed, targets=layout.targets[::-1]
    )
    forwards, backwards = (
        tensors_of(InitialAdapter(layout)),
        tensors_of(InitialAdapter(reversed_layout)),
    )
    assert all(np.array_equal(forwards[name], backwards[name]) for name in forwards)
    first, second = (initial_a(layout, target) for target in layout.targets[:2])
    assert not np.array_equal(first[:, :16], second[:, :16])


def test_seeds_that_differ_only_in_their_high_half_differ() -> None:
    target = tiny_adapter_layout().targets[0]
    low, high = tiny_adapter_layout(seed=1), tiny_adapter_layout(seed=1 + 2**40)
    assert not np.array_equal(initial_a(low, target), initial_a(high, target))


def test_values_are_pinned_so_that_silos_of_all_releases_agree() -> None:
    layout = tiny_adapter_layout(seed=7)
    drawn = initial_a(layout, layout.targets[0])[0, :3]
    assert drawn.tolist() == pytest.approx(PINNED, abs=1e-7)


PINNED = [-0.08954418, 0.12355077, 0.12566082]


def test_a_narrower_silo_starts_from_the_leading_part_of_the_same_product() -> None:
    wide, target = tiny_adapter_layout(rank=4), tiny_adapter_layout().targets[0]
    own = wide.model_copy(update={"rank": 2, "alpha": 3})
    source = _Filled(wide)
    a, b = source.module(target)
    narrow_a, narrow_b = narrowed(source, own).module(target)
    product = own.scaling * (narrow_b @ narrow_a)
    assert np.allclose(product, wide.scaling * (b[:, :2] @ a[:2]), rtol=1e-5)
    assert narrowed(source, wide) is source


class _Filled(InitialAdapter):
    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        a, b = super().module(target)
        return a, b + np.linspace(0.1, 1, b.size, dtype=np.float32).reshape(b.shape)
