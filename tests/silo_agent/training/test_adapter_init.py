from pathlib import Path

import numpy as np
import pytest

from data_contracts.adapter_format import expected_shapes, lora_a_name, lora_b_name
from data_contracts.errors import SiloOperatorError, UntrustedInputError
from data_contracts.records.round_plan import AdapterSpec
from silo_agent.training.adapter_file import write_adapter
from silo_agent.training.adapter_init import initial_a, initial_adapter, starting_tensors
from tests.tiny_model import tiny_adapter_spec


def test_initial_adapter_has_exactly_the_tensors_of_the_spec() -> None:
    spec = tiny_adapter_spec()
    tensors = initial_adapter(spec)
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected_shapes(spec)
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())


def test_a_fills_the_kaiming_bound_and_b_is_zero() -> None:
    spec = tiny_adapter_spec(rank=16)
    tensors = initial_adapter(spec)
    for target in spec.targets:
        a, b = tensors[lora_a_name(target.module)], tensors[lora_b_name(target.module)]
        bound = target.in_features**-0.5
        assert 0.95 * bound < np.abs(a).max() <= bound
        assert abs(a.mean()) < 0.1 * bound
        assert not b.any()


def test_a_module_is_drawn_independently_of_the_others() -> None:
    spec = tiny_adapter_spec()
    reversed_spec = AdapterSpec(
        rank=spec.rank, alpha=spec.alpha, seed=spec.seed, targets=spec.targets[::-1]
    )
    forwards, backwards = initial_adapter(spec), initial_adapter(reversed_spec)
    assert all(np.array_equal(forwards[name], backwards[name]) for name in forwards)
    first, second = (initial_a(spec, target) for target in spec.targets[:2])
    assert not np.array_equal(first[:, :16], second[:, :16])


def test_seeds_that_differ_only_in_their_high_half_differ() -> None:
    target = tiny_adapter_spec().targets[0]
    low, high = tiny_adapter_spec(seed=1), tiny_adapter_spec(seed=1 + 2**40)
    assert not np.array_equal(initial_a(low, target), initial_a(high, target))


def test_values_are_pinned_so_that_silos_of_all_releases_agree() -> None:
    spec = tiny_adapter_spec(seed=7)
    drawn = initial_a(spec, spec.targets[0])[0, :3]
    assert drawn.tolist() == pytest.approx(PINNED, abs=1e-7)


PINNED = [-0.08954418, 0.12355077, 0.12566082]


def test_a_written_adapter_is_what_the_next_round_starts_from(tmp_path: Path) -> None:
    spec = tiny_adapter_spec()
    tensors = {name: array + 0.5 for name, array in initial_adapter(spec).items()}
    write_adapter(tmp_path / "adapter.safetensors", spec, tensors)
    read = dict(starting_tensors(spec, tmp_path / "adapter.safetensors"))
    assert all(np.array_equal(read[name], tensors[name]) for name in tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter.safetensors"]


def test_starting_adapter_passes_through_the_gate(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    write_adapter(path, tiny_adapter_spec(rank=4), initial_adapter(tiny_adapter_spec(rank=4)))
    with pytest.raises(UntrustedInputError, match="adapter"):
        list(starting_tensors(tiny_adapter_spec(rank=8), path))


@pytest.mark.parametrize("damage", ["missing", "empty", "not finite"])
def test_an_unfit_tensor_is_never_written(tmp_path: Path, damage: str) -> None:
    spec = tiny_adapter_spec()
    tensors = initial_adapter(spec)
    name = lora_b_name(spec.targets[3].module)
    if damage == "missing":
        del tensors[name]
    elif damage == "empty":
        tensors[name] = np.zeros((0,), dtype=np.float32)
    else:
        tensors[name][0, 0] = np.nan
    with pytest.raises(SiloOperatorError, match=f"trained adapter tensor {name}"):
        write_adapter(tmp_path / "adapter.safetensors", spec, tensors)
    assert list(tmp_path.iterdir()) == []
